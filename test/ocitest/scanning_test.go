package ocitest_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/identity"
	vss "github.com/oracle/oci-go-sdk/v65/vulnerabilityscanning"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

func scanClient(t *testing.T, u *ocitest.User) vss.VulnerabilityScanningClient {
	t.Helper()
	c, err := vss.NewVulnerabilityScanningClientWithConfigurationProvider(common.CustomProfileConfigProvider(u.ConfigFile(), ocitest.ProfileDefault))
	if err != nil {
		t.Fatal(err)
	}
	c.Configuration.CircuitBreaker = nil
	return c
}

func critical(name string) ocitest.Problem { return ocitest.Problem{Name: name, Severity: "CRITICAL"} }

// named lists results by the name of their image and their severity.
func named(t *testing.T, c vss.VulnerabilityScanningClient, request vss.ListContainerScanResultsRequest) []string {
	t.Helper()
	got := []string{}
	for {
		list, err := c.ListContainerScanResults(context.Background(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			tag := strings.TrimPrefix(*item.Image, *item.Repository+":")
			got = append(got, *item.Repository+":"+tag+" "+string(item.HighestProblemSeverity))
		}
		if list.OpcNextPage == nil {
			return got
		}
		request.Page = list.OpcNextPage
	}
}

// TestScanning follows the walk-through: recipe, target, a push, a result.
func TestScanning(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	in := tenancy.NewCompartment("containers", "")
	tenancy.NewRepository("scan-test", in)
	tenancy.NewImage("scan-test", "old")
	c := scanClient(t, tenancy.Admin())

	recipe, err := c.CreateContainerScanRecipe(ctx, vss.CreateContainerScanRecipeRequest{CreateContainerScanRecipeDetails: vss.CreateContainerScanRecipeDetails{
		CompartmentId: &in, DisplayName: common.String("scan-recipe"), ScanSettings: &vss.ContainerScanSettings{ScanLevel: vss.ContainerScanSettingsScanLevelStandard},
	}})
	if err != nil || recipe.LifecycleState != vss.LifecycleStateActive || recipe.Etag == nil {
		t.Fatal(recipe, err)
	}
	target, err := c.CreateContainerScanTarget(ctx, vss.CreateContainerScanTargetRequest{CreateContainerScanTargetDetails: vss.CreateContainerScanTargetDetails{
		CompartmentId: &in, DisplayName: common.String("scan-target"), ContainerScanRecipeId: recipe.Id,
		TargetRegistry: vss.CreateOcirContainerScanRegistryDetails{CompartmentId: &in, Repositories: []string{"scan-test"}},
	}})
	if err != nil || target.LifecycleState != vss.LifecycleStateCreating {
		t.Fatal(target, err)
	}
	if r, ok := target.TargetRegistry.(vss.OcirContainerScanRegistry); !ok || *r.Url != "https://iad.ocir.io" {
		t.Errorf("registry %v", target.TargetRegistry)
	}
	work, err := c.GetWorkRequest(ctx, vss.GetWorkRequestRequest{WorkRequestId: target.OpcWorkRequestId})
	if err != nil || work.Status != vss.OperationStatusSucceeded || len(work.Resources) != 1 || *work.Resources[0].Identifier != *target.Id {
		t.Error(work, err)
	}
	got, err := c.GetContainerScanTarget(ctx, vss.GetContainerScanTargetRequest{ContainerScanTargetId: target.Id})
	if err != nil || got.LifecycleState != vss.LifecycleStateActive {
		t.Error(got, err)
	}
	all := vss.ListContainerScanResultsRequest{CompartmentId: &in}
	if diff := cmp.Diff([]string{"scan-test:old NONE"}, named(t, c, all)); diff != "" {
		t.Error("images from before the target:", diff)
	}

	img := tenancy.NewImage("scan-test", "latest")
	tenancy.NewImage("other", "latest")
	img.Publish(critical("CVE-2021-44228"), ocitest.Problem{Name: "CVE-2", Severity: "LOW", State: "FIXED"})
	want := []string{"scan-test:latest CRITICAL", "scan-test:latest NONE", "scan-test:old NONE"}
	if diff := cmp.Diff(want, named(t, c, all)); diff != "" {
		t.Error("after a push and new problems:", diff)
	}
	newest := vss.ListContainerScanResultsRequest{CompartmentId: &tenancy.ID, Repository: common.String("scan-test"), AreSubcompartmentsIncluded: common.Bool(true), IsLatestOnly: common.Bool(true)}
	if diff := cmp.Diff([]string{"scan-test:latest CRITICAL", "scan-test:old NONE"}, named(t, c, newest)); diff != "" {
		t.Error("the newest in the tenancy:", diff)
	}
	list, err := c.ListContainerScanResults(ctx, vss.ListContainerScanResultsRequest{
		CompartmentId: &in, HighestProblemSeverity: vss.ListContainerScanResultsHighestProblemSeverityCritical,
	})
	for err == nil && len(list.Items) == 0 && list.OpcNextPage != nil {
		list, err = c.ListContainerScanResults(ctx, vss.ListContainerScanResultsRequest{
			CompartmentId: &in, HighestProblemSeverity: vss.ListContainerScanResultsHighestProblemSeverityCritical, Page: list.OpcNextPage,
		})
	}
	if err != nil || len(list.Items) != 1 {
		t.Fatal(list, err)
	}
	result, err := c.GetContainerScanResult(ctx, vss.GetContainerScanResultRequest{ContainerScanResultId: list.Items[0].Id})
	if err != nil || len(result.Problems) != 2 || *result.Problems[0].Name != "CVE-2021-44228" || *result.CompartmentId != in {
		t.Error(result, err)
	}

	// A recipe in use cannot be deleted. A change with an old etag has no effect.
	_, err = c.DeleteContainerScanRecipe(ctx, vss.DeleteContainerScanRecipeRequest{ContainerScanRecipeId: recipe.Id})
	if code(t, err) != "IncorrectState" {
		t.Error(err)
	}
	_, err = c.UpdateContainerScanTarget(ctx, vss.UpdateContainerScanTargetRequest{ContainerScanTargetId: target.Id, IfMatch: got.Etag,
		UpdateContainerScanTargetDetails: vss.UpdateContainerScanTargetDetails{Description: common.String("every pushed image")}})
	if err != nil {
		t.Error(err)
	}
	_, err = c.DeleteContainerScanTarget(ctx, vss.DeleteContainerScanTargetRequest{ContainerScanTargetId: target.Id, IfMatch: got.Etag})
	if code(t, err) != "NoEtagMatch" {
		t.Error(err)
	}
	if _, err = c.DeleteContainerScanTarget(ctx, vss.DeleteContainerScanTargetRequest{ContainerScanTargetId: target.Id}); err != nil {
		t.Error(err)
	}
	if _, err = c.DeleteContainerScanRecipe(ctx, vss.DeleteContainerScanRecipeRequest{ContainerScanRecipeId: recipe.Id}); err != nil {
		t.Error(err)
	}
	tenancy.NewImage("scan-test", "after")
	if n := len(named(t, c, all)); n != 3 {
		t.Errorf("%d results after the target was deleted, want 3", n)
	}
}

// TestScansReadTheImageOfTheirTag shows why a scan result does not prove anything
// about a digest.
func TestScansReadTheImageOfTheirTag(t *testing.T) {
	t.Parallel()
	now := time.Date(2021, 12, 21, 7, 0, 0, 0, time.UTC)
	slow := ocitest.Start(t, ocitest.Config{Now: func() time.Time { return now }, ScanAfter: time.Minute, ScanTakes: time.Minute})
	tenancy := slow.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	tenancy.NewScanTarget("")
	bad := tenancy.NewImage("app", "latest") // to be scanned from 7:01 to 7:02
	bad.Publish(critical("CVE-1"))
	now = now.Add(90 * time.Second)
	tenancy.NewImage("app", "latest") // from 7:02:30 to 7:03:30
	now = now.Add(10 * time.Minute)
	bad.Tag("v1")
	bad.Untag("v1") // before anybody looked
	now = now.Add(10 * time.Minute)
	tenancy.NewImage("app", "later")
	var state struct {
		ScanResults map[string]struct {
			Seq      int64
			Tag      string
			Started  time.Time
			Problems []ocitest.Problem
		}
	}
	if err := json.Unmarshal(slow.State(), &state); err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, r := range state.ScanResults {
		name := r.Started.Format("15:04:05 ") + r.Tag
		if len(r.Problems) > 0 {
			name += " " + r.Problems[0].Name
		}
		got = append(got, name)
	}
	slices.Sort(got)
	got = slices.Compact(got)
	if diff := cmp.Diff([]string{"07:01:00 latest CVE-1", "07:02:30 latest"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestScanPermissions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.ListDenied = "404" })})
	in := tenancy.NewCompartment("containers", "")
	tenancy.NewRepository("app", in)
	tenancy.NewImage("app", "v1")
	target := tenancy.NewScanTarget(in)
	tenancy.Allow("Allow user reader to read container-scan-results in compartment containers", "Allow user family to inspect vss-family in tenancy")
	reader, family, nobody := scanClient(t, tenancy.NewUser("reader")), scanClient(t, tenancy.NewUser("family")), scanClient(t, tenancy.NewUser("nobody"))
	admin := scanClient(t, tenancy.Admin())
	list := vss.ListContainerScanResultsRequest{CompartmentId: &in}
	if got := named(t, reader, list); len(got) != 0 {
		t.Errorf("results %v, but no statement lets the service scan", got)
	}
	tenancy.Allow("allow service vulnerability-scanning-service to read repos in compartment containers")
	tenancy.NewImage("app", "v2")
	if got := named(t, reader, list); len(got) != 0 {
		t.Errorf("results %v, but the service has half of its permissions", got)
	}
	tenancy.Allow("allow service vulnerability-scanning-service to read compartments in compartment containers")
	tenancy.NewImage("app", "v3")
	for who, c := range map[string]vss.VulnerabilityScanningClient{"reader": reader, "family": family} {
		if got := named(t, c, list); len(got) != 1 {
			t.Errorf("%s sees %v", who, got)
		}
	}
	first, err := admin.ListContainerScanResults(ctx, list)
	for err == nil && len(first.Items) == 0 {
		list.Page = first.OpcNextPage
		first, err = admin.ListContainerScanResults(ctx, list)
	}
	if err != nil {
		t.Fatal(err)
	}
	list.Page = nil
	read := vss.GetContainerScanResultRequest{ContainerScanResultId: first.Items[0].Id}
	if _, err := reader.GetContainerScanResult(ctx, read); err != nil {
		t.Error(err)
	}
	if _, err := family.GetContainerScanResult(ctx, read); code(t, err) != "NotAuthorizedOrNotFound" {
		t.Error(err)
	}
	if _, err := nobody.ListContainerScanResults(ctx, list); code(t, err) != "NotAuthorizedOrNotFound" {
		t.Error(err)
	}
	if _, err := reader.DeleteContainerScanTarget(ctx, vss.DeleteContainerScanTargetRequest{ContainerScanTargetId: &target.ID}); code(t, err) != "NotAuthorizedOrNotFound" {
		t.Error(err)
	}
	// A list of subcompartments needs a filter.
	if got := named(t, admin, vss.ListContainerScanResultsRequest{CompartmentId: &tenancy.ID, AreSubcompartmentsIncluded: common.Bool(true)}); len(got) != 0 {
		t.Errorf("results %v without a filter", got)
	}
	tenancy.Fault(ocitest.Fault{Operation: "vulnerabilityscanning.List*", Kind: ocitest.Status, Status: 429, Code: "TooManyRequests"})
	if _, err := admin.ListContainerScanResults(ctx, list); code(t, err) != "TooManyRequests" {
		t.Error(err)
	}
}

