package registry_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

const lists = "artifacts.ListContainerImageSignatures"
const lookups = "artifacts.LookupContainerImageByUri"

func client(t *testing.T, user *ocitest.User, cfg registry.Config) *registry.Client {
	t.Helper()
	c, err := registry.New(whoIs(t, user), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func whoIs(t *testing.T, user *ocitest.User) *oci.Client {
	t.Helper()
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: user.ConfigFile()})
	if err != nil {
		t.Fatal(err)
	}
	return who
}

func parse(t *testing.T, s string) image.Reference {
	t.Helper()
	ref, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// missing returns a reference to an image that was never pushed, in the repository
// of img.
func missing(t *testing.T, img *ocitest.Image) image.Reference {
	t.Helper()
	ref, err := parse(t, img.Ref()).WithDigest("sha256:" + strings.Repeat("0", 64))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// flood attaches n records, a second apart, and returns their IDs, newest first.
func flood(tenancy *ocitest.Tenancy, img *ocitest.Image, n int) []string {
	start := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	ids := make([]string, n)
	for i := range n {
		ids[n-1-i] = tenancy.Add(ocitest.Record{
			ImageID: img.ID, KeyID: "k", KeyVersionID: "v", Algorithm: "a", Message: "m", Signature: "s",
			TimeCreated: start.Add(time.Duration(i) * time.Second),
		})[0]
	}
	return ids
}

func idsOf(records []signature.Record) []string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.ID
	}
	return ids
}

func TestRecords(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("key", ocitest.RSA2048)
	img, other := tenancy.NewImage("team/app", "v1"), tenancy.NewImage("team/app", "v2")
	tenancy.NewImage("team/app-two")
	first := img.Sign(key, "SHA_256_RSA_PKCS_PSS")
	first.TimeCreated = time.Date(2024, 1, 2, 3, 4, 5, 6000000, time.UTC)
	second := img.Sign(key, "SHA_512_RSA_PKCS_PSS")
	second.State, second.TimeCreated = "DELETING", first.TimeCreated.Add(time.Hour)
	ids := tenancy.Add(first, second)
	tenancy.Add(other.Sign(key, "SHA_256_RSA_PKCS_PSS"))

	c := client(t, tenancy.Admin(), registry.Config{})
	got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
	if err != nil {
		t.Fatal(err)
	}
	want := []signature.Record{
		{
			ID: ids[1], ImageID: img.ID, KeyID: key.ID, KeyVersionID: key.Version(), Algorithm: "SHA_512_RSA_PKCS_PSS",
			Message: second.Message, Signature: second.Signature, State: "DELETING", TimeCreated: second.TimeCreated,
		},
		{
			ID: ids[0], ImageID: img.ID, KeyID: key.ID, KeyVersionID: key.Version(), Algorithm: "SHA_256_RSA_PKCS_PSS",
			Message: first.Message, Signature: first.Signature, State: "AVAILABLE", TimeCreated: first.TimeCreated,
		},
	}
	for i := range got {
		if !strings.Contains(got[i].DisplayName, "::") {
			t.Errorf("display name %q", got[i].DisplayName)
		}
		got[i].DisplayName = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, ref := range map[string]image.Reference{
		"an image without records": parse(t, tenancy.NewImage("team/app").Ref()),
		"a missing image":          missing(t, img),
	} {
		if got, _, err := c.Records(t.Context(), ref); len(got) != 0 || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got := tenancy.Calls()["objectstorage.GetNamespace"]; got != 1 {
		t.Errorf("the namespace was fetched %d times", got)
	}
}

// TestFloodsOfRecords gives images up to 10 000 signature records. CVE-2023-33957,
// CVE-2023-33958, CVE-2023-46737, CVE-2024-29902, CVE-2024-29903, CVE-2024-45395:
// endless signatures or attachments.
func TestFloodsOfRecords(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := client(t, tenancy.Admin(), registry.Config{})
	for _, n := range []int{1, 199, 200, 201, 230, 249, 250, 251, 252, 700, 10_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			img := tenancy.NewImage(fmt.Sprint("flood-", n))
			ids := flood(tenancy, img, n)
			want := ids
			if n > 250 {
				want = append(ids[:200:200], ids[n-50:]...)
			}
			before := tenancy.Calls()[lists]
			got, truncated, err := c.Records(t.Context(), parse(t, img.Ref()))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, idsOf(got)); diff != "" {
				t.Error(diff)
			}
			if truncated != (n > 250) {
				t.Errorf("truncated: %t", truncated)
			}
			// At 10 a page, 250 records take 25 pages. More records cost no more
			// calls.
			if calls := tenancy.Calls()[lists] - before; calls > 26 {
				t.Errorf("%d calls", calls)
			}
		})
	}
}

