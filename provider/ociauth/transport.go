package ociauth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

const (
	dialTimeout    = 5 * time.Second
	maxHeaderBytes = 64 << 10
	maxCAFile      = 8 << 20
)

// newTransport makes the way to OCI that all calls of a principal share. It is
// used as a RoundTripper and never through http.Client, which would follow
// redirects and keep cookies.
func newTransport(cfg Config) (*http.Transport, error) {
	roots, err := readRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	// What is wrong with a proxy's address is told here and once: Go would put
	// the address, password included, into the error of every call.
	if _, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: "oraclecloud.com"}}); err != nil {
		return nil, errors.New("HTTPS_PROXY is not the address of a proxy")
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: refusedByProxy,
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      false, // over HTTP/2 one dead connection would hold up all calls
		DisableCompression:     true,  // what is mostly base64 and hashes does not shrink
		MaxIdleConns:           4 * cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}, nil
}

// readRoots reads the certificate authorities to trust; nil is the system's.
func readRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := readFile(file, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authorities: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}

// proxyRefusal is a proxy's answer to CONNECT that is not 200. Go itself keeps
// no more of it than its text.
type proxyRefusal struct {
	proxy  string
	status int
}

func (e *proxyRefusal) Error() string {
	return fmt.Sprintf("the proxy %s answered CONNECT with %d %s", e.proxy, e.status, http.StatusText(e.status))
}

func refusedByProxy(_ context.Context, proxy *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyRefusal{proxy: proxy.Host, status: res.StatusCode}
}

// NoSuchHost reports whether a call failed because its host does not exist, as
// far as can be known: the name has no address, or a proxy could not reach it,
// and proxies say that of unknown names with 502, 503 or 504.
func NoSuchHost(err error) bool {
	if refusal, ok := errors.AsType[*proxyRefusal](err); ok {
		return refusal.status >= http.StatusBadGateway && refusal.status <= http.StatusGatewayTimeout
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "proxyconnect" {
		return false // it is the proxy that is not there
	}
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}
