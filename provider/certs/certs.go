// Package certs provides the provider's serving certificate and the CA of its clients,
// and renews both while the provider runs.
//
// Each comes from files or from the provider's cluster. In the cluster, the provider's
// replicas write the certificate into a Secret (Rotator), and the CA comes from
// Gatekeeper's webhook configuration (Gatekeeper).
//
// The package trusts the given files or objects only: no system roots, and no name in a
// certificate's subject. A file that becomes malformed changes nothing. The last good
// content stays in force, and the reason is logged.
//
// The handshake requests a client certificate, and the client proves there that it has
// the key. Callers.Authorize checks the certificate on each request. This is as strict as
// a check in the handshake, as long as every request passes through it. It is better in
// two ways. A rejected caller gets an answer with the reason, where TLS has a bare alert.
// When the CA changes, the new CA also applies to open connections.
//
// # Rights in the cluster
//
// The service account needs these rights, all of them by name, and no others:
//
//	secrets                          get, update           the Secret of the certificate, in its namespace
//	secrets                          create                there, unless the Secret exists, even if empty
//	providers.externaldata.gatekeeper.sh
//	                                 get, create, patch    each Provider
//	validatingwebhookconfigurations  get, list, watch      Gatekeeper's
//
// RBAC cannot bind the creation of Secrets to a name. Create the Secret empty when you
// install the provider, and omit that right. The provider fills the Secret, and helm and
// Argo CD do not change fields that they did not set.
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
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// maxFile bounds the size of a file. Certificates have a few kilobytes.
const maxFile = 1 << 20

// TLS returns the configuration of a server that shows certificate and requests a
// certificate from its callers. Callers.Authorize checks the callers.
func TLS(certificate interface {
	get(*tls.ClientHelloInfo) (*tls.Certificate, error) // a Serving, or a type that has one
}) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13, // as Gatekeeper speaks
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: certificate.get,
		NextProtos:     []string{"http/1.1"},
	}
}

// Serving is the certificate that the provider shows.
type Serving struct {
	current atomic.Pointer[tls.Certificate]
}

// NotAfter returns when the certificate expires, or zero without a certificate.
func (s *Serving) NotAfter() time.Time {
	if pair := s.current.Load(); pair != nil {
		return pair.Leaf.NotAfter
	}
	return time.Time{}
}

// Ready returns why no client could accept the certificate, or nil.
func (s *Serving) Ready() error {
	switch at := s.NotAfter(); {
	case at.IsZero():
		return errNoCertificate
	case time.Now().After(at):
		return fmt.Errorf("the serving certificate expired at %s", at.UTC().Format(time.RFC3339))
	}
	return nil
}

var errNoCertificate = errors.New("there is no serving certificate yet")

func (s *Serving) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if pair := s.current.Load(); pair != nil {
		return pair, nil
	}
	return nil, errNoCertificate
}

// ServingFiles is a serving certificate in files.
type ServingFiles struct {
	Serving
	certFile, keyFile string

	mu   sync.Mutex // held while loading
	seen []byte     // the files' content at the last look
}

// LoadServing reads a certificate chain and its private key, both PEM.
func LoadServing(certFile, keyFile string) (*ServingFiles, error) {
	s := &ServingFiles{certFile: certFile, keyFile: keyFile}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again and reports whether the certificate changed. It does not
// parse files again that have not changed since the last look, good or bad.
func (s *ServingFiles) Reload() (changed bool, err error) {
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

	// During a replacement of the files, the certificate may be new and the key old.
	// Then they do not match, and the next look reads a matching pair.
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("serving certificate %s with key %s: %w", s.certFile, s.keyFile, err)
	}
	s.current.Store(&pair)
	return true, nil
}

// Callers checks who may ask. A caller needs a certificate for client authentication
// that a trusted CA signed. If a name is given, the certificate must have exactly that
// DNS name. Without a trusted CA nobody may ask.
type Callers struct {
	trusted atomic.Pointer[[]trust] // newest first
	known   atomic.Pointer[known]
}

// trust is a CA with its expiry as a trusted one.
type trust struct {
	pool  *x509.CertPool
	name  string
	until time.Time // zero: until a newer CA comes
}

