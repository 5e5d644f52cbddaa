package image_test

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/image"
)

// The Rego tests read the same table. GO-2026-6225, CVE-2026-105769: look-alikes of
// a host are other registries.
func TestClassify(t *testing.T) {
	data, err := os.ReadFile("../../policies/lib/testdata/references.json")
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		References []struct{ Ref, Class, Why string }
	}
	if err := json.Unmarshal(data, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.References) < 100 {
		t.Fatalf("only %d references", len(table.References))
	}
	for _, row := range table.References {
		if got := image.Classify(row.Ref).String(); got != row.Class {
			t.Errorf("%.200q (%s): got %s, want %s", row.Ref, row.Why, got, row.Class)
		}
		ref, err := image.Parse(row.Ref)
		want := map[string]error{"oci-registry": nil, "other": image.ErrNotOCIRegistry, "ambiguous": image.ErrAmbiguous}[row.Class]
		if !errors.Is(err, want) {
			t.Errorf("%.200q (%s): got error %v, want %v", row.Ref, row.Why, err, want)
		}
		if got := ref.String(); err == nil && got != row.Ref || err != nil && got != "" {
			t.Errorf("%.200q (%s): prints as %q", row.Ref, row.Why, got)
		}
	}
}

// k8simagedigests of gatekeeper-library: its expression ends before the digest does.
func TestParse(t *testing.T) {
	const digest = "sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	type parts struct{ region, host, namespace, repository, tag, digest, name string }
	for s, want := range map[string]parts{
		"phx.ocir.io/ansh81vru1zp/project01/ngnix-lb@" + digest: {
			"us-phoenix-1", "phx.ocir.io", "ansh81vru1zp", "project01/ngnix-lb", "", digest, "phx.ocir.io/ansh81vru1zp/project01/ngnix-lb"},
		"ocir.us-ashburn-1.oci.oraclecloud.com/ns/web:v1": {
			"us-ashburn-1", "ocir.us-ashburn-1.oci.oraclecloud.com", "ns", "web", "v1", "", "ocir.us-ashburn-1.oci.oraclecloud.com/ns/web"},
		"us-ashburn-1.ocir.io/ns/a/b:v1@" + digest: {
			"us-ashburn-1", "us-ashburn-1.ocir.io", "ns", "a/b", "v1", digest, "us-ashburn-1.ocir.io/ns/a/b"},
	} {
		r, err := image.Parse(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
		got := parts{r.Region().ID(), r.Host(), r.Namespace(), r.Repository(), r.Tag(), r.Digest(), r.Name()}
		if got != want {
			t.Errorf("%s:\n got %v\nwant %v", s, got, want)
		}
	}
}

// TestAmbiguityIsExplained reads the messages for ambiguous references. Each message
// names the part that is wrong.
func TestAmbiguityIsExplained(t *testing.T) {
	for ref, want := range map[string]string{
		"":                             "a reference has 1 to 1024 bytes",
		strings.Repeat("a", 1025):      "a reference has 1 to 1024 bytes",
		"iad.ocir.io/ns/web@sha256:0a": `after @ stands "sha256:0a"`,
		"iad..ocir.io/ns/web":          `the host "iad..ocir.io" is not well formed`,
		"iad.ocir.io/ns:443/web":       `the name "ns:443/web" is not well formed`,
		"iad.ocir.io/:v1":              `the name "" is not well formed`,
		"iad.ocir.io/ns/web:":          `the tag "" is not well formed`,
		"cafe":                         "the id of an image on the node",
		"iad.ocir.io:443/ns/web":       `the host "iad.ocir.io:443" looks like a host of OCI Registry`,
		"iad.ocir.io/web":              `"web" is one of them at most`,
	} {
		if _, err := image.Parse(ref); !errors.Is(err, image.ErrAmbiguous) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", ref, err, want)
		}
	}
}