// TestAPartOfAListIsAnError interrupts a list.
func TestAPartOfAListIsAnError(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("app")
	flood(tenancy, img, 150)
	c := client(t, tenancy.Admin(), registry.Config{})
	tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 500, Code: "InternalServerError", Skip: 1})
	got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
	if err == nil || got != nil || !strings.Contains(err.Error(), "listing signatures: artifacts.") || !strings.Contains(err.Error(), "500 InternalServerError") {
		t.Errorf("got %d records, %v", len(got), err)
	}
}

// The newest records of a flooded image are not a list.
func TestAListWithoutItsOldestIsAnError(t *testing.T) {
	switches := ocitest.Strict()
	switches.PageLimit, switches.EmptyPages = 1000, false
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: &switches})
	img := tenancy.NewImage("app")
	flood(tenancy, img, 300)
	small := tenancy.NewImage("app")
	flood(tenancy, small, 200)
	c := client(t, tenancy.Admin(), registry.Config{})
	if got, truncated, err := c.Records(t.Context(), parse(t, small.Ref())); err != nil || truncated || len(got) != 200 || tenancy.Calls()[lists] != 1 {
		t.Errorf("got %d of 200 records, %t, %v after %d calls, want one call", len(got), truncated, err, tenancy.Calls()[lists])
	}
	tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented", Skip: 1})
	if got, _, err := c.Records(t.Context(), parse(t, img.Ref())); err == nil || got != nil || tenancy.Calls()[lists] != 3 {
		t.Errorf("got %d records, %v after %d calls", len(got), err, tenancy.Calls()[lists])
	}
}