func TestScanTargetsWithoutPermission(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for setting, want := range map[string]vss.LifecycleStateEnum{"failed": vss.LifecycleStateFailed, "silent": vss.LifecycleStateActive} {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.ScanDenied, s.TargetRepository = setting, "checked" })})
		tenancy.NewImage("app", "v1")
		recipe := tenancy.NewScanTarget("").RecipeID
		c := scanClient(t, tenancy.Admin())
		details := func(repository, url string) vss.CreateContainerScanTargetRequest {
			return vss.CreateContainerScanTargetRequest{CreateContainerScanTargetDetails: vss.CreateContainerScanTargetDetails{
				CompartmentId: &tenancy.ID, ContainerScanRecipeId: &recipe,
				TargetRegistry: vss.CreateOcirContainerScanRegistryDetails{CompartmentId: &tenancy.ID, Repositories: []string{repository}, Url: &url},
			}}
		}
		made, err := c.CreateContainerScanTarget(ctx, details("app", "https://us-ashburn-1.ocir.io"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.GetContainerScanTarget(ctx, vss.GetContainerScanTargetRequest{ContainerScanTargetId: made.Id})
		if err != nil || got.LifecycleState != want || !strings.HasPrefix(*got.DisplayName, "containerscantarget") {
			t.Errorf("%s: %v %v", setting, got, err)
		}
		if _, err := c.CreateContainerScanTarget(ctx, details("nothing", "https://iad.ocir.io")); code(t, err) != "NotAuthorizedOrNotFound" {
			t.Error(err)
		}
		if _, err := c.CreateContainerScanTarget(ctx, details("app", "https://docker.io")); code(t, err) != "InvalidParameter" {
			t.Error(err)
		}
	}
}