func TestIdentity(t *testing.T) {
	const digest = "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	const want = "ocir.us-ashburn-1.oci.oraclecloud.com/ns/web" + digest
	for _, s := range []string{want, "iad.ocir.io/ns/web" + digest, "us-ashburn-1.ocir.io/ns/web:v1" + digest} {
		ref, err := image.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := ref.Identity().String(); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
	if got := (image.Reference{}).Identity(); got != (image.Reference{}) {
		t.Errorf("nothing became %s", got)
	}
}

func TestNothingIsPinnedByATag(t *testing.T) {
	for _, s := range []string{"iad.ocir.io/ns/web", "iad.ocir.io/ns/web:v1"} {
		ref, err := image.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := ref.Pinned(); ok || got != (image.Pinned{}) {
			t.Errorf("%s pins %v", s, got)
		}
	}
}

func TestNoRegionIsEmpty(t *testing.T) {
	if r := (image.Region{}); r.ID() != "" || r.Key() != "" || r.Realm() != "" || r.Domain() != "" {
		t.Errorf("no region is %q, key %q, realm %q, domain %q", r.ID(), r.Key(), r.Realm(), r.Domain())
	}
}

func TestEffective(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0a", 32)
	for written, want := range map[string]string{
		"iad.ocir.io/ns/web":                           "iad.ocir.io/ns/web:latest",
		"iad.ocir.io/ns/web:v1":                        "iad.ocir.io/ns/web:v1",
		"iad.ocir.io/ns/web" + digest:                  "iad.ocir.io/ns/web" + digest,
		"iad.ocir.io/ns/web:v1" + digest:               "iad.ocir.io/ns/web:v1" + digest,
		"ocir.us-ashburn-1.oci.oraclecloud.com/ns/web": "ocir.us-ashburn-1.oci.oraclecloud.com/ns/web:latest",
	} {
		ref, err := image.Parse(written)
		if err != nil {
			t.Fatal(err)
		}
		if got := ref.Effective().String(); got != want {
			t.Errorf("%s: got %s, want %s", written, got, want)
		}
	}
	if got := (image.Reference{}).Effective(); got != (image.Reference{}) {
		t.Errorf("of no reference: %s", got)
	}
}

func TestWithDigest(t *testing.T) {
	ref, err := image.Parse("iad.ocir.io/ns/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("0a", 32)
	got, err := ref.WithDigest(digest)
	if want := "iad.ocir.io/ns/web:v1@" + digest; err != nil || got.String() != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	for _, bad := range []string{"", digest + "0", strings.ToUpper(digest), "sha512:" + strings.Repeat("0", 128), digest + "@" + digest} {
		if got, err := ref.WithDigest(bad); err == nil || got != (image.Reference{}) {
			t.Errorf("%q: got %s, %v", bad, got, err)
		}
	}
}

func TestRegions(t *testing.T) {
	regions := image.Regions()
	if len(regions) != 85 {
		t.Errorf("%d regions, want 85", len(regions))
	}
	names := make(map[string]bool)
	for _, r := range regions {
		if r.IsZero() || r.Domain() == "" || r.Realm() == "" || len(r.Key()) != 3 {
			t.Errorf("incomplete: %q, key %q, realm %q, domain %q", r.ID(), r.Key(), r.Realm(), r.Domain())
		}
		for _, name := range []string{r.ID(), r.Key()} {
			if names[name] {
				t.Errorf("%s names two regions", name)
			}
			names[name] = true
			if got, err := image.ParseRegion(name); got != r || err != nil {
				t.Errorf("%s: got %v, %v", name, got, err)
			}
		}
	}
	for _, bad := range []string{"", "IAD", "us-ashburn-1 ", "xyz", "oraclecloud.com"} {
		if got, err := image.ParseRegion(bad); err == nil || !got.IsZero() {
			t.Errorf("%q: got %v, %v", bad, got, err)
		}
	}
	if image.Regions()[0] = (image.Region{}); image.Regions()[0].IsZero() {
		t.Error("a caller can write to the table")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("iad.ocir.io/ns/repo:v1@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b")
	f.Add("[::1]:5000/a__b:c")
	f.Add("user@iad.ocir.io.:443//x")
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := image.Parse(s)
		if (err == nil) != (image.Classify(s) == image.OCIRegistry) {
			t.Fatalf("%q: error %v, class %v", s, err, image.Classify(s))
		}
		if err != nil {
			if ref != (image.Reference{}) {
				t.Errorf("%q: an error with a reference", s)
			}
			if strings.Contains(s, ".ocir.io/") && errors.Is(err, image.ErrNotOCIRegistry) && strings.Index(s, ".ocir.io/") < strings.IndexByte(s, '/') {
				t.Errorf("%q: under ocir.io, and classified as another registry", s)
			}
			return
		}
		if ref.String() != s {
			t.Errorf("%q prints as %q", s, ref)
		}
		// No part of a request to OCI has characters that could end this part.
		if strings.ContainsAny(ref.Namespace()+ref.Repository()+ref.Tag(), "*?#%\\@ ") || strings.Contains(ref.Repository(), "..") {
			t.Errorf("%q: %q, %q", s, ref.Namespace(), ref.Repository())
		}
		if ref.Digest() != "" && !image.ValidDigest(ref.Digest()) {
			t.Errorf("%q: digest %q", s, ref.Digest())
		}
	})
}
