package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/frameworks/constraint/pkg/apis/externaldata/unversioned"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/test/pki"
)

const gatekeeper = "gatekeeper-webhook-service.gatekeeper-system.svc"

// answer is a verdict with a reason and a key, and with the keys that count if several must
// sign.
func answer(reason verdict.Reason, key string, by ...string) checker.Answer {
	v := verdict.Verdict{Reason: reason, Key: key}
	for _, k := range by {
		v.By = append(v.By, verdict.Proof{Key: k})
	}
	return checker.Answer{Verdict: v}
}

// proofBy is the proof of a key that answer lists, as JSON.
func proofBy(key string) map[string]any {
	return map[string]any{"key": key, "keyVersion": "", "signature": "", "algorithm": ""}
}

// signed answers yes to every question, so that each denial in a test is the
// server's.
func signed(_ context.Context, _ image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
	return answer(verdict.Signed, allowed.Keys()[0].String()), nil
}

// checking returns the settings of a server that answers about signatures only.
func checking(check func(context.Context, image.Pinned, signature.KeySet) (checker.Answer, error)) server.Config {
	return server.Config{Signatures: server.Signatures{Check: check}}
}

// within is checking with a timeout.
func within(timeout time.Duration, check func(context.Context, image.Pinned, signature.KeySet) (checker.Answer, error)) server.Config {
	cfg := checking(check)
	cfg.Signatures.Timeout = timeout
	return cfg
}

// service is a server over TLS, as main runs it.
type service struct {
	addr   string
	ca     *pki.Authority
	caller pki.Pair
	read   *atomic.Int64 // bytes taken off the wire
	t      *testing.T
}

func serve(t *testing.T, cfg server.Config) *service {
	t.Helper()
	s := &service{t: t, read: new(atomic.Int64)}
	var err error
	if s.ca, err = pki.NewAuthority("test-ca"); err != nil {
		t.Fatal(err)
	}
	own := s.issue(s.ca, pki.Leaf{Names: []string{"127.0.0.1"}})
	s.caller = s.issue(s.ca, pki.Leaf{Names: []string{gatekeeper}})

	dir := t.TempDir()
	for name, content := range map[string][]byte{"tls.crt": own.Cert, "tls.key": own.Key, "ca.crt": s.ca.PEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serving, err := certs.LoadServing(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	callers, err := certs.LoadCallers(filepath.Join(dir, "ca.crt"), gatekeeper)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Authorize = callers.Authorize

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	srv := server.HTTP(server.New(cfg))
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := srv.Serve(tls.NewListener(counted{listener, s.read}, certs.TLS(serving))); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
	})
	t.Cleanup(func() {
		_ = srv.Close()
		wait.Wait()
	})
	return s
}

func (s *service) issue(ca *pki.Authority, leaf pki.Leaf) pki.Pair {
	s.t.Helper()
	pair, err := ca.Issue(leaf)
	if err != nil {
		s.t.Fatal(err)
	}
	return pair
}

// config returns the TLS configuration of a client with the given certificate, or
// with none.
func (s *service) config(caller *pki.Pair) *tls.Config {
	s.t.Helper()
	cfg := &tls.Config{RootCAs: s.ca.Pool(), ServerName: "127.0.0.1"}
	if caller != nil {
		cert, err := caller.TLS()
		if err != nil {
			s.t.Fatal(err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg
}

// post sends a body as a caller. The answer must be one of the protocol, whatever
// the body was.
func (s *service) post(caller *pki.Pair, body string) (int, externaldata.ProviderResponse) {
	s.t.Helper()
	return s.send(caller, http.MethodPost, server.SignaturesPath, strings.NewReader(body))
}

func (s *service) send(caller *pki.Pair, method, path string, body io.Reader) (int, externaldata.ProviderResponse) {
	s.t.Helper()
	transport := &http.Transport{TLSClientConfig: s.config(caller)}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "https://"+s.addr+path, body)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode, parse(s.t, resp)
}

func parse(t *testing.T, resp *http.Response) externaldata.ProviderResponse {
	t.Helper()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type is %q", got)
	}
	var answer externaldata.ProviderResponse
	if err := json.Unmarshal(content, &answer); err != nil {
		t.Fatalf("not an answer of the protocol: %v: %.200q", err, content)
	}
	if answer.APIVersion != "externaldata.gatekeeper.sh/v1beta1" || answer.Kind != externaldata.ProviderResponseKind {
		t.Errorf("answer is %s %s", answer.APIVersion, answer.Kind)
	}
	return answer
}

func envelope(keys ...string) string {
	b, err := json.Marshal(externaldata.NewProviderRequest(keys))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// yes lists the keys that an answer would admit.
func yes(answer externaldata.ProviderResponse) []string {
	var keys []string
	for _, item := range answer.Response.Items {
		value, _ := item.Value.(map[string]any)
		if item.Error == "" && value["signed"] == true {
			keys = append(keys, item.Key)
		}
	}
	return keys
}

// counted counts the bytes that its connections read.
type counted struct {
	net.Listener
	read *atomic.Int64
}

func (l counted) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l.read}, err
}

