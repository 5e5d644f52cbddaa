package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	dialTimeout    = 5 * time.Second
	maxHeaderBytes = 64 << 10
	maxCAFile      = 8 << 20
)

// NewTransport returns a transport for requests to OCI, with the connections that all
// calls of a client share. Use it as a RoundTripper. An http.Client would follow
// redirects and keep cookies.
func NewTransport(cfg Config) (*http.Transport, error) {
	cfg = cfg.WithDefaults()
	roots, err := ReadRoots(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	// A malformed address of a proxy is an error here, once. Go would put the
	// address with its password into the error of every call.
	if _, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: "oraclecloud.com"}}); err != nil {
		return nil, errors.New("HTTPS_PROXY is not the address of a proxy")
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: refusedByProxy,
		DialContext:            (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
		TLSHandshakeTimeout:    dialTimeout,
		ForceAttemptHTTP2:      false, // over HTTP/2 one dead connection would delay all calls
		DisableCompression:     true,  // base64 and hashes do not shrink
		MaxIdleConns:           4 * cfg.Concurrency,
		MaxIdleConnsPerHost:    cfg.Concurrency,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}, nil
}

// ReadRoots reads the certificate authorities to trust from a file in PEM. Without a
// file it returns nil, which means the system's.
func ReadRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	data, err := ReadFile(file, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("reading certificate authorities: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return roots, nil
}

// refusedByProxy turns a proxy's refusal of CONNECT into an error with its status.
func refusedByProxy(_ context.Context, proxy *url.URL, _ *http.Request, res *http.Response) error {
	if res.StatusCode == http.StatusOK {
		return nil
	}
	return &proxyRefusal{proxy: proxy.Host, status: res.StatusCode}
}

// ReadFile reads a file of at most limit bytes. A larger one, such as /dev/zero, is an
// error.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}