// TestRightsOnACompartmentOnly has a user who may read repositories in one
// compartment and nothing at the root.
func TestRightsOnACompartmentOnly(t *testing.T) {
	setup := func(t *testing.T, sw ...ocitest.Switches) (*ocitest.Tenancy, *ocitest.User, *ocitest.Image, []string, string) {
		cfg := ocitest.TenancyConfig{}
		if len(sw) > 0 {
			cfg.Switches = &sw[0]
		}
		tenancy := cloud.NewTenancy(t, cfg)
		team := tenancy.NewCompartment("team", "")
		tenancy.NewRepository("app", team)
		tenancy.Allow("Allow user dev to read repos in compartment team")
		img := tenancy.NewImage("app", "v1")
		return tenancy, tenancy.NewUser("dev"), img, flood(tenancy, img, 3), team
	}
	t.Run("looks the compartment up once", func(t *testing.T) {
		tenancy, dev, img, ids, _ := setup(t)
		c := client(t, dev, registry.Config{})
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
				if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
					t.Error(err, diff)
				}
			})
		}
		wg.Wait()
		second := tenancy.NewImage("app", "v2")
		more := flood(tenancy, second, 1)
		before := tenancy.Calls()
		got, _, err := c.Records(t.Context(), parse(t, second.Ref()))
		if diff := cmp.Diff(more, idsOf(got)); err != nil || diff != "" {
			t.Error(err, diff)
		}
		after := tenancy.Calls()
		if n := after[lookups]; n > 1 {
			t.Errorf("%d look-ups for one repository", n)
		}
		if n := after[lists] - before[lists]; n > 2 { // an empty page may come before the full one
			t.Errorf("%d lists for the second image", n)
		}
	})
	t.Run("uses a configured compartment", func(t *testing.T) {
		tenancy, dev, img, ids, team := setup(t)
		c := client(t, dev, registry.Config{Compartments: []string{team}})
		got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
		if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if n := tenancy.Calls()[lookups]; n != 0 {
			t.Errorf("%d look-ups", n)
		}
	})
	t.Run("uses several configured compartments", func(t *testing.T) {
		tenancy, dev, img, ids, team := setup(t)
		empty := tenancy.NewCompartment("empty", "")
		tenancy.Allow("Allow user dev to read repos in compartment empty")
		c := client(t, dev, registry.Config{Compartments: []string{empty, team}})
		got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
		if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
	t.Run("distinguishes a missing right from no record", func(t *testing.T) {
		switches := ocitest.Strict()
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: &switches})
		team := tenancy.NewCompartment("team", "")
		tenancy.NewRepository("app", team)
		img := tenancy.NewImage("app")
		c := client(t, tenancy.NewUser("stranger"), registry.Config{Compartments: []string{team}})
		if got, _, err := c.Records(t.Context(), parse(t, img.Ref())); !oci.IsNotFound(err) {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("a missing image has no records", func(t *testing.T) {
		_, dev, img, _, _ := setup(t)
		c := client(t, dev, registry.Config{})
		if got, _, err := c.Records(t.Context(), missing(t, img)); len(got) != 0 || err != nil {
			t.Errorf("got %v, %v", got, err)
		}
		if got, err := c.Exists(t.Context(), missing(t, img)); got || err != nil {
			t.Errorf("got %t, %v", got, err)
		}
	})
	t.Run("a missing image does not hide others", func(t *testing.T) {
		_, dev, img, ids, _ := setup(t)
		c := client(t, dev, registry.Config{})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				ref, want := missing(t, img), []string{}
				if i%2 == 0 {
					ref, want = parse(t, img.Ref()), ids
				}
				got, _, err := c.Records(t.Context(), ref)
				if diff := cmp.Diff(want, idsOf(got)); err != nil || diff != "" {
					t.Error(err, diff)
				}
			})
		}
		wg.Wait()
	})
	t.Run("notices the loss of its right on the compartment", func(t *testing.T) {
		tenancy, dev, img, ids, _ := setup(t, ocitest.Strict())
		c := client(t, dev, registry.Config{})
		ref := parse(t, img.Ref())
		for range 2 { // once at the root, once in the old compartment
			tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound", Count: 1})
			got, _, err := c.Records(t.Context(), ref)
			if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
				t.Error(err, diff)
			}
		}
		if n := tenancy.Calls()[lookups]; n != 2 {
			t.Errorf("%d look-ups, want one for each time", n)
		}
	})
	t.Run("an image that is deleted since has no records", func(t *testing.T) {
		tenancy, dev, img, _, _ := setup(t, ocitest.Strict())
		c := client(t, dev, registry.Config{})
		refused := ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 404, Code: "NotAuthorizedOrNotFound"}
		tenancy.Fault(refused)
		refused.Operation, refused.Skip = lookups, 1
		tenancy.Fault(refused)
		if got, _, err := c.Records(t.Context(), parse(t, img.Ref())); err != nil || len(got) > 0 || tenancy.Calls()[lookups] != 2 {
			t.Errorf("%d records, %v after %d look-ups", len(got), err, tenancy.Calls()[lookups])
		}
	})
	t.Run("reports an error of the compartment", func(t *testing.T) {
		tenancy, dev, img, _, _ := setup(t, ocitest.Strict())
		c := client(t, dev, registry.Config{})
		ref := parse(t, img.Ref())
		if got, _, err := c.Records(t.Context(), ref); err != nil || len(got) != 3 {
			t.Fatal(len(got), err)
		}
		tenancy.Fault(ocitest.Fault{Operation: lists, Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented", Count: 1})
		if got, _, err := c.Records(t.Context(), ref); err == nil || len(got) > 0 || tenancy.Calls()[lookups] != 1 {
			t.Errorf("%d records, %v, %d look-ups", len(got), err, tenancy.Calls()[lookups])
		}
	})
	t.Run("notices that the repository has moved", func(t *testing.T) {
		tenancy, dev, img, ids, _ := setup(t)
		c := client(t, dev, registry.Config{})
		got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
		if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
		_, err = whoIs(t, tenancy.Admin()).Do(t.Context(), oci.Call{
			Service: "artifacts", Operation: "DeleteContainerRepository", Method: http.MethodDelete,
			Host: "artifacts.us-ashburn-1.oci.oraclecloud.com", Path: "/20160918/container/repositories/{repositoryId}",
		}, artifacts.DeleteContainerRepositoryRequest{RepositoryId: common.String(img.RepositoryID)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		tenancy.NewRepository("app", tenancy.NewCompartment("elsewhere", ""))
		tenancy.Allow("Allow user dev to read repos in compartment elsewhere")
		moved := tenancy.NewImage("app")
		ids = flood(tenancy, moved, 2)
		got, _, err = c.Records(t.Context(), parse(t, moved.Ref()))
		if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
			t.Error(err, diff)
		}
	})
}

func TestExists(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Regions: []string{"eu-frankfurt-1"}})
	img := tenancy.NewImage("team/app", "v1")
	admin := client(t, tenancy.Admin(), registry.Config{})
	stranger := client(t, tenancy.NewUser("stranger"), registry.Config{})
	byTag := parse(t, fmt.Sprintf("us-ashburn-1.ocir.io/%s/team/app:v1", tenancy.Namespace))
	tests := map[string]struct {
		c    *registry.Client
		ref  image.Reference
		want bool
	}{
		"it is there":               {admin, parse(t, img.Ref()), true},
		"by its tag":                {admin, byTag, true},
		"the image is missing":      {admin, missing(t, img), false},
		"its tag is missing":        {admin, parse(t, fmt.Sprintf("iad.ocir.io/%s/team/app:v2", tenancy.Namespace)), false},
		"its repository is missing": {admin, parse(t, fmt.Sprintf("iad.ocir.io/%s/team/ape@%s", tenancy.Namespace, img.Digest)), false},
		"without a right":           {stranger, parse(t, img.Ref()), false},
		"in another region":         {admin, parse(t, fmt.Sprintf("fra.ocir.io/%s/team/app@%s", tenancy.Namespace, img.Digest)), false},
		"the other name of a host":  {admin, parse(t, fmt.Sprintf("ocir.us-ashburn-1.oci.oraclecloud.com/%s/team/app@%s", tenancy.Namespace, img.Digest)), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got, err := test.c.Exists(t.Context(), test.ref); got != test.want || err != nil {
				t.Errorf("got %t, %v", got, err)
			}
		})
	}
	found, err := admin.Image(t.Context(), byTag)
	if err != nil {
		t.Fatal(err)
	}
	if v := found.Versions; len(v) != 1 || v[0].Tag != "v1" || v[0].Since.Before(found.TimeCreated) {
		t.Errorf("versions %v", v)
	}
	found.TimeCreated, found.Versions = time.Time{}, nil
	want := registry.Image{ID: img.ID, CompartmentID: tenancy.ID, Digest: img.Digest, RepositoryID: img.RepositoryID, Repository: "team/app", Tags: []string{"v1"}}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
	_, err = admin.Image(t.Context(), missing(t, img))
	if !errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), "opc-request-id") {
		t.Errorf("got %v", err)
	}
	if _, err := admin.Image(t.Context(), parse(t, fmt.Sprintf("iad.ocir.io/%s/team/app", tenancy.Namespace))); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("neither tag nor digest: %v", err)
	}
	for _, fault := range []ocitest.Fault{
		{Kind: ocitest.Status, Status: 429, Code: "TooManyRequests"},
		{Kind: ocitest.Status, Status: 403, Code: "NotAuthorized"},
		{Kind: ocitest.Body, Status: 404, Body: "not found"},
		{Kind: ocitest.Reset},
	} {
		fault.Operation = lookups
		id := tenancy.Fault(fault)
		if got, err := admin.Exists(t.Context(), parse(t, img.Ref())); got || err == nil {
			t.Errorf("%s %d: got %t, %v; that is no answer", fault.Kind, fault.Status, got, err)
		}
		cloud.ClearFault(id)
	}
}