type countedConn struct {
	net.Conn
	read *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// Gatekeeper's own client sends a request over TLS with its certificate.
func TestGatekeepersClient(t *testing.T) {
	s := serve(t, checking(signed))
	cert, err := s.caller.TLS()
	if err != nil {
		t.Fatal(err)
	}
	provider := &unversioned.Provider{
		ObjectMeta: metav1.ObjectMeta{Name: "oke-sign"},
		Spec: unversioned.ProviderSpec{
			URL: "https://" + s.addr + server.SignaturesPath, Timeout: 5,
			CABundle: base64.StdEncoding.EncodeToString(s.ca.PEM()),
		},
	}
	t.Cleanup(func() { externaldata.DefaultClientCache().Invalidate("oke-sign") })
	keys := []string{ask(pinned, keyA), ask("nginx:latest", keyA), ask(pinned, keyA), "no question"}
	answer, status, err := externaldata.DefaultSendRequestToProvider(t.Context(), provider, keys, &cert)
	if err != nil {
		t.Fatal(err)
	}
	want := &externaldata.ProviderResponse{
		APIVersion: "externaldata.gatekeeper.sh/v1beta1",
		Kind:       "ProviderResponse",
		Response: externaldata.Response{
			Idempotent: true,
			Items: []externaldata.Item{
				{Key: keys[0], Value: map[string]any{"signed": true, "reason": "signed", "key": keyA}},
				{Key: keys[1], Value: map[string]any{"signed": false, "reason": "not-oci-registry", "detail": "not an image of OCI Registry"}},
				{Key: keys[3], Error: "not a question: at byte 0: expected an object"},
			},
		},
	}
	if diff := cmp.Diff(want, answer); diff != "" || status != http.StatusOK {
		t.Errorf("status %d, answer (-want +got):\n%s", status, diff)
	}
}

// The response struct equals Gatekeeper's: the same fields, order and names on the
// wire. Other tests send requests that Gatekeeper's own code writes.
func TestWireStructs(t *testing.T) {
	same(t, reflect.TypeFor[server.ProviderResponse](), reflect.TypeFor[externaldata.ProviderResponse]())
}

func same(t *testing.T, ours, theirs reflect.Type) {
	t.Helper()
	if ours.Kind() != theirs.Kind() {
		t.Errorf("%v is a %v, %v a %v", ours, ours.Kind(), theirs, theirs.Kind())
		return
	}
	switch ours.Kind() {
	case reflect.Slice:
		same(t, ours.Elem(), theirs.Elem())
	case reflect.Struct:
		if ours.NumField() != theirs.NumField() {
			t.Errorf("%v has %d fields, %v has %d", ours, ours.NumField(), theirs, theirs.NumField())
			return
		}
		for i := range ours.NumField() {
			a, b := ours.Field(i), theirs.Field(i)
			if a.Name != b.Name || a.Tag.Get("json") != b.Tag.Get("json") {
				t.Errorf("%v.%s %s is %s %s in %v", ours, a.Name, a.Tag, b.Name, b.Tag, theirs)
			}
			same(t, a.Type, b.Type)
		}
	}
}

// No malformed request gets a yes, no answer, or a broken connection.
func TestBadInput(t *testing.T) {
	var subject atomic.Int64
	s := serve(t, checking(func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
		subject.Add(1)
		return signed(ctx, ref, allowed)
	}))
	other, err := pki.NewAuthority("test-ca")
	if err != nil {
		t.Fatal(err)
	}
	stranger := s.issue(other, pki.Leaf{Names: []string{gatekeeper}})
	neighbour := s.issue(s.ca, pki.Leaf{Names: []string{"some.other.svc"}})
	late := s.issue(s.ca, pki.Leaf{Names: []string{gatekeeper}, NotAfter: time.Now().Add(-time.Minute)})
	good := envelope(ask(pinned, keyA))
	times := func(n int, key string) string { return envelope(slices.Repeat([]string{key}, n)...) }

	tests := map[string]struct {
		caller *pki.Pair
		method string
		path   string
		body   string
		status int
		says   string // a part of systemError
		errors int    // number of items with an error
	}{
		"no client certificate":           {caller: nil, body: good, status: 403, says: "no client certificate was presented"},
		"a certificate by another CA":     {caller: &stranger, body: good, status: 403, says: "unknown authority"},
		"a certificate for another name":  {caller: &neighbour, body: good, status: 403, says: `not for "gatekeeper-webhook-service`},
		"an expired certificate":          {caller: &late, body: good, status: 403, says: "expired"},
		"no certificate and a wrong path": {caller: nil, path: "/", body: good, status: 403, says: "no client certificate was presented"},
		"GET":                             {caller: &s.caller, method: http.MethodGet, status: 405, says: `method "GET"`},
		"PUT":                             {caller: &s.caller, method: http.MethodPut, body: good, status: 405, says: `method "PUT"`},
		"an invented method":              {caller: &s.caller, method: "VERIFY", body: good, status: 405, says: `method "VERIFY"`},
		"another path":                    {caller: &s.caller, path: "/v1/signature", body: good, status: 404, says: server.SignaturesPath},
		"the path of the health address":  {caller: &s.caller, path: "/healthz", body: good, status: 404, says: server.SignaturesPath},
		"a path with .. to the endpoint":  {caller: &s.caller, path: "/v1/x/../signatures", body: good, status: 404, says: server.SignaturesPath},
		"an empty body":                   {caller: &s.caller, body: "", status: 400, says: "expected an object"},
		"no JSON":                         {caller: &s.caller, body: "hello", status: 400, says: "expected an object"},
		"null":                            {caller: &s.caller, body: "null", status: 400, says: "expected an object"},
		"half of a body":                  {caller: &s.caller, body: good[:len(good)/2], status: 400, says: "expected"},
		"two bodies":                      {caller: &s.caller, body: good + good, status: 400, says: "expected nothing more"},
		"another version":                 {caller: &s.caller, body: strings.Replace(good, "v1beta1", "v1", 1), status: 400, says: "apiVersion"},
		"another kind":                    {caller: &s.caller, body: strings.Replace(good, "ProviderRequest", "ProviderResponse", 1), status: 400, says: "kind"},
		"empty keys":                      {caller: &s.caller, body: envelope(), status: 400, says: "request.keys is missing or empty"},
		"10 000 keys":                     {caller: &s.caller, body: times(10_000, "k"), status: 413, says: "more than 256 keys"},
		"10 000 questions":                {caller: &s.caller, body: times(10_000, ask(pinned, keyA)), status: 413, says: "more than 1048576 bytes"},
		"a key of 1 MB":                   {caller: &s.caller, body: envelope(strings.Repeat("k", 1_000_000)), status: 413, says: "a key of more than 4096 bytes"},
		"a key of 2 MB":                   {caller: &s.caller, body: envelope(strings.Repeat("k", 2_000_000)), status: 413, says: "more than 1048576 bytes"},
		"an endlessly nested body":        {caller: &s.caller, body: strings.Repeat(`{"a":`, 100_000), status: 400, says: "nested too deeply"},
		"an empty key":                    {caller: &s.caller, body: envelope(""), status: 200, errors: 1},
		"an image in place of a question": {caller: &s.caller, body: envelope(pinned), status: 200, errors: 1},
		"a question without keys":         {caller: &s.caller, body: envelope(ask(pinned)), status: 200, errors: 1},
		"a question with an invalid key":  {caller: &s.caller, body: envelope(ask(pinned, "*")), status: 200, errors: 1},
		"a question about two images":     {caller: &s.caller, body: envelope(`{"image":"x","image":"` + pinned + `","keys":["` + keyA + `"]}`), status: 200, errors: 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			method, path := tt.method, tt.path
			if method == "" {
				method = http.MethodPost
			}
			if path == "" {
				path = server.SignaturesPath
			}
			status, answer := s.send(tt.caller, method, path, strings.NewReader(tt.body))
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			if got := answer.Response.SystemError; !strings.Contains(got, tt.says) || (got == "") != (tt.says == "") || len(got) > server.MaxSystemError {
				t.Errorf("systemError %.300q, want a part %q", got, tt.says)
			}
			if got := yes(answer); got != nil {
				t.Errorf("said yes to %q", got)
			}
			failed := 0
			for _, item := range answer.Response.Items {
				if item.Error != "" {
					failed++
				}
			}
			if failed != tt.errors || len(answer.Response.Items) != tt.errors {
				t.Errorf("items %v, want only %d errors", answer.Response.Items, tt.errors)
			}
		})
	}
	if n := subject.Load(); n != 0 {
		t.Errorf("bad input led to %d checks", n)
	}
	if _, answer := s.post(&s.caller, good); len(yes(answer)) != 1 {
		t.Errorf("a good request after all that: %+v", answer)
	}
}

