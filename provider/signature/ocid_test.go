package signature_test

import (
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/signature"
)

func TestParseKeyID(t *testing.T) {
	unique := strings.Repeat("a", 60)
	for name, test := range map[string]struct {
		id     string
		region string // empty: refused
	}{
		"region by key":              {"ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a", "us-ashburn-1"},
		"region by identifier":       {"ocid1.key.oc1.ap-singapore-1.gzs6a4j6aabvg." + unique, "ap-singapore-1"},
		"another realm":              {"ocid1.key.oc19.eu-frankfurt-2.abc." + unique, "eu-frankfurt-2"},
		"the shortest extension":     {"ocid1.key.oc1.iad.a." + unique, "us-ashburn-1"},
		"the longest extension":      {"ocid1.key.oc1.iad." + strings.Repeat("a", 63) + "." + unique, "us-ashburn-1"},
		"the last of each range":     {"ocid1.key.oc1.iad.az09." + unique, "us-ashburn-1"},
		"before a digit":             {"ocid1.key.oc1.iad.a/." + unique, ""},
		"after a digit":              {"ocid1.key.oc1.iad.a:." + unique, ""},
		"before a letter":            {"ocid1.key.oc1.iad.a`." + unique, ""},
		"after a letter":             {"ocid1.key.oc1.iad.a{." + unique, ""},
		"another form of OCID":       {"ocid2.key.oc1.iad.abc." + unique, ""},
		"a thousand parts":           {"ocid1.key.oc1.iad.abc." + unique + strings.Repeat(".a", 1000), ""},
		"empty":                      {"", ""},
		"realm of another region":    {"ocid1.key.oc2.iad.abc." + unique, ""},
		"unknown region":             {"ocid1.key.oc1.xyz.abc." + unique, ""},
		"no region":                  {"ocid1.key.oc1..abc." + unique, ""},
		"region in upper case":       {"ocid1.key.oc1.IAD.abc." + unique, ""},
		"a host for an extension":    {"ocid1.key.oc1.iad.evil/x." + unique, ""},
		"an at sign":                 {"ocid1.key.oc1.iad.a@evil." + unique, ""},
		"extension in upper case":    {"ocid1.key.oc1.iad.ABC." + unique, ""},
		"no extension":               {"ocid1.key.oc1.iad.." + unique, ""},
		"extension of 64":            {"ocid1.key.oc1.iad." + strings.Repeat("a", 64) + "." + unique, ""},
		"unique part too short":      {"ocid1.key.oc1.iad.abc." + unique[1:], ""},
		"unique part too long":       {"ocid1.key.oc1.iad.abc.a" + unique, ""},
		"a path in the unique part":  {"ocid1.key.oc1.iad.abc." + unique[3:] + "/..", ""},
		"a slash in the unique part": {"ocid1.key.oc1.iad.abc." + unique[1:] + "/", ""},
		"neither realm nor region":   {"ocid1.key..xyz.abc." + unique, ""},
		"text before":                {"x ocid1.key.oc1.iad.abc." + unique, ""},
		"text after":                 {"ocid1.key.oc1.iad.abc." + unique + "\n", ""},
		"a seventh part":             {"ocid1.key.oc1.iad.abc." + unique + ".x", ""},
		"a vault":                    {"ocid1.vault.oc1.iad.abc." + unique, ""},
		"a key version":              {"ocid1.keyversion.oc1.iad.abc." + unique, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := signature.ParseKeyID(test.id)
			if (err == nil) != (test.region != "") || k.Region().ID() != test.region {
				t.Errorf("got region %q, %v; want %q", k.Region(), err, test.region)
			}
			if err != nil && !k.IsZero() {
				t.Error("an error with a key")
			}
			if err == nil && k.String() != test.id {
				t.Errorf("prints as %s", k)
			}
		})
	}
}

func TestParseKeyVersionID(t *testing.T) {
	for id, ok := range map[string]bool{
		"ocid1.keyversion.oc1.iad.b5q4c5lnaahik.aumomhaxn6yaa.abuwcl5slkxvenra": true,
		"ocid1.keyversion.oc1.phx.0.bbqehaq3aadfa.acy6":                         true,
		"ocid1.keyversion.":                            false,
		"ocid1.key.oc1.iad.abc.def":                    false,
		"ocid1.keyversion.oc1/../../keys":              false,
		"ocid1.keyversion.oc1..x":                      false,
		"ocid1.keyversion.oc1.%2e%2e":                  false,
		"ocid1.keyversion.oc1.a?b":                     false,
		"ocid1.keyversion.oc1.a b":                     false,
		"ocid1.keyversion.oc1.é":                       false,
		"ocid1.keyversion.oc1.a\n":                     false,
		"ocid1.keyversion." + strings.Repeat("a", 300): false,
		"ocid1.keyversion." + strings.Repeat("a", 238): true, // 255 bytes
		"ocid1.keyversion." + strings.Repeat("a", 239): false,
	} {
		v, err := signature.ParseKeyVersionID(id)
		if (err == nil) != ok || (err == nil) != (v.String() == id) {
			t.Errorf("%q: got %q, %v; want ok %v", id, v, err, ok)
		}
	}
}

func TestShort(t *testing.T) {
	for in, want := range map[string]string{
		"":                           "",
		"ocid1.key.v3t6jcf64a":       "…v3t6jcf64a",
		"short":                      "short",
		"ten.bytes.":                 "ten.bytes.",
		"from ! to ~\x7f":            "…om?!?to?~?",
		"\x1b[31mred\n":              "?[31mred?",
		"ocid1.key.\xff\xfe12345678": "…??12345678",
	} {
		if got := signature.Short(in); got != want {
			t.Errorf("Short(%q) is %q, want %q", in, got, want)
		}
	}
}

func FuzzParseKeyID(f *testing.F) {
	f.Add("ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := signature.ParseKeyID(s)
		if err != nil {
			if !k.IsZero() {
				t.Error("an error with a key")
			}
			return
		}
		if k.String() != s {
			t.Errorf("%q prints as %q", s, k)
		}
		if strings.ContainsAny(k.VaultExtension(), "./:@?#%\\") || k.Region().Domain() == "" {
			t.Errorf("%q leads to a host of %q", s, k.VaultExtension())
		}
	})
}

func FuzzParseKeyVersionID(f *testing.F) {
	f.Add("ocid1.keyversion.oc1.iad.b5q4c5lnaahik.aumomhaxn6yaa.abuwcl5slkxvenra")
	f.Fuzz(func(t *testing.T, s string) {
		v, err := signature.ParseKeyVersionID(s)
		if err == nil && (v.String() != s || strings.ContainsAny(s, "/?#%\\") || strings.Contains(s, "..")) {
			t.Errorf("%q parsed as %q", s, v)
		}
	})
}
