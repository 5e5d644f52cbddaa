// Package certs holds the provider's serving certificate and the CA of those who
// may ask it, and renews both from their files while the provider runs.
//
// It trusts the files it was given and nothing else: no system roots, no name in
// a certificate's subject. A file that stops making sense changes nothing: what
// was loaded last stays in force, and the reason is reported.
//
// Client certificates are requested during the handshake, where the client also
// proves that it holds the key, but judged by Callers.Authorize on each request.
// That is as strict as judging them in the handshake, as long as every request
// passes through it, and better in two ways: a caller that is turned away is
// told why in an answer that it can read, where TLS has a bare alert; and when
// the CA changes, connections that are already open are judged by the new one.
package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxFile bounds what is read of a file: certificates are a few kilobytes.
const maxFile = 1 << 20

// TLS is the configuration of a server that shows certificate and asks its
// callers for theirs. Judging them is left to Callers.Authorize.
func TLS(certificate *Serving) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13, // Gatekeeper speaks nothing older
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: certificate.get,
		NextProtos:     []string{"http/1.1"},
	}
}

// Serving is the certificate that the provider shows.
type Serving struct {
	certFile, keyFile string

	mu      sync.Mutex // held while loading
	seen    []byte     // the files' content when they were last looked at
	current atomic.Pointer[tls.Certificate]
}

// LoadServing reads a certificate chain and its private key, both PEM.
func LoadServing(certFile, keyFile string) (*Serving, error) {
	s := &Serving{certFile: certFile, keyFile: keyFile}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again and reports whether that made a difference.
// Files that have not changed since the last look are not judged twice, whatever
// came of it then.
func (s *Serving) Reload() (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	cert, err := readFile(s.certFile)
	if err != nil {
		return false, fmt.Errorf("reading the serving certificate: %w", err)
	}
	key, err := readFile(s.keyFile)
	if err != nil {
		return false, fmt.Errorf("reading the serving certificate's key: %w", err)
	}
	content := bytes.Join([][]byte{cert, key}, []byte{0})
	if s.seen != nil && bytes.Equal(content, s.seen) {
		return false, nil
	}
	s.seen = content

	// While files are being replaced the certificate may already be the new one
	// and the key still the old: they do not match, and the next look mends it.
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("serving certificate %s with key %s: %w", s.certFile, s.keyFile, err)
	}
	s.current.Store(&pair)
	return true, nil
}

// NotAfter is when the certificate expires.
func (s *Serving) NotAfter() time.Time { return s.current.Load().Leaf.NotAfter }

func (s *Serving) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.current.Load(), nil }

// Callers are those who may ask: holders of a certificate for client
// authentication that a CA of the file signed and, if a name is given, that
// carries exactly that name among its DNS names.
type Callers struct {
	file, name string

	mu      sync.Mutex
	seen    []byte
	current atomic.Pointer[x509.CertPool]
	known   atomic.Pointer[known]
}

// known is the caller that was let in last. Gatekeeper's replicas share one
// certificate, so that this one place spares nearly every request a proof that
// has been made before.
type known struct {
	leaf  []byte
	pool  *x509.CertPool
	until time.Time
}

// LoadCallers reads the CA certificates, PEM, one or several of them. Gatekeeper
// renews its CA without any overlap: have both in the file for a while.
func LoadCallers(file, name string) (*Callers, error) {
	c := &Callers{file: file, name: name}
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads the file again; see Serving.Reload.
func (c *Callers) Reload() (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	content, err := readFile(c.file)
	if err != nil {
		return false, fmt.Errorf("reading the CA of clients: %w", err)
	}
	if c.seen != nil && bytes.Equal(content, c.seen) {
		return false, nil
	}
	c.seen = content
	pool, err := parsePool(content)
	if err != nil {
		return false, fmt.Errorf("CA of clients %s: %w", c.file, err)
	}
	c.current.Store(pool)
	return true, nil
}

// parsePool is stricter than AppendCertsFromPEM, which passes over whatever it
// cannot read: half of a bundle would lock half of the callers out in silence.
func parsePool(content []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	count := 0
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %.40q, which has no place there", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(cert)
		count++
	}
	if count == 0 {
		return nil, errors.New("holds no certificate")
	}
	return pool, nil
}

// Authorize says why the peer of a connection may not ask; nil if it may.
func (c *Callers) Authorize(conn *tls.ConnectionState) error {
	if conn == nil || len(conn.PeerCertificates) == 0 {
		return errors.New("no client certificate was presented")
	}
	leaf, pool, now := conn.PeerCertificates[0], c.current.Load(), time.Now()
	if pool == nil { // to Verify that means the system's roots, which anybody can get a certificate from
		return errors.New("no CA of clients is loaded")
	}
	if k := c.known.Load(); k != nil && k.pool == pool && now.Before(k.until) && bytes.Equal(k.leaf, leaf.Raw) {
		return nil
	}

	intermediates := x509.NewCertPool()
	for _, cert := range conn.PeerCertificates[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         pool,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("the client certificate is not accepted: %w", err)
	}
	if c.name != "" && !named(leaf, c.name) {
		return fmt.Errorf("the client certificate is not accepted: it is for %.200q, not for %q", leaf.DNSNames, c.name)
	}
	until := leaf.NotAfter
	for _, cert := range chains[0] {
		if cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	c.known.Store(&known{leaf: leaf.Raw, pool: pool, until: until})
	return nil
}

// named compares bytes. VerifyHostname would let a wildcard stand for the name.
func named(leaf *x509.Certificate, name string) bool {
	for _, n := range leaf.DNSNames {
		if n == name {
			return true
		}
	}
	return false
}

// Watch calls each reload every so often until ctx ends, and logs what came of
// it. It asks instead of waiting for the kernel to tell: mounted Secrets change
// by a symbolic link some folders up, which notifications miss.
func Watch(ctx context.Context, every time.Duration, log *slog.Logger, reloads ...func() (bool, error)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	last := make([]string, len(reloads))
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for i, reload := range reloads {
			last[i] = look(log, reload, last[i])
		}
	}
}

// look reloads once and returns what it complained about, so that a file that
// cannot be read is not complained about at every look.
func look(log *slog.Logger, reload func() (bool, error), last string) string {
	changed, err := reload()
	switch {
	case err != nil && err.Error() != last:
		log.Error("keeping the certificates loaded before", "error", err)
	case changed:
		log.Info("certificates reloaded")
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	return content, nil
}
