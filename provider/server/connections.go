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

// Connections at a time, on the port of questions and on that of probes and
// metrics. Three replicas of Gatekeeper make 64 calls each at most.
const (
	MaxConnections       = 1024
	MaxHealthConnections = 64
)

const socketBuffer = 64 << 10

// Listener bounds how many of its connections are open at a time.
//
// A connection beyond the bound takes the place of the one that has waited for its
// client longest, which is closed. Clients without an accepted certificate go
// first. A connection whose request is being decided keeps its place; if all are,
// the new one is closed at once. So neither silent clients nor slow ones keep
// Gatekeeper or the kubelet out.
type Listener struct {
	net.Listener
	most int

	open       prometheus.Gauge
	idle, full prometheus.Counter

	finishing atomic.Bool
	told      time.Time // when it was told to finish

	mu      sync.Mutex
	n       int
	unknown queues.List // of *conn that wait for a client nobody knows yet, longest first
	known   queues.List // of *conn that wait for a client whose certificate was accepted
}

// Limit bounds the connections of a listener. Port labels their metrics.
func Limit(l net.Listener, most int, port string, registry prometheus.Registerer) *Listener {
	labels := prometheus.Labels{"port": port}
	closed := func(reason string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oke_sign_connections_closed_total", ConstLabels: prometheus.Labels{"port": port, "reason": reason},
			Help: "Connections closed because there were too many, by reason: idle (the longest idle one made room) or full (a new one found all busy).",
		})
	}
	b := &Listener{
		Listener: l, most: most, idle: closed("idle"), full: closed("full"),
		open: prometheus.NewGauge(prometheus.GaugeOpts{Name: "oke_sign_connections", Help: "Open connections, by port.", ConstLabels: labels}),
	}
	if registry != nil {
		registry.MustRegister(b.open, b.idle, b.full)
	}
	return b
}

// Accept returns the next connection that there is room for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		if l.finishing.Load() && (time.Since(l.told) > maxFinish || !backlogged(l.Listener)) {
			_ = l.Close() // it is not used any more, whatever comes of it
			return nil, net.ErrClosed
		}
		accepted, err := l.Listener.Accept()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && l.finishing.Load():
			l.awake(time.Time{})
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

// Finish closes the listener as soon as no connection is pending. Closed before
// that, the kernel resets connections that their clients take for established.
// It is called once.
func (l *Listener) Finish() {
	l.told = time.Now()
	l.finishing.Store(true)
	if !l.awake(l.told) { // Accept returns now
		_ = l.Close()
	}
}

// Settle waits until every client that has a connection has asked, or ctx ends.
// Server.Shutdown drops those whose first request it has not read yet.
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

// awake sets the time at which a pending call of Accept returns.
func (l *Listener) awake(at time.Time) bool {
	can, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && can.SetDeadline(at) == nil
}

// admit returns nil if there is no room for a connection and none to be made.
func (l *Listener) admit(accepted net.Conn) *conn {
	if tcp, ok := accepted.(*net.TCPConn); ok {
		// What nobody reads fills the kernel's buffers too, which count as the
		// container's memory and would grow to megabytes each.
		_ = errors.Join(tcp.SetReadBuffer(socketBuffer), tcp.SetWriteBuffer(socketBuffer)) // it fails on a broken connection
	}
	c := &conn{Conn: accepted, listener: l}
	l.mu.Lock()
	var longest *conn
	if l.n >= l.most {
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
	c.place = c.queue.PushBack(c)
	l.mu.Unlock()
	if longest != nil {
		l.idle.Inc()
		_ = longest.Conn.Close() // its server notices at the next read or write
	}
	return c
}

// longestIdle is called with mu held.
func (l *Listener) longestIdle() *conn {
	for _, queue := range []*queues.List{&l.unknown, &l.known} {
		if front := queue.Front(); front != nil {
			c, _ := front.Value.(*conn)
			return c
		}
	}
	return nil
}

// remove takes a connection out of account, once. It is called with mu held.
func (l *Listener) remove(c *conn) {
	if c.gone {
		return
	}
	c.gone = true
	if c.place != nil {
		c.queue.Remove(c.place)
		c.place = nil
	}
	l.n--
	l.open.Set(float64(l.n))
}

// conn is a connection that has a place among those of its listener.
type conn struct {
	net.Conn
	listener *Listener

	// What follows is guarded by the listener's mu.
	queue *queues.List    // that it waits in when it waits
	place *queues.Element // nil while its request is being decided
	gone  bool
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
	return c.Conn.Close()
}

// accepted notes that the client's certificate was accepted.
func (c *conn) accepted() {
	if c != nil {
		c.to(&c.listener.known, true)
	}
}

// decides notes that the server works for the client now.
func (c *conn) decides() {
	if c != nil {
		c.to(c.queue, false)
	}
}

// waits notes that the server waits for the client from now on: to ask, or to read.
func (c *conn) waits() {
	if c != nil {
		c.to(c.queue, true)
	}
}

// to gives a connection the last place of a queue, or no place.
func (c *conn) to(queue *queues.List, waiting bool) {
	c.listener.mu.Lock()
	defer c.listener.mu.Unlock()
	if c.gone {
		return
	}
	if c.place != nil {
		c.queue.Remove(c.place)
		c.place = nil
	}
	if c.queue = queue; waiting {
		c.place = queue.PushBack(c)
	}
}

type connKey struct{}

// withConn lets handlers find the connection by connOf.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(interface{ NetConn() net.Conn }); ok { // TLS
		c = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, c)
}

// connOf returns the connection of a request; nil if its listener has no bound.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}
