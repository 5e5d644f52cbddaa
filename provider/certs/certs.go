// Package certs holds the provider's serving certificate and the CA of those who
// may ask it, and renews both while the provider runs.
//
// Each comes from files, or from the cluster that the provider runs in: the
// certificate from a Secret that the provider's replicas keep themselves
// (Rotator), and the CA from Gatekeeper's webhook configuration (Gatekeeper).
//
// It trusts the files or the objects it was given and nothing else: no system
// roots, no name in a certificate's subject. A file that stops making sense
// changes nothing: what was loaded last stays in force, and the reason is
// reported.
//
// Client certificates are requested during the handshake, where the client also
// proves that it holds the key, but judged by Callers.Authorize on each request.
// That is as strict as judging them in the handshake, as long as every request
// passes through it, and better in two ways: a caller that is turned away is
// told why in an answer that it can read, where TLS has a bare alert; and when
// the CA changes, connections that are already open are judged by the new one.
//
// # Rights in the cluster
//
// The service account needs these, all of them by name, and no others:
//
//	secrets                          get, update           the Secret of the certificate, in its namespace
//	secrets                          create                there, unless the Secret exists, be it empty
//	providers.externaldata.gatekeeper.sh
//	                                 get, create, patch    each Provider
//	validatingwebhookconfigurations  get, list, watch      Gatekeeper's
//
// RBAC cannot bind the creation of Secrets to a name. Whoever installs the
// provider had better make the Secret, empty, and leave that right out: the
// provider fills it, and helm and Argo CD leave alone what they did not set.
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

// maxFile bounds what is read of a file: certificates are a few kilobytes.
const maxFile = 1 << 20

// TLS is the configuration of a server that shows certificate and asks its
// callers for theirs. Judging them is left to Callers.Authorize.
func TLS(certificate interface {
	get(*tls.ClientHelloInfo) (*tls.Certificate, error) // a Serving, or what holds one
}) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13, // Gatekeeper speaks nothing older
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: certificate.get,
		NextProtos:     []string{"http/1.1"},
	}
}

// Serving is the certificate that the provider shows.
type Serving struct {
	current atomic.Pointer[tls.Certificate]
}

// NotAfter is when the certificate expires; zero while there is none.
func (s *Serving) NotAfter() time.Time {
	if pair := s.current.Load(); pair != nil {
		return pair.Leaf.NotAfter
	}
	return time.Time{}
}

// Ready says why no client could accept the certificate; nil if one could.
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
	seen []byte     // the files' content when they were last looked at
}

// LoadServing reads a certificate chain and its private key, both PEM.
func LoadServing(certFile, keyFile string) (*ServingFiles, error) {
	s := &ServingFiles{certFile: certFile, keyFile: keyFile}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// Reload reads the files again and reports whether that made a difference.
// Files that have not changed since the last look are not judged twice, whatever
// came of it then.
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

	// While files are being replaced the certificate may already be the new one
	// and the key still the old: they do not match, and the next look mends it.
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return false, fmt.Errorf("serving certificate %s with key %s: %w", s.certFile, s.keyFile, err)
	}
	s.current.Store(&pair)
	return true, nil
}

// Callers are those who may ask: holders of a certificate for client
// authentication that a trusted CA signed and, if a name is given, that carries
// exactly that name among its DNS names. Nobody may as long as none is trusted.
type Callers struct {
	trusted atomic.Pointer[[]trust] // newest first
	known   atomic.Pointer[known]
}

// trust is whom to believe, and until when.
type trust struct {
	pool  *x509.CertPool
	name  string
	until time.Time // zero: until something newer comes
}

// known is the caller that was let in last. Gatekeeper's replicas share one
// certificate, so that this one place spares nearly every request a proof that
// has been made before.
type known struct {
	leaf    []byte
	trusted *[]trust
	until   time.Time
}

// Authorize says why the peer of a connection may not ask; nil if it may.
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

// authorize returns until when the certificates prove what they do.
func (t trust) authorize(peer []*x509.Certificate, now time.Time) (time.Time, error) {
	if t.pool == nil { // to Verify that means the system's roots, which anybody can get a certificate from
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
	// VerifyHostname would let a wildcard stand for the name.
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

// CallersFile are callers whose CA is in a file.
type CallersFile struct {
	Callers
	file, name string

	mu   sync.Mutex
	seen []byte
}

// LoadCallers reads the CA certificates, PEM, one or several of them. Gatekeeper
// renews its CA without any overlap: have both in the file for a while.
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

// parseBundle is stricter than AppendCertsFromPEM, which passes over whatever it
// cannot read: half of a bundle would lock half of the callers out in silence.
func parseBundle(content []byte) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	for blocks := bytes.Count(content, []byte("-----BEGIN ")); blocks > 0; blocks-- {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil { // which has passed over what it could not read
			return nil, errors.New("holds something that is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %.40q, which has no place there", block.Type)
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