func TestCovers(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	other := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	admin := tenancy.Admin()
	at := func(namespace string) image.Reference {
		return parse(t, "iad.ocir.io/"+namespace+"/app@sha256:"+strings.Repeat("a", 64))
	}
	c := client(t, admin, registry.Config{Tenancies: map[string]string{other.Namespace: other.ID}})
	government := parse(t, "ocir.us-luke-1.oci.oraclegovcloud.com/"+tenancy.Namespace+"/app@sha256:"+strings.Repeat("a", 64))
	covers := func(want map[image.Reference]bool) {
		t.Helper()
		for ref, want := range want {
			if got := c.Covers(ref.Region(), ref.Namespace()); got != want {
				t.Errorf("%s: got %t", ref, got)
			}
		}
	}
	covers(map[image.Reference]bool{at("nobody"): true, government: false, {}: false}) // not found out yet
	if _, _, err := c.Records(t.Context(), at("nobody")); !errors.Is(err, registry.ErrNotCovered) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Image(t.Context(), government); !errors.Is(err, registry.ErrNotCovered) {
		t.Errorf("got %v", err)
	}
	covers(map[image.Reference]bool{
		at(tenancy.Namespace): true, at(other.Namespace): true, at("nobody"): false, government: false, {}: false,
	})
	for op := range tenancy.Calls() {
		if op != "objectstorage.GetNamespace" {
			t.Errorf("%s was called for images that are not covered", op)
		}
	}

	t.Run("a configured tenancy saves the call", func(t *testing.T) {
		before := tenancy.Calls()["objectstorage.GetNamespace"]
		c := client(t, admin, registry.Config{Tenancies: map[string]string{tenancy.Namespace: tenancy.ID}})
		if err := c.Discover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if region := at("nobody").Region(); !c.Covers(region, tenancy.Namespace) || c.Covers(region, "nobody") || tenancy.Calls()["objectstorage.GetNamespace"] != before {
			t.Errorf("%v", tenancy.Calls())
		}
	})
	t.Run("a failed call is an error", func(t *testing.T) {
		id := tenancy.Fault(ocitest.Fault{Operation: "objectstorage.*", Kind: ocitest.Status, Status: 403, Code: "NotAuthorized"})
		defer cloud.ClearFault(id)
		c := client(t, admin, registry.Config{})
		if err := c.Discover(t.Context()); err == nil || !strings.Contains(err.Error(), "finding the namespace of the tenancy") {
			t.Errorf("got %v", err)
		}
		if got, _, err := c.Records(t.Context(), at(tenancy.Namespace)); err == nil || errors.Is(err, registry.ErrNotCovered) {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("a namespace of another tenancy", func(t *testing.T) {
		c := client(t, admin, registry.Config{Tenancies: map[string]string{tenancy.Namespace: other.ID}})
		if err := c.Discover(t.Context()); err == nil || !strings.Contains(err.Error(), "is configured for another tenancy") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another namespace than its own", func(t *testing.T) {
		c := client(t, admin, registry.Config{Tenancies: map[string]string{"elsewhere": tenancy.ID}})
		if err := c.Learn(tenancy.Namespace); err == nil || !strings.Contains(err.Error(), "but its namespace is "+tenancy.Namespace) {
			t.Errorf("got %v", err)
		}
		if err := c.Learn("elsewhere"); err != nil {
			t.Error(err)
		}
	})
	t.Run("compartments", func(t *testing.T) {
		for _, compartment := range []string{tenancy.ID, tenancy.NewCompartment("team", "")} {
			if _, err := registry.New(whoIs(t, admin), registry.Config{Compartments: []string{compartment}}); err != nil {
				t.Error(err)
			}
		}
	})
	for name, tt := range map[string]struct {
		cfg  registry.Config
		want string // part of the error
	}{
		"a compartment with a query":  {registry.Config{Compartments: []string{"ocid1.tenancy.oc1..aa&a=b"}}, "not the OCID of a compartment"},
		"a compartment for a tenancy": {registry.Config{Tenancies: map[string]string{"ns": "ocid1.compartment.oc1..aaaa"}}, "not the OCID of the tenancy of namespace ns"},
		"a tenancy with a query":      {registry.Config{Tenancies: map[string]string{"ns": "ocid1.tenancy.oc1..aa&a=b"}}, "not the OCID of the tenancy of namespace ns"},
		"an empty namespace":          {registry.Config{Tenancies: map[string]string{"": "ocid1.tenancy.oc1..aaaa"}}, "not a namespace"},
		"a tenancy of another realm":  {registry.Config{Tenancies: map[string]string{"ns": "ocid1.tenancy.oc2..aaaa"}}, "in realm oc2"},
		"a compartment without OCID":  {registry.Config{Compartments: []string{"team"}}, "not the OCID of a compartment"},
		"a compartment with a path":   {registry.Config{Compartments: []string{"ocid1.compartment.oc1../../x"}}, "not the OCID of a compartment"},
	} {
		if _, err := registry.New(whoIs(t, admin), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// TestARegionThatIsNotTheProfiles sends requests to the image's region, not to the
// profile's.
func TestARegionThatIsNotTheProfiles(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Region: "eu-frankfurt-1", Regions: []string{"us-ashburn-1"}})
	img := tenancy.NewImage("app")
	ids := flood(tenancy, img, 1)
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: tenancy.Admin().ConfigFile(), Region: "us-ashburn-1"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := registry.New(who, registry.Config{})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := c.Records(t.Context(), parse(t, img.Ref()))
	if diff := cmp.Diff(ids, idsOf(got)); err != nil || diff != "" {
		t.Error(err, diff)
	}
	for _, r := range tenancy.Requests() {
		if strings.HasPrefix(r.Operation, "artifacts.") && r.Host != "artifacts.eu-frankfurt-1.oci.oraclecloud.com" {
			t.Errorf("%s went to %s", r.Operation, r.Host)
		}
	}
}

func TestMalformedLists(t *testing.T) {
	type result struct {
		records int
		err     string // empty: none
	}
	tests := map[string]struct {
		fault ocitest.Fault
		want  result
	}{
		"no items":                     {ocitest.Fault{Kind: ocitest.Body, Body: `{}`}, result{0, "a list without items"}},
		"items are null":               {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":null}`}, result{0, "a list without items"}},
		"items are an object":          {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":{}}`}, result{0, "not what OCI's API says"}},
		"a list in place of an object": {ocitest.Fault{Kind: ocitest.Body, Body: `[]`}, result{0, "not what OCI's API says"}},
		"a number for a string":        {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":[{"message":7}]}`}, result{0, "not what OCI's API says"}},
		"an invalid time":              {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":[{"timeCreated":"soon"}]}`}, result{0, "not what OCI's API says"}},
		"a record with nothing":        {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":[{}]}`}, result{0, "without an id or a lifecycleState"}},
		"a record without an id":       {ocitest.Fault{Kind: ocitest.Set, Set: map[string]any{"id": nil}}, result{0, "without an id or a lifecycleState"}},
		"a record without a state":     {ocitest.Fault{Kind: ocitest.Set, Set: map[string]any{"lifecycleState": ""}}, result{0, "without an id or a lifecycleState"}},
		"a null":                       {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":[null]}`}, result{0, "a null in place of an item"}},
		"items twice":                  {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":[],"items":[{}]}`}, result{0, "without an id or a lifecycleState"}},
		"the same page forever":        {ocitest.Fault{Kind: ocitest.Body, Body: `{"items":[]}`, Headers: map[string]string{"opc-next-page": "again"}}, result{0, "the same page was offered twice"}},
		"a captive portal":             {ocitest.Fault{Kind: ocitest.Body, Body: "<html>"}, result{0, "not what OCI's API says"}},
		"no end":                       {ocitest.Fault{Kind: ocitest.Endless}, result{0, "more than 4194304 bytes"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			img := tenancy.NewImage("app")
			flood(tenancy, img, 1)
			test.fault.Operation = lists
			tenancy.Fault(test.fault)
			got, _, err := client(t, tenancy.Admin(), registry.Config{}).Records(t.Context(), parse(t, img.Ref()))
			if test.want.err == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want.err) {
				t.Errorf("got %v, want %q", err, test.want.err)
			}
			if len(got) != test.want.records {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestHugeFields(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("app")
	long := strings.Repeat("A", 8<<10)
	tenancy.Add(ocitest.Record{ImageID: img.ID, KeyID: long, KeyVersionID: long, Algorithm: long, Message: long, Signature: long, DisplayName: long, State: "AVAILABLE"})
	got, _, err := client(t, tenancy.Admin(), registry.Config{}).Records(t.Context(), parse(t, img.Ref()))
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	want := signature.Record{ID: got[0].ID, ImageID: img.ID, State: "AVAILABLE", TimeCreated: got[0].TimeCreated}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
	// The largest message and signature of OCI Vault are accepted.
	message := base64.StdEncoding.EncodeToString(make([]byte, signature.MaxMessage))
	sig := base64.StdEncoding.EncodeToString(make([]byte, 512))
	img = tenancy.NewImage("app")
	tenancy.Add(ocitest.Record{ImageID: img.ID, KeyID: strings.Repeat("k", 255), KeyVersionID: "v", Algorithm: "a", Message: message, Signature: sig})
	got, _, err = client(t, tenancy.Admin(), registry.Config{}).Records(t.Context(), parse(t, img.Ref()))
	if err != nil || len(got) != 1 || got[0].Message != message || got[0].Signature != sig || len(got[0].KeyID) != 255 {
		t.Error(got, err)
	}
}

// Versions are the tags that can be requested. Other tags are only shown.
func TestTagsThatAreVersions(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("app")
	longest := strings.Repeat("a", 128)
	var versions []any
	for _, tag := range []any{"v1", longest, longest + "a", "../x", "", nil} {
		versions = append(versions, map[string]any{"version": tag})
	}
	tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Set, Set: map[string]any{"versions": versions}})
	got, err := client(t, tenancy.Admin(), registry.Config{}).Image(t.Context(), parse(t, img.Ref()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]registry.Version{{Tag: "v1"}, {Tag: longest}}, got.Versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	if len(got.Tags) != 4 {
		t.Errorf("tags %.300q", got.Tags)
	}
}

// There are many repositories, so the cache of their compartments is bounded.
func TestFewCompartmentsAreCached(t *testing.T) {
	for repositories, want := range map[int]int{9_999: 9_999, 10_000: 10_000, 10_001: 1} {
		if got, err := registry.CachedAmong(repositories); got != want || err != nil {
			t.Errorf("%d repositories, %d are cached, %v; want %d", repositories, got, err, want)
		}
	}
}

func TestMalformedLookUps(t *testing.T) {
	for name, set := range map[string]map[string]any{
		"another digest":                {"digest": "sha256:" + strings.Repeat("f", 64)},
		"no digest":                     {"digest": "latest"},
		"a digest of another kind":      {"digest": 7},
		"another repository":            {"repositoryName": "other"},
		"an id with ..":                 {"id": "../../x"},
		"an id with a path in it":       {"id": "ocid1.containerimage.oc1/../x"},
		"an id of another kind":         {"id": "ocid1.key.oc1..aaaa"},
		"no id":                         {"id": nil},
		"no compartment":                {"compartmentId": nil},
		"no state":                      {"lifecycleState": nil},
		"an empty state":                {"lifecycleState": ""},
		"a compartment that is a query": {"compartmentId": "a&b=c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			img := tenancy.NewImage("app")
			tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Set, Set: set})
			got, err := client(t, tenancy.Admin(), registry.Config{}).Image(t.Context(), parse(t, img.Ref()))
			if !oci.IsMalformed(err) || errors.Is(err, registry.ErrNotFound) || got.ID != "" {
				t.Errorf("got %+v, %v", got, err)
			}
			if another := strings.HasPrefix(name, "another "); err != nil && strings.Contains(err.Error(), "asked for ") != another {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("a tag without a digest", func(t *testing.T) {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
		tenancy.NewImage("app", "v1")
		tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Set, Set: map[string]any{"digest": "sha256:../../x"}})
		ref := parse(t, "iad.ocir.io/"+tenancy.Namespace+"/app:v1")
		if got, err := client(t, tenancy.Admin(), registry.Config{}).Image(t.Context(), ref); !oci.IsMalformed(err) {
			t.Errorf("got %+v, %v", got, err)
		}
	})
	for _, state := range []string{"DELETED", "DELETING", "UNHEARD_OF"} {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
		img := tenancy.NewImage("app")
		tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Set, Set: map[string]any{"lifecycleState": state}})
		if got, err := client(t, tenancy.Admin(), registry.Config{}).Exists(t.Context(), parse(t, img.Ref())); got || err != nil {
			t.Errorf("in state %q: %t, %v", state, got, err)
		}
	}
}

func TestUpload(t *testing.T) {
	const alg = "SHA_384_RSA_PKCS_PSS"
	setup := func(t *testing.T) (*ocitest.Tenancy, *registry.Client, registry.Upload) {
		tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
		key := tenancy.NewVault("vault", "").NewKey("key", ocitest.RSA2048)
		img := tenancy.NewImage("app")
		made := img.Sign(key, alg)
		c := client(t, tenancy.Admin(), registry.Config{})
		up := registry.Upload{Reference: parse(t, img.Ref()), Algorithm: alg}
		var errs [5]error
		up.Image, errs[0] = c.Image(t.Context(), up.Reference)
		up.KeyID, errs[1] = signature.ParseKeyID(key.ID)
		up.KeyVersion, errs[2] = signature.ParseKeyVersionID(key.Version())
		up.Message, errs[3] = base64.StdEncoding.DecodeString(made.Message)
		up.Signature, errs[4] = base64.StdEncoding.DecodeString(made.Signature)
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		return tenancy, c, up
	}
	t.Run("makes the record that is then listed", func(t *testing.T) {
		_, c, up := setup(t)
		made, err := c.Upload(t.Context(), up)
		if err != nil {
			t.Fatal(err)
		}
		listed, _, err := c.Records(t.Context(), up.Reference)
		if err != nil {
			t.Fatal(err)
		}
		if made.CreatedBy == "" {
			t.Error("its creator is unknown")
		}
		made.CreatedBy = "" // lists leave it out
		if diff := cmp.Diff([]signature.Record{made}, listed); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("makes one record, sent any number of times", func(t *testing.T) {
		tenancy, c, up := setup(t)
		tenancy.Fault(ocitest.Fault{Operation: "artifacts.Create*", Kind: ocitest.Truncate, Count: 2})
		if _, err := c.Upload(t.Context(), up); err != nil {
			t.Fatal(err)
		}
		listed, _, err := c.Records(t.Context(), up.Reference)
		if err != nil || len(listed) != 1 {
			t.Errorf("%d records, %v", len(listed), err)
		}
		if n := tenancy.Calls()["artifacts.CreateContainerImageSignature"]; n != 3 {
			t.Errorf("sent %d times", n)
		}
	})
	for field, value := range map[string]any{
		"id": nil, "imageId": "x", "message": "x", "signature": "x", "kmsKeyId": "x", "kmsKeyVersionId": "x", "signingAlgorithm": "SHA_256_RSA_PKCS_PSS",
	} {
		t.Run("is not fooled by another "+field, func(t *testing.T) {
			t.Parallel()
			tenancy, c, up := setup(t)
			tenancy.Fault(ocitest.Fault{Operation: "artifacts.Create*", Kind: ocitest.Set, Set: map[string]any{field: value}})
			rec, err := c.Upload(t.Context(), up)
			if !oci.IsMalformed(err) || rec.ID != "" || strings.Contains(err.Error(), "without an id") != (field == "id") {
				t.Errorf("got %+v, %v", rec, err)
			}
		})
	}
	t.Run("needs a tenancy that the client covers", func(t *testing.T) {
		tenancy, c, up := setup(t)
		up.Reference = parse(t, "iad.ocir.io/elsewhere/app@"+up.Reference.Digest())
		if rec, err := c.Upload(t.Context(), up); !errors.Is(err, registry.ErrNotCovered) {
			t.Errorf("got %+v, %v", rec, err)
		}
		if n := tenancy.Calls()["artifacts.CreateContainerImageSignature"]; n != 0 {
			t.Errorf("sent %d times", n)
		}
	})
	t.Run("needs the right to", func(t *testing.T) {
		tenancy, _, up := setup(t)
		tenancy.Allow("Allow user reader to read repos in tenancy")
		_, err := client(t, tenancy.NewUser("reader"), registry.Config{}).Upload(t.Context(), up)
		if !oci.IsNotFound(err) || !strings.Contains(err.Error(), "uploading the signature: artifacts.") {
			t.Errorf("got %v", err)
		}
	})
}

func TestIncompleteReferencesAreRejected(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := client(t, tenancy.Admin(), registry.Config{})
	if got, _, err := c.Records(t.Context(), parse(t, "iad.ocir.io/"+tenancy.Namespace+"/app:v1")); err == nil {
		t.Errorf("by tag: %v", got)
	}
	if got, _, err := c.Records(t.Context(), image.Reference{}); err == nil {
		t.Errorf("by nothing: %v", got)
	}
	// The filter for repositories accepts a pattern. A reference cannot contain one.
	if ref, err := image.Parse("iad.ocir.io/" + tenancy.Namespace + "/a*@sha256:" + strings.Repeat("a", 64)); err == nil {
		t.Errorf("a pattern for a name: %v", ref)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Exists(ctx, parse(t, "iad.ocir.io/"+tenancy.Namespace+"/app:v1")); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v", err)
	}
}

func TestRecord(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	img := tenancy.NewImage("app")
	ids := flood(tenancy, img, 1)
	ids = append(ids, tenancy.Add(ocitest.Record{CopyOf: ids[0], ImageID: img.ID, CreatedBy: "somebody"})...)
	c, ref := client(t, tenancy.Admin(), registry.Config{}), parse(t, img.Ref())
	got, err := c.Record(t.Context(), ref, ids[1])
	if err != nil || got.ID != ids[1] || got.ImageID != img.ID || got.CreatedBy != "somebody" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, id := range []string{"", "..", "ocid1.containerimagesignature.oc1/../x", "ocid1.containerimagesignature.oc1?x=y", img.ID} {
		if got, err := c.Record(t.Context(), ref, id); err == nil || !strings.Contains(err.Error(), "not the OCID of a signature") {
			t.Errorf("%q: %+v, %v", id, got, err)
		}
	}
	if n := tenancy.Calls()["artifacts.GetContainerImageSignature"]; n != 1 {
		t.Errorf("%d calls", n)
	}
	if got, err := c.Record(t.Context(), parse(t, "iad.ocir.io/elsewhere/app@"+ref.Digest()), ids[1]); !errors.Is(err, registry.ErrNotCovered) {
		t.Errorf("of another tenancy: %+v, %v", got, err)
	}
	for field, value := range map[string]any{"id": "", "lifecycleState": ""} {
		tenancy.Fault(ocitest.Fault{Operation: "artifacts.Get*", Kind: ocitest.Set, Set: map[string]any{field: value}, Count: 1})
		if got, err := c.Record(t.Context(), ref, ids[1]); !oci.IsMalformed(err) || got.ImageID != "" || !strings.Contains(err.Error(), "without an id or a lifecycleState") {
			t.Errorf("without %s: %+v, %v", field, got, err)
		}
	}
	tenancy.Fault(ocitest.Fault{Operation: "artifacts.Get*", Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented", Count: 1})
	if got, err := c.Record(t.Context(), ref, ids[1]); err == nil || got.ID != "" || oci.IsMalformed(err) || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("while OCI fails: %+v, %v", got, err)
	}
	if _, err := c.Record(t.Context(), ref, ids[1][:len(ids[1])-4]+"zzzz"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("a missing one: %v", err)
	}
	tenancy.Fault(ocitest.Fault{Operation: "artifacts.Get*", Kind: ocitest.Set, Set: map[string]any{"id": ids[0]}})
	if got, err := c.Record(t.Context(), ref, ids[1]); !oci.IsMalformed(err) {
		t.Errorf("another one: %+v, %v", got, err)
	}
}
