package keyring_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"sync"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

// strict returns the switches of tests whose expectations depend on what OCI denies and on
// how it writes OCIDs.
func strict() *ocitest.Switches {
	switches := ocitest.Strict()
	return &switches
}

// The package makes its private keys once, because making them takes long.
var (
	rsaKey   = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })
	curveKey = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })
)

// newRSA makes an RSA key in a vault.
func newRSA(t *testing.T, v *ocitest.Vault, name string) *ocitest.Key {
	t.Helper()
	private, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	return v.ImportKey(name, ocitest.RSA2048, private)
}

// newECDSA makes an ECDSA key in a vault.
func newECDSA(t *testing.T, v *ocitest.Vault, name string) *ocitest.Key {
	t.Helper()
	private, err := curveKey()
	if err != nil {
		t.Fatal(err)
	}
	return v.ImportKey(name, ocitest.P256, private)
}

// user is a session with its OCI clients, its input and its output.
type user struct {
	session     *connect.Session
	cloud       *connect.Cloud
	in, remarks *bytes.Buffer
}

// signIn signs a user in to OCI, with the flags of a command line.
func signIn(t *testing.T, as *ocitest.User, flags ...string) user {
	t.Helper()
	streams, in, _, errOut := genericiooptions.NewTestIOStreams()
	s := &connect.Session{Terminal: cli.Terminal{Streams: streams}, Kube: connect.NewKube(errOut)}
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Bind(set, func(string) string { return "" })
	if err := set.Parse(append([]string{"--config-file", as.ConfigFile()}, flags...)); err != nil {
		t.Fatal(err)
	}
	c, err := s.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return user{s, c, in, errOut}
}

func keyID(t *testing.T, ocid string) signature.KeyID {
	t.Helper()
	id, err := signature.ParseKeyID(ocid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func reference(t *testing.T, text string) image.Reference {
	t.Helper()
	ref, err := image.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}
