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
	acceptPause = 100 * time.Millisecond // after a failure that is not the listener's end
)

// ports are those that are listened to now.
type ports struct {
	log         *slog.Logger
	open        map[netip.AddrPort]*port
	connections sync.WaitGroup // and what accepts them
}

// serve listens where connections have somewhere to go, and nowhere else. It
// returns whether something could not be listened to. Connections last until they
// or the context end, whatever becomes of their port.
func (l *ports) serve(ctx context.Context, to map[netip.AddrPort][]netip.AddrPort) (failed bool) {
	for at, p := range l.open {
		if to[at] == nil {
			p.listener.Close()
			delete(l.open, at)
		}
	}
	for at, ends := range to {
		if p := l.open[at]; p != nil {
			p.lead(ends)
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

// close stops listening and waits for connections, whose context has ended.
func (l *ports) close() {
	for _, p := range l.open {
		p.listener.Close()
	}
	l.connections.Wait()
}

// port forwards what comes to one port of a Service.
type port struct {
	listener net.Listener
	log      *slog.Logger

	mu   sync.Mutex
	ends []netip.AddrPort
	next int
}

// lead makes new connections go elsewhere.
func (p *port) lead(ends []netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ends = ends
}

// turn is the endpoint whose turn it is. If it takes no connection, the client has
// none: kube-proxy does not try another either, and what hides a Pod that goes away
// too early would hide it from the tests.
func (p *port) turn() netip.AddrPort {
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

// forward connects the client with an endpoint until both have said all.
func (p *port) forward(ctx context.Context, client *net.TCPConn) {
	defer client.Close()
	dialer := net.Dialer{Timeout: dialTimeout}
	end, err := dialer.DialContext(ctx, "tcp", p.turn().String())
	if err != nil {
		p.log.Warn("an endpoint takes no connection", "err", err)
		_ = client.SetLinger(0) // reset: an orderly end would look like an answer
		return
	}
	server := end.(*net.TCPConn)
	defer server.Close()
	defer context.AfterFunc(ctx, func() { cut(client, server) })()
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client) })
	both.Go(func() { pipe(client, server) })
	both.Wait()
}

// pipe copies one direction. Its end is passed on as what it is: the other
// direction goes on after an end of file, and nothing does after a reset.
func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		cut(to, from)
		return
	}
	_ = to.CloseWrite() // fails if the other direction has ended it
}

// cut resets connections.
func cut(all ...*net.TCPConn) {
	for _, c := range all {
		_ = c.SetLinger(0)
		c.Close()
	}
}
