package services

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	dialTimeout = 2 * time.Second        // an endpoint is on this machine
	acceptPause = 100 * time.Millisecond // after a failure of a listener that is still open
)

// ports holds the ports that are listened to now.
type ports struct {
	log         *slog.Logger
	open        map[netip.AddrPort]*port
	connections sync.WaitGroup // also counts the accepting goroutines
}

// serve listens on exactly the ports that have an endpoint. It reports whether it
// failed to listen on one. A connection lasts until it or ctx ends, even if its port is
// closed.
func (l *ports) serve(ctx context.Context, to map[netip.AddrPort][]netip.AddrPort) (failed bool) {
	for at, p := range l.open {
		if to[at] == nil {
			p.listener.Close()
			delete(l.open, at)
		}
	}
	for at, ends := range to {
		if p := l.open[at]; p != nil {
			p.setEndpoints(ends)
			continue
		}
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp4", at.String())
		if err != nil {
			l.log.Warn("service port", "err", err)
			failed = true
			continue
		}
		p := &port{listener: listener, ends: ends, log: l.log.With("service", at)}
		l.open[at] = p
		l.connections.Go(func() { p.accept(ctx, &l.connections) })
	}
	return failed
}

// close stops listening and waits for connections to end. Their context must have
// ended.
func (l *ports) close() {
	for _, p := range l.open {
		p.listener.Close()
	}
	l.connections.Wait()
}

// port forwards the connections of one port of a Service.
type port struct {
	listener net.Listener
	log      *slog.Logger

	mu   sync.Mutex
	ends []netip.AddrPort
	next int
}

// setEndpoints sets the endpoints of new connections.
func (p *port) setEndpoints(ends []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = ends
}

// nextEndpoint returns the endpoints in turn. If an endpoint accepts no connection, the
// client gets none. kube-proxy does not try another endpoint either. A retry would hide
// from the tests that a Pod goes away too early.
func (p *port) nextEndpoint() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := p.ends[p.next%len(p.ends)]
	p.next++
	return to
}

func (p *port) accept(ctx context.Context, connections *sync.WaitGroup) {
	for {
		client, err := p.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			p.log.Warn("accept", "err", err)
			time.Sleep(acceptPause)
		default:
			connections.Go(func() { p.forward(ctx, client.(*net.TCPConn)) })
		}
	}
}

// forward connects the client with an endpoint until both directions have ended.
func (p *port) forward(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	dialer := net.Dialer{Timeout: dialTimeout}
	end, err := dialer.DialContext(ctx, "tcp", p.nextEndpoint().String())
	if err != nil {
		p.log.Warn("an endpoint accepted no connection", "err", err)
		_ = client.SetLinger(0) // reset, because an orderly end would look like an answer
		return
	}
	server := end.(*net.TCPConn)
	defer server.Close()
	defer context.AfterFunc(ctx, func() { reset(client, server) })()
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client) })
	both.Go(func() { pipe(client, server) })
	both.Wait()
}

// pipe copies one direction and passes its end on. After an end of file the other
// direction continues. After a reset both end.
func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		reset(to, from)
		return
	}
	_ = to.CloseWrite() // fails if the other direction has closed it
}

// reset resets connections.
func reset(all ...*net.TCPConn) {
	for _, c := range all {
		_ = c.SetLinger(0)
		c.Close()
	}
}
