package ociauth

import (
	"cmp"
	"context"
	"fmt"
	"net/http"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// fromDelegation signs in as the user whose delegation token the instance has, as in
// Cloud Shell. The instance of Cloud Shell is Oracle's, so the tenancy is the user's and
// not that of the instance.
func fromDelegation(ctx context.Context, cfg Config, transport *http.Transport) (oci.Identity, error) {
	prof, err := cfg.delegation()
	if err != nil {
		return oci.Identity{}, err
	}
	file, err := prof.need("delegation_token_file")
	if err != nil {
		return oci.Identity{}, fmt.Errorf("%s: %w", prof, err)
	}
	if file, err = expand(file); err != nil {
		return oci.Identity{}, err
	}
	tenancy, err := prof.need("tenancy")
	if err != nil {
		return oci.Identity{}, fmt.Errorf("%s: %w; set OCI_CLI_TENANCY", prof, err)
	}
	read := func() (string, error) {
		text, err := readToken(file)
		if err != nil {
			return "", fmt.Errorf("delegation_token_file %s: %w", file, err)
		}
		return text, nil
	}
	if _, err := read(); err != nil {
		return oci.Identity{}, fmt.Errorf("%s: %w", prof, err)
	}
	i, err := newInstance(ctx, cfg, transport)
	if err != nil {
		return oci.Identity{}, err
	}
	sign := signer(func(ctx context.Context) (credential, error) {
		delegation, err := read() // Cloud Shell replaces the file
		if err != nil {
			return credential{}, err
		}
		id, err := i.identify(ctx)
		id.delegation = delegation
		return id, err
	})
	return locate(oci.Identity{Name: "delegation token of " + prof.String(), Sign: sign, Refused: i.refused},
		tenancy, cmp.Or(cfg.Region, prof.values["region"], i.region.ID()))
}

// delegation returns the profile of Cloud Shell. The file has a profile for each region.
// DEFAULT fills the gaps of a profile, as in Oracle's CLI. None of the values is secret.
func (c Config) delegation() (profile, error) {
	p, err := c.profile()
	if err != nil || p.file == "" {
		return p, err
	}
	common, err := readProfile(p.file, "DEFAULT")
	if err != nil {
		return p, nil //nolint:nilerr // there may be none
	}
	for _, key := range []string{"delegation_token_file", "tenancy"} {
		p.values[key] = cmp.Or(p.values[key], common.values[key])
	}
	return p, nil
}
