package vault_test

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

// world is a tenancy with a vault, and a user with every right in it.
type world struct {
	*ocitest.Tenancy
	vault *ocitest.Vault
	c     *vault.Client

	unreachable atomic.Int64 // attempts at missing hosts
}

func newWorld(t *testing.T, cfg ocitest.TenancyConfig) *world {
	t.Helper()
	w := &world{Tenancy: cloud.NewTenancy(t, cfg)}
	w.vault = w.NewVault("vault", "")
	w.c = w.as(t, w.Admin(), vault.Config{})
	return w
}

func (w *world) as(t *testing.T, user *ocitest.User, cfg vault.Config) *vault.Client {
	t.Helper()
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: user.ConfigFile(), Client: oci.Config{Observe: func(a oci.Attempt) {
		if a.Outcome == "unreachable" {
			w.unreachable.Add(1)
		}
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return vault.New(who, cfg)
}

func keyID(t *testing.T, s string) signature.KeyID {
	t.Helper()
	id, err := signature.ParseKeyID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func versionID(t *testing.T, s string) signature.KeyVersionID {
	t.Helper()
	id, err := signature.ParseKeyVersionID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestKey(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	for name, test := range map[string]struct {
		shape ocitest.Shape
		want  vault.Key
	}{
		"RSA 2048": {ocitest.RSA2048, vault.Key{Algorithm: "RSA", Bits: 2048}},
		"RSA 4096": {ocitest.RSA4096, vault.Key{Algorithm: "RSA", Bits: 4096}},
		"AES":      {ocitest.AES256, vault.Key{Algorithm: "AES", Bits: 256}},
		"P-384":    {ocitest.P384, vault.Key{Algorithm: "ECDSA", CurveID: "NIST_P384"}},
	} {
		t.Run(name, func(t *testing.T) {
			key := w.vault.NewKey(name, test.shape)
			test.want.ID, test.want.Name, test.want.State = keyID(t, key.ID), name, "ENABLED"
			test.want.CompartmentID, test.want.VaultID = w.ID, w.vault.ID
			test.want.Current = versionID(t, key.Version())
			got, err := w.c.Key(t.Context(), test.want.ID)
			if err != nil {
				t.Fatal(err)
			}
			if got.TimeCreated.IsZero() || got.Protection == "" {
				t.Errorf("got %+v", got)
			}
			test.want.TimeCreated, test.want.Protection = got.TimeCreated, got.Protection
			if diff := cmp.Diff(test.want, got, cmp.Comparer(func(a, b signature.KeyID) bool { return a == b }),
				cmp.Comparer(func(a, b signature.KeyVersionID) bool { return a == b })); diff != "" {
				t.Error(diff)
			}
		})
	}
	key := w.vault.NewKey("disabled", ocitest.AES256)
	key.SetState("DISABLED")
	if got, err := w.c.Key(t.Context(), keyID(t, key.ID)); got.State != "DISABLED" || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	key.Delete()
	_, err := w.c.Key(t.Context(), keyID(t, key.ID))
	if !errors.Is(err, vault.ErrNotFound) || !oci.IsNotFound(err) || !strings.Contains(err.Error(), "opc-request-id") {
		t.Errorf("deleted: %v", err)
	}
	if _, err := w.as(t, w.NewUser("stranger"), vault.Config{}).Key(t.Context(), keyID(t, w.vault.NewKey("k", ocitest.AES256).ID)); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("without a right: %v", err)
	}
}

func TestVersionsAndTheirPublicKeys(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	key := w.vault.NewKey("key", ocitest.RSA2048)
	id := keyID(t, key.ID)
	want := []string{key.Version()}
	var publics []any
	publics = append(publics, key.Public())
	for range 12 { // more than the smallest page
		want = append(want, key.Rotate())
		publics = append(publics, key.Public())
	}
	key.SetVersionState(want[3], "PENDING_DELETION")
	slices.Reverse(want)
	slices.Reverse(publics)

	got, err := w.c.Versions(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, v := range got {
		ids = append(ids, v.ID.String())
		state := "ENABLED"
		if v.ID.String() == want[len(want)-1-3] {
			state = "PENDING_DELETION"
		}
		if v.State != state {
			t.Errorf("%s is %s", v.ID.Short(), v.State)
		}
	}
	if diff := cmp.Diff(want, ids); diff != "" {
		t.Error(diff)
	}
	for i, v := range got[:3] {
		public, err := w.c.PublicKey(t.Context(), id, v.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !public.Equal(publics[i]) {
			t.Errorf("version %d has another public key", i)
		}
	}

	other := w.vault.NewKey("other", ocitest.RSA2048)
	for name, version := range map[string]string{
		"a version of another key": other.Version(),
		"an unknown version":       strings.Repeat("x", 0) + want[0][:len(want[0])-4] + "zzzz",
	} {
		if got, err := w.c.PublicKey(t.Context(), id, versionID(t, version)); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	aes := w.vault.NewKey("aes", ocitest.AES256)
	if _, err := w.c.PublicKey(t.Context(), keyID(t, aes.ID), versionID(t, aes.Version())); err == nil || !strings.Contains(err.Error(), "no public key") {
		t.Errorf("of an AES key: %v", err)
	}
	ec := w.vault.NewKey("ec", ocitest.P256)
	if _, err := w.c.PublicKey(t.Context(), keyID(t, ec.ID), versionID(t, ec.Version())); err == nil {
		t.Error("of an ECDSA key: no error")
	}
}

func TestSign(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	key := w.vault.NewKey("key", ocitest.RSA2048)
	id, version := keyID(t, key.ID), versionID(t, key.Version())
	public, ok := key.Public().(*rsa.PublicKey)
	if !ok {
		t.Fatal("not RSA")
	}
	message := []byte(`{"description":"über <all> & \u2028"}`)
	for _, alg := range []signature.Algorithm{signature.SHA224, signature.SHA256, signature.SHA384, signature.SHA512} {
		sig, err := w.c.Sign(t.Context(), id, version, alg, message)
		if err != nil {
			t.Fatal(err)
		}
		h := alg.Hash().New()
		h.Write(message)
		if err := rsa.VerifyPSS(public, alg.Hash(), h.Sum(nil), sig, nil); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
	if _, err := w.c.Sign(t.Context(), id, version, signature.SHA256, make([]byte, signature.MaxMessage)); err != nil {
		t.Errorf("the longest message: %v", err)
	}
	before := w.Calls()["keymanagement.Sign"]
	if _, err := w.c.Sign(t.Context(), id, version, signature.SHA256, make([]byte, signature.MaxMessage+1)); err == nil || w.Calls()["keymanagement.Sign"] != before {
		t.Errorf("a message that is too long: %v", err)
	}
	for _, r := range w.Requests() {
		if r.Operation == "keymanagement.Sign" && !strings.HasPrefix(r.Host, w.vault.Extension+"-crypto.kms.us-ashburn-1.") {
			t.Errorf("signed at %s", r.Host)
		}
	}
	key.SetState("DISABLED")
	if _, err := w.c.Sign(t.Context(), id, version, signature.SHA256, message); err == nil || oci.IsMalformed(err) || !strings.Contains(err.Error(), "signing with key …") {
		t.Errorf("with a disabled key: %v", err)
	}
	for _, lie := range []map[string]any{
		{"keyId": "x"}, {"keyVersionId": "x"}, {"signingAlgorithm": "SHA_512_RSA_PKCS_PSS"},
		{"signature": "not base64"}, {"signature": "AAAA!"}, {"signature": ""},
	} {
		w := newWorld(t, ocitest.TenancyConfig{})
		key := w.vault.NewKey("key", ocitest.RSA2048)
		w.Fault(ocitest.Fault{Operation: "keymanagement.Sign", Kind: ocitest.Set, Set: lie})
		got, err := w.c.Sign(t.Context(), keyID(t, key.ID), versionID(t, key.Version()), signature.SHA256, message)
		if !oci.IsMalformed(err) || got != nil {
			t.Errorf("answered with %v: %x, %v", lie, got, err)
		}
	}
}

// list returns a JSON list of n equal items.
func list(item string, n int) string {
	return "[" + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
}

func TestMalformedAnswers(t *testing.T) {
	tests := map[string]struct {
		operation string
		set       map[string]any // fields of the true answer, or
		list      string         // its replacement, in which KEY stands for the key
	}{
		"another key":                   {operation: "GetKey", set: map[string]any{"id": "ocid1.key.oc1.iad.x.y"}},
		"no key":                        {operation: "GetKey", set: map[string]any{"id": nil}},
		"a key without a state":         {operation: "GetKey", set: map[string]any{"lifecycleState": nil}},
		"a key without an algorithm":    {operation: "GetKey", set: map[string]any{"keyShape": map[string]any{"length": 256}}},
		"a key without a shape":         {operation: "GetKey", set: map[string]any{"keyShape": nil}},
		"a current version with a path": {operation: "GetKey", set: map[string]any{"currentKeyVersion": "ocid1.keyversion.oc1/../x"}},
		"versions of another key":       {operation: "ListKeyVersions", list: `[{"id":"ocid1.keyversion.oc1.iad.a","keyId":"KEY","lifecycleState":"ENABLED"},{"id":"ocid1.keyversion.oc1.iad.b","keyId":"ocid1.key.oc1.iad.x.y","lifecycleState":"ENABLED"}]`},
		"a version with a path":         {operation: "ListKeyVersions", list: `[{"id":"../../x","keyId":"KEY","lifecycleState":"ENABLED"}]`},
		"a version without an id":       {operation: "ListKeyVersions", list: `[{"keyId":"KEY","lifecycleState":"ENABLED"}]`},
		"a version without a state":     {operation: "ListKeyVersions", list: `[{"id":"ocid1.keyversion.oc1.iad.b5q4c5lnaahik.a.` + strings.Repeat("a", 60) + `","keyId":"KEY"}]`},
		"a null version":                {operation: "ListKeyVersions", list: `[null]`},
		"no list":                       {operation: "ListKeyVersions", list: `{}`},
		"null":                          {operation: "ListKeyVersions", list: `null`},
		"another version":               {operation: "GetKeyVersion", set: map[string]any{"id": "ocid1.keyversion.oc1.iad.other"}},
		"a version of another key":      {operation: "GetKeyVersion", set: map[string]any{"keyId": "ocid1.key.oc1.iad.x.y"}},
		"an invalid public key":         {operation: "GetKeyVersion", set: map[string]any{"publicKey": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, ocitest.TenancyConfig{})
			key := w.vault.NewKey("key", ocitest.RSA2048)
			id := keyID(t, key.ID)
			fault := ocitest.Fault{Operation: "keymanagement." + test.operation, Kind: ocitest.Set, Set: test.set}
			if test.list != "" {
				fault.Kind, fault.Body = ocitest.Body, strings.ReplaceAll(test.list, "KEY", key.ID)
			}
			w.Fault(fault)
			var err error
			switch test.operation {
			case "GetKey":
				_, err = w.c.Key(t.Context(), id)
			case "ListKeyVersions":
				_, err = w.c.Versions(t.Context(), id)
			default:
				_, err = w.c.PublicKey(t.Context(), id, versionID(t, key.Version()))
			}
			if !oci.IsMalformed(err) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no public key", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		key := w.vault.NewKey("key", ocitest.RSA2048)
		w.Fault(ocitest.Fault{Operation: "keymanagement.GetKeyVersion", Kind: ocitest.Set, Set: map[string]any{"publicKey": nil}})
		if got, err := w.c.PublicKey(t.Context(), keyID(t, key.ID), versionID(t, key.Version())); err == nil {
			t.Errorf("got %v", got)
		}
	})
	t.Run("the largest number of versions", func(t *testing.T) {
		for n, ok := range map[int]bool{2000: true, 2001: false} {
			w := newWorld(t, ocitest.TenancyConfig{})
			key := w.vault.NewKey("key", ocitest.RSA2048)
			version := `{"id":"ocid1.keyversion.oc1.iad.a","keyId":"` + key.ID + `","lifecycleState":"ENABLED"}`
			w.Fault(ocitest.Fault{Operation: "keymanagement.ListKeyVersions", Kind: ocitest.Body, Body: list(version, n)})
			if got, err := w.c.Versions(t.Context(), keyID(t, key.ID)); (err == nil) != ok || ok && len(got) != n {
				t.Errorf("%d versions: %d, %v", n, len(got), err)
			}
		}
	})
	t.Run("versions in another order", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		key := w.vault.NewKey("key", ocitest.RSA2048)
		var items []string
		for _, version := range []string{"b-2024", "c-2025", "a-2023"} {
			name, year, _ := strings.Cut(version, "-")
			items = append(items, fmt.Sprintf(`{"id":"ocid1.keyversion.oc1.iad.%s","keyId":"%s","lifecycleState":"ENABLED","timeCreated":"%s-01-01T00:00:00Z"}`, name, key.ID, year))
		}
		w.Fault(ocitest.Fault{Operation: "keymanagement.ListKeyVersions", Kind: ocitest.Body, Body: "[" + strings.Join(items, ",") + "]"})
		got, err := w.c.Versions(t.Context(), keyID(t, key.ID))
		if err != nil || len(got) != 3 || !slices.IsSortedFunc(got, func(a, b vault.Version) int { return b.TimeCreated.Compare(a.TimeCreated) }) {
			t.Errorf("got %+v, %v, want the newest first", got, err)
		}
	})
	t.Run("lengths of keys", func(t *testing.T) {
		for length, want := range map[any]int{nil: 0, -1: 0, 0: 0, 256: 2048, 1 << 13: 1 << 16, 1<<13 + 1: 0} {
			w := newWorld(t, ocitest.TenancyConfig{})
			key := w.vault.NewKey("key", ocitest.RSA2048)
			w.Fault(ocitest.Fault{Operation: "keymanagement.GetKey", Kind: ocitest.Set, Set: map[string]any{
				"keyShape": map[string]any{"algorithm": "RSA", "length": length},
			}})
			if got, err := w.c.Key(t.Context(), keyID(t, key.ID)); err != nil || got.Bits != want {
				t.Errorf("a length of %v bytes: %d bits, %v", length, got.Bits, err)
			}
		}
	})
	t.Run("endless versions", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		key := w.vault.NewKey("key", ocitest.RSA2048)
		w.Fault(ocitest.Fault{Operation: "keymanagement.ListKeyVersions", Kind: ocitest.Body, Body: "[]", Headers: map[string]string{"opc-next-page": "x"}})
		if got, err := w.c.Versions(t.Context(), keyID(t, key.ID)); err == nil {
			t.Errorf("got %v", got)
		}
	})
}

// TestHostNames uses both names that a vault's host may have.
func TestHostNames(t *testing.T) {
	for _, region := range []string{"us-ashburn-1", "eu-paris-1"} {
		for _, form := range []string{"listed", "inverse", "both"} {
			t.Run(region+" "+form, func(t *testing.T) {
				switches, err := ocitest.FromEnvironment()
				if err != nil {
					t.Fatal(err)
				}
				switches.VaultHosts = form
				w := newWorld(t, ocitest.TenancyConfig{Region: region, Switches: &switches})
				key := w.vault.NewKey("key", ocitest.RSA2048)
				for range 3 {
					if _, err := w.c.Key(t.Context(), keyID(t, key.ID)); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := w.c.Sign(t.Context(), keyID(t, key.ID), versionID(t, key.Version()), signature.SHA256, []byte("m")); err != nil {
					t.Fatal(err)
				}
				if n := w.unreachable.Load(); n > 1 || form != "inverse" && n > 0 {
					t.Errorf("%d attempts at missing hosts", n)
				}
				oci := (region == "eu-paris-1") != (form == "inverse")
				for _, r := range w.Requests() {
					if strings.Contains(r.Host, ".oci.") != oci {
						t.Errorf("%s went to %s", r.Operation, r.Host)
					}
				}
			})
		}
	}
	t.Run("neither name exists", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		id := keyID(t, "ocid1.key.oc1.iad.nosuchvault."+strings.Repeat("a", 60))
		_, err := w.c.Key(t.Context(), id)
		if err == nil || errors.Is(err, vault.ErrNotFound) || !oci.NoSuchHost(err) {
			t.Fatalf("got %v", err)
		}
		for _, host := range []string{"nosuchvault-management.kms.us-ashburn-1.oraclecloud.com", "nosuchvault-management.kms.us-ashburn-1.oci.oraclecloud.com"} {
			if !strings.Contains(err.Error(), host) {
				t.Errorf("%v\nshould name %s", err, host)
			}
		}
	})
	t.Run("the caller leaves before the second host", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: w.Admin().ConfigFile(), Client: oci.Config{Observe: func(a oci.Attempt) {
			if a.Outcome == "unreachable" {
				cancel()
			}
		}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = vault.New(who, vault.Config{}).Key(ctx, keyID(t, "ocid1.key.oc1.iad.nosuchvault."+strings.Repeat("a", 60)))
		if !oci.NoSuchHost(err) || errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("an error answer leads to no other host", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		key := w.vault.NewKey("key", ocitest.RSA2048)
		w.Fault(ocitest.Fault{Operation: "keymanagement.GetKey", Kind: ocitest.Status, Status: 403, Code: "NotAuthorized"})
		if _, err := w.c.Key(t.Context(), keyID(t, key.ID)); err == nil {
			t.Error("no error")
		}
		if n := w.Calls()["keymanagement.GetKey"]; n != 1 {
			t.Errorf("%d calls", n)
		}
	})
	t.Run("a key of another realm", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		_, err := w.c.Key(t.Context(), keyID(t, "ocid1.key.oc2.us-luke-1.somevault."+strings.Repeat("a", 60)))
		if err == nil || !strings.Contains(err.Error(), "the key is in realm oc2") {
			t.Errorf("got %v", err)
		}
		if _, err := w.c.Key(t.Context(), signature.KeyID{}); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("no key at all: %v", err)
		}
	})
	t.Run("a configured endpoint", func(t *testing.T) {
		switches := ocitest.Strict()
		switches.VaultHosts = "inverse"
		w := newWorld(t, ocitest.TenancyConfig{Switches: &switches})
		key := w.vault.NewKey("key", ocitest.RSA2048)
		given, err := vault.ParseEndpoint(w.Region, "https://"+w.vault.Extension+"-crypto.kms.us-ashburn-1.oci.oraclecloud.com/")
		if err != nil {
			t.Fatal(err)
		}
		c := w.as(t, w.NewUser("second", "Administrators"), vault.Config{Endpoints: []vault.Endpoint{given}})
		if _, err := c.Key(t.Context(), keyID(t, key.ID)); err != nil {
			t.Error(err)
		}
		wrong, err := vault.ParseEndpoint(w.Region, "https://"+w.vault.Extension+"-management.kms.us-ashburn-1.oraclecloud.com")
		if err != nil {
			t.Fatal(err)
		}
		luke, err := image.ParseRegion("us-luke-1")
		if err != nil {
			t.Fatal(err)
		}
		elsewhere, err := vault.ParseEndpoint(luke, "https://"+w.vault.Extension+"-management.kms.us-luke-1.oraclegovcloud.com")
		if err != nil {
			t.Fatal(err)
		}
		c = w.as(t, w.NewUser("fourth", "Administrators"), vault.Config{Endpoints: []vault.Endpoint{elsewhere}})
		if _, err := c.Key(t.Context(), keyID(t, key.ID)); err == nil || !strings.Contains(err.Error(), "is not under oraclecloud.com") {
			t.Errorf("at an endpoint of another realm: %v", err)
		}
		c = w.as(t, w.NewUser("third", "Administrators"), vault.Config{Endpoints: []vault.Endpoint{wrong}})
		if _, err := c.Key(t.Context(), keyID(t, key.ID)); !oci.NoSuchHost(err) {
			t.Errorf("at a missing endpoint: %v", err)
		}
	})
}

func TestParseEndpoint(t *testing.T) {
	region, err := image.ParseRegion("us-ashburn-1")
	if err != nil {
		t.Fatal(err)
	}
	label := strings.Repeat("a", 63)
	longest := strings.Repeat("a.", 253/2-len("oraclecloud.com")/2) + "oraclecloud.com" // 253 bytes
	for _, good := range []string{
		"https://b5q4-management.kms.us-ashburn-1.oraclecloud.com",
		"https://b5q4-crypto.kms.us-ashburn-1.oci.oraclecloud.com/",
		"https://b5q4-management.private.kms.oraclecloud.com",
		"https://" + label + "-management." + label + ".oraclecloud.com",
		"https://b5q4-management." + longest,
	} {
		if _, err := vault.ParseEndpoint(region, good); err != nil {
			t.Error(err)
		}
	}
	for name, bad := range map[string]string{
		"nothing":                "",
		"no scheme":              "b5q4-management.kms.us-ashburn-1.oraclecloud.com",
		"plain http":             "http://b5q4-management.kms.us-ashburn-1.oraclecloud.com",
		"another domain":         "https://b5q4-management.kms.us-ashburn-1.oraclecloud.com.evil.com",
		"a domain with a suffix": "https://b5q4-management.eviloraclecloud.com",
		"the domain alone":       "https://b5q4-management.oraclecloud.com.",
		"another realm":          "https://b5q4-management.kms.us-luke-1.oraclegovcloud.com",
		"a port":                 "https://b5q4-management.kms.us-ashburn-1.oraclecloud.com:8443",
		"a user":                 "https://a@b5q4-management.kms.us-ashburn-1.oraclecloud.com",
		"a path":                 "https://b5q4-management.kms.us-ashburn-1.oraclecloud.com/x",
		"a query":                "https://b5q4-management.kms.us-ashburn-1.oraclecloud.com?x",
		"a fragment":             "https://b5q4-management.kms.us-ashburn-1.oraclecloud.com#x",
		"another service":        "https://artifacts.us-ashburn-1.oci.oraclecloud.com",
		"no vault":               "https://-management.kms.us-ashburn-1.oraclecloud.com",
		"an invalid name":        "https://b5q4-management.kms_us.oraclecloud.com",
		"a name in capitals":     "https://B5Q4-management.kms.us-ashburn-1.oraclecloud.com",
		"two hosts in one":       "https://evil.com\\b5q4-management.kms.us-ashburn-1.oraclecloud.com",
		"an empty label":         "https://b5q4-management..oraclecloud.com",
		"a label too long":       "https://b5q4-management.a" + label + ".oraclecloud.com",
		"a vault too long":       "https://a" + label + "-management.kms.oraclecloud.com",
		"a name too long":        "https://b5q4-management.a" + longest,
		"a hyphen first":         "https://-b5q4-management.kms.us-ashburn-1.oraclecloud.com",
		"a hyphen last":          "https://b5q4--management.kms.us-ashburn-1.oraclecloud.com",
		"not a URL":              "https://b5q4-management.kms.us-ashburn-1.oraclecloud.com%",
		"a host with no vault":   "https://a.b-management.kms.us-ashburn-1.oraclecloud.com",
	} {
		if got, err := vault.ParseEndpoint(region, bad); err == nil || got != (vault.Endpoint{}) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	if _, err := vault.ParseEndpoint(image.Region{}, "https://b5q4-management.kms.us-ashburn-1."); err == nil {
		t.Error("in no region: no error")
	}
}

// There are few vaults, unless a client invents keys.
func TestFewVaultsAreCached(t *testing.T) {
	for vaults, want := range map[int]int{999: 999, 1000: 1000, 1001: 1} {
		if got := vault.CachedAmong(vaults); got != want {
			t.Errorf("%d vaults, %d are cached, want %d", vaults, got, want)
		}
	}
}

func FuzzParseEndpoint(f *testing.F) {
	region, err := image.ParseRegion("us-ashburn-1")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("https://b5q4-management.kms.us-ashburn-1.oraclecloud.com/")
	f.Add("https://b5q4-crypto.kms.us-ashburn-1.oci.oraclecloud.com")
	f.Add("https://a@b-management.oraclecloud.com:1/?#")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := vault.ParseEndpoint(region, s)
		if err != nil {
			if got != (vault.Endpoint{}) {
				t.Errorf("%v beside %v", got, err)
			}
			return
		}
		// A parsed endpoint prints back the same, within Oracle's domain.
		again, err := vault.ParseEndpoint(region, got.String())
		if err != nil || again != got || !strings.HasSuffix(got.String(), ".oraclecloud.com") {
			t.Errorf("%q: %s, %v", s, got, err)
		}
	})
}

func TestVaultsAndTheirKeys(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	team := w.NewCompartment("team", "")
	var vaults []string
	for i := range 12 { // more than the smallest page
		vaults = append(vaults, w.NewVault(fmt.Sprint("vault-", i), team).ID)
	}
	got, err := w.c.Vaults(t.Context(), team)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, v := range got {
		ids = append(ids, v.ID)
		if v.State != "ACTIVE" || v.CompartmentID != team || !strings.HasPrefix(v.Name, "vault-") || v.TimeCreated.IsZero() {
			t.Errorf("got %+v", v)
		}
	}
	slices.Sort(ids)
	slices.Sort(vaults)
	if diff := cmp.Diff(vaults, ids); diff != "" {
		t.Error(diff)
	}

	rootVaults, err := w.c.Vaults(t.Context(), w.ID)
	if err != nil || len(rootVaults) != 1 {
		t.Fatal(rootVaults, err)
	}
	want := map[string]string{}
	for i := range 12 {
		shape, alg := ocitest.AES256, "AES"
		if i%2 == 0 {
			shape, alg = ocitest.P256, "ECDSA"
		}
		want[w.vault.NewKey(fmt.Sprint("key-", i), shape).ID] = alg
	}
	keys, err := w.c.Keys(t.Context(), rootVaults[0], w.ID)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, k := range keys {
		found[k.ID.String()] = k.Algorithm
		if k.State != "ENABLED" || k.VaultID != w.vault.ID || k.CompartmentID != w.ID || k.Name == "" {
			t.Errorf("got %+v", k)
		}
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
	if keys, err := w.c.Keys(t.Context(), rootVaults[0], team); len(keys) != 0 || err != nil {
		t.Errorf("in another compartment: %v, %v", keys, err)
	}

	t.Run("an endpoint that is not OCI's", func(t *testing.T) {
		for _, endpoint := range []string{"https://evil.example.com", "https://x-management.evil.example.com", "", "http://127.0.0.1:1"} {
			before := len(w.Requests())
			if keys, err := w.c.Keys(t.Context(), vault.Vault{Name: "v", ManagementEndpoint: endpoint}, w.ID); err == nil || !strings.Contains(err.Error(), "not the endpoint of a vault") {
				t.Errorf("%s: %v, %v", endpoint, keys, err)
			}
			if len(w.Requests()) != before {
				t.Errorf("%s: a request was made", endpoint)
			}
		}
	})
	t.Run("a missing right", func(t *testing.T) {
		switches := ocitest.Strict()
		w := newWorld(t, ocitest.TenancyConfig{Switches: &switches})
		stranger := w.as(t, w.NewUser("stranger"), vault.Config{})
		if _, err := stranger.Vaults(t.Context(), w.ID); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	})
	for name, fault := range map[string]ocitest.Fault{
		"a vault without an id":        {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: `[{"displayName":"v"}]`},
		"a vault without a state":      {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: `[{"id":"ocid1.vault.a"}]`},
		"a state without a vault":      {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: `[{"lifecycleState":"ACTIVE"}]`},
		"a key without a state":        {Operation: "keymanagement.ListKeys", Kind: ocitest.Body, Body: `[{"id":"ocid1.key.oc1.iad.a.` + strings.Repeat("a", 60) + `"}]`},
		"a vault with a path":          {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: `[{"id":"../x"}]`},
		"endless vaults":               {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: "[]", Headers: map[string]string{"opc-next-page": "x"}},
		"an object in place of a list": {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: "{}"},
		"null":                         {Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: "null"},
		"a key with an invalid OCID":   {Operation: "keymanagement.ListKeys", Kind: ocitest.Body, Body: `[{"id":"ocid1.key.oc1.iad.evil.x","lifecycleState":"ENABLED"}]`},
		"endless keys":                 {Operation: "keymanagement.ListKeys", Kind: ocitest.Body, Body: "[]", Headers: map[string]string{"opc-next-page": "x"}},
		"an error for the keys":        {Operation: "keymanagement.ListKeys", Kind: ocitest.Status, Status: 500, Code: "InternalServerError"},
		"an error for the vaults":      {Operation: "keymanagement.ListVaults", Kind: ocitest.Status, Status: 400, Code: "InvalidParameter"},
		"a number as an id":            {Operation: "keymanagement.ListKeys", Kind: ocitest.Body, Body: `[{"id":7}]`},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ocitest.TenancyConfig{})
			w.vault.NewKey("key", ocitest.AES256)
			w.Fault(fault)
			vaults, err := w.c.Vaults(t.Context(), w.ID)
			if fault.Operation == "keymanagement.ListVaults" {
				if err == nil || errors.Is(err, vault.ErrNotFound) {
					t.Errorf("got %v, %v", vaults, err)
				}
				return
			}
			if err != nil || len(vaults) != 1 {
				t.Fatal(vaults, err)
			}
			if keys, err := w.c.Keys(t.Context(), vaults[0], w.ID); err == nil {
				t.Errorf("got %v", keys)
			}
		})
	}
	t.Run("the largest number", func(t *testing.T) {
		w := newWorld(t, ocitest.TenancyConfig{})
		v, err := w.c.Vaults(t.Context(), w.ID)
		if err != nil {
			t.Fatal(err)
		}
		key := w.vault.NewKey("key", ocitest.AES256)
		for n, ok := range map[int]bool{5000: true, 5001: false} {
			w.Fault(ocitest.Fault{Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Count: 1, Body: list(`{"id":"ocid1.vault.a","lifecycleState":"ACTIVE"}`, n)})
			w.Fault(ocitest.Fault{Operation: "keymanagement.ListKeys", Kind: ocitest.Body, Count: 1, Body: list(`{"id":"`+key.ID+`","lifecycleState":"ENABLED"}`, n)})
			if got, err := w.c.Vaults(t.Context(), w.ID); (err == nil) != ok || ok && len(got) != n {
				t.Errorf("%d vaults: %d, %v", n, len(got), err)
			}
			if got, err := w.c.Keys(t.Context(), v[0], w.ID); (err == nil) != ok || ok && len(got) != n {
				t.Errorf("%d keys: %d, %v", n, len(got), err)
			}
		}
	})
	t.Run("the caller has left", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.c.Vaults(ctx, w.ID); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// A new vault passes through transient states. A repeated request makes no second
// one.
func TestCreate(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	made, err := w.c.CreateVault(t.Context(), "fresh", w.ID)
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.c.Vault(t.Context(), made.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(made, got); diff != "" {
		t.Errorf("as created (-), as read (+):\n%s", diff)
	}
	if got.Name != "fresh" || got.State != "ACTIVE" || got.CompartmentID != w.ID {
		t.Errorf("got %+v", got)
	}
	// The answer is lost after OCI has made the key. The retry token finds the key.
	w.Fault(ocitest.Fault{Kind: ocitest.Truncate, Operation: "keymanagement.CreateKey", Count: 1})
	key, err := w.c.CreateKey(t.Context(), got, vault.NewKey{Name: "k", CompartmentID: w.ID, Bits: 2048, Protection: "SOFTWARE"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := w.c.Keys(t.Context(), got, w.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 1 || keys[0].ID != key.ID || key.Algorithm != "RSA" || key.Bits != 2048 || key.Protection != "SOFTWARE" {
		t.Errorf("got %+v, listed %+v", key, keys)
	}

	nobody := w.as(t, w.NewUser("nobody"), vault.Config{})
	if _, err := nobody.CreateVault(t.Context(), "mine", w.ID); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("creating a vault without a right: %v", err)
	}
	if _, err := nobody.CreateKey(t.Context(), got, vault.NewKey{Name: "k", CompartmentID: w.ID, Bits: 2048}); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("creating a key without a right: %v", err)
	}
	for _, id := range []string{"", "..", "a/b"} {
		if v, err := w.c.Vault(t.Context(), id); err == nil || !strings.Contains(err.Error(), "not the OCID of a vault") {
			t.Errorf("vault %q: %+v, %v", id, v, err)
		}
	}
	if v, err := w.c.Vault(t.Context(), "ocid1.vault.oc1.iad.nosuchvault"); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("no such vault: %+v, %v", v, err)
	}
	for _, lie := range []map[string]any{{"id": "ocid1.vault.a"}, {"id": "../x"}, {"id": nil}, {"lifecycleState": nil}} {
		w.Fault(ocitest.Fault{Operation: "keymanagement.GetVault", Kind: ocitest.Set, Set: lie, Count: 1})
		v, err := w.c.Vault(t.Context(), made.ID)
		if said := lie["id"] == "ocid1.vault.a"; !oci.IsMalformed(err) || strings.Contains(err.Error(), "asked for vault "+made.ID) != said {
			t.Errorf("a vault read with %v: %+v, %v", lie, v, err)
		}
	}
	for _, lie := range []map[string]any{{"id": "../x"}, {"lifecycleState": nil}} {
		w.Fault(ocitest.Fault{Operation: "keymanagement.CreateVault", Kind: ocitest.Set, Set: lie, Count: 1})
		if v, err := w.c.CreateVault(t.Context(), "other", w.ID); !oci.IsMalformed(err) {
			t.Errorf("a vault created with %v: %+v, %v", lie, v, err)
		}
	}
	for _, lie := range []map[string]any{{"id": "ocid1.key.oc1.iad.evil.x"}, {"keyShape": nil}} {
		w.Fault(ocitest.Fault{Operation: "keymanagement.CreateKey", Kind: ocitest.Set, Set: lie, Count: 1})
		if k, err := w.c.CreateKey(t.Context(), got, vault.NewKey{Name: "l", CompartmentID: w.ID, Bits: 2048}); !oci.IsMalformed(err) || lie["id"] != nil && !strings.Contains(err.Error(), "not the OCID of a key") {
			t.Errorf("a key created with %v: %+v, %v", lie, k, err)
		}
	}
	elsewhere := got
	elsewhere.ManagementEndpoint = "https://x-management.kms.us-ashburn-1.example.com"
	if _, err := w.c.CreateKey(t.Context(), elsewhere, vault.NewKey{Name: "k", CompartmentID: w.ID, Bits: 2048}); err == nil || !strings.Contains(err.Error(), "not the endpoint of a vault") {
		t.Errorf("a key at another host than OCI's: %v", err)
	}
}

// A key comes with its versions. A missing key is an answer, and a failed call is an error.
func TestMasterKey(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	made := w.vault.NewKey("key", ocitest.RSA2048)
	id, first := keyID(t, made.ID), versionID(t, made.Version())
	second := versionID(t, made.Rotate())
	made.SetVersionState(first.String(), "DISABLED")
	key, err := w.c.MasterKey(t.Context(), id)
	if err != nil || key.Missing || key.Name != "key" || len(key.Versions) != 2 {
		t.Fatalf("got %+v, %v", key, err)
	}
	want := verdict.Key{ID: id, State: "ENABLED", Algorithm: "RSA", Versions: map[signature.KeyVersionID]string{first: "DISABLED", second: "ENABLED"}}
	if got := key.Decisive(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := w.c.KeyState(t.Context(), id); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("its state is %+v, %v, want %+v", got, err, want)
	}

	absent := keyID(t, made.ID[:len(made.ID)-4]+"aaaa")
	key, err = w.c.MasterKey(t.Context(), absent)
	if want := (verdict.Key{ID: absent, State: verdict.NotFound}); err != nil || !key.Missing || !reflect.DeepEqual(key.Decisive(), want) {
		t.Errorf("a missing key: %+v, %v", key, err)
	}
	w.Fault(ocitest.Fault{Kind: ocitest.Status, Operation: "keymanagement.ListKeyVersions", Status: 500, Code: "InternalServerError"})
	if key, err := w.c.MasterKey(t.Context(), id); err == nil || !reflect.DeepEqual(key, vault.MasterKey{}) {
		t.Errorf("versions that cannot be listed: %+v, %v", key, err)
	}
	if got, err := w.c.KeyState(t.Context(), id); err == nil || !reflect.DeepEqual(got, verdict.Key{}) {
		t.Errorf("a state that cannot be read: %+v, %v", got, err)
	}
}

// TestAPanicIsOneKeysError makes the reading of a key, or of its versions, panic.
func TestAPanicIsOneKeysError(t *testing.T) {
	w := newWorld(t, ocitest.TenancyConfig{})
	key := keyID(t, w.vault.NewKey("k", ocitest.RSA2048).ID)
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{
		ConfigFile: w.Admin().ConfigFile(),
		Client:     oci.Config{OnDelay: func(context.Context, error) { panic("a secret") }}, // where the call was made
	})
	if err != nil {
		t.Fatal(err)
	}
	c := vault.New(who, vault.Config{})
	for _, operation := range []string{"keymanagement.GetKey", "keymanagement.ListKeyVersions"} {
		w.Fault(ocitest.Fault{Operation: operation, Kind: ocitest.Status, Status: 500, Code: "InternalServerError", Count: 1})
		_, err := c.MasterKey(t.Context(), key)
		if _, ok := errors.AsType[*contain.PanicError](err); !ok || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", operation, err)
		}
		if got, err := c.MasterKey(t.Context(), key); err != nil || got.Missing || len(got.Versions) != 1 {
			t.Errorf("after %s: %+v, %v", operation, got, err)
		}
	}
}
