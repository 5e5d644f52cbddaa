package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// limited serves over plain TCP with a bound on connections. A client that sends the
// header Stranger is not accepted.
func limited(t *testing.T, most int, cfg server.Config) (addr string, registry *prometheus.Registry) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	registry = prometheus.NewRegistry()
	srv := server.HTTP(server.New(cfg))
	srv.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := srv.Serve(server.Limit(listener, most, "questions", registry)); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("serving: %v", err)
		}
	})
	t.Cleanup(func() {
		_ = srv.Close()
		wait.Wait()
	})
	return listener.Addr().String(), registry
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// exchange sends a request on a connection, and returns the text of the answer or of
// the error.
func exchange(c net.Conn, body string) string {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", server.SignaturesPath, len(body), body); err != nil {
		return err.Error()
	}
	b := make([]byte, 64<<10)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return string(b[:n])
}

// closed reports whether the server closes a connection within a while.
func closed(c net.Conn, within time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(within))
	_, err := c.Read(make([]byte, 1))
	var late net.Error
	return !errors.As(err, &late) || !late.Timeout()
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func counts(t *testing.T, registry *prometheus.Registry, want string) {
	t.Helper()
	err := testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP oke_sign_connections Open connections, by port.
# TYPE oke_sign_connections gauge
# HELP oke_sign_connections_closed_total Connections closed because there were too many, by reason: idle (the longest idle one made room) or full (a new one found all busy).
# TYPE oke_sign_connections_closed_total counter
`+want), "oke_sign_connections", "oke_sign_connections_closed_total")
	if err != nil {
		t.Error(err)
	}
}

// SIG Security threat 1, a flood: silent connections reach the bound. The next
// callers are still answered. The oldest silent connection is closed first.
func TestSilentConnectionsBlockNoCaller(t *testing.T) {
	addr, registry := limited(t, 8, checking(signed))
	var silent []net.Conn
	for range 50 {
		silent = append(silent, dial(t, addr))
	}
	for n := range 5 {
		if got := exchange(dial(t, addr), envelope(images(1)...)); !strings.Contains(got, `"signed":true`) {
			t.Errorf("caller %d beyond the bound got %q", n, got)
		}
	}
	for n, c := range silent[:40] {
		if !closed(c, 20*time.Second) {
			t.Errorf("silent connection %d is still open", n)
		}
	}
	counts(t, registry, `
oke_sign_connections{port="questions"} 8
oke_sign_connections_closed_total{port="questions",reason="full"} 0
oke_sign_connections_closed_total{port="questions",reason="idle"} 47
`)
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// Connections without a certificate do not replace Gatekeeper's idle connection.
func TestStrangersGoFirst(t *testing.T) {
	addr, registry := limited(t, 4, checking(signed))
	known := dial(t, addr)
	body := envelope(images(1)...)
	if got := exchange(known, body); !strings.Contains(got, `"signed":true`) {
		t.Fatalf("got %q", got)
	}
	for range 100 {
		dial(t, addr)
	}
	until(t, "97 connections are closed", func() bool {
		n, err := testutil.GatherAndCount(registry)
		return err == nil && n > 0 && idleClosed(t, registry) >= 97
	})
	if got := exchange(known, body); !strings.Contains(got, `"signed":true`) {
		t.Errorf("Gatekeeper's connection after the flood: %q", got)
	}
}

func idleClosed(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "oke_sign_connections_closed_total" && l.GetValue() == "idle" {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatal("no such metric")
	return 0
}

// A connection whose request is being answered stays open. If all connections are
// busy, the next one is closed at once.
func TestBusyConnectionsStay(t *testing.T) {
	release := make(chan struct{})
	var deciding atomic.Int64
	addr, registry := limited(t, 3, within(20*time.Second, func(ctx context.Context, ref image.Pinned, allowed signature.KeySet) (checker.Answer, error) {
		deciding.Add(1)
		<-release
		return signed(ctx, ref, allowed)
	}))
	got := make(chan string, 3)
	for n := range 3 {
		c := dial(t, addr)
		go func() { got <- exchange(c, envelope(images(n + 1)[n])) }()
	}
	until(t, "three requests in progress", func() bool { return deciding.Load() == 3 })
	for range 5 {
		if !closed(dial(t, addr), 10*time.Second) {
			t.Error("a connection beyond the bound stays open")
		}
	}
	close(release)
	for range 3 {
		if answer := <-got; !strings.Contains(answer, `"signed":true`) {
			t.Errorf("a request in progress: %q", answer)
		}
	}
	counts(t, registry, `
oke_sign_connections{port="questions"} 3
oke_sign_connections_closed_total{port="questions",reason="full"} 5
oke_sign_connections_closed_total{port="questions",reason="idle"} 0
`)
}

// Closed connections do not count, no matter which side closed them.
func TestConnectionsAreCounted(t *testing.T) {
	addr, registry := limited(t, 100, server.Config{Signatures: server.Signatures{Check: signed}, Authorize: func(*tls.ConnectionState) error { return errors.New("no") }})
	for range 20 {
		if got := exchange(dial(t, addr), envelope(images(1)...)); !strings.Contains(got, "403") { // which closes it
			t.Fatalf("got %q", got)
		}
		_ = dial(t, addr).Close()
	}
	until(t, "no connection is left", func() bool {
		return testutil.GatherAndCompare(registry, strings.NewReader("# HELP oke_sign_connections Open connections, by port.\n# TYPE oke_sign_connections gauge\noke_sign_connections{port=\"questions\"} 0\n"), "oke_sign_connections") == nil
	})
}

// Connections that the kernel accepted before the listener closes are answered.
// Later connections are rejected.
func TestFinishLosesNoConnection(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := server.Limit(inner, 1000, "questions", nil)
	srv := server.HTTP(server.New(checking(signed)))
	served := make(chan error, 1)
	// No call of Accept runs yet, so all of these wait in the kernel.
	var early []net.Conn
	for range 50 {
		early = append(early, dial(t, inner.Addr().String()))
	}
	listener.Finish()
	go func() { served <- srv.Serve(listener) }()
	for n, c := range early {
		if got := exchange(c, envelope(images(1)...)); !strings.Contains(got, `"signed":true`) {
			t.Errorf("connection %d: %q", n, got)
		}
	}
	if err := <-served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("serving ended with %v", err)
	}
	if c, err := net.Dial("tcp", inner.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("still listening after the end")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, c := range early {
		_ = c.Close()
	}
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// A stream of callers does not keep a listener from finishing.
func TestFinishEnds(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := server.Limit(inner, 10, "questions", nil)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				ended <- err
				return
			}
			_, _ = io.WriteString(c, "x")
		}
	}()
	listener.Finish()
	select {
	case err := <-ended:
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Accept still waits")
	}
}
