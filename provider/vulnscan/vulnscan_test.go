package vulnscan_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

const (
	lists = "vulnerabilityscanning.ListContainerScanResults"
	reads = "vulnerabilityscanning.GetContainerScanResult"
)

type clients struct {
	registry *registry.Client
	scanning *vulnscan.Client
}

func connect(t *testing.T, user *ocitest.User, compartments ...string) clients {
	t.Helper()
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: user.ConfigFile()})
	if err != nil {
		t.Fatal(err)
	}
	images, err := registry.New(who, registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return clients{images, vulnscan.New(who, vulnscan.Config{Tenancy: images.Tenancy, Compartments: compartments})}
}

// report returns the report of a Checker with these clients.
func (c clients) report(t *testing.T, img *ocitest.Image) (vulnreport.Report, error) {
	t.Helper()
	return vulnreport.New(vulnscan.Check(c.registry, c.scanning)).Check(t.Context(), parse(t, img.Ref()))
}

func parse(t *testing.T, s string) image.Reference {
	t.Helper()
	ref, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// said returns a report in a few words, with its worst problem.
func said(r vulnreport.Report, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case r.Known && len(r.Problems) > 0:
		return "known: " + r.Problems[0].ID
	case r.Known:
		return "known"
	}
	return string(r.Reason)
}

func (c clients) expect(t *testing.T, what string, img *ocitest.Image, want string) {
	t.Helper()
	if got := said(c.report(t, img)); !strings.Contains(got, want) || want == "known" && got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

var problem = ocitest.Problem{
	Name: "CVE-2021-44228", Severity: "CRITICAL", Description: "remote code", Reference: "https://nvd.nist.gov/vuln/detail/CVE-2021-44228",
	Packages: []ocitest.Package{{Name: "log4j-core", Version: "2.14.1", Type: "JAVA", FixVersion: "2.17.1"}},
}

// TestPushes follows two images under one tag while they are pushed, scanned, moved
// and deleted.
func TestPushes(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	in := tenancy.NewCompartment("containers", "")
	tenancy.NewRepository("team/app", in)
	tenancy.AllowScanning()
	c := connect(t, tenancy.Admin())
	first := tenancy.NewImage("team/app", "latest")
	c.expect(t, "before the first target", first, "not-scanned")
	tenancy.NewScanTarget(in)
	c.expect(t, "by a new target", first, "known")
	first.Publish(problem, ocitest.Problem{Name: "CVE-1", Severity: "NONE"}, ocitest.Problem{Name: "CVE-2", Severity: "HIGH", State: "FIXED"})
	c.expect(t, "after new problems", first, "known: CVE-2021-44228")
	if r, _ := c.report(t, first); r.Counts[vulnreport.Critical] != 1 || r.Counts[vulnreport.High] != 0 || len(r.Problems) != 1 {
		t.Errorf("%+v", r)
	}

	second := tenancy.NewImage("team/app", "latest")
	c.expect(t, "a push under the same tag", second, "known")
	c.expect(t, "the earlier push", first, "no-tag")
	first.Tag("old")
	c.expect(t, "tagged again, and scanned", first, "known: CVE-2021-44228")
	second.Untag("latest")
	c.expect(t, "untagged", second, "no-tag")
	second.Delete()
	c.expect(t, "deleted", second, "image-not-found")
}

func TestOlderPush(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	target := tenancy.NewScanTarget("")
	c := connect(t, tenancy.Admin())
	img := tenancy.NewImage("app", "v1", "v2")
	now := time.Now()
	before := ocitest.Result{Repository: "app", Tag: "v1", Started: now.Add(-time.Hour), Finished: now.Add(time.Hour), Problems: []ocitest.Problem{problem}}
	target.AddResult(before)
	c.expect(t, "a running scan", img, "older-push")
	target.AddResult(ocitest.Result{Repository: "app-two", Tag: "v1", Started: now.Add(time.Minute), Finished: now.Add(time.Minute)})
	c.expect(t, "a scan of another repository", img, "older-push")
	target.AddResult(ocitest.Result{Repository: "app", Tag: "v2", Started: now.Add(time.Minute), Finished: now.Add(time.Minute), Problems: []ocitest.Problem{problem}, URL: "https://phx.ocir.io"})
	c.expect(t, "a scan of another region's registry", img, cmp.Or(map[string]string{"given": "older-push"}[tenancy.Switches().ResultURL], "known: CVE-2021-44228"))
	target.AddResult(ocitest.Result{Repository: "app", Tag: "v2", Started: now.Add(time.Second), Finished: now.Add(time.Second)})
	if tenancy.Switches().ResultURL == "given" {
		c.expect(t, "a scan", img, "known")
	}
}

// TestWhereResultsAre: results are in the compartment of their target.
func TestWhereResultsAre(t *testing.T) {
	sw := cloud.Switches()
	for _, denied := range []string{"404", "empty"} {
		sw.SubtreeWithoutRoot, sw.ListDenied = "404", denied
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: &sw})
		tenancy.AllowScanning()
		here, there := tenancy.NewCompartment("here", ""), tenancy.NewCompartment("there", "")
		tenancy.NewRepository("app", here)
		tenancy.NewRepository("web", there)
		tenancy.Allow(
			"Allow user all to inspect vss-family in tenancy", "Allow user all to read container-scan-results in tenancy", "Allow user all to read container-scan-targets in tenancy",
			"Allow user limited to read vss-family in compartment here",
			"Allow user all to read repos in tenancy", "Allow user limited to read repos in tenancy", "Allow user nobody to read repos in tenancy",
		)
		tenancy.NewScanTarget(here)
		app, web := tenancy.NewImage("app", "v1"), tenancy.NewImage("web", "v1")
		all, limited, nobody := tenancy.NewUser("all"), tenancy.NewUser("limited"), tenancy.NewUser("nobody")
		connect(t, all).expect(t, "the whole tenancy", app, "known")
		connect(t, all).expect(t, "the whole tenancy, no scan", web, "not-scanned")
		connect(t, limited, here).expect(t, "in a configured compartment", app, "known")
		connect(t, limited, here).expect(t, "in a configured compartment, no scan", web, "not-scanned")
		if denied == "404" {
			c := connect(t, limited)
			c.expect(t, "in the repository's compartment", app, "known")
			c.expect(t, "in the repository's compartment, cached", app, "known")
			if n := tenancy.Calls()[lists]; n > 30 {
				t.Errorf("%d lists", n)
			}
			c.expect(t, "perhaps elsewhere", web, "may not list the scan results of the whole tenancy")
			connect(t, limited, here, there).expect(t, "half of the configured compartments", app, "NotAuthorizedOrNotFound")
			none := connect(t, nobody)
			none.expect(t, "nowhere", app, "may not list the scan results of the whole tenancy")
			tenancy.Allow("Allow user nobody to read vss-family in tenancy", "Allow user limited to read vss-family in tenancy")
			c.expect(t, "in another compartment, with the new right", web, "not-scanned")
			none.expect(t, "in any compartment, with the new right", app, "known")
		}
	}
}

