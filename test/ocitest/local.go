package ocitest

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// breakable is a connection that a fault can break with a TCP reset.
type breakable interface{ reset() }

// direct is the connection of a request without a tunnel, to an instance's metadata
// service or to a cluster.
type direct struct{ w http.ResponseWriter }

func (l direct) reset() {
	conn, _, err := http.NewResponseController(l.w).Hijack()
	if err != nil {
		return // broken already
	}
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // closing is what matters
	}
	conn.Close() //nolint:errcheck // broken on purpose
}

// say sets a plain-text answer.
func (a *answer) say(status int, text string) {
	a.status, a.body = status, []byte(text)
	a.header.Set("Content-Type", "text/plain; charset=utf-8")
}

// serveLocal answers a request without a tunnel, unless a fault answers it.
func (c *Cloud) serveLocal(w http.ResponseWriter, r *http.Request, entry Request, do func(*answer)) {
	began := time.Now()
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	entry.Host, entry.Method, entry.Target = host, r.Method, r.RequestURI
	if c.unreachable(host) {
		direct{w}.reset()
		return
	}
	f := c.fault(entry)
	if f != nil {
		entry.Fault = f.Kind
	}
	if f.before(c, r, direct{w}) {
		c.note(entry)
		return
	}
	a := c.respondTo(r)
	if f.answers() {
		a = f.answer(a)
	} else {
		do(&a)
	}
	entry.Status, entry.Took = a.status, Duration(time.Since(began))
	c.note(entry)
	c.deliver(w, r, direct{w}, a, f)
}
