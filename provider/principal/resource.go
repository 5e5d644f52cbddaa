package principal

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// resourceVersion is the way of passing a token that is supported: as a file, or
// as it is, in the environment.
const resourceVersion = "2.2"

// Resource is what OCI gives to a resource that it runs code for, in environment
// variables that begin with OCI_RESOURCE_PRINCIPAL_. A value that begins with a
// slash is the name of a file that OCI replaces in time.
type Resource struct {
	Version    string // of the way: _VERSION
	Token      string // _RPST
	Key        string // _PRIVATE_PEM
	Passphrase string // _PRIVATE_PEM_PASSPHRASE, if there is one
}

func (p *Principal) fromResource() error {
	r := p.cfg.Resource
	switch {
	case r.Version == "":
		return errors.New("OCI_RESOURCE_PRINCIPAL_VERSION is not set: OCI runs this for no resource that has a principal")
	case r.Version != resourceVersion:
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_VERSION is %.20q: only %s is supported", r.Version, resourceVersion)
	case r.Token == "" || r.Key == "":
		return errors.New("OCI_RESOURCE_PRINCIPAL_RPST and OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM are not both set")
	}
	var held pair
	read := func() (string, credential, error) {
		text, err := value(r.Token, maxTokenFile)
		if err != nil {
			return "", credential{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
		}
		token := strings.TrimSpace(string(text))
		if err := checkToken(token, time.Now()); err != nil {
			return "", credential{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
		}
		pem, err := value(r.Key, maxKeyFile)
		if err != nil {
			return "", credential{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM: %w", err)
		}
		passphrase, err := value(r.Passphrase, maxKeyFile)
		if err != nil {
			return "", credential{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_PASSPHRASE: %w", err)
		}
		id, err := held.credential(token, pem, strings.TrimRight(string(passphrase), "\r\n"), "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM")
		return token, id, err
	}
	token, _, err := read() // one that is no good now will not get better
	if err != nil {
		return err
	}
	said, err := readClaims(token)
	if err != nil {
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
	}
	if err := p.locate(said.Tenancy, p.cfg.Region); err != nil {
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
	}
	p.name = "resource principal"
	p.identify = func(context.Context) (credential, error) {
		_, id, err := read()
		return id, err
	}
	return nil
}

// value is what an environment variable says, or the file that it names.
func value(s string, limit int64) ([]byte, error) {
	if !filepath.IsAbs(s) {
		return []byte(s), nil
	}
	return readFile(s, limit)
}
