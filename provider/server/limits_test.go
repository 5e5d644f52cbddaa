package server_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/server"
)

// TestBodyAtItsBound sends bodies with and without a length: the largest that there may
// be, and one byte more.
func TestBodyAtItsBound(t *testing.T) {
	s := serve(t, checking(signed))
	good := envelope(ask(pinned, keyA))
	for name, tt := range map[string]struct {
		size, status int
		chunked      bool
	}{
		"the largest":                  {size: server.MaxBody, status: 200},
		"one byte more":                {size: server.MaxBody + 1, status: 413},
		"the largest, without length":  {size: server.MaxBody, status: 200, chunked: true},
		"one byte more without length": {size: server.MaxBody + 1, status: 413, chunked: true},
	} {
		var body io.Reader = strings.NewReader(good + strings.Repeat(" ", tt.size-len(good)))
		if tt.chunked {
			body = io.MultiReader(body) // its length is not known
		}
		status, answer := s.send(&s.caller, http.MethodPost, server.SignaturesPath, body)
		if status != tt.status || (len(yes(answer)) == 1) != (tt.status == 200) {
			t.Errorf("%s: %d %+v, want %d", name, status, answer.Response, tt.status)
		}
	}
}

// TestLengthThatIsTooLarge refuses a body for its length, before any of it has come.
func TestLengthThatIsTooLarge(t *testing.T) {
	s := serve(t, within(200*time.Millisecond, signed))
	conn, err := tls.Dial("tcp", s.addr, s.config(&s.caller))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST "+server.SignaturesPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if answer := parse(t, resp); resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(answer.Response.SystemError, "more than 1048576 bytes") {
		t.Errorf("status %d, systemError %q", resp.StatusCode, answer.Response.SystemError)
	}
}