// known is the caller that was accepted last. Gatekeeper's replicas share one
// certificate, so this one entry spares nearly every request a second verification.
type known struct {
	leaf    []byte
	trusted *[]trust
	until   time.Time
}

// Authorize returns why the peer of a connection may not ask, or nil.
func (c *Callers) Authorize(conn *tls.ConnectionState) error {
	if conn == nil || len(conn.PeerCertificates) == 0 {
		return errors.New("no client certificate was presented")
	}
	leaf, trusted, now := conn.PeerCertificates[0], c.trusted.Load(), time.Now()
	if k := c.known.Load(); k != nil && k.trusted == trusted && now.Before(k.until) && bytes.Equal(k.leaf, leaf.Raw) {
		return nil
	}
	err := errors.New("no CA of clients is known")
	if trusted == nil {
		return err
	}
	for i, t := range *trusted {
		if !t.until.IsZero() && !now.Before(t.until) {
			continue
		}
		until, wrong := t.authorize(conn.PeerCertificates, now)
		if wrong == nil {
			c.known.Store(&known{leaf: leaf.Raw, trusted: trusted, until: until})
			return nil
		}
		if i == 0 {
			err = wrong
		}
	}
	return err
}

// authorize verifies the certificates and returns until when they are valid.
func (t trust) authorize(peer []*x509.Certificate, now time.Time) (time.Time, error) {
	if t.pool == nil { // Verify would use the system's roots, which give anybody a certificate
		return time.Time{}, errors.New("no CA of clients is known")
	}
	leaf, intermediates := peer[0], x509.NewCertPool()
	for _, cert := range peer[1:] {
		intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         t.pool,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("the client certificate is not accepted: %w", err)
	}
	// VerifyHostname would accept a wildcard for the name.
	if t.name != "" && !slices.Contains(leaf.DNSNames, t.name) {
		return time.Time{}, fmt.Errorf("the client certificate is not accepted: it is for %.200q, not for %q", leaf.DNSNames, t.name)
	}
	until := t.until
	for _, cert := range append(chains[0], leaf) {
		if until.IsZero() || cert.NotAfter.Before(until) {
			until = cert.NotAfter
		}
	}
	return until, nil
}

// CallersFile is Callers with the CA in a file.
type CallersFile struct {
	Callers
	file, name string

	mu   sync.Mutex
	seen []byte
}

// LoadCallers reads one or more CA certificates in PEM. Gatekeeper renews its CA without
// any overlap, so the file should have the old and the new one for a while.
func LoadCallers(file, name string) (*CallersFile, error) {
	c := &CallersFile{file: file, name: name}
	if _, err := c.Reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// Reload reads the file again; see ServingFiles.Reload.
func (c *CallersFile) Reload() (changed bool, err error) {
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
	list, err := parseBundle(content)
	if err != nil {
		return false, fmt.Errorf("CA of clients %s: %w", c.file, err)
	}
	c.trusted.Store(&[]trust{{pool: poolOf(list), name: c.name}})
	return true, nil
}

// parseBundle reads a bundle of certificates and rejects text that it cannot read.
// AppendCertsFromPEM would skip such text, and half of a bundle would silently lock out
// half of the callers.
func parseBundle(content []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for blocks := bytes.Count(content, []byte("-----BEGIN ")); blocks > 0; blocks-- {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil { // Decode skips text that is not PEM
			return nil, errors.New("holds something that is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %.40q, which does not belong there", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("holds no certificate")
	}
	return list, nil
}

func poolOf(list []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range list {
		pool.AddCert(cert)
	}
	return pool
}

// Watch calls each reload in intervals until ctx ends, and logs the result. It polls,
// since mounted Secrets change by a symbolic link some folders up, which file
// notifications miss.
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

// look reloads once and returns the error that it logged, so that a bad file is logged
// once and not at every look.
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
	defer func() { _ = f.Close() }() // opened for reading
	content, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxFile {
		return nil, fmt.Errorf("%s: more than %d bytes", name, maxFile)
	}
	return content, nil
}
