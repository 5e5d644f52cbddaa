package ociauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// The versions of resource principals, by the way in which a token is had.
const (
	resourceInstance = "1.1"   // a service gives one to the instance that it runs on
	resourceKey      = "2.1"   // a service gives one for the resource's own key
	resourceKeyOf    = "2.1.1" // the same, with the tenancy in the key's name
	resourceContext  = "2.1.2" // the same, with a security context
	resourceToken    = "2.2"   // OCI puts it into the environment or a file
	resourceNested   = "3.0"   // a resource inside another, which has one of the above
)

// Resource is what OCI gives to a resource that it runs code for, in environment
// variables that begin with OCI_RESOURCE_PRINCIPAL_. A token, key or pass phrase
// that begins with a slash is the name of a file that OCI replaces in time.
type Resource struct {
	Version    string // VERSION
	Region     string // REGION
	Token      string // RPST
	Key        string // PRIVATE_PEM
	Passphrase string // PRIVATE_PEM_PASSPHRASE, if there is one

	TokenEndpoint   string // RPT_ENDPOINT, where a service gives the first of two tokens
	TokenPath       string // RPT_PATH there
	SessionEndpoint string // RPST_ENDPOINT, where that is exchanged for the second
	ID              string // RESOURCE_ID or RPT_ID
	Tenancy         string // TENANCY_ID
	Context         string // SECURITY_CONTEXT

	Leaf *Resource // …_FOR_LEAF_RESOURCE, in a nested one
}

func (p *Principal) fromResource(ctx context.Context) error {
	r := p.cfg.Resource
	if r.Version == "" {
		return errors.New("OCI_RESOURCE_PRINCIPAL_VERSION is not set: OCI runs this for no resource that has a principal")
	}
	if r.Version == resourceToken {
		return p.fromResourceToken(r)
	}
	f, err := p.federated(ctx, r)
	if err != nil {
		return err
	}
	t, err := f.get(ctx)
	if err != nil {
		return err
	}
	p.name, p.identify, p.refused = "resource principal "+r.Version, f.identify, f.refused
	region := cmp.Or(p.cfg.Region, r.Region)
	if region == "" && !f.region.IsZero() {
		region = f.region.ID()
	}
	return p.locate(t.tenancy, region)
}

// fromResourceToken takes the token that OCI has put there.
func (p *Principal) fromResourceToken(r Resource) error {
	read, err := r.reader()
	if err != nil {
		return err
	}
	token, _, err := read() // one that is no good now will not get better
	if err != nil {
		return err
	}
	said, err := readClaims(token)
	if err != nil {
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
	}
	if err := p.locate(said.Tenancy, cmp.Or(p.cfg.Region, r.Region)); err != nil {
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
	}
	p.name = "resource principal " + r.Version
	p.identify = func(context.Context) (credential, error) {
		_, id, err := read()
		return id, err
	}
	return nil
}

