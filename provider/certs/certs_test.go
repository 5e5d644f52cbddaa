package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/test/pki"
)

const gatekeeper = "gatekeeper-webhook-service.gatekeeper-system.svc"

func authority(t *testing.T) *pki.Authority {
	t.Helper()
	a, err := pki.NewAuthority("test-ca")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *pki.Authority, leaf pki.Leaf) pki.Pair {
	t.Helper()
	pair, err := a.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func state(t *testing.T, pairs ...pki.Pair) *tls.ConnectionState {
	t.Helper()
	conn := new(tls.ConnectionState)
	for _, p := range pairs {
		block, _ := pem.Decode(p.Cert)
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		conn.PeerCertificates = append(conn.PeerCertificates, cert)
	}
	return conn
}

func TestAuthorize(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, ours.PEM())

	tests := map[string]struct {
		name string
		from *pki.Authority
		leaf pki.Leaf
		want string // a part of the error; empty: accepted
	}{
		"Gatekeeper's certificate, its name pinned": {
			name: gatekeeper, from: ours, leaf: pki.Leaf{Names: []string{gatekeeper}},
		},
		"the name is one of several": {
			name: gatekeeper, from: ours, leaf: pki.Leaf{Names: []string{"a.svc", gatekeeper}},
		},
		"no name pinned": {
			from: ours, leaf: pki.Leaf{Names: []string{"anybody"}},
		},
		"another name of the same CA": {
			name: gatekeeper, from: ours, leaf: pki.Leaf{Names: []string{"somebody.else.svc"}},
			want: `it is for ["somebody.else.svc"], not for "` + gatekeeper + `"`,
		},
		"a wildcard that covers the name": {
			name: gatekeeper, from: ours, leaf: pki.Leaf{Names: []string{"*.gatekeeper-system.svc"}},
			want: "not for",
		},
		"no name at all": {
			name: gatekeeper, from: ours, leaf: pki.Leaf{},
			want: "not for",
		},
		"the right name by another CA of the same subject": {
			name: gatekeeper, from: theirs, leaf: pki.Leaf{Names: []string{gatekeeper}},
			want: "unknown authority",
		},
		"a certificate for servers only": {
			name: gatekeeper, from: ours,
			leaf: pki.Leaf{Names: []string{gatekeeper}, Use: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
			want: "incompatible key usage",
		},
		"expired": {
			name: gatekeeper, from: ours,
			leaf: pki.Leaf{Names: []string{gatekeeper}, NotAfter: time.Now().Add(-time.Hour)},
			want: "expired",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			callers, err := certs.LoadCallers(file, tt.name)
			if err != nil {
				t.Fatal(err)
			}
			conn := state(t, issue(t, tt.from, tt.leaf))
			for range 2 { // the second answer must be the same
				err := callers.Authorize(conn)
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("rejected: %v", err)
				case tt.want != "" && err == nil:
					t.Errorf("accepted, want an error with %q", tt.want)
				case tt.want != "" && !strings.Contains(err.Error(), tt.want):
					t.Errorf("got %q, want a part %q", err, tt.want)
				}
			}
		})
	}
}

func TestAuthorizeWithoutCertificate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, authority(t).PEM())
	callers, err := certs.LoadCallers(file, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]*tls.ConnectionState{"no TLS": nil, "no certificate": {}} {
		if err := callers.Authorize(conn); err == nil {
			t.Errorf("%s: let in", name)
		}
	}
}

// Without a loaded CA every caller is rejected, also one with a certificate from the
// machine's own authorities.
func TestZeroCallers(t *testing.T) {
	ca := authority(t)
	file := filepath.Join(t.TempDir(), "roots.pem")
	write(t, file, ca.PEM())
	t.Setenv("SSL_CERT_FILE", file)
	var nobody certs.Callers
	if err := nobody.Authorize(state(t, issue(t, ca, pki.Leaf{Names: []string{gatekeeper}}))); err == nil {
		t.Error("let in")
	}
}

// One accepted caller does not make the next one acceptable.
func TestAuthorizeDistinguishesCallers(t *testing.T) {
	ours, theirs := authority(t), authority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, ours.PEM())
	callers, err := certs.LoadCallers(file, gatekeeper)
	if err != nil {
		t.Fatal(err)
	}
	good := state(t, issue(t, ours, pki.Leaf{Names: []string{gatekeeper}}))
	bad := state(t, issue(t, theirs, pki.Leaf{Names: []string{gatekeeper}}))
	for i, want := range []bool{true, false, true, false} {
		conn := good
		if !want {
			conn = bad
		}
		if err := callers.Authorize(conn); (err == nil) != want {
			t.Errorf("call %d: got error %v, want accepted %v", i, err, want)
		}
	}
}

