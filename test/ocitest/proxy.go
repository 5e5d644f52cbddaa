package ocitest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// tunnel is the client's end of a connection that CONNECT opened to a host. The
// client speaks TLS through it. A fault may break the TCP connection below TLS.
type tunnel struct {
	net.Conn
	host string
	end  endpoint
}

// reset breaks the connection so that the peer sees a TCP reset, not an end of the
// stream.
func (t *tunnel) reset() {
	if tcp, ok := t.Conn.(*net.TCPConn); ok {
		tcp.SetLinger(0) //nolint:errcheck // closing is what matters
	}
	t.Close() //nolint:errcheck // broken on purpose
}

// tunnels hands accepted CONNECT connections to the HTTPS server.
type tunnels struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	addr   net.Addr
}

func (l *tunnels) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *tunnels) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *tunnels) Addr() net.Addr { return l.addr }

type tunnelKey struct{}

// serve starts the proxy on ln: a plain server for CONNECT and the emulator's own
// pages, and a TLS server for OCI behind it.
func (c *Cloud) serve(ln net.Listener) {
	c.inner = &http.Server{
		Handler:           http.HandlerFunc(c.serveOCI),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          c.errorLog(),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			t, ok := conn.(*tls.Conn)
			if !ok {
				return ctx
			}
			return context.WithValue(ctx, tunnelKey{}, t.NetConn())
		},
	}
	c.outer = &http.Server{
		Handler:           http.HandlerFunc(c.serveProxy),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          c.errorLog(),
	}
	c.tunnels = &tunnels{conns: make(chan net.Conn), closed: make(chan struct{}), addr: ln.Addr()}
	c.wait.Go(func() { c.report(c.inner.Serve(c.tunnels)) })
	c.wait.Go(func() { c.report(c.outer.Serve(ln)) })
}

func (c *Cloud) report(err error) {
	if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		c.cfg.Log.Error("serving", "error", err)
	}
}

func (c *Cloud) serveProxy(w http.ResponseWriter, r *http.Request) {
	w.Header().Set(aboutHeader, about)
	switch {
	case r.Method == http.MethodConnect:
		c.connect(w, r)
	case r.URL.Host != "":
		// The emulator serves OCI over TLS only.
		w.Header().Set("Proxy-Status", "oci-emulator; error=destination_not_found")
		http.Error(w, "the OCI emulator plays https hosts of OCI only", http.StatusBadGateway)
	case strings.HasPrefix(r.URL.Path, "/_emulator"):
		c.admin.ServeHTTP(w, r)
	case strings.Contains(r.URL.Path, metadataPath+"/"):
		c.serveMetadata(w, r)
	default:
		http.Error(w, about+": use it as HTTPS_PROXY; its own pages are under /_emulator/", http.StatusNotFound)
	}
}

// connect opens a tunnel. For an unknown host it answers as a proxy answers for a
// name that does not resolve, in the words of RFC 9209. A client can therefore
// distinguish an unknown host from one that is down.
func (c *Cloud) connect(w http.ResponseWriter, r *http.Request) {
	host, port, err := net.SplitHostPort(r.RequestURI)
	if err != nil {
		http.Error(w, "CONNECT needs host:port", http.StatusBadRequest)
		return
	}
	host = strings.ToLower(host)
	end, ok := c.resolve(host)
	if !ok {
		c.note(Request{Host: host, Method: r.Method, Target: r.RequestURI, Operation: "proxy.Connect", Status: 502})
		w.Header().Set("Proxy-Status", `oci-emulator; error=dns_error; rcode="NXDOMAIN"`)
		http.Error(w, "no such host: "+host, http.StatusBadGateway)
		return
	}
	if port != "443" || c.unreachable(host) {
		c.note(Request{Host: host, Method: r.Method, Target: r.RequestURI, Operation: "proxy.Connect", Status: 503})
		w.Header().Set("Proxy-Status", "oci-emulator; error=connection_refused")
		http.Error(w, "connection refused: "+r.RequestURI, http.StatusServiceUnavailable)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "CONNECT needs HTTP/1.1", http.StatusHTTPVersionNotSupported)
		return
	}
	conn.SetDeadline(time.Time{}) //nolint:errcheck // the TLS server sets its own
	if _, err := io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		conn.Close() //nolint:errcheck // gone already
		return
	}
	t := &tunnel{Conn: conn, host: host, end: end}
	var raw net.Conn = t
	if buffered.Reader.Buffered() > 0 {
		raw = &eager{tunnel: t, r: buffered.Reader}
	}
	secure := tls.Server(raw, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != "" && !strings.EqualFold(hello.ServerName, host) {
				return nil, fmt.Errorf("%s asked for in a tunnel to %s", hello.ServerName, host)
			}
			return c.ca.leaf(host)
		},
	})
	select {
	case c.tunnels.conns <- secure:
	case <-c.tunnels.closed:
		conn.Close() //nolint:errcheck // shutting down
	}
}

// eager is a tunnel whose client sent its first TLS bytes together with CONNECT.
type eager struct {
	*tunnel
	r *bufio.Reader
}

func (e *eager) Read(p []byte) (int, error) { return e.r.Read(p) }

// tunnelOf returns the connection of a request.
func tunnelOf(r *http.Request) *tunnel {
	switch t := r.Context().Value(tunnelKey{}).(type) {
	case *tunnel:
		return t
	case *eager:
		return t.tunnel
	}
	return nil
}
