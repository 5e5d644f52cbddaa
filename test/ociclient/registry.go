package ociclient

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
)

// Push stores a random image with the tag v1 in a repository, and returns its
// digest. If the repository is missing, Push makes it in the vault's compartment.
func (c *Cloud) Push(ctx context.Context, vault Vault, repository string) (string, error) {
	img, err := random.Image(256, 1)
	if err != nil {
		return "", err
	}
	return c.store(ctx, vault, repository, img)
}

// Copy stores the image of a reference in another repository, as Push does, and
// returns its digest.
func (c *Cloud) Copy(ctx context.Context, vault Vault, from, repository string) (string, error) {
	ref, err := name.ParseReference(from)
	if err != nil {
		return "", err
	}
	img, err := remote.Image(ref, c.remote(ctx)...)
	if err != nil {
		return "", fmt.Errorf("pulling %s: %w", from, err)
	}
	return c.store(ctx, vault, repository, img)
}

func (c *Cloud) store(ctx context.Context, vault Vault, repository string, img v1.Image) (string, error) {
	repositories, err := artifacts.NewArtifactsClientWithConfigurationProvider(c.config)
	if err != nil {
		return "", err
	}
	repositories.HTTPClient = c.oci
	found, err := repositories.ListContainerRepositories(ctx, artifacts.ListContainerRepositoriesRequest{CompartmentId: &vault.CompartmentID, DisplayName: &repository})
	if err != nil {
		return "", err
	}
	if len(found.Items) == 0 {
		if _, err := repositories.CreateContainerRepository(ctx, artifacts.CreateContainerRepositoryRequest{
			CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: &vault.CompartmentID, DisplayName: &repository},
		}); err != nil {
			return "", err
		}
	}
	tag, err := name.NewTag(Registry + repository + ":v1")
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag, img, c.remote(ctx)...); err != nil {
		return "", fmt.Errorf("pushing %s: %w", tag, err)
	}
	digest, err := img.Digest()
	return digest.String(), err
}

func (c *Cloud) remote(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.oci.Transport), remote.WithAuth(c.keychain)}
}
