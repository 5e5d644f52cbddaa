package ociauth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// fromResource signs in as the resource that OCI runs this process for.
func fromResource(ctx context.Context, cfg Config, transport *http.Transport) (oci.Identity, error) {
	r := cfg.Resource
	if r.Version == "" {
		return oci.Identity{}, errors.New("OCI_RESOURCE_PRINCIPAL_VERSION is not set: this process does not run for a resource principal")
	}
	name := "resource principal " + r.Version
	if r.Version == resourceToken {
		return fromResourceToken(cfg, name)
	}
	f, err := newFederation(ctx, cfg, r, transport)
	if err != nil {
		return oci.Identity{}, err
	}
	t, err := f.get(ctx)
	if err != nil {
		return oci.Identity{}, err
	}
	region := cmp.Or(cfg.Region, r.Region)
	if region == "" && !f.region.IsZero() {
		region = f.region.ID()
	}
	return locate(oci.Identity{Name: name, Sign: signer(f.identify), Refused: f.refused}, t.tenancy, region)
}

// fromResourceToken signs in with the token that OCI put into the environment.
func fromResourceToken(cfg Config, name string) (oci.Identity, error) {
	read, err := cfg.Resource.reader()
	if err != nil {
		return oci.Identity{}, err
	}
	token, _, err := read() // so that a bad token is an error at the start
	if err != nil {
		return oci.Identity{}, err
	}
	sign := signer(func(context.Context) (credential, error) {
		_, id, err := read()
		return id, err
	})
	said, err := readClaims(token)
	if err != nil {
		return oci.Identity{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
	}
	id, err := locate(oci.Identity{Name: name, Sign: sign}, said.Tenancy, cmp.Or(cfg.Region, cfg.Resource.Region))
	if err != nil {
		return oci.Identity{}, fmt.Errorf("OCI_RESOURCE_PRINCIPAL_RPST: %w", err)
	}
	return id, nil
}

// reader returns the function that reads the current token and its key.
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

// newFederation prepares the exchange of tokens for a resource.
func newFederation(ctx context.Context, cfg Config, r Resource, transport *http.Transport) (*federation, error) {
	f := &federation{cfg: cfg, transport: transport}
	if err := f.vouch(ctx, r); err != nil {
		return nil, err
	}
	f.tokens = newTokens(f.fetch, 2*cfg.Client.AttemptTimeout)
	return f, nil
}

// vouch sets who signs the first request for a resource, and where it goes.
func (f *federation) vouch(ctx context.Context, r Resource) (err error) {
	switch r.Version {
	case resourceInstance:
		return f.vouchInstance(ctx, r)
	case resourceKey, resourceKeyOf, resourceContext:
		err = f.vouchKey(r)
	case resourceNested:
		return f.vouchLeaf(ctx, r)
	default:
		return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_VERSION is %.20q: only 1.1, 2.1, 2.1.1, 2.1.2, 2.2 and 3.0 are supported", r.Version)
	}
	if err != nil {
		return err
	}
	f.region, err = image.ParseRegion(strings.ToLower(cmp.Or(f.cfg.Region, r.Region)))
	if err != nil {
		return fmt.Errorf("resource principal %s: %w; set OCI_RESOURCE_PRINCIPAL_REGION or --region", r.Version, err)
	}
	return f.aim(r)
}

// vouchInstance has the instance sign that the resource runs on.
func (f *federation) vouchInstance(ctx context.Context, r Resource) error {
	i, err := newInstance(ctx, f.cfg, f.transport)
	if err != nil {
		return err
	}
	if r.ID == "" {
		ctx, cancel := context.WithTimeout(ctx, f.cfg.Client.AttemptTimeout)
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

// vouchKey has the resource's key sign. The session is bound to that key.
func (f *federation) vouchKey(r Resource) error {
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
		if !oci.IsOCID(r.Tenancy, "tenancy") {
			return fmt.Errorf("OCI_RESOURCE_PRINCIPAL_TENANCY_ID is not the OCID of a tenancy: %.80q", r.Tenancy)
		}
		of = r.Tenancy + "/" + r.ID
	}
	id := credential{keyID: "resource/v" + r.Version + "/" + of, key: key}
	f.signer = func(context.Context) (credential, error) { return id, nil }
	f.bound, f.hops, f.context = key, 1, r.Context
	return nil
}

// vouchLeaf has the inner resource sign for the outer one.
func (f *federation) vouchLeaf(ctx context.Context, r Resource) error {
	leaf := r.Leaf
	if leaf == nil || leaf.Version == "" {
		return errors.New("OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE is not set, which version 3.0 needs")
	}
	switch leaf.Version {
	case resourceNested:
		return errors.New("OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE is 3.0: a leaf cannot contain another resource")
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
		inner, err := newFederation(ctx, f.cfg, *leaf, f.transport)
		if err != nil {
			return err
		}
		f.region, f.signer = inner.region, inner.identify
	}
	if f.region.IsZero() {
		var err error
		if f.region, err = image.ParseRegion(strings.ToLower(cmp.Or(f.cfg.Region, leaf.Region))); err != nil {
			return fmt.Errorf("resource principal 3.0: %w; set OCI_RESOURCE_PRINCIPAL_REGION_FOR_LEAF_RESOURCE or --region", err)
		}
	}
	f.hops = maxParents
	return f.aim(r)
}
