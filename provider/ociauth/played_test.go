package ociauth_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// played is an internet with the hosts of a test only. Every host name leads to one
// server, which sees the name.
type played struct {
	*http.Transport

	mu    sync.Mutex
	hosts map[string]http.HandlerFunc // the index is method and host
	asked []*http.Request
}

func play(t *testing.T, hosts map[string]http.HandlerFunc) *played {
	t.Helper()
	p := &played{hosts: hosts}
	server := httptest.NewTLSServer(http.HandlerFunc(p.serve))
	t.Cleanup(server.Close)
	p.Transport = &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
		},
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // this process serves every host
	}
	t.Cleanup(p.CloseIdleConnections)
	return p
}

func (p *played) serve(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, r)
	do := p.hosts[r.Method+" "+r.Host]
	p.mu.Unlock()
	if do == nil {
		http.Error(w, "nobody plays "+r.Host, http.StatusNotFound)
		return
	}
	do(w, r)
}

// requests returns the requests so far.
func (p *played) requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

// says answers with a text.
func says(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if status/100 == 3 {
			w.Header().Set("Location", "https://elsewhere.example.com/")
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
}
