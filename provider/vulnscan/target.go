package vulnscan

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/vulnerabilityscanning"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// Lifecycle states of recipes and targets that matter here.
const (
	Active  = "ACTIVE"
	Failed  = "FAILED"
	Deleted = "DELETED"
)

// Standard is the level of a recipe that scans images. The other level scans none.
const Standard = "STANDARD"

const maxListed = 5000

// Recipe says how images are scanned.
type Recipe struct {
	ID            string
	Name          string
	CompartmentID string
	State         string // such as ACTIVE
	Level         string // STANDARD or NONE
	ImageCount    int    // how many images a new target scans; zero leaves the number to OCI
	TimeCreated   time.Time
}

// Target says which images are scanned, by which recipe.
type Target struct {
	ID            string
	Name          string
	Description   string
	CompartmentID string
	RecipeID      string
	State         string // such as ACTIVE
	URL           string // of the registry
	In            string // compartment of the repositories
	Repositories  []string
	TimeCreated   time.Time
}

// Recipes lists the recipes of a compartment, newest first.
func (c *Client) Recipes(ctx context.Context, in image.Region, compartment string) ([]Recipe, error) {
	from := call(in, "ListContainerScanRecipes", http.MethodGet, "/containerScanRecipes")
	request := vulnerabilityscanning.ListContainerScanRecipesRequest{
		CompartmentId: common.String(compartment),
		SortBy:        vulnerabilityscanning.ListContainerScanRecipesSortByTimecreated,
		SortOrder:     vulnerabilityscanning.ListContainerScanRecipesSortOrderDesc,
	}
	return listAll(ctx, c.who, from, "scan recipes", func(page *string) common.OCIRequest { request.Page = page; return request }, readRecipe)
}

// listAll reads a whole list of recipes or targets.
func listAll[T, Item any](ctx context.Context, who *oci.Client, from oci.Call, what string,
	request func(page *string) common.OCIRequest, read func(oci.Call, Item) (T, error),
) ([]T, error) {
	var found []T
	err := oci.Pages(func(page *string) (*string, error) {
		items, got, err := oci.ReadPage[Item](ctx, who, from, request(page))
		if err != nil {
			return nil, notFound(err)
		}
		if len(found)+len(items) > maxListed {
			return nil, from.Malformed("more than %d %s", maxListed, what)
		}
		for _, item := range items {
			t, err := read(from, item)
			if err != nil {
				return nil, err
			}
			found = append(found, t)
		}
		return got.Next, nil
	}, maxPages)
	if err != nil {
		return nil, fmt.Errorf("listing %s: %w", what, err)
	}
	return found, nil
}

// readRecipe also reads the summaries of a list, which have the same fields.
func readRecipe(from oci.Call, got vulnerabilityscanning.ContainerScanRecipe) (Recipe, error) {
	r := Recipe{
		ID: deref(got.Id), Name: oci.Text(got.DisplayName), CompartmentID: deref(got.CompartmentId), State: string(got.LifecycleState),
		ImageCount: value(got.ImageCount), TimeCreated: when(got.TimeCreated),
	}
	if got.ScanSettings != nil {
		r.Level = string(got.ScanSettings.ScanLevel)
	}
	if !strings.HasPrefix(r.ID, "ocid1.vsscontainerscanrecipe.") || !oci.Segment(r.ID) {
		return Recipe{}, from.Malformed("a recipe with the id %.120q", r.ID)
	}
	return r, nil
}

// Recipe reads a recipe.
func (c *Client) Recipe(ctx context.Context, in image.Region, id string) (Recipe, error) {
	if !oci.Segment(id) {
		return Recipe{}, fmt.Errorf("not the OCID of a recipe: %.120q", id)
	}
	get := call(in, "GetContainerScanRecipe", http.MethodGet, "/containerScanRecipes/{containerScanRecipeId}")
	var got vulnerabilityscanning.ContainerScanRecipe
	if _, err := c.who.Do(ctx, get, vulnerabilityscanning.GetContainerScanRecipeRequest{ContainerScanRecipeId: common.String(id)}, &got); err != nil {
		return Recipe{}, fmt.Errorf("reading a scan recipe: %w", notFound(err))
	}
	return readRecipe(get, got)
}

// CreateRecipe makes a recipe of level STANDARD with a name in a compartment.
func (c *Client) CreateRecipe(ctx context.Context, in image.Region, r Recipe) (Recipe, error) {
	to := call(in, "CreateContainerScanRecipe", http.MethodPost, "/containerScanRecipes")
	to.Repeatable = true // the retry token makes OCI do it once
	details := vulnerabilityscanning.CreateContainerScanRecipeDetails{
		CompartmentId: common.String(r.CompartmentID), DisplayName: common.String(r.Name),
		ScanSettings: &vulnerabilityscanning.ContainerScanSettings{ScanLevel: vulnerabilityscanning.ContainerScanSettingsScanLevelStandard},
	}
	if r.ImageCount > 0 {
		details.ImageCount = common.Int(r.ImageCount)
	}
	var got vulnerabilityscanning.ContainerScanRecipe
	if _, err := c.who.Do(ctx, to, vulnerabilityscanning.CreateContainerScanRecipeRequest{
		CreateContainerScanRecipeDetails: details, OpcRetryToken: common.String(rand.Text()),
	}, &got); err != nil {
		return Recipe{}, fmt.Errorf("making scan recipe %s: %w", r.Name, notFound(err))
	}
	return readRecipe(to, got)
}

