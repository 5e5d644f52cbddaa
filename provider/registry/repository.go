package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// Repository is a repository of OCI Registry.
type Repository struct {
	ID            string
	Name          string
	CompartmentID string
}

// Repository finds a repository of a compartment by its name. It returns ErrNotFound if
// there is none.
func (c *Client) Repository(ctx context.Context, in image.Region, compartment, name string) (Repository, error) {
	if strings.Contains(name, "*") { // OCI reads the name in this list as a pattern
		return Repository{}, fmt.Errorf("no repository is called %.100q", name)
	}
	from := callIn(in, "ListContainerRepositories", http.MethodGet, "/container/repositories")
	request := artifacts.ListContainerRepositoriesRequest{CompartmentId: common.String(compartment), DisplayName: common.String(name)}
	var found *Repository
	err := oci.Pages(func(page *string) (*string, error) {
		request.Page = page
		items, got, err := oci.ReadPage[artifacts.ContainerRepositorySummary](ctx, c.who, from, request)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if deref(item.Id) == "" || item.LifecycleState == "" {
				return nil, from.Malformed("a repository without an id or a lifecycleState")
			}
			if deref(item.DisplayName) == name && item.LifecycleState == artifacts.ContainerRepositoryLifecycleStateAvailable {
				found = &Repository{ID: deref(item.Id), Name: name, CompartmentID: deref(item.CompartmentId)}
				return nil, nil
			}
		}
		return got.Next, nil
	}, maxPages)
	switch {
	case err != nil:
		return Repository{}, fmt.Errorf("looking for repository %s: %w", name, err)
	case found == nil:
		return Repository{}, fmt.Errorf("repository %s: %w", name, ErrNotFound)
	}
	return *found, nil
}

// CreateRepository makes a private repository.
func (c *Client) CreateRepository(ctx context.Context, in image.Region, compartment, name string) (Repository, error) {
	to := callIn(in, "CreateContainerRepository", http.MethodPost, "/container/repositories")
	to.Repeatable = true // the retry token makes OCI do it once
	var made artifacts.ContainerRepository
	_, err := c.who.Do(ctx, to, artifacts.CreateContainerRepositoryRequest{
		CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: common.String(compartment), DisplayName: common.String(name)},
		OpcRetryToken:                    common.String(rand.Text()),
	}, &made)
	if err == nil && deref(made.DisplayName) != name {
		err = to.Malformed("asked for repository %s, got %.100q", name, deref(made.DisplayName))
	}
	if err != nil {
		return Repository{}, fmt.Errorf("making repository %s: %w", name, err)
	}
	return Repository{ID: deref(made.Id), Name: name, CompartmentID: deref(made.CompartmentId)}, nil
}