// The server does not read a rejected body to its end, and does not hold it in
// memory.
func TestBodyWithoutEnd(t *testing.T) {
	s := serve(t, checking(signed))
	for name, tt := range map[string]struct {
		caller *pki.Pair
		start  string
		status int
		most   int64
	}{
		"an endless key":        {&s.caller, envelope("x")[:len(envelope("x"))-len(`"]}}`)], 413, server.MaxBody + server.MaxDropped + 640<<10},
		"white space":           {&s.caller, "", 413, server.MaxBody + server.MaxDropped + 640<<10},
		"without a certificate": {nil, "", 403, 640 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			before := s.read.Load()
			conn, err := tls.Dial("tcp", s.addr, s.config(tt.caller))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := io.WriteString(conn, "POST "+server.SignaturesPath+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			var wait sync.WaitGroup
			wait.Go(func() { // until the server closes the connection
				chunk := func(s string) error {
					_, err := fmt.Fprintf(conn, "%x\r\n%s\r\n", len(s), s)
					return err
				}
				err := chunk(tt.start + " ")
				for filler := strings.Repeat(" ", 32<<10); err == nil; {
					err = chunk(filler)
				}
			})
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			answer := parse(t, resp)
			if resp.StatusCode != tt.status || answer.Response.SystemError == "" || len(answer.Response.Items) != 0 {
				t.Errorf("status %d, answer %+v, want %d and a systemError alone", resp.StatusCode, answer, tt.status)
			}
			_ = conn.Close()
			wait.Wait()
			if got := s.read.Load() - before; got > tt.most {
				t.Errorf("took %d bytes off the wire, want at most %d", got, tt.most)
			}
		})
	}
}

