package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

const repositories = "artifacts.ListContainerRepositories"

func TestRepository(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	team := tenancy.NewCompartment("team", "")
	ids := map[string]string{}
	for i := range 12 { // more than the smallest page
		name := fmt.Sprint("team/app-", i)
		ids[name] = tenancy.NewRepository(name, team)
	}
	c := client(t, tenancy.Admin(), registry.Config{})
	for name, id := range ids {
		got, err := c.Repository(t.Context(), tenancy.Region, team, name)
		if want := (registry.Repository{ID: id, Name: name, CompartmentID: team}); err != nil || got != want {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	before := tenancy.Calls()[repositories]
	if got, err := c.Repository(t.Context(), tenancy.Region, team, "team/app-*"); err == nil || errors.Is(err, registry.ErrNotFound) || tenancy.Calls()[repositories] != before {
		t.Errorf("a pattern: %+v, %v", got, err)
	}
	for compartment, name := range map[string]string{tenancy.ID: "team/app-1", team: "team/app"} {
		if got, err := c.Repository(t.Context(), tenancy.Region, compartment, name); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s, which is not in %s: %+v, %v", name, compartment, got, err)
		}
	}
	for name, tc := range map[string]struct {
		items string
		want  func(error) bool
	}{
		"another name":  {`[{"id":"ocid1.containerrepo.a","displayName":"team/app-2","lifecycleState":"AVAILABLE"}]`, isNotFound},
		"deleted":       {`[{"id":"ocid1.containerrepo.a","displayName":"team/app-1","lifecycleState":"DELETED"}]`, isNotFound},
		"without an id": {`[{"displayName":"team/app-1","lifecycleState":"AVAILABLE"}]`, oci.IsMalformed},
		"in no state":   {`[{"id":"ocid1.containerrepo.a","displayName":"team/app-1"}]`, oci.IsMalformed},
	} {
		tenancy.Fault(ocitest.Fault{Operation: repositories, Kind: ocitest.Body, Body: `{"items":` + tc.items + `}`, Count: 1})
		if got, err := c.Repository(t.Context(), tenancy.Region, team, "team/app-1"); !tc.want(err) || got != (registry.Repository{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// A failed list is an error. It does not mean that the repository is missing.
func TestRepositoryWhileOCIFails(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.Fault(ocitest.Fault{Operation: repositories, Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented"})
	got, err := client(t, tenancy.Admin(), registry.Config{}).Repository(t.Context(), tenancy.Region, tenancy.ID, "app")
	if err == nil || isNotFound(err) || got != (registry.Repository{}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func isNotFound(err error) bool { return errors.Is(err, registry.ErrNotFound) }

func TestCreateRepository(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := client(t, tenancy.Admin(), registry.Config{})
	made, err := c.CreateRepository(t.Context(), tenancy.Region, tenancy.ID, "fresh")
	if err != nil {
		t.Fatal(err)
	}
	if found, err := c.Repository(t.Context(), tenancy.Region, tenancy.ID, "fresh"); err != nil || found != made || made.ID == "" {
		t.Errorf("made %+v, found %+v, %v", made, found, err)
	}
	tenancy.Fault(ocitest.Fault{Operation: "artifacts.CreateContainerRepository", Kind: ocitest.Set, Set: map[string]any{"displayName": "other"}, Count: 1})
	if got, err := c.CreateRepository(t.Context(), tenancy.Region, tenancy.ID, "second"); !oci.IsMalformed(err) || !strings.Contains(err.Error(), "making repository second") || got != (registry.Repository{}) {
		t.Errorf("another one: %+v, %v", got, err)
	}
	tenancy.Fault(ocitest.Fault{Operation: "artifacts.CreateContainerRepository", Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented"})
	if got, err := c.CreateRepository(t.Context(), tenancy.Region, tenancy.ID, "third"); err == nil || oci.IsMalformed(err) || got != (registry.Repository{}) {
		t.Errorf("while OCI fails: %+v, %v", got, err)
	}
}