// An open connection is checked with the current CA and at the current time.
func TestAuthorizeFollowsTheFile(t *testing.T) {
	first, second := authority(t), authority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, first.PEM())
	callers, err := certs.LoadCallers(file, gatekeeper)
	if err != nil {
		t.Fatal(err)
	}
	before := state(t, issue(t, first, pki.Leaf{Names: []string{gatekeeper}}))
	after := state(t, issue(t, second, pki.Leaf{Names: []string{gatekeeper}}))

	steps := []struct {
		content      []byte
		changed      bool
		fails        bool
		first, other bool
	}{
		{content: first.PEM(), first: true},
		{content: append(first.PEM(), second.PEM()...), changed: true, first: true, other: true},
		{content: []byte("not PEM"), fails: true, first: true, other: true},
		{content: nil, fails: true, first: true, other: true},
		{content: second.PEM(), changed: true, other: true},
	}
	for i, step := range steps {
		write(t, file, step.content)
		changed, err := callers.Reload()
		if changed != step.changed || (err != nil) != step.fails {
			t.Errorf("step %d: Reload() = %v, %v; want changed %v, fails %v", i, changed, err, step.changed, step.fails)
		}
		if got := callers.Authorize(before) == nil; got != step.first {
			t.Errorf("step %d: certificate by the first CA accepted: %v, want %v", i, got, step.first)
		}
		if got := callers.Authorize(after) == nil; got != step.other {
			t.Errorf("step %d: certificate by the second CA accepted: %v, want %v", i, got, step.other)
		}
	}
}

// The last accepted caller is checked again after a change of the CA.
func TestAuthorizeForgets(t *testing.T) {
	first, second := authority(t), authority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, first.PEM())
	callers, err := certs.LoadCallers(file, "")
	if err != nil {
		t.Fatal(err)
	}
	conn := state(t, issue(t, first, pki.Leaf{Names: []string{gatekeeper}}))
	if err := callers.Authorize(conn); err != nil {
		t.Fatal(err)
	}
	write(t, file, second.PEM())
	if _, err := callers.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := callers.Authorize(conn); err == nil {
		t.Error("accepted by a CA that was removed")
	}
}

func TestAuthorizeUntilExpiry(t *testing.T) {
	ca := authority(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.crt")
	write(t, file, ca.PEM())
	conn := state(t, issue(t, ca, pki.Leaf{Names: []string{gatekeeper}, NotAfter: time.Now().Add(time.Hour)}))
	expires := conn.PeerCertificates[0].NotAfter
	synctest.Test(t, func(t *testing.T) {
		// The bubble's clock starts in 2000, before these certificates.
		time.Sleep(time.Until(expires.Add(-time.Minute)))
		callers, err := certs.LoadCallers(file, gatekeeper)
		if err != nil {
			t.Fatal(err)
		}
		if err := callers.Authorize(conn); err != nil {
			t.Fatalf("a minute before it expires: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if err := callers.Authorize(conn); err == nil {
			t.Error("accepted a minute after it expired")
		}
	})
}

func TestLoadCallersRefuses(t *testing.T) {
	ca := authority(t)
	leaf := issue(t, ca, pki.Leaf{Names: []string{"a"}})
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})
	for name, content := range map[string][]byte{
		"an empty file":                       {},
		"text":                                []byte("hello"),
		"a private key with the CA":           append(ca.PEM(), leaf.Key...),
		"a broken certificate with the CA":    append(ca.PEM(), broken...),
		"broken PEM with the CA":              append([]byte("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), ca.PEM()...),
		"more than the largest bundle of CAs": bytes.Repeat([]byte("x"), 1<<20+1),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "ca.crt")
			write(t, file, content)
			if _, err := certs.LoadCallers(file, ""); err == nil {
				t.Error("accepted")
			} else if !strings.Contains(err.Error(), file) {
				t.Errorf("the error does not name the file: %v", err)
			}
		})
	}
	if _, err := certs.LoadCallers(filepath.Join(t.TempDir(), "none"), ""); err == nil {
		t.Error("accepted a missing file")
	}
}

