package server_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/server"
)

// scripted is a listener without a socket. The test chooses what its methods do.
type scripted struct {
	accept      func() (net.Conn, error)
	setDeadline func(time.Time) error
	backlog     func() (syscall.RawConn, error)
	closed      atomic.Bool
}

func (s *scripted) Accept() (net.Conn, error)             { return s.accept() }
func (s *scripted) SetDeadline(t time.Time) error         { return s.setDeadline(t) }
func (s *scripted) SyscallConn() (syscall.RawConn, error) { return s.backlog() }
func (s *scripted) Addr() net.Addr                        { return nil }

func (s *scripted) Close() error {
	s.closed.Store(true)
	return nil
}

func settable(time.Time) error { return nil }

func unreadable() (syscall.RawConn, error) { return nil, errors.New("no descriptor") }

// silent returns a connection whose client sends nothing.
func silent() net.Conn {
	near, _ := net.Pipe()
	return near
}

// pipe returns the end of a pipe with a number of bytes to read.
func pipe(t *testing.T, bytes int) *os.File {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	if _, err := in.Write(make([]byte, bytes)); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFinishing makes a listener finish, and accepts connections until it ends.
func TestFinishing(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct {
		pending  int  // connections in the kernel's backlog
		unknown  bool // the backlog cannot be read
		fails    error
		accepted int // one every 100 ms
		took     time.Duration
		want     error
	}{
		"without pending connections it ends at once":                {want: net.ErrClosed},
		"a backlog that cannot be read counts as empty":              {unknown: true, want: net.ErrClosed},
		"a stream of callers ends after a second, not before":        {pending: 1, accepted: 11, took: 1100 * time.Millisecond, want: net.ErrClosed},
		"an error of the listener ends it although connections wait": {pending: 1, fails: broken, want: broken},
		"it waits a second for an expired deadline, not longer":      {pending: 1, fails: os.ErrDeadlineExceeded, took: 1100 * time.Millisecond, want: net.ErrClosed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			backlog := unreadable
			if !tt.unknown {
				waiting := pipe(t, tt.pending)
				backlog = waiting.SyscallConn
			}
			synctest.Test(t, func(t *testing.T) {
				inner := &scripted{setDeadline: settable, backlog: backlog, accept: func() (net.Conn, error) {
					if errors.Is(tt.fails, broken) {
						return nil, tt.fails
					}
					time.Sleep(100 * time.Millisecond)
					return silent(), tt.fails
				}}
				l := server.Limit(inner, 100, "questions", nil)
				began := time.Now()
				l.Finish()
				accepted := 0
				_, err := l.Accept()
				for ; err == nil; _, err = l.Accept() {
					accepted++
				}
				if took := time.Since(began); accepted != tt.accepted || took != tt.took || !errors.Is(err, tt.want) {
					t.Errorf("accepted %d in %v, then %v; want %d in %v, then %v", accepted, took, err, tt.accepted, tt.took, tt.want)
				}
				if wantClosed := errors.Is(tt.want, net.ErrClosed); inner.closed.Load() != wantClosed {
					t.Errorf("closed: %t", inner.closed.Load())
				}
			})
		})
	}
}

// Without Finish, a deadline in Accept is an error, not the end.
func TestADeadlineBeforeFinishIsAnError(t *testing.T) {
	l := server.Limit(&scripted{accept: func() (net.Conn, error) { return nil, os.ErrDeadlineExceeded }}, 1, "questions", nil)
	if c, err := l.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, %v", c, err)
	}
}

// Finish closes the listener if it cannot wake up a pending call of Accept.
func TestFinishClosesAListenerThatDoesNotWakeUp(t *testing.T) {
	inner := &scripted{setDeadline: func(time.Time) error { return errors.New("not supported") }}
	server.Limit(inner, 1, "questions", nil).Finish()
	if !inner.closed.Load() {
		t.Error("the listener is open")
	}
}

// Settle waits for clients that have not sent a request yet, until its context ends.
func TestSettle(t *testing.T) {
	tests := map[string]struct {
		clients  int           // number of clients that connect without a request
		asks     time.Duration // time of their requests; zero: never
		timeout  time.Duration
		min, max time.Duration
	}{
		"without clients it returns at once":         {timeout: time.Hour},
		"it returns when the last client has asked":  {clients: 2, asks: 100 * time.Millisecond, timeout: time.Hour, min: 100 * time.Millisecond, max: 110 * time.Millisecond},
		"it waits no longer than its context allows": {clients: 1, timeout: time.Second, min: time.Second, max: time.Second},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := &scripted{accept: func() (net.Conn, error) { return silent(), nil }}
				l := server.Limit(inner, 10, "questions", nil)
				for range tt.clients {
					c, err := l.Accept()
					if err != nil {
						t.Fatal(err)
					}
					if tt.asks > 0 {
						time.AfterFunc(tt.asks, func() { server.Accepted(c) })
					}
				}
				ctx, cancel := context.WithTimeout(t.Context(), tt.timeout)
				defer cancel()
				began := time.Now()
				l.Settle(ctx)
				if took := time.Since(began); took < tt.min || took > tt.max {
					t.Errorf("returned after %v, want %v to %v", took, tt.min, tt.max)
				}
			})
		})
	}
}

// A connection is in the kernel's backlog until it is accepted.
func TestBacklog(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = inner.Close() }()
	if server.Backlogged(inner) {
		t.Error("a backlog before the first connection")
	}
	c := dial(t, inner.Addr().String())
	until(t, "a connection is in the backlog", func() bool { return server.Backlogged(inner) })
	accepted, err := inner.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = accepted.Close(), c.Close()
	if server.Backlogged(inner) {
		t.Error("a backlog after the connection was accepted")
	}
}

// An answered connection waits for its client again, and makes room for others.
func TestAnsweredConnectionsMakeRoom(t *testing.T) {
	addr, registry := limited(t, 2, checking(signed))
	for n := range 5 {
		if got := exchange(dial(t, addr), envelope(images(1)...)); !strings.Contains(got, `"signed":true`) {
			t.Errorf("caller %d got %q", n, got)
		}
	}
	counts(t, registry, `
oke_sign_connections{port="questions"} 2
oke_sign_connections_closed_total{port="questions",reason="full"} 0
oke_sign_connections_closed_total{port="questions",reason="idle"} 3
`)
}
