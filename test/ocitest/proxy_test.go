package ocitest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// clientFor returns a client for a cloud that the environment does not name.
func clientFor(tb testing.TB, c *ocitest.Cloud) *http.Client {
	tb.Helper()
	pem, err := os.ReadFile(c.CAFile())
	if err != nil {
		tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		tb.Fatal("no certificate in ca.pem")
	}
	proxy, err := url.Parse(c.URL())
	if err != nil {
		tb.Fatal(err)
	}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}}
	tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// connect requests a tunnel from the proxy and returns the answer.
func connect(tb testing.TB, c *ocitest.Cloud, target string) (*http.Response, net.Conn) {
	tb.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(c.URL(), "http://"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil {
		tb.Fatal(err)
	}
	return res, conn
}

func TestHosts(t *testing.T) {
	t.Parallel()
	listed := ocitest.Strict()
	listed.VaultHosts = "listed"
	inverse := listed
	inverse.VaultHosts = "inverse"
	both := listed
	both.VaultHosts = "both"
	vault := func(region string, sw ocitest.Switches) string {
		return cloud.NewTenancy(t, ocitest.TenancyConfig{Region: region, Switches: &sw}).NewVault("v", "").Extension
	}
	ashburn, madrid := vault("us-ashburn-1", listed), vault("eu-madrid-1", listed)
	swapped, any := vault("us-ashburn-1", inverse), vault("us-ashburn-1", both)
	const unknown, refused = 502, 503
	for target, want := range map[string]int{
		"artifacts.us-ashburn-1.oci.oraclecloud.com:443":          200,
		"ARTIFACTS.us-ashburn-1.oci.oraclecloud.com:443":          200,
		"artifacts.us-ashburn-1.oraclecloud.com:443":              unknown,
		"artifacts.us-ashburn-1.oci.oraclegovcloud.com:443":       unknown,
		"artifacts.eu-jovanovac-1.oci.oraclecloud20.com:443":      200,
		"artifacts.us-nowhere-1.oci.oraclecloud.com:443":          unknown,
		"artifacts.us-ashburn-1.oci.oraclecloud.com:8443":         refused,
		"identity.eu-frankfurt-1.oci.oraclecloud.com:443":         200,
		"objectstorage.us-ashburn-1.oraclecloud.com:443":          200,
		"idx.objectstorage.us-ashburn-1.oci.customer-oci.com:443": 200,
		"idx.objectstorage.us-nowhere-1.oci.customer-oci.com:443": unknown,
		"kms.us-ashburn-1.oraclecloud.com:443":                    200,
		"iad.ocir.io:443":                                         200,
		"us-ashburn-1.ocir.io:443":                                200,
		"ocir.us-ashburn-1.oci.oraclecloud.com:443":               200,
		"ric.ocir.io:443": unknown, // not in realm oc1
		"ocir.us-gov-ashburn-1.oci.oraclegovcloud.com:443":              200,
		"index.docker.io:443":                                           unknown,
		"127.0.0.1:443":                                                 unknown,
		ashburn + "-crypto.kms.us-ashburn-1.oraclecloud.com:443":        200,
		ashburn + "-management.kms.us-ashburn-1.oraclecloud.com:443":    200,
		ashburn + "-crypto.kms.us-ashburn-1.oci.oraclecloud.com:443":    unknown,
		ashburn + "-crypto.kms.us-phoenix-1.oraclecloud.com:443":        unknown,
		madrid + "-crypto.kms.eu-madrid-1.oraclecloud.com:443":          unknown,
		madrid + "-crypto.kms.eu-madrid-1.oci.oraclecloud.com:443":      200,
		swapped + "-crypto.kms.us-ashburn-1.oraclecloud.com:443":        unknown,
		swapped + "-crypto.kms.us-ashburn-1.oci.oraclecloud.com:443":    200,
		any + "-crypto.kms.us-ashburn-1.oraclecloud.com:443":            200,
		any + "-crypto.kms.us-ashburn-1.oci.oraclecloud.com:443":        200,
		"nosuchvault-crypto.kms.us-ashburn-1.oraclecloud.com:443":       unknown,
		ashburn + "-nosuch.kms.us-ashburn-1.oraclecloud.com:443":        unknown,
		"x." + ashburn + "-crypto.kms.us-ashburn-1.oraclecloud.com:443": unknown,
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			res, _ := connect(t, cloud, target)
			if res.StatusCode != want {
				t.Errorf("status %d, want %d", res.StatusCode, want)
			}
			status := res.Header.Get("Proxy-Status")
			if (want == unknown) != strings.Contains(status, "dns_error") || (want == refused) != strings.Contains(status, "connection_refused") {
				t.Errorf("Proxy-Status %q with %d", status, want)
			}
		})
	}
}

func TestTunnelsServeOneHost(t *testing.T) {
	t.Parallel()
	const host = "artifacts.us-ashburn-1.oci.oraclecloud.com"
	pem, err := os.ReadFile(cloud.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)

	t.Run("another name in TLS", func(t *testing.T) {
		t.Parallel()
		_, conn := connect(t, cloud, host+":443")
		if err := tls.Client(conn, &tls.Config{ServerName: "iad.ocir.io", RootCAs: roots}).HandshakeContext(context.Background()); err == nil {
			t.Error("a tunnel to artifacts has a certificate of iad.ocir.io")
		}
	})
	t.Run("another host in a request", func(t *testing.T) {
		t.Parallel()
		_, conn := connect(t, cloud, host+":443")
		secure := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots})
		fmt.Fprint(secure, "GET / HTTP/1.1\r\nHost: identity.us-ashburn-1.oci.oraclecloud.com\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(secure), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusMisdirectedRequest || res.Header.Get("Opc-Request-Id") == "" {
			t.Errorf("status %d, headers %v, want 421 and an opc-request-id", res.StatusCode, res.Header)
		}
	})
}

func TestListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "[::]:0", "localhost:0", "nonsense"} {
		c, err := ocitest.New(ocitest.Config{Listen: addr, Home: t.TempDir()})
		if err == nil {
			c.Close()
			t.Errorf("listens on %q", addr)
		}
	}
}

func TestOwnPagesRejectWebPages(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*http.Request){
		"an origin":       func(r *http.Request) { r.Header.Set("Origin", "https://example.com") },
		"a rebound name":  func(r *http.Request) { r.Host = "rebound.example.com" },
		"another address": func(r *http.Request) { r.Host = "192.0.2.1:80" },
	} {
		req := newRequest(t, "DELETE", cloud.URL()+"/_emulator/calls", "")
		change(req)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403", name, res.StatusCode)
		}
	}
}