// mount writes a Secret as the kubelet does: files are links into a folder that is a
// link too. An update replaces the folder's link.
func mount(t *testing.T, dir, version string, pair pki.Pair) {
	t.Helper()
	folder := filepath.Join(dir, version)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "tls.crt"), pair.Cert)
	write(t, filepath.Join(folder, "tls.key"), pair.Key)
	link := filepath.Join(dir, "..tmp")
	if err := os.Symlink(version, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(link, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

func TestServingFollowsAMountedSecret(t *testing.T) {
	ca := authority(t)
	dir := t.TempDir()
	mount(t, dir, "v1", issue(t, ca, pki.Leaf{Names: []string{"first.svc"}}))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	serving, err := certs.LoadServing(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if got := shown(t, &serving.Serving, ca); got != "first.svc" {
		t.Errorf("shows %q, want first.svc", got)
	}

	mount(t, dir, "v2", issue(t, ca, pki.Leaf{Names: []string{"second.svc"}}))
	if changed, err := serving.Reload(); !changed || err != nil {
		t.Errorf("Reload() = %v, %v after the secret changed", changed, err)
	}
	if got := shown(t, &serving.Serving, ca); got != "second.svc" {
		t.Errorf("shows %q, want second.svc", got)
	}
	if changed, err := serving.Reload(); changed || err != nil {
		t.Errorf("Reload() = %v, %v without a change", changed, err)
	}

	// A certificate and the key of another rotation.
	odd := issue(t, ca, pki.Leaf{Names: []string{"third.svc"}})
	odd.Key = issue(t, ca, pki.Leaf{Names: []string{"fourth.svc"}}).Key
	mount(t, dir, "v3", odd)
	if changed, err := serving.Reload(); changed || err == nil {
		t.Errorf("Reload() = %v, %v with a key that does not match", changed, err)
	}
	if got := shown(t, &serving.Serving, ca); got != "second.svc" {
		t.Errorf("shows %q, want still second.svc", got)
	}
	if serving.NotAfter().IsZero() {
		t.Error("NotAfter is zero")
	}
}

// shown returns the name in the certificate that a client gets over TLS 1.3.
func shown(t *testing.T, serving *certs.Serving, ca *pki.Authority) string {
	t.Helper()
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	go func() {
		defer func() { _ = far.Close() }()
		_ = tls.Server(far, certs.TLS(serving)).Handshake()
	}()
	client := tls.Client(near, &tls.Config{RootCAs: ca.Pool(), InsecureSkipVerify: true}) // any name is accepted; the test reads it
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	conn := client.ConnectionState()
	if conn.Version != tls.VersionTLS13 {
		t.Errorf("TLS version %x, want 1.3", conn.Version)
	}
	return conn.PeerCertificates[0].DNSNames[0]
}

func TestServerSpeaksNothingBelowTLS13(t *testing.T) {
	ca := authority(t)
	dir := t.TempDir()
	pair := issue(t, ca, pki.Leaf{Names: []string{"a.svc"}})
	write(t, filepath.Join(dir, "crt"), pair.Cert)
	write(t, filepath.Join(dir, "key"), pair.Key)
	serving, err := certs.LoadServing(filepath.Join(dir, "crt"), filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	go func() {
		defer func() { _ = far.Close() }()
		_ = tls.Server(far, certs.TLS(serving)).Handshake()
	}()
	err = tls.Client(near, &tls.Config{RootCAs: ca.Pool(), ServerName: "a.svc", MaxVersion: tls.VersionTLS12}).Handshake()
	if err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("TLS 1.2: got %v, want an error about the protocol version", err)
	}
}

func TestWatch(t *testing.T) {
	ca := authority(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write(t, file, ca.PEM())
	synctest.Test(t, func(t *testing.T) {
		callers, err := certs.LoadCallers(file, "")
		if err != nil {
			t.Fatal(err)
		}
		var log lines
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() {
			certs.Watch(ctx, time.Second, slog.New(slog.NewTextHandler(&log, nil)), callers.Reload)
		})
		step := func(content []byte, want ...string) {
			t.Helper()
			if content == nil {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, file, content)
			}
			log.take()
			time.Sleep(10*time.Second + time.Millisecond)
			synctest.Wait()
			got := log.take()
			if len(got) != len(want) {
				t.Fatalf("%d checks logged %q, want %d lines", 10, got, len(want))
			}
			for i := range want {
				if !strings.Contains(got[i], want[i]) {
					t.Errorf("line %d is %q, want a part %q", i, got[i], want[i])
				}
			}
		}
		step(ca.PEM())
		step([]byte("nonsense"), "keeping the certificates loaded before")
		step(nil, "no such file")
		step(append(ca.PEM(), ca.PEM()...), "certificates reloaded")
		cancel()
		wait.Wait()
	})
}

// lines collects the lines of a logger.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

var _ io.Writer = (*lines)(nil)

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.buf.String())
	l.buf.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}
