package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// TestBodyAtItsBound sends bodies with and without a length: the largest body, and
// one byte more.
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
			body = io.MultiReader(body) // its length is unknown
		}
		status, answer := s.send(&s.caller, http.MethodPost, server.SignaturesPath, body)
		if status != tt.status || (len(yes(answer)) == 1) != (tt.status == 200) {
			t.Errorf("%s: %d %+v, want %d", name, status, answer.Response, tt.status)
		}
	}
}

// TestLengthThatIsTooLarge rejects a body for its length, before any of the body has
// arrived.
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

// TestOtherMethodsAreRejected names the allowed method, as HTTP requires.
func TestOtherMethodsAreRejected(t *testing.T) {
	w := httptest.NewRecorder()
	server.New(checking(signed)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, server.SignaturesPath, nil))
	if got := w.Header().Get("Allow"); w.Code != http.StatusMethodNotAllowed || got != http.MethodPost {
		t.Errorf("status %d, Allow: %s", w.Code, got)
	}
	if got := w.Header(); got.Get("X-Content-Type-Options") != "nosniff" || got.Get("Content-Length") != fmt.Sprint(w.Body.Len()) || got.Get("Connection") != "close" {
		t.Errorf("headers %v", got)
	}
}

// piped is a listener without a socket.
type piped chan net.Conn

func (p piped) Accept() (net.Conn, error) { return <-p, nil }
func (p piped) Addr() net.Addr            { return nil }
func (p piped) Close() error              { return nil }

// knock connects to a listener, which has room or makes it.
func (p piped) knock(t *testing.T, l *server.Listener) net.Conn {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = far.Close() })
	go func() { p <- near }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestEvictedConnectionsAreGone evicts one connection after another, before any server
// notices that its connection was closed.
func TestEvictedConnectionsAreGone(t *testing.T) {
	registry := prometheus.NewRegistry()
	in := make(piped)
	l := server.Limit(in, 1, "questions", registry)
	evicted := in.knock(t, l)
	for range 3 {
		in.knock(t, l)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if n := family.GetMetric()[0].GetGauge().GetValue(); family.GetName() == "oke_sign_connections" && n != 1 {
			t.Errorf("%v connections are open, want 1", n)
		}
	}
	// The server may have read its request just before.
	server.Accepted(evicted)
	if n := l.Waiting(); n != 1 {
		t.Errorf("%d connections wait for their clients, want 1", n)
	}
}

// TestFinishWithoutASocket closes a listener without a backlog.
func TestFinishWithoutASocket(t *testing.T) {
	in := make(piped)
	l := server.Limit(in, 1, "questions", nil)
	l.Finish()
	if c, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, %v", c, err)
	}
}

// TestDeadlinesAreCounted counts a request once if it got no answer in time,
// although its last question failed for another reason.
func TestDeadlinesAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	cfg := within(20*time.Millisecond, func(ctx context.Context, img image.Pinned, _ signature.KeySet) (checker.Answer, error) {
		if img.Repository() == "repo2" {
			return checker.Answer{}, errors.New("503")
		}
		<-ctx.Done()
		return checker.Answer{}, context.Cause(ctx)
	})
	cfg.Metrics = registry
	w := httptest.NewRecorder()
	server.New(cfg).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.SignaturesPath, strings.NewReader(envelope(images(3)...))))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() == "oke_sign_deadline_exceeded_total" {
			for _, m := range family.GetMetric() {
				total += m.GetCounter().GetValue()
			}
		}
	}
	if total != 1 {
		t.Errorf("%v requests were counted, want 1: %s", total, w.Body)
	}
}