// A slow body takes the budget and no more.
func TestSlowBody(t *testing.T) {
	s := serve(t, within(200*time.Millisecond, signed))
	began := time.Now()
	conn, err := tls.Dial("tcp", s.addr, s.config(&s.caller))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, "POST "+server.SignaturesPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := parse(t, resp)
	if resp.StatusCode != http.StatusRequestTimeout || !strings.Contains(answer.Response.SystemError, "took longer") {
		t.Errorf("status %d, systemError %q", resp.StatusCode, answer.Response.SystemError)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("answered after %v", took)
	}
}

// A request that took all of its time leaves its connection usable for the next request.
func TestConnectionOutlivesTheBudget(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	var calls atomic.Int64
	s := serve(t, within(time.Second, func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
		if calls.Add(1) == 1 {
			<-release
		}
		return signed(ctx, ref, allowed)
	}))
	conn, err := tls.Dial("tcp", s.addr, s.config(&s.caller))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	body := envelope(ask(pinned, keyA))
	for want := range 2 {
		if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", server.SignaturesPath, len(body), body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d on the same connection: %v", want, err)
		}
		if answer := parse(t, resp); len(yes(answer)) != want {
			t.Errorf("request %d: %+v", want, answer)
		}
	}
}

// Rejecting a request takes little memory.
func TestRejectionIsCheap(t *testing.T) {
	const head = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest",`
	for name, tt := range map[string]struct {
		body string
		most uint64
	}{
		"as many empty keys as fit": {head + `"request":{"keys":[` + strings.Repeat(`"",`, 330_000), 64 << 10},
		"the longest key":           {head + `"request":{"keys":["` + strings.Repeat("x", 1_000_000) + `"]}}`, 16 << 10},
		"a key of escapes":          {head + `"request":{"keys":["` + strings.Repeat(`\\`, 500_000) + `"]}}`, 1100 << 10},
		"many unknown fields":       {head + strings.Repeat(`"x":1,`, 150_000), 4 << 20},
		"the deepest nesting":       {head + strings.Repeat(`"x":`+strings.Repeat("[", 30)+strings.Repeat("]", 30)+",", 15_000), 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := server.DecodeRequest(tt.body)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("accepted")
			}
			if got := after.TotalAlloc - before.TotalAlloc; got > tt.most {
				t.Errorf("%d bytes allocated for a body of %d, want at most %d", got, len(tt.body), tt.most)
			}
		})
	}
}

// bubble answers one request without a network, with the clock of a bubble.
func bubble(t *testing.T, cfg server.Config, keys ...string) (time.Duration, externaldata.ProviderResponse) {
	t.Helper()
	w := httptest.NewRecorder()
	began := time.Now()
	server.New(cfg).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.SignaturesPath, strings.NewReader(envelope(keys...))))
	took := time.Since(began)
	resp := w.Result()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
	return took, parse(t, resp)
}

