package e2e_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/oke-sign/oke-sign/test/pki"
)

// charts is the address of Gatekeeper's chart repository.
const charts = "https://open-policy-agent.github.io/gatekeeper/charts"

// chartRepository serves the chart of the Gatekeeper in this cluster at the address
// that users know. A proxy does this, and passes all other requests to the previous
// proxy. chartRepository returns the environment that uses the proxy.
func chartRepository(t *testing.T) []string {
	t.Helper()
	helm, err := exec.LookPath("helm")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t.Context(), "", "helm", "package", filepath.Join(filepath.Dir(helm), "gatekeeper-chart"), "--destination", dir).succeeds(t)
	run(t.Context(), "", "helm", "repo", "index", dir, "--url", charts).succeeds(t)

	authority, err := pki.NewAuthority("charts")
	if err != nil {
		t.Fatal(err)
	}
	host := strings.Split(charts, "/")[2]
	pair, err := authority.Issue(pki.Leaf{Names: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.StripPrefix("/gatekeeper/charts/", http.FileServer(http.Dir(dir))))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)

	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host == host+":443" {
			tunnel(w, server.Listener.Addr().String(), nil)
			return
		}
		tunnel(w, "127.0.0.1:8040", r)
	}))
	t.Cleanup(proxy.Close)

	trusted, err := os.ReadFile(filepath.Join(os.Getenv("OKE_SIGN_CLUSTER"), "oci", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(dir, "trusted.pem")
	if err := os.WriteFile(bundle, append(trusted, authority.PEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	return append(environ[:len(environ):len(environ)], "HTTPS_PROXY="+proxy.URL, "https_proxy="+proxy.URL, "SSL_CERT_FILE="+bundle)
}

// tunnel connects a client to the address that it asked for. If the address is a proxy,
// tunnel forwards the client's request to it.
func tunnel(w http.ResponseWriter, address string, request *http.Request) {
	there, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close() //nolint:errcheck // both directions have ended
	if request != nil {
		err = request.Write(there)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close() //nolint:errcheck // as above
	if request == nil {
		if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
			return
		}
	}
	var both sync.WaitGroup
	pass := func(to net.Conn, from io.Reader) {
		_, _ = io.Copy(to, from) // an error ends the direction too
		_ = to.(*net.TCPConn).CloseWrite()
	}
	both.Go(func() { pass(there, buffered) })
	both.Go(func() { pass(here, there) })
	both.Wait()
}
