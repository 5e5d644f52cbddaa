package image_test

import (
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/image"
)

func TestPinned(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("40", 32) // 0x40 is an @
	for name, test := range map[string]struct {
		a, b string
		same bool
	}{
		"the same":             {"iad.ocir.io/ns/app" + digest, "iad.ocir.io/ns/app" + digest, true},
		"another host":         {"iad.ocir.io/ns/app" + digest, "ocir.us-ashburn-1.oci.oraclecloud.com/ns/app" + digest, true},
		"a tag beside":         {"iad.ocir.io/ns/app:v1" + digest, "us-ashburn-1.ocir.io/ns/app:v2" + digest, true},
		"another region":       {"iad.ocir.io/ns/app" + digest, "phx.ocir.io/ns/app" + digest, false},
		"another namespace":    {"iad.ocir.io/ns/app" + digest, "iad.ocir.io/nt/app" + digest, false},
		"another repository":   {"iad.ocir.io/ns/a/b" + digest, "iad.ocir.io/ns/a" + digest, false},
		"a longer namespace":   {"iad.ocir.io/ns/a/b" + digest, "iad.ocir.io/ns/b/a" + digest, false},
		"another digest's end": {"iad.ocir.io/ns/a" + digest, "iad.ocir.io/ns/a" + digest[:len(digest)-1] + "1", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pinned(t, test.a), pinned(t, test.b)
			if (a == b) != test.same || (a.String() == b.String()) != test.same {
				t.Errorf("%s and %s", a, b)
			}
		})
	}
	t.Run("without a digest", func(t *testing.T) {
		for _, s := range []string{"iad.ocir.io/ns/app", "iad.ocir.io/ns/app:v1"} {
			ref, err := image.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := ref.Pinned(); ok || p != (image.Pinned{}) {
				t.Errorf("%s pins %s", s, p)
			}
		}
		if p, ok := (image.Reference{}).Pinned(); ok || p != (image.Pinned{}) {
			t.Errorf("no reference pins %s", p)
		}
	})
	t.Run("no image", func(t *testing.T) {
		var none image.Pinned
		if !none.IsZero() || none.String() != "" || none.Digest() != "" || none.Namespace() != "" || none.Repository() != "" ||
			!none.Region().IsZero() || none.Reference() != (image.Reference{}) {
			t.Errorf("got %q of %v", none.String(), none.Region())
		}
	})
}

func pinned(t *testing.T, s string) image.Pinned {
	t.Helper()
	ref, err := image.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := ref.Pinned()
	if !ok {
		t.Fatalf("%s pins no image", s)
	}
	return p
}

// A pinned image is the one that its reference names, and no other.
func FuzzPinned(f *testing.F) {
	digest := "@sha256:" + strings.Repeat("40", 32)
	f.Add("iad.ocir.io/ns/app:v1"+digest, "ocir.us-ashburn-1.oci.oraclecloud.com/ns/app"+digest)
	f.Add("iad.ocir.io/ns/a/b"+digest, "phx.ocir.io/ns/a/b"+digest)
	f.Add("iad.ocir.io/ns/a/b"+digest, "iad.ocir.io/ns/a"+digest)
	f.Add("fra.ocir.io/ns/app@sha256:"+strings.Repeat("2f", 32), "fra.ocir.io/ns/app@sha256:"+strings.Repeat("2e", 32))
	f.Fuzz(func(t *testing.T, one, two string) {
		a, err := image.Parse(one)
		if err != nil {
			return
		}
		p, ok := a.Pinned()
		if ok != (a.Digest() != "") || p.IsZero() == ok {
			t.Fatalf("%s: pinned %t, as %s", a, ok, p)
		}
		if !ok {
			return
		}
		if p.Reference() != a.Identity() || p.Region() != a.Region() || p.Namespace() != a.Namespace() ||
			p.Repository() != a.Repository() || p.Digest() != a.Digest() {
			t.Errorf("%s is pinned as %s", a, p)
		}
		back, err := image.Parse(p.String())
		if again, ok := back.Pinned(); err != nil || !ok || again != p || again.String() != p.String() {
			t.Errorf("%s comes back as %s, %v", p, again, err)
		}
		b, err := image.Parse(two)
		if err != nil || b.Digest() == "" {
			return
		}
		if other, _ := b.Pinned(); (p == other) != (a.Identity() == b.Identity()) {
			t.Errorf("%s and %s: same %t", a, b, p == other)
		}
	})
}