// TestPolicies checks that a policy applies in its compartment and below.
func TestPolicies(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	team := tenancy.NewCompartment("team", "")
	inner := tenancy.NewCompartment("inner", team)
	other := tenancy.NewCompartment("other", "")
	admin := newClients(t, tenancy.Admin())
	for at, statement := range map[string]string{team: "Allow user u to inspect vss-family in compartment inner", other: "Allow user u to inspect vss-family in tenancy"} {
		if _, err := admin.identity.CreatePolicy(ctx, identity.CreatePolicyRequest{CreatePolicyDetails: identity.CreatePolicyDetails{
			CompartmentId: &at, Name: common.String("p"), Description: common.String("d"), Statements: []string{statement},
		}}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := admin.identity.CreatePolicy(ctx, identity.CreatePolicyRequest{CreatePolicyDetails: identity.CreatePolicyDetails{
		CompartmentId: &team, Name: common.String("p"), Description: common.String("d"), Statements: []string{"Let me in"},
	}})
	if code(t, err) != "InvalidParameter" {
		t.Error(err)
	}
	list, err := admin.identity.ListPolicies(ctx, identity.ListPoliciesRequest{CompartmentId: &team})
	for err == nil && len(list.Items) == 0 && list.OpcNextPage != nil {
		list, err = admin.identity.ListPolicies(ctx, identity.ListPoliciesRequest{CompartmentId: &team, Page: list.OpcNextPage})
	}
	if err != nil || len(list.Items) != 1 {
		t.Error(list, err)
	}
	u := scanClient(t, tenancy.NewUser("u"))
	if _, err := u.ListContainerScanRecipes(ctx, vss.ListContainerScanRecipesRequest{CompartmentId: &inner}); err != nil {
		t.Error(err)
	}
	for _, in := range []string{team, tenancy.ID, other} {
		list, err := u.ListContainerScanRecipes(ctx, vss.ListContainerScanRecipesRequest{CompartmentId: &in})
		if tenancy.Switches().ListDenied == "404" && code(t, err) != "NotAuthorizedOrNotFound" || len(list.Items) > 0 {
			t.Errorf("%s: %v %v", in, list, err)
		}
	}
}
