package keyring_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// A user names a key by OCID or by name. A name is ambiguous if several keys have
// it, or if a key that could not be listed may have it.
func TestFind(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: strict()})
	compartment := tenancy.NewCompartment("containers", "")
	first, second := tenancy.NewVault("first", ""), tenancy.NewVault("second", compartment)
	wanted := newRSA(t, first, "image-key")
	newRSA(t, first, "twice")
	newRSA(t, second, "twice").SetState("DISABLED")
	newECDSA(t, second, "curve")
	disabled := newRSA(t, second, "disabled")
	disabled.SetState("DISABLED")
	unusable := tenancy.NewCompartment("unusable", "")
	newECDSA(t, tenancy.NewVault("third", unusable), "third")
	tenancy.Allow("Allow user lister to inspect compartments in tenancy", "Allow user lister to inspect vaults in compartment containers", "Allow user lister to inspect keys in compartment containers")
	admin, lister, stranger := tenancy.Admin(), tenancy.NewUser("lister"), tenancy.NewUser("stranger")
	for name, tc := range map[string]struct {
		as    *ocitest.User
		flags []string
		fault *ocitest.Fault
		key   string
		typed string
		want  string
		err   string
		hint  string
	}{
		"an OCID, which needs no look at vaults": {as: stranger, key: wanted.ID, want: wanted.ID},
		"an OCID of no key":                      {as: admin, key: "ocid1.vault.oc1.iad.x.y", err: "ocid1.vault"},
		"a name":                                 {as: admin, key: "image-key", want: wanted.ID},
		"a name of a key that cannot sign":       {as: admin, key: "disabled", want: disabled.ID},
		"a name in another case":                 {as: admin, key: "Image-Key", err: `no key is named "Image-Key" in region`, hint: "keys list"},
		"a name that a terminal would obey":      {as: admin, key: "a\x1b[2J", err: `"a\x1b[2J"`, hint: "keys list"},
		"a name of two keys":                     {as: admin, key: "twice", err: "2 keys are named", hint: "by its OCID"},
		"a name of two keys, in one compartment": {as: admin, flags: []string{"--compartment", compartment}, key: "twice", want: "twice"},
		"a name outside of --compartment":        {as: admin, flags: []string{"--compartment", compartment}, key: "image-key", err: "no key is named"},
		"a name in a compartment that the user may not list": {
			as: lister, key: "image-key", err: "no key is named",
		},
		"nothing that the user may list": {as: stranger, key: "image-key", err: "you may not list vaults or keys in any of", hint: "inspect vaults"},
		"a named compartment that the user may not list": {
			as: stranger, flags: []string{"--compartment", compartment}, key: "twice", err: "compartment ocid1", hint: "by its OCID",
		},
		"a vault whose keys cannot be listed": {
			as: admin, fault: &ocitest.Fault{Operation: "keymanagement.ListKeys", Kind: ocitest.Status, Status: 400, Code: "InvalidParameter", Count: 1},
			key: "image-key", err: "InvalidParameter", hint: "by its OCID",
		},
		"compartments that cannot be listed": {
			as: admin, fault: &ocitest.Fault{Operation: "identity.ListCompartments", Kind: ocitest.Status, Status: 401, Code: "NotAuthenticated"},
			key: "image-key", err: "NotAuthenticated",
		},
		"no name, and a number is typed":      {as: admin, typed: "1\n", want: wanted.ID},
		"no name, and a part of one is typed": {as: admin, typed: "tw\n\n", want: "twice"},
		"no name, and the input ends":         {as: admin, err: "nothing was answered"},
		"no name, and no key that can sign": {
			as: admin, flags: []string{"--compartment", unusable}, err: "can sign images", hint: "says why",
		},
		"no name, and nothing that the user may list": {as: stranger, err: "you may not list", hint: "--compartment"},
	} {
		t.Run(name, func(t *testing.T) {
			u := signIn(t, tc.as, tc.flags...)
			u.in.WriteString(tc.typed)
			if tc.fault != nil {
				if _, err := cloud.SetFault(withTenancy(*tc.fault, tenancy)); err != nil {
					t.Fatal(err)
				}
				defer cloud.ClearFaults()
			}
			id, err := keyring.Find(t.Context(), u.session, u.cloud, tc.key)
			if tc.err == "" {
				key, _ := u.cloud.Vault.Key(t.Context(), id)
				if err != nil || id.String() != tc.want && key.Name != tc.want {
					t.Errorf("got %s, %v, want %s", id, err, tc.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Fatalf("got %s, %v, want an error with %q", id, err, tc.err)
			}
			var hinted *cli.HintedError
			if errors.As(err, &hinted); tc.hint != "" && (hinted == nil || !strings.Contains(hinted.Hint, tc.hint)) {
				t.Errorf("%v: want a hint with %q, got %+v", err, tc.hint, hinted)
			}
		})
	}
}

func withTenancy(f ocitest.Fault, tenancy *ocitest.Tenancy) ocitest.Fault {
	f.Tenancy = tenancy.ID
	return f
}

// The picker offers only keys that can sign images, in columns, and each line is
// safe for a terminal.
func TestPickOffersUsableKeys(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: strict()})
	v := tenancy.NewVault("vault\x1b[2J", "")
	key := newRSA(t, v, "a\u202ekey")
	newECDSA(t, v, "curve")
	v.NewKey("aes", ocitest.AES256)
	newRSA(t, v, "disabled").SetState("DISABLED")
	u := signIn(t, tenancy.Admin())
	u.in.WriteString("1\n")
	id, err := keyring.Find(t.Context(), u.session, u.cloud, "")
	want := fmt.Sprintf("  1  a?key  vault vault?[2J  %s\nKey to sign with (Enter for this one, or text to search): ", id.Short())
	if err != nil || id.String() != key.ID {
		t.Errorf("got %s, %v, want %s", id, err, key.ID)
	}
	if diff := cmp.Diff(want, u.remarks.String()); diff != "" {
		t.Error(diff)
	}
}