func images(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = ask(fmt.Sprintf("iad.ocir.io/ns/repo%d@sha256:%064d", i, i), keyA)
	}
	return keys
}

// A cancelled check is not an answer, and never a yes (ratify#92).
func TestCheckThatStopsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		check := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
			if ref.Repository() == "repo1" {
				<-ctx.Done()
				return checker.Answer{}, fmt.Errorf("listing signatures: %w", context.Cause(ctx))
			}
			return signed(ctx, ref, allowed)
		}
		keys := images(3)
		took, answer := bubble(t, checking(check), keys...)
		if took > 1300*time.Millisecond || took < 1200*time.Millisecond {
			t.Errorf("took %v, want nearly all of 1.3 s", took)
		}
		if diff := cmp.Diff([]string{keys[0], keys[2]}, yes(answer)); diff != "" {
			t.Errorf("yes to (-want +got):\n%s", diff)
		}
		want := fmt.Sprintf("iad.ocir.io/ns/repo1@sha256:%064d: listing signatures: no answer from OCI within 1.3s, the time for one request; it is still being asked", 1)
		if got := answer.Response.SystemError; got != want {
			t.Errorf("systemError %q, want %q", got, want)
		}
	})
}

func TestCheckThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var late atomic.Int64
		check := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
			if ref.Repository() != "repo0" {
				<-release
				late.Add(1)
			}
			return signed(ctx, ref, allowed)
		}
		keys := images(40)
		took, answer := bubble(t, server.Config{Signatures: server.Signatures{Check: check, Limits: server.Limits{Timeout: 500 * time.Millisecond, Parallel: 4}}}, keys...)
		if took != 500*time.Millisecond {
			t.Errorf("took %v, want 500ms", took)
		}
		if diff := cmp.Diff(keys[:1], yes(answer)); diff != "" {
			t.Errorf("yes to (-want +got):\n%s", diff)
		}
		got := answer.Response.SystemError
		if len(got) > server.MaxSystemError || !strings.HasPrefix(got, "iad.ocir.io/ns/repo1@sha256:") {
			t.Errorf("systemError of %d bytes: %q", len(got), got)
		}
		shown := strings.Count(got, "no answer from OCI within 500ms")
		if want := fmt.Sprintf("\nand %d more", 39-shown); shown < 5 || !strings.HasSuffix(got, want) {
			t.Errorf("systemError shows %d: %q, want it to end in %q", shown, got, want)
		}
		// Running checks continue. No check starts after the answer.
		close(release)
		synctest.Wait()
		if n := late.Load(); n != 4 {
			t.Errorf("%d checks continued after the answer, want the 4 that were running", n)
		}
	})
}

func TestFanOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most, calls atomic.Int64
		check := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
			calls.Add(1)
			n := running.Add(1)
			defer running.Add(-1)
			for {
				if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
					break
				}
			}
			time.Sleep(60 * time.Millisecond)
			return signed(ctx, ref, allowed)
		}
		keys := images(20)
		took, answer := bubble(t, server.Config{Signatures: server.Signatures{Check: check, Limits: server.Limits{Parallel: 5}}}, append(keys, keys...)...)
		if took != 240*time.Millisecond || most.Load() != 5 || calls.Load() != 20 {
			t.Errorf("took %v with %d at once in %d calls; want 240ms with 5 in 20", took, most.Load(), calls.Load())
		}
		if diff := cmp.Diff(keys, yes(answer)); diff != "" {
			t.Errorf("yes to (-want +got):\n%s", diff)
		}
	})
}

