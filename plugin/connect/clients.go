package connect

import (
	"context"
	"errors"
	"fmt"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// Cloud is OCI as one identity sees it.
type Cloud struct {
	Who      *oci.Client
	Registry *registry.Client
	Vault    *vault.Client
	Scanning *vulnscan.Client
}

// Connect signs in to OCI and makes the clients.
func (s *Session) Connect(ctx context.Context) (*Cloud, error) {
	tenancies, err := s.tenancyMap()
	if err != nil {
		return nil, err
	}
	who, err := s.signIn(ctx)
	if err != nil {
		return nil, err
	}
	images, err := registry.New(who, registry.Config{Tenancies: tenancies, Compartments: s.Compartments})
	if err != nil {
		return nil, err
	}
	return &Cloud{
		Who: who, Registry: images, Vault: vault.New(who, vault.Config{}),
		Scanning: vulnscan.New(who, vulnscan.Config{Tenancy: images.Tenancy, Compartments: s.Compartments}),
	}, nil
}

// ConnectImages connects for questions about images. They start with the tenancy of
// the image.
func (s *Session) ConnectImages(ctx context.Context) (*Cloud, error) {
	c, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.Registry.Discover(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// Checker returns a checker that decides as the provider does, from the same
// evidence.
func (c *Cloud) Checker() *checker.Checker {
	return checker.New(checker.Config{Images: c.Registry, Keys: c.Vault})
}

// Scans returns a checker that reports scans as the provider does.
func (c *Cloud) Scans() *vulnreport.Checker {
	return vulnreport.New(vulnscan.Check(c.Registry, c.Scanning))
}

// Pinned returns the image of a tag or digest, with the reference that pins it.
func (c *Cloud) Pinned(ctx context.Context, ref image.Reference) (registry.Image, image.Reference, error) {
	img, err := c.Registry.Image(ctx, ref)
	if errors.Is(err, registry.ErrNotFound) {
		what := "no image with this digest"
		if ref.Digest() == "" {
			what = "no image with this tag"
		}
		return registry.Image{}, image.Reference{}, &cli.HintedError{
			What: fmt.Errorf("OCI Registry has %s in %s, or you may not read it", what, ref.Name()),
			Hint: "check the name and the region, and that a policy lets you `read repos`",
		}
	}
	if errors.Is(err, registry.ErrNotCovered) {
		return registry.Image{}, image.Reference{}, &cli.HintedError{
			What: fmt.Errorf("namespace %s is not your tenancy's", ref.Namespace()),
			Hint: "if it is another one's that you may use, say whose: --tenancy " + ref.Namespace() + "=ocid1.tenancy...",
		}
	}
	if err != nil {
		return registry.Image{}, image.Reference{}, err
	}
	at, err := ref.WithDigest(img.Digest)
	return img, at, err
}
