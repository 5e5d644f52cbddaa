package server

import (
	queues "container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of the open connections, on the port of questions and on the port of probes and
// metrics. Each of Gatekeeper's three replicas makes 64 calls at most.
const (
	MaxConnections       = 1024
	MaxHealthConnections = 64
)

const socketBuffer = 64 << 10

// Listener bounds its open connections.
//
// A connection beyond the bound replaces the connection that has waited for its client
// longest, which Listener closes. Connections without an accepted certificate are closed
// first. A connection whose request is being answered is not closed. If requests are
// being answered on all connections, Listener closes the new connection. Therefore
// neither silent nor slow clients can exclude Gatekeeper or the kubelet.
type Listener struct {
	net.Listener
	max int

	open       prometheus.Gauge
	idle, full prometheus.Counter

	finishing atomic.Bool
	finishAt  time.Time // when Finish was called

	mu      sync.Mutex
	n       int
	unknown queues.List // of *conn that wait for a client without an accepted certificate, longest first
	known   queues.List // of *conn that wait for a client with an accepted certificate, longest first
}

// Limit returns a Listener that bounds the connections of l. Port labels its metrics.
func Limit(l net.Listener, limit int, port string, registry prometheus.Registerer) *Listener {
	labels := prometheus.Labels{"port": port}
	closed := func(reason string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oke_sign_connections_closed_total", ConstLabels: prometheus.Labels{"port": port, "reason": reason},
			Help: "Connections closed because there were too many, by reason: idle (the longest idle one made room) or full (a new one found all busy).",
		})
	}
	b := &Listener{
		Listener: l, max: limit, idle: closed("idle"), full: closed("full"),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "oke_sign_connections", Help: "Open connections, by port.", ConstLabels: labels}),
	}
	if registry != nil {
		registry.MustRegister(b.open, b.idle, b.full)
	}
	return b
}

// Accept returns the next connection that the bound allows.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if l.finishing.Load() && (time.Since(l.finishAt) > maxFinish || !backlogged(l.Listener)) {
			_ = l.Close() // nobody uses the listener afterwards
			return nil, net.ErrClosed
		}
		accepted, err := l.Listener.Accept()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && l.finishing.Load():
			l.setAcceptDeadline(time.Time{})
			continue
		case err != nil:
			return nil, err
		}
		if c := l.admit(accepted); c != nil {
			return c, nil
		}
		_ = accepted.Close() // nothing was read or written yet
	}
}

// maxFinish is how long a listener accepts pending connections after Finish.
const maxFinish = time.Second

// Finish closes the listener as soon as no connection is pending. If it closed the
// listener earlier, the kernel would reset connections that look established to their
// clients. Callers call Finish once.
func (l *Listener) Finish() {
	l.finishAt = time.Now()
	l.finishing.Store(true)
	if !l.setAcceptDeadline(l.finishAt) { // Accept returns now
		_ = l.Close()
	}
}

// Settle waits until each open connection has sent a request, or ctx ends. Server.Shutdown
// closes connections whose first request it has not read.
func (l *Listener) Settle(ctx context.Context) {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for l.unasked() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

func (l *Listener) unasked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown.Len() > 0
}

// setAcceptDeadline sets the time at which a pending call of Accept returns, and reports
// whether it could.
func (l *Listener) setAcceptDeadline(at time.Time) bool {
	can, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && can.SetDeadline(at) == nil
}

// admit adds a connection. It returns nil if the bound is reached and no connection may
// be closed.
func (l *Listener) admit(accepted net.Conn) *conn {
	if tcp, ok := accepted.(*net.TCPConn); ok {
		// The kernel's buffers count as the container's memory. A client that does
		// not read its answers would make them grow to megabytes each.
		_ = errors.Join(tcp.SetReadBuffer(socketBuffer), tcp.SetWriteBuffer(socketBuffer)) // this fails on a broken connection
	}
	c := &conn{Conn: accepted, listener: l}
	l.mu.Lock()
	var longest *conn
	if l.n >= l.max {
		if longest = l.longestIdle(); longest == nil {
			l.mu.Unlock()
			l.full.Inc()
			return nil
		}
		l.remove(longest)
	}
	l.n++
	l.open.Set(float64(l.n))
	c.queue = &l.unknown
	c.element = c.queue.PushBack(c)
	l.mu.Unlock()
	if longest != nil {
		l.idle.Inc()
		_ = longest.Conn.Close() // its server notices at the next read or write
	}
	return c
}

// longestIdle returns the connection to close, or nil. The caller holds mu.
func (l *Listener) longestIdle() *conn {
	for _, queue := range []*queues.List{&l.unknown, &l.known} {
		if front := queue.Front(); front != nil {
			c, _ := front.Value.(*conn)
			return c
		}
	}
	return nil
}

// remove removes a connection, once. The caller holds mu.
func (l *Listener) remove(c *conn) {
	if c.removed {
		return
	}
	c.removed = true
	if c.element != nil {
		c.queue.Remove(c.element)
		c.element = nil
	}
	l.n--
	l.open.Set(float64(l.n))
}

// conn is a connection that its listener counts.
type conn struct {
	net.Conn
	listener *Listener

	// The listener's mu guards these fields.
	queue   *queues.List    // in which the connection waits for its client
	element *queues.Element // of queue; nil while a request is being answered
	removed bool
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// accepted notes that the client has an accepted certificate.
func (c *conn) accepted() {
	if c != nil {
		c.to(&c.listener.known, true)
	}
}

// busy notes that the server answers a request of the client.
func (c *conn) busy() {
	if c != nil {
		c.to(c.queue, false)
	}
}

// idle notes that the server waits for the client, to ask or to read.
func (c *conn) idle() {
	if c != nil {
		c.to(c.queue, true)
	}
}

// to moves a connection to the end of a queue, or out of its queue.
func (c *conn) to(queue *queues.List, waiting bool) {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if c.removed {
		return
	}
	if c.element != nil {
		c.queue.Remove(c.element)
		c.element = nil
	}
	if c.queue = queue; waiting {
		c.element = queue.PushBack(c)
	}
}

type connKey struct{}

// withConn stores a connection for connOf.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection of a request, or nil without a Listener.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}
