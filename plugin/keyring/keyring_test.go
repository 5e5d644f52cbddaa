package keyring_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// A key is unusable in the list exactly if signing rejects it.
func TestKeysThatCannotSign(t *testing.T) {
	good := vault.Key{Name: "image-key", Algorithm: "RSA", Bits: 2048, Protection: "HSM", State: "ENABLED"}
	with := func(change func(*vault.Key)) vault.Key {
		k := good
		change(&k)
		return k
	}
	for name, tc := range map[string]struct {
		key          vault.Key
		list, signer string
	}{
		"an RSA key":            {good, "", ""},
		"AES":                   {with(func(k *vault.Key) { k.Algorithm = "AES" }), "AES keys cannot sign", "AES keys cannot sign"},
		"ECDSA":                 {with(func(k *vault.Key) { k.Algorithm = "ECDSA" }), "OCI Registry takes RSA only", "RSA keys only"},
		"another algorithm":     {with(func(k *vault.Key) { k.Algorithm = "ED25519" }), "not an RSA key", "is not an RSA key"},
		"no algorithm":          {with(func(k *vault.Key) { k.Algorithm = "" }), "not an RSA key", "is not an RSA key"},
		"outside OCI Vault":     {with(func(k *vault.Key) { k.Protection = "EXTERNAL" }), "outside OCI Vault", "outside OCI Vault"},
		"to be deleted":         {with(func(k *vault.Key) { k.State = "PENDING_DELETION" }), "scheduled for deletion", "cancel the deletion"},
		"being scheduled":       {with(func(k *vault.Key) { k.State = "SCHEDULING_DELETION" }), "scheduled for deletion", "cancel the deletion"},
		"deleted":               {with(func(k *vault.Key) { k.State = "DELETED" }), "not enabled", "would not hold"},
		"disabled":              {with(func(k *vault.Key) { k.State = "DISABLED" }), "not enabled", "is DISABLED"},
		"a state that is new":   {with(func(k *vault.Key) { k.State = "RESTING" }), "not enabled", "is RESTING"},
		"no state":              {with(func(k *vault.Key) { k.State = "" }), "not enabled", "enable it"},
		"AES, and disabled":     {with(func(k *vault.Key) { k.Algorithm, k.State = "AES", "DISABLED" }), "AES keys cannot sign", "AES keys cannot sign"},
		"external, and deleted": {with(func(k *vault.Key) { k.Protection, k.State = "EXTERNAL", "DELETED" }), "outside OCI Vault", "outside OCI Vault"},
	} {
		if got := keyring.WhyUseless(tc.key); !strings.Contains(got, tc.list) || (got == "") != (tc.list == "") {
			t.Errorf("%s: the list says %q, want %q", name, got, tc.list)
		}
		err := keyring.SigningKeyError(vault.MasterKey{Key: tc.key})
		if (err == nil) != (tc.signer == "") {
			t.Errorf("%s: signing says %v, want %q", name, err, tc.signer)
		}
		if err == nil {
			continue
		}
		var hinted *cli.HintedError
		if !errors.As(err, &hinted) || hinted.Hint == "" || !strings.Contains(err.Error()+" "+hinted.Hint, tc.signer) {
			t.Errorf("%s: signing says %v, want %q and a hint", name, err, tc.signer)
		}
	}
	if err := keyring.SigningKeyError(vault.MasterKey{Missing: true}); err == nil || !strings.Contains(err.Error(), "has no key") {
		t.Errorf("a missing key: %v", err)
	}
}

func TestKindOf(t *testing.T) {
	for want, key := range map[string]vault.Key{
		"RSA 2048":    {Algorithm: "RSA", Bits: 2048},
		"AES 256":     {Algorithm: "AES", Bits: 256},
		"ECDSA P-384": {Algorithm: "ECDSA", CurveID: "NIST_P384"},
		"RSA":         {Algorithm: "RSA"}, // of a list, which leaves the length out
	} {
		if got := keyring.KindOf(key); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestParseIDs(t *testing.T) {
	const first = "ocid1.key.oc1.phx.bbqehaq3aadfa.abyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyh"
	const second = "ocid1.key.oc1.iad.bbqehaq3aadfa.abyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyhqljrabyh"
	for name, tc := range map[string]struct {
		ocids  []string
		want   int
		failed bool
	}{
		"none":                      {nil, 0, false},
		"two":                       {[]string{first, second}, 2, false},
		"a vault":                   {[]string{"ocid1.vault.oc1.phx.x.y"}, 0, true},
		"a name":                    {[]string{first, "image-key"}, 0, true},
		"an empty one, of a script": {[]string{""}, 0, true},
	} {
		got, err := keyring.ParseIDs(tc.ocids)
		if len(got) != tc.want || (err != nil) != tc.failed {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