// reader returns what reads the token and its key as they are now.
func (r Resource) reader() (func() (string, credential, error), error) {
	if r.Token == "" || r.Key == "" {
		return nil, errors.New("OCI_RESOURCE_PRINCIPAL_RPST and OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM are not both set")
	}
	var held pair
	return func() (string, credential, error) {
		text, err := value(r.Token, maxTokenFile)
		if err != nil {
			return "", credential{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
		}
		token := strings.TrimSpace(string(text))
		if err := checkToken(token, time.Now()); err != nil {
			return "", credential{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
		}
		pem, passphrase, err := r.key()
		if err != nil {
			return "", credential{}, err
		}
		id, err := held.credential(token, pem, passphrase, "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM")
		return token, id, err
	}, nil
}

// key reads the private key and its pass phrase.
func (r Resource) key() (pem []byte, passphrase string, err error) {
	if pem, err = value(r.Key, maxKeyFile); err != nil {
		return nil, "", fmt.Errorf("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM: %w", err)
	}
	phrase, err := value(r.Passphrase, maxKeyFile)
	if err != nil {
		return nil, "", fmt.Errorf("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_PASSPHRASE: %w", err)
	}
	return pem, strings.TrimRight(string(phrase), "\r\n"), nil
}

// value is what an environment variable says, or the file that it names.
func value(s string, limit int64) ([]byte, error) {
	if !filepath.IsAbs(s) {
		return []byte(s), nil
	}
	return readFile(s, limit)
}

// federated prepares the exchange of a resource whose token is asked for.
func (p *Principal) federated(ctx context.Context, r Resource) (*federation, error) {
	f := &federation{transport: p.transport, tenancy: p.cfg.Override.Tenancy}
	if err := p.vouch(ctx, f, r); err != nil {
		return nil, err
	}
	f.tokens = newTokens(f.fetch, 2*p.cfg.Attempt)
	return f, nil
}

// vouch finds out who signs the first request of a resource, and where it goes.
func (p *Principal) vouch(ctx context.Context, f *federation, r Resource) (err error) {
	switch r.Version {
	case resourceInstance:
		return p.vouchInstance(ctx, f, r)
	case resourceKey, resourceKeyOf, resourceContext:
		err = p.vouchKey(f, r)
	case resourceNested:
		return p.vouchLeaf(ctx, f, r)
	default:
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_VERSION is %.20q: only 1.1, 2.1, 2.1.1, 2.1.2, 2.2 and 3.0 are supported", r.Version)
	}
	if err != nil {
		return err
	}
	f.region, err = image.ParseRegion(strings.ToLower(cmp.Or(p.cfg.Region, r.Region)))
	if err != nil {
		return fmt.Errorf("resource principal %s: %w; OCI_RESOURCE_PRINCIPAL_REGION or --region gives it", r.Version, err)
	}
	return f.aim(r)
}

func (p *Principal) vouchInstance(ctx context.Context, f *federation, r Resource) error {
	i, err := p.instance(ctx)
	if err != nil {
		return err
	}
	if r.ID == "" {
		ctx, cancel := context.WithTimeout(ctx, p.cfg.Attempt)
		defer cancel()
		id, err := i.read(ctx, "/instance/id")
		if err != nil {
			return &unvouchedError{err}
		}
		r.ID = strings.TrimSpace(string(id))
	}
	r.TokenPath = cmp.Or(r.TokenPath, "/20180711/resourcePrincipalToken/{id}")
	f.region, f.signer = i.region, i.identify
	f.hops = 1
	return f.aim(r)
}

// vouchKey has the resource's own key sign. The session is bound to that key.
func (p *Principal) vouchKey(f *federation, r Resource) error {
	pem, passphrase, err := r.key()
	if err != nil {
		return err
	}
	key, err := parseKey(pem, passphrase, "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM")
	if err != nil {
		return err
	}
	of := r.ID
	if r.Version != resourceKey {
		if !isOCID(r.Tenancy, "tenancy") {
			return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_TENANCY_ID is not the OCID of a tenancy: %.80q", r.Tenancy)
		}
		of = r.Tenancy + "/" + r.ID
	}
	id := credential{keyID: "resource/v" + r.Version + "/" + of, key: key}
	f.signer = func(context.Context) (credential, error) { return id, nil }
	f.bound, f.hops, f.context = key, 1, r.Context
	return nil
}

// vouchLeaf has a resource inside another sign for the outer one.
func (p *Principal) vouchLeaf(ctx context.Context, f *federation, r Resource) error {
	leaf := r.Leaf
	if leaf == nil || leaf.Version == "" {
		return errors.New("OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE is not set, which version 3.0 needs")
	}
	switch leaf.Version {
	case resourceNested:
		return errors.New("OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE is 3.0: a leaf holds no other resource")
	case resourceToken:
		read, err := leaf.reader()
		if err != nil {
			return err
		}
		f.signer = func(context.Context) (credential, error) {
			_, id, err := read()
			return id, err
		}
	default:
		inner, err := p.federated(ctx, *leaf)
		if err != nil {
			return err
		}
		f.region, f.signer = inner.region, inner.identify
	}
	if f.region.IsZero() {
		var err error
		if f.region, err = image.ParseRegion(strings.ToLower(cmp.Or(p.cfg.Region, leaf.Region))); err != nil {
			return fmt.Errorf("resource principal 3.0: %w; OCI_RESOURCE_PRINCIPAL_REGION_FOR_LEAF_RESOURCE or --region gives it", err)
		}
	}
	f.hops = maxParents
	return f.aim(r)
}
