// Package gatekeepertest has an external data provider for tests of policies and of
// the engine. Its TLS 1.3, client certificates and HTTP are real. A test chooses its
// answers. Only tests import it.
package gatekeepertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// Provider is a running provider. It rejects callers without the certificate in the
// files Certificate and Key.
type Provider struct {
	URL              string
	CA               []byte // PEM
	Certificate, Key string

	mu       sync.Mutex
	answer   Answer
	requests [][]string
}

// Answer returns the response for the keys of a request.
type Answer func(keys []string) (status int, body string)

// Start starts a provider on loopback, until the test ends.
func Start(t testing.TB, answer Answer) *Provider {
	t.Helper()
	ca, caKey := certificate(t, &x509.Certificate{IsCA: true, KeyUsage: x509.KeyUsageCertSign}, nil, nil)
	server, serverKey := certificate(t, &x509.Certificate{
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	client, clientKey := certificate(t, &x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, caKey)

	dir := t.TempDir()
	p := &Provider{
		CA:          encode("CERTIFICATE", ca.Raw),
		Certificate: filepath.Join(dir, "client.crt"),
		Key:         filepath.Join(dir, "client.key"),
		answer:      answer,
	}
	der, err := x509.MarshalPKCS8PrivateKey(clientKey)
	check(t, err)
	check(t, os.WriteFile(p.Certificate, encode("CERTIFICATE", client.Raw), 0o600))
	check(t, os.WriteFile(p.Key, encode("PRIVATE KEY", der), 0o600))

	trusted := x509.NewCertPool()
	trusted.AddCert(ca)
	s := httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	s.TLS = &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{server.Raw}, PrivateKey: serverKey}},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    trusted,
	}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are wanted
	s.StartTLS()
	t.Cleanup(s.Close)
	p.URL = s.URL + "/v1/signatures"
	return p
}

// Answer replaces the answer to later requests.
func (p *Provider) Answer(answer Answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// Requests returns the keys of every request so far.
func (p *Provider) Requests() [][]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

func (p *Provider) serve(w http.ResponseWriter, r *http.Request) {
	var envelope struct {
		Request struct {
			Keys []string `json:"keys"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&envelope); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	p.requests = append(p.requests, envelope.Request.Keys)
	answer := p.answer
	p.mu.Unlock()
	status, body := answer(envelope.Request.Keys)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// Item is one item of a provider's response. It is encoded unchanged, so a test may
// omit or repeat fields.
type Item map[string]any

// Response is the body of a response with these items.
func Response(systemError string, items ...Item) string {
	body, err := json.Marshal(map[string]any{
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1",
		"kind":       "ProviderResponse",
		"response":   map[string]any{"items": items, "systemError": systemError},
	})
	if err != nil {
		panic(err) // the test's value cannot be encoded as JSON
	}
	return string(body)
}

// Each answers every key with the result of value.
func Each(value func(key string) any) Answer {
	return func(keys []string) (int, string) {
		items := []Item{}
		for _, key := range keys {
			items = append(items, Item{"key": key, "value": value(key)})
		}
		return http.StatusOK, Response("", items...)
	}
}

func certificate(t testing.TB, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	check(t, err)
	template.SerialNumber = serial
	template.Subject = pkix.Name{CommonName: "gatekeepertest " + serial.String()}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(time.Hour)
	template.BasicConstraintsValid = true
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert, key
}

func encode(label string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