// If a check fails, the answer names its image and answers the other questions.
func TestCheckThatFails(t *testing.T) {
	denied := answer(verdict.Unsigned, "")
	denied.Detail, denied.RetryAfter = "no signature", 30*time.Second
	late := answer(verdict.Signed, keyA)
	late.RetryAfter = 30 * time.Second
	for name, tt := range map[string]struct {
		atLeast int // keys that must sign, if more than one
		verdict checker.Answer
		err     error
		panics  bool
		says    string         // of systemError
		value   map[string]any // the value of the item
	}{
		"it fails":                               {err: errors.New("artifacts ListContainerImageSignatures: 429 TooManyRequests"), says: "429 TooManyRequests"},
		"it fails and returns a yes":             {verdict: answer(verdict.Signed, keyA), err: errors.New("odd"), says: ": odd"},
		"it fails with many lines":               {err: errors.New("a\nb\r\x1b[31mc\u2028d"), says: ": a b ?[31mc d"},
		"it fails with a long text":              {err: errors.New(strings.Repeat("é", 4000)), says: "é…"},
		"it panics":                              {panics: true, says: "internal error, see the provider's log"},
		"a function below it panics":             {err: fmt.Errorf("listing: %w", &contain.PanicError{Value: "on purpose"}), says: "internal error, see the provider's log"},
		"a yes by another key":                   {verdict: answer(verdict.Signed, keyB), says: "contradicts its question"},
		"a yes without a key":                    {verdict: answer(verdict.Signed, ""), says: "contradicts its question"},
		"an unknown reason":                      {verdict: answer("because", ""), says: "contradicts its question"},
		"the zero verdict":                       {says: "contradicts its question"},
		"a yes with a time to retry":             {verdict: late, value: map[string]any{"signed": true, "reason": "signed", "key": keyA}},
		"a yes by one key of two that must sign": {atLeast: 2, verdict: answer(verdict.Signed, keyA), says: "contradicts its question"},
		"the same key twice":                     {atLeast: 2, verdict: answer(verdict.Signed, keyA, keyA, keyA), says: "contradicts its question"},
		"a key that is not allowed counts":       {atLeast: 2, verdict: answer(verdict.Signed, keyA, keyA, keyB[:len(keyB)-1]+"c"), says: "contradicts its question"},
		"a first key that is not allowed":        {atLeast: 2, verdict: answer(verdict.Signed, "", keyA, keyB), says: "contradicts its question"},
		"a yes by two keys": {atLeast: 2, verdict: answer(verdict.Signed, keyA, keyA, keyB), value: map[string]any{
			"signed": true, "reason": "signed", "key": keyA, "by": []any{proofBy(keyA), proofBy(keyB)},
		}},
		"a denial": {verdict: denied, value: map[string]any{
			"signed": false, "reason": "unsigned", "detail": "no signature (asked again after 30s plus Gatekeeper's cache)",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			check := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
				if ref.Repository() != "repo1" {
					return signed(ctx, ref, allowed)
				}
				if tt.panics {
					panic("on purpose")
				}
				return tt.verdict, tt.err
			}
			known := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, bool) {
				v, err := check(ctx, ref, allowed)
				return v, err == nil
			}
			keys := images(3)
			if tt.atLeast > 0 {
				keys[1] = fmt.Sprintf(`{"atLeast":%d,%s`, tt.atLeast, ask(fmt.Sprintf("iad.ocir.io/ns/repo1@sha256:%064d", 1), keyA, keyB)[1:])
			}
			_, answer := bubble(t, checking(check), keys...)
			_, same := bubble(t, server.Config{Signatures: server.Signatures{Check: check, Cached: known}}, keys...)
			if diff := cmp.Diff(answer, same); diff != "" {
				t.Errorf("if it is known (-want +got):\n%s", diff)
			}
			want := []string{keys[0], keys[2]}
			if tt.value["signed"] == true {
				want = keys
			}
			if diff := cmp.Diff(want, yes(answer)); diff != "" {
				t.Errorf("yes to (-want +got):\n%s", diff)
			}
			got := answer.Response.SystemError
			if (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) || strings.ContainsAny(got, "\n\r\x1b\u2028") || len(got) > server.MaxSystemError {
				t.Errorf("systemError %q, want a part %q", got, tt.says)
			}
			if tt.says != "" && !strings.HasPrefix(got, "iad.ocir.io/ns/repo1@sha256:") {
				t.Errorf("systemError %q does not name the image", got)
			}
			items := 2
			if tt.value != nil {
				items = 3
				if diff := cmp.Diff(any(tt.value), answer.Response.Items[1].Value); diff != "" {
					t.Errorf("value (-want +got):\n%s", diff)
				}
			}
			if len(answer.Response.Items) != items {
				t.Errorf("items %v, want %d", answer.Response.Items, items)
			}
		})
	}
}

// panicking is a log that panics at lines about decisions, as at a value that cannot
// be shown.
type panicking struct{ slog.Handler }

func (h panicking) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelInfo {
		panic("on purpose")
	}
	return h.Handler.Handle(ctx, r)
}

// A panic after the check, or after reading the cache, leaves one question without
// an answer.
func TestPanicAfterACheck(t *testing.T) {
	known := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, bool) {
		v, err := signed(ctx, ref, allowed)
		return v, err == nil
	}
	for name, cfg := range map[string]server.Config{"checked": checking(signed), "cached": {Signatures: server.Signatures{Check: signed, Cached: known}}} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			cfg.Log = slog.New(panicking{slog.NewTextHandler(&b, nil)})
			_, answer := bubble(t, cfg, images(2)...)
			if len(answer.Response.Items) != 0 || strings.Count(answer.Response.SystemError, "internal error, see the provider's log") != 2 {
				t.Errorf("answer: %+v", answer)
			}
			if !strings.Contains(b.String(), "on purpose") {
				t.Errorf("the log does not say what happened: %s", b.String())
			}
		})
	}
}