// found is an inventory as text.
type found struct {
	Vaults, Keys []string
	Failed       int
	Closed       int
	Error        bool
}

func inWords(s *keyring.Inventory) found {
	f := found{Failed: len(s.Failed), Closed: len(s.Closed), Error: s.ListError() != nil}
	for _, v := range s.Vaults {
		f.Vaults = append(f.Vaults, v.Name)
	}
	slices.Sort(f.Vaults)
	for _, k := range s.Keys {
		f.Keys = append(f.Keys, fmt.Sprintf("%s/%s %s", k.Vault.Name, k.Name, keyring.KindOf(k.Key)))
	}
	return f
}

// An inventory has the keys that the user may see, and names the missing parts.
func TestInventory(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: strict()})
	compartment := tenancy.NewCompartment("containers", "")
	first, second := tenancy.NewVault("first", ""), tenancy.NewVault("second", compartment)
	newRSA(t, first, "b")
	newRSA(t, first, "a")
	newECDSA(t, second, "curve")
	gone := newRSA(t, second, "deleted")
	gone.Delete()
	tenancy.Allow("Allow user lister to inspect compartments in tenancy", "Allow user lister to inspect vaults in compartment containers", "Allow user lister to inspect keys in compartment containers")
	admin, lister, stranger := tenancy.Admin(), tenancy.NewUser("lister"), tenancy.NewUser("stranger")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	vaults := func(state string) string {
		return fmt.Sprintf(`[{"id":%q,"compartmentId":%q,"displayName":"v","lifecycleState":%q,"managementEndpoint":"https://%s-management.kms.us-ashburn-1.oraclecloud.com","cryptoEndpoint":"https://%[4]s-crypto.kms.us-ashburn-1.oraclecloud.com","timeCreated":"2026-01-02T03:04:05Z","vaultType":"DEFAULT"}]`,
			first.ID, compartment, state, first.Extension)
	}
	for name, tc := range map[string]struct {
		ctx   context.Context
		as    *ocitest.User
		flags []string
		fault *ocitest.Fault
		want  found
	}{
		"everything, sorted": {t.Context(), admin, nil, nil, found{
			Vaults: []string{"first", "second"}, Keys: []string{"first/a RSA 2048", "first/b RSA 2048", "second/curve ECDSA P-256"},
		}},
		"of one compartment": {t.Context(), admin, []string{"--compartment", compartment}, nil, found{
			Vaults: []string{"second"}, Keys: []string{"second/curve ECDSA P-256"},
		}},
		"who may list keys, and not read them, sees no lengths": {t.Context(), lister, nil, nil, found{
			Vaults: []string{"second"}, Keys: []string{"second/curve ECDSA"}, Closed: 1,
		}},
		"no rights":                            {t.Context(), stranger, nil, nil, found{Closed: 1, Error: true}},
		"no rights in the compartment to look": {t.Context(), stranger, []string{"--compartment", compartment}, nil, found{Failed: 1}},
		"a vault that is being deleted": {t.Context(), admin, []string{"--compartment", tenancy.ID}, &ocitest.Fault{
			Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: vaults("DELETING"),
		}, found{}},
		"a vault that will be deleted can be restored": {t.Context(), admin, []string{"--compartment", compartment}, &ocitest.Fault{
			Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: vaults("PENDING_DELETION"),
		}, found{Vaults: []string{"v"}}},
		"a key that cannot be read is an error, and stays": {t.Context(), admin, []string{"--compartment", compartment}, &ocitest.Fault{
			Operation: "keymanagement.GetKey", Kind: ocitest.Status, Status: 400, Code: "InvalidParameter",
		}, found{Vaults: []string{"second"}, Keys: []string{"second/curve ECDSA"}, Failed: 1}},
		"an answer that is not a list": {t.Context(), admin, []string{"--compartment", compartment}, &ocitest.Fault{
			Operation: "keymanagement.ListVaults", Kind: ocitest.Body, Body: `{"items":"\u001b[2J"}`,
		}, found{Failed: 1}},
		"an interrupt": {cancelled, admin, nil, nil, found{Failed: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			u := signIn(t, tc.as, tc.flags...)
			if tc.fault != nil {
				if _, err := cloud.SetFault(withTenancy(*tc.fault, tenancy)); err != nil {
					t.Fatal(err)
				}
				defer cloud.ClearFaults()
			}
			s := keyring.NewInventory(tc.ctx, u.session, u.cloud)
			s.List(tc.ctx)
			s.Describe(tc.ctx)
			if diff := cmp.Diff(tc.want, inWords(s)); diff != "" {
				t.Errorf("%v\n%s", s.Failed, diff)
			}
		})
	}
}

// A key can be in another compartment than its vault. The list has the key once,
// under the key's compartment.
func TestInventoryHasEachKeyOnce(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: strict()})
	compartment := tenancy.NewCompartment("containers", "")
	v := tenancy.NewVault("vault", compartment)
	for i := range 60 {
		newRSA(t, v, fmt.Sprintf("key-%02d", i))
	}
	u := signIn(t, tenancy.Admin())
	s := keyring.NewInventory(t.Context(), u.session, u.cloud)
	s.List(t.Context())
	var names []string
	for i, k := range s.Keys {
		if names = append(names, k.Name); k.Name != fmt.Sprintf("key-%02d", i) || k.Compartment != "containers" {
			t.Errorf("key %d is %q of compartment %q", i, k.Name, k.Compartment)
		}
	}
	if len(names) != 60 {
		t.Errorf("%d keys, want 60", len(names))
	}
}