// TestCalls counts the calls for one image.
func TestCalls(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	tenancy.NewScanTarget("")
	img := tenancy.NewImage("app", "v1")
	for range 30 {
		img.Publish(problem)
	}
	c := connect(t, tenancy.Admin())
	c.expect(t, "first", img, "known: CVE")
	before := tenancy.Calls()
	c.expect(t, "second", img, "known: CVE")
	after := tenancy.Calls()
	pages := 1
	if tenancy.Switches().EmptyPages {
		pages++
	}
	for operation, want := range map[string]int{lists: pages, reads: 1, "artifacts.LookupContainerImageByUri": 2} {
		if got := after[operation] - before[operation]; got != want {
			t.Errorf("%s was called %d times, want %d", operation, got, want)
		}
	}
}

// TestHostile: OCI's answers are bounded, and a part of a list is not used.
func TestHostile(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	tenancy.NewScanTarget("")
	img := tenancy.NewImage("app", "v1")
	img.Publish(problem)
	c := connect(t, tenancy.Admin())
	var many strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&many, `{"name":"CVE-%d","severity":"LOW"},`, i)
	}
	id := results(t, c, img)[0].ID
	result := func(highest, problems string) string {
		return `{"id":"` + id + `","repository":"app","image":"v1","highestProblemSeverity":"` + highest + `","registryUrl":"https://iad.ocir.io","problemCount":1,"problems":` + problems + `}`
	}
	for what, tt := range map[string]struct {
		fault ocitest.Fault
		want  string
	}{
		"100 000 problems":               {ocitest.Fault{Operation: reads, Kind: ocitest.Body, Body: result("LOW", "["+strings.TrimSuffix(many.String(), ",")+"]")}, "known: CVE-0"},
		"endless problems":               {ocitest.Fault{Operation: reads, Kind: ocitest.Endless}, "is not what OCI's API says it is"},
		"an endless list":                {ocitest.Fault{Operation: lists, Kind: ocitest.Endless}, "is not what OCI's API says it is"},
		"endless pages":                  {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[]}`, Headers: map[string]string{"opc-next-page": "x"}}, "the list does not end"},
		"a result with nothing":          {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[{}]}`}, "without an id, a repository or an image"},
		"a null":                         {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[null]}`}, "a null in place of an item"},
		"no items":                       {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{}`}, "a list without items"},
		"no list":                        {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `null`}, "JSON null"},
		"no problems":                    {ocitest.Fault{Operation: reads, Kind: ocitest.Set, Set: map[string]any{"problems": nil}}, "with or without problems"},
		"another result":                 {ocitest.Fault{Operation: reads, Kind: ocitest.Set, Set: map[string]any{"id": "x"}}, "asked for result"},
		"a worse severity than it lists": {ocitest.Fault{Operation: reads, Kind: ocitest.Body, Body: result("CRITICAL", `[{"name":"CVE-1","severity":"LOW"}]`)}, "of at worst"},
		"more problems than it lists":    {ocitest.Fault{Operation: reads, Kind: ocitest.Body, Body: result("NONE", `[]`)}, "lists 0"},
		"an unknown severity":            {ocitest.Fault{Operation: reads, Kind: ocitest.Body, Body: result("HIGH", `[{"name":"CVE-1","severity":"DIRE"}]`)}, "known: CVE-1"},
		"an id with a path":              {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[{"id":"../x","repository":"app","image":"v1"},{"id":"../x","repository":"app","image":"app:v1"}]}`}, "a result with the id"},
		"results with other names":       {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[{"id":"` + id + `","repository":"app","image":"v11","timeStarted":"2099-01-01T00:00:00Z","timeFinished":"2099-01-01T00:00:00Z"}]}`}, "not-scanned"},
		"a result without a time":        {ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[{"id":"` + id + `","repository":"app","image":"v1"},{"id":"` + id + `","repository":"app","image":"app:v1"}]}`}, "without its times"},
		"an image without a time":        {ocitest.Fault{Operation: "artifacts.LookupContainerImageByUri", Kind: ocitest.Set, Set: map[string]any{"versions": []any{map[string]any{"version": "v1"}}}}, "older-push"},
		"an image with strange tags":     {ocitest.Fault{Operation: "artifacts.LookupContainerImageByUri", Kind: ocitest.Set, Set: map[string]any{"versions": []any{map[string]any{"version": "../v1"}}}}, "no-tag"},
	} {
		fault := tenancy.Fault(tt.fault)
		c.expect(t, what, img, tt.want)
		if tt.fault.Operation == reads { // results that people read have the same bounds
			_, err := c.scanning.Findings(t.Context(), parse(t, img.Ref()).Region(), id)
			if known := strings.HasPrefix(tt.want, "known"); known != (err == nil) {
				t.Errorf("%s: findings: %v", what, err)
			}
		}
		cloud.ClearFault(fault)
	}
	c.expect(t, "and then", img, "known: CVE-2021-44228")

	// If they are out of order, the newest result may be anywhere.
	for _, kind := range []string{"v1", "app:v1"} {
		item := `{"id":"` + id + `","repository":"app","image":"` + kind + `","timeStarted":"%[1]s","timeFinished":"%[1]s"}`
		fault := tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Body, Body: `{"items":[` + fmt.Sprintf(item, "2099-01-01T00:00:00Z") + "," + fmt.Sprintf(item, "2099-01-02T00:00:00Z") + `]}`})
		if got := said(c.report(t, img)); got != "not-scanned" && !strings.Contains(got, "not in the requested order") {
			t.Errorf("out of order: %s", got)
		}
		cloud.ClearFault(fault)
	}
}

func results(t *testing.T, c clients, img *ocitest.Image) []vulnreport.Result {
	t.Helper()
	found, err := c.scanning.Results(t.Context(), parse(t, img.Ref()), "", "v1")
	if err != nil || len(found) == 0 {
		t.Fatal(found, err)
	}
	return found
}

// TestRecipesAndTargets makes the objects of scan setup.
func TestRecipesAndTargets(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	tenancy.AllowScanning()
	tenancy.NewImage("app", "v1")
	c := connect(t, tenancy.Admin()).scanning
	ctx, in := t.Context(), tenancy.Region
	recipe, err := c.CreateRecipe(ctx, in, vulnscan.Recipe{Name: "recipe", CompartmentID: tenancy.ID, ImageCount: 2})
	if err != nil || recipe.State != vulnscan.Active || recipe.Level != vulnscan.Standard || recipe.Name != "recipe" || recipe.ImageCount != 2 {
		t.Fatal(recipe, err)
	}
	target, err := c.CreateTarget(ctx, in, vulnscan.Target{Name: "target", CompartmentID: tenancy.ID, In: tenancy.ID, RecipeID: recipe.ID, URL: "https://iad.ocir.io", Repositories: []string{"app"}})
	if err != nil || target.State != "CREATING" || target.URL != "https://iad.ocir.io" || !slices.Equal(target.Repositories, []string{"app"}) {
		t.Fatal(target, err)
	}
	if got, err := c.Target(ctx, in, target.ID); err != nil || got.State != vulnscan.Active {
		t.Error(got, err)
	}
	if got, err := c.Recipe(ctx, in, recipe.ID); err != nil || got.ID != recipe.ID {
		t.Error(got, err)
	}
	recipes, err := c.Recipes(ctx, in, tenancy.ID)
	if err != nil || len(recipes) != 1 || recipes[0].Level != vulnscan.Standard {
		t.Error(recipes, err)
	}
	targets, err := c.Targets(ctx, in, tenancy.ID)
	if err != nil || len(targets) != 1 || targets[0].RecipeID != recipe.ID {
		t.Error(targets, err)
	}
	if err := c.DeleteTarget(ctx, in, target.ID); err != nil {
		t.Error(err)
	}
	if err := c.DeleteRecipe(ctx, in, recipe.ID); err != nil {
		t.Error(err)
	}
	nobody := connect(t, tenancy.NewUser("nobody")).scanning
	for what, do := range map[string]func() error{
		"recipe": func() error { _, err := nobody.Recipe(ctx, in, recipe.ID); return err },
		"target": func() error { _, err := nobody.Target(ctx, in, target.ID); return err },
		"create recipe": func() error {
			_, err := nobody.CreateRecipe(ctx, in, vulnscan.Recipe{Name: "x", CompartmentID: tenancy.ID})
			return err
		},
		"delete recipe": func() error { return nobody.DeleteRecipe(ctx, in, recipe.ID) },
		"delete target": func() error { return nobody.DeleteTarget(ctx, in, target.ID) },
	} {
		if err := do(); !errors.Is(err, vulnscan.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, id := range []string{"", "..", "a/b"} {
		if _, err := c.Recipe(ctx, in, id); err == nil || errors.Is(err, vulnscan.ErrNotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
	many := make([]string, 0, 25)
	for i := range 25 {
		r, err := c.CreateRecipe(context.Background(), in, vulnscan.Recipe{Name: fmt.Sprintf("r%d", i), CompartmentID: tenancy.ID})
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, r.Name)
	}
	recipes, err = c.Recipes(ctx, in, tenancy.ID)
	recipes = slices.DeleteFunc(recipes, func(r vulnscan.Recipe) bool { return r.State == vulnscan.Deleted })
	if err != nil || len(recipes) != len(many) || recipes[0].Name != "r24" {
		t.Error(len(recipes), recipes[0], err)
	}
}

func TestRegistryRegion(t *testing.T) {
	for url, want := range map[string]string{
		"https://iad.ocir.io": "us-ashburn-1", "https://us-phoenix-1.ocir.io/": "us-phoenix-1", "iad.ocir.io": "us-ashburn-1",
		"https://ocir.eu-frankfurt-1.oci.oraclecloud.com": "eu-frankfurt-1", "": "", "https://docker.io": "", "https://iad.ocir.io/ns": "", "https://iad.ocir.io.evil.com": "",
	} {
		if got := vulnscan.RegistryRegion(url).ID(); got != want {
			t.Errorf("%q: %q, want %q", url, got, want)
		}
	}
}
