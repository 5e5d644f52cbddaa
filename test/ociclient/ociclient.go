// Package ociclient is a client of Oracle Cloud that shares no code with oke-sign.
// It uses Oracle's own SDK, a registry client, and the emulator's own pages, as an
// attacker would.
//
// The demo and the end-to-end tests use it with a process of oci-emulator that has
// its demo seed. It trusts that process, and checks nothing that those tests check.
package ociclient

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/oracle/oci-go-sdk/v65/common"
)

// Registry is the prefix of the demo seed's repositories in OCI Registry.
const Registry = "iad.ocir.io/idwpqivumvev/"

// Cloud is a connection to an emulator, as its operator. It is safe for concurrent
// use.
type Cloud struct {
	address  string       // of the emulator
	local    *http.Client // to its own pages
	oci      *http.Client // to OCI's hosts
	keychain authn.Authenticator
	config   common.ConfigurationProvider
}

// Connect connects to the emulator at address, such as http://127.0.0.1:8040. home
// is the emulator's folder for clients.
func Connect(address, home string) (*Cloud, error) {
	proxy, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(home, "ca.pem"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the emulator's CA is not PEM")
	}
	config, err := common.ConfigurationProviderFromFileWithProfile(filepath.Join(home, "config"), "DEFAULT", "")
	if err != nil {
		return nil, err
	}
	keychain, err := dockerLogin(filepath.Join(home, "docker", "config.json"))
	if err != nil {
		return nil, err
	}
	return &Cloud{
		address:  address,
		local:    &http.Client{Transport: &http.Transport{}},
		oci:      &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}},
		keychain: keychain,
		config:   config,
	}, nil
}

// Environ returns an environment for clients of the emulator with that home. It
// replaces variables that would lead them elsewhere.
func Environ(environ []string, home string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(home, "env"))
	if err != nil {
		return nil, err
	}
	var env []string
	for _, e := range environ {
		if !strings.HasPrefix(e, "OCI_") {
			env = append(env, e)
		}
	}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "export "), "=")
		if ok {
			env = append(env, name+"="+strings.Trim(value, "'"))
		}
	}
	return env, nil
}

func dockerLogin(name string) (authn.Authenticator, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var file struct {
		Auths map[string]struct{ Auth string }
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, entry := range file.Auths {
		login, err := base64.StdEncoding.DecodeString(entry.Auth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		user, password, _ := strings.Cut(string(login), ":")
		return &authn.Basic{Username: user, Password: password}, nil
	}
	return nil, fmt.Errorf("%s: no login in it", name)
}