// DeleteRecipe deletes a recipe, which takes OCI a while.
func (c *Client) DeleteRecipe(ctx context.Context, in image.Region, id string) error {
	if !oci.Segment(id) {
		return fmt.Errorf("not the OCID of a recipe: %.120q", id)
	}
	to := call(in, "DeleteContainerScanRecipe", http.MethodDelete, "/containerScanRecipes/{containerScanRecipeId}")
	if _, err := c.who.Do(ctx, to, vulnerabilityscanning.DeleteContainerScanRecipeRequest{ContainerScanRecipeId: common.String(id)}, nil); err != nil {
		return fmt.Errorf("deleting a scan recipe: %w", notFound(err))
	}
	return nil
}

// Targets lists the targets of a compartment, newest first.
func (c *Client) Targets(ctx context.Context, in image.Region, compartment string) ([]Target, error) {
	from := call(in, "ListContainerScanTargets", http.MethodGet, "/containerScanTargets")
	request := vulnerabilityscanning.ListContainerScanTargetsRequest{
		CompartmentId: common.String(compartment),
		SortBy:        vulnerabilityscanning.ListContainerScanTargetsSortByTimecreated,
		SortOrder:     vulnerabilityscanning.ListContainerScanTargetsSortOrderDesc,
	}
	return listAll(ctx, c.who, from, "scan targets", func(page *string) common.OCIRequest { request.Page = page; return request }, readTarget)
}

// target is what is used of a target. The SDK's own type fails on a registry of a
// kind that it does not know.
type target struct {
	ID            string          `json:"id"`
	DisplayName   *string         `json:"displayName"`
	Description   *string         `json:"description"`
	CompartmentID string          `json:"compartmentId"`
	RecipeID      string          `json:"containerScanRecipeId"`
	State         string          `json:"lifecycleState"`
	TimeCreated   *common.SDKTime `json:"timeCreated"`
	Registry      struct {
		URL           *string  `json:"url"`
		CompartmentID string   `json:"compartmentId"`
		Repositories  []string `json:"repositories"`
	} `json:"targetRegistry"`
}

func readTarget(from oci.Call, got target) (Target, error) {
	t := Target{
		ID: got.ID, Name: oci.Text(got.DisplayName), Description: oci.Text(got.Description), CompartmentID: got.CompartmentID,
		RecipeID: got.RecipeID, State: got.State, URL: oci.Text(got.Registry.URL), In: got.Registry.CompartmentID,
		Repositories: got.Registry.Repositories, TimeCreated: when(got.TimeCreated),
	}
	if !strings.HasPrefix(t.ID, "ocid1.vsscontainerscan") || !oci.Segment(t.ID) {
		return Target{}, from.Malformed("a target with the id %.120q", t.ID)
	}
	return t, nil
}

// Target reads a target.
func (c *Client) Target(ctx context.Context, in image.Region, id string) (Target, error) {
	if !oci.Segment(id) {
		return Target{}, fmt.Errorf("not the OCID of a target: %.120q", id)
	}
	get := call(in, "GetContainerScanTarget", http.MethodGet, "/containerScanTargets/{containerScanTargetId}")
	var got target
	if _, err := c.who.Do(ctx, get, vulnerabilityscanning.GetContainerScanTargetRequest{ContainerScanTargetId: common.String(id)}, &got); err != nil {
		return Target{}, fmt.Errorf("reading a scan target: %w", notFound(err))
	}
	return readTarget(get, got)
}

// CreateTarget makes a target, which takes OCI a while: its state says how far it
// is. Without repositories, it covers all of a compartment.
func (c *Client) CreateTarget(ctx context.Context, in image.Region, t Target) (Target, error) {
	to := call(in, "CreateContainerScanTarget", http.MethodPost, "/containerScanTargets")
	to.Repeatable = true // the retry token makes OCI do it once
	details := vulnerabilityscanning.CreateContainerScanTargetDetails{
		CompartmentId: common.String(t.CompartmentID), DisplayName: common.String(t.Name), ContainerScanRecipeId: common.String(t.RecipeID),
		TargetRegistry: vulnerabilityscanning.CreateOcirContainerScanRegistryDetails{
			CompartmentId: common.String(t.In), Url: common.String(t.URL), Repositories: t.Repositories,
		},
	}
	if t.Description != "" {
		details.Description = common.String(t.Description)
	}
	var got target
	if _, err := c.who.Do(ctx, to, vulnerabilityscanning.CreateContainerScanTargetRequest{
		CreateContainerScanTargetDetails: details, OpcRetryToken: common.String(rand.Text()),
	}, &got); err != nil {
		return Target{}, fmt.Errorf("making scan target %s: %w", t.Name, notFound(err))
	}
	return readTarget(to, got)
}

// DeleteTarget deletes a target, which takes OCI a while. Results stay.
func (c *Client) DeleteTarget(ctx context.Context, in image.Region, id string) error {
	if !oci.Segment(id) {
		return fmt.Errorf("not the OCID of a target: %.120q", id)
	}
	to := call(in, "DeleteContainerScanTarget", http.MethodDelete, "/containerScanTargets/{containerScanTargetId}")
	if _, err := c.who.Do(ctx, to, vulnerabilityscanning.DeleteContainerScanTargetRequest{ContainerScanTargetId: common.String(id)}, nil); err != nil {
		return fmt.Errorf("deleting a scan target: %w", notFound(err))
	}
	return nil
}