// Requests beyond the limit wait for their turn, or until their caller leaves.
func TestRequestsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		h := server.New(server.Config{Signatures: server.Signatures{Limits: server.Limits{Requests: 2}, Check: func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer running.Add(-1)
			time.Sleep(100 * time.Millisecond)
			return signed(ctx, ref, allowed)
		}}})
		send := func(ctx context.Context) *http.Response {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, server.SignaturesPath, strings.NewReader(envelope(images(1)...))))
			return w.Result()
		}
		began := time.Now()
		var wait sync.WaitGroup
		for range 6 {
			wait.Go(func() {
				if answer := parse(t, send(t.Context())); len(yes(answer)) != 1 {
					t.Errorf("in its turn: %+v", answer)
				}
			})
		}
		synctest.Wait()
		wait.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			resp := send(ctx)
			if answer := parse(t, resp); len(answer.Response.Items) != 0 || !strings.Contains(answer.Response.SystemError, "the caller has gone") {
				t.Errorf("without its caller: %d %+v", resp.StatusCode, answer)
			}
		})
		wait.Wait()
		if took := time.Since(began); most.Load() != 2 || took != 300*time.Millisecond {
			t.Errorf("%d checks at once in %v, want 2 in 300ms", most.Load(), took)
		}
	})
}

// A slow OCI does not make the process count as stuck. A slow cache does.
func TestAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		h := server.New(server.Config{Signatures: server.Signatures{
			Check: func(context.Context, image.Pinned, signature.KeySet) (checker.Answer, error) {
				<-hangs
				return checker.Answer{}, errors.New("let go")
			},
			Cached: func(_ context.Context, ref image.Pinned, _ signature.KeySet) (checker.Answer, bool) {
				if ref.Repository() == "repo1" {
					<-hangs
				}
				return checker.Answer{}, false
			},
		}})
		ask := func(keys ...string) {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.SignaturesPath, strings.NewReader(envelope(keys...))))
		}
		alive := func(want bool) {
			t.Helper()
			if err := h.Alive(); (err == nil) != want {
				t.Errorf("alive: %v", err)
			}
		}
		both := images(2)
		go ask(both[0])
		time.Sleep(time.Hour)
		alive(true)
		go ask(both[1])
		time.Sleep(30 * time.Second)
		alive(true)
		time.Sleep(2 * time.Second)
		alive(false)
		close(hangs)
		synctest.Wait()
		alive(true)
	})
}

type idsKey struct{}

// traced collects request IDs as oci.WithRequests does.
func traced(ctx context.Context) (context.Context, func() string) {
	ids := new(string)
	return context.WithValue(ctx, idsKey{}, ids), func() string { return *ids }
}

// request records that OCI was called under these IDs for ctx.
func request(ctx context.Context, ids string) { *ctx.Value(idsKey{}).(*string) = ids }

// Labels come from fixed sets, for any question (CVE-2026-49835).
func TestLogAndMetrics(t *testing.T) {
	var log bytes.Buffer
	registry := prometheus.NewRegistry()
	check := func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
		switch ref.Repository() {
		case "repo0":
			return signed(ctx, ref, allowed)
		case "repo1":
			request(ctx, "abc def")
			return checker.Answer{Verdict: verdict.Verdict{Reason: verdict.Unsigned, Detail: "no signature"}, Truncated: true, Age: 20 * time.Second}, nil
		default:
			return checker.Answer{}, errors.New("503")
		}
	}
	h := server.New(server.Config{
		Signatures: server.Signatures{Check: check, Limits: server.Limits{Parallel: 1}},
		Metrics:    registry, Log: slog.New(slog.NewJSONHandler(&log, nil)), Trace: traced,
	})
	for _, body := range []string{envelope(append(images(3), "secret\nno question")...), "secret body"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, server.SignaturesPath, strings.NewReader(body)))
	}

	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log holds what was sent:\n%s", log.String())
	}
	var got []map[string]any
	for l := range strings.Lines(log.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(l), &m); err != nil {
			t.Fatal(err)
		}
		if _, ok := m["duration"]; ok != strings.Contains(m["msg"].(string), "decision") {
			t.Errorf("only a decision has a duration: %s", l)
		}
		for _, volatile := range []string{"time", "duration", "remote"} {
			delete(m, volatile)
		}
		got = append(got, m)
	}
	name := func(n int) string { return "iad.ocir.io/ns/repo" + strconv.Itoa(n) + fmt.Sprintf("@sha256:%064d", n) }
	want := []map[string]any{ // answers without a check come first
		{"level": "WARN", "msg": "not a question", "error": "at byte 0: expected an object"},
		{"level": "INFO", "msg": "decision", "image": name(0), "verdict": "signed", "reason": "signed", "key": keyA, "allowed": keyA, "age": "0s"},
		{"level": "INFO", "msg": "decision", "image": name(1), "verdict": "not-signed", "reason": "unsigned", "detail": "no signature",
			"allowed": keyA, "age": "20s", "ociRequests": "abc def"},
		{"level": "WARN", "msg": "no decision", "image": name(2), "error": "503"},
		{"level": "WARN", "msg": "request refused", "status": 400., "reason": "not a request of the external data protocol: at byte 0: expected an object"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}

	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP oke_sign_answers_total Questions answered, by reason.
# TYPE oke_sign_answers_total counter
oke_sign_answers_total{endpoint="signatures",reason="bad-signature"} 0
oke_sign_answers_total{endpoint="signatures",reason="image-not-found"} 0
oke_sign_answers_total{endpoint="signatures",reason="key-not-allowed"} 0
oke_sign_answers_total{endpoint="signatures",reason="key-unusable"} 0
oke_sign_answers_total{endpoint="signatures",reason="no-digest"} 0
oke_sign_answers_total{endpoint="signatures",reason="not-covered"} 0
oke_sign_answers_total{endpoint="signatures",reason="not-oci-registry"} 0
oke_sign_answers_total{endpoint="signatures",reason="signed"} 1
oke_sign_answers_total{endpoint="signatures",reason="too-few-keys"} 0
oke_sign_answers_total{endpoint="signatures",reason="unsigned"} 1
oke_sign_answers_total{endpoint="signatures",reason="wrong-image"} 0
oke_sign_answers_total{endpoint="signatures",reason="wrong-key"} 0
# HELP oke_sign_deadline_exceeded_total Requests with a question that got no answer in time.
# TYPE oke_sign_deadline_exceeded_total counter
oke_sign_deadline_exceeded_total{endpoint="signatures"} 0
# HELP oke_sign_decision_errors_total Questions without an answer, by cause: deadline, panic or upstream.
# TYPE oke_sign_decision_errors_total counter
oke_sign_decision_errors_total{cause="deadline",endpoint="signatures"} 0
oke_sign_decision_errors_total{cause="panic",endpoint="signatures"} 0
oke_sign_decision_errors_total{cause="upstream",endpoint="signatures"} 1
# HELP oke_sign_malformed_questions_total Keys of requests that do not parse as questions.
# TYPE oke_sign_malformed_questions_total counter
oke_sign_malformed_questions_total{endpoint="signatures"} 1
# HELP oke_sign_records_truncated_total Verdicts on images with more signature records than the provider reads.
# TYPE oke_sign_records_truncated_total counter
oke_sign_records_truncated_total 1
`), "oke_sign_answers_total", "oke_sign_deadline_exceeded_total", "oke_sign_decision_errors_total",
		"oke_sign_malformed_questions_total", "oke_sign_records_truncated_total")
	if err != nil {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "test_total", Help: "A test."}))
	var alive, ready error
	var note string
	h := server.Health(func() error { return alive }, func() error { return ready }, func() string { return note }, registry)
	tests := []struct {
		name   string
		alive  error
		ready  error
		note   string
		method string
		path   string
		status int
		body   string
	}{
		{"alive but not ready", nil, errors.New("no"), "", "GET", "/healthz", 200, "ok\n"},
		{"stuck, and why", errors.New("stuck:\n1 request"), nil, "", "GET", "/healthz", 503, "stuck: 1 request\n"},
		{"not ready, and why", nil, errors.New("principal: no\nkey"), "", "GET", "/readyz", 503, "principal: no key\n"},
		{"ready", nil, nil, "", "GET", "/readyz", 200, "ready\n"},
		{"ready, and what else", nil, nil, "no\nlog", "GET", "/readyz", 200, "ready, but no log\n"},
		{"metrics", nil, nil, "", "GET", "/metrics", 200, "test_total 0"},
		{"another path", nil, nil, "", "GET", "/v1/signatures", 404, "not found"},
		{"another method", nil, nil, "", "POST", "/readyz", 405, "Method Not Allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			alive, ready, note = tt.alive, tt.ready, tt.note
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, nil))
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain;") {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}
