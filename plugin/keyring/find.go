// Package keyring finds master keys of OCI Vault by OCID, by name or by a choice at the
// terminal. It says which of them can sign images, and verifies signature records for
// display.
//
// The package does not trust signature records: their uploaders choose the keys that they
// name. It looks up only keys that the user named, and keys of vaults that OCI lists as
// the user's. Package verdict decides; this package changes nothing in OCI.
package keyring

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// KindOf returns a key's algorithm and length for people: "RSA 2048".
func KindOf(k vault.Key) string {
	switch {
	case k.CurveID != "":
		return k.Algorithm + " " + strings.ReplaceAll(strings.TrimPrefix(k.CurveID, "NIST_"), "P", "P-")
	case k.Bits > 0:
		return fmt.Sprintf("%s %d", k.Algorithm, k.Bits)
	default:
		return k.Algorithm
	}
}

// WhyUseless returns why a key cannot sign images, or "". Reasons that last come before
// those that may change.
func WhyUseless(k vault.Key) string {
	switch {
	case k.Protection == "EXTERNAL":
		return "stored outside OCI Vault"
	case k.Algorithm == "AES":
		return "AES keys cannot sign"
	case k.Algorithm == "ECDSA":
		return "OCI Registry takes RSA only"
	case k.Algorithm != "RSA":
		return "not an RSA key"
	case k.State == "PENDING_DELETION" || k.State == "SCHEDULING_DELETION":
		return "scheduled for deletion"
	case k.State != verdict.Enabled:
		return "not enabled"
	}
	return ""
}

// HintOCIDs is the hint for a key that must be named by OCID.
const HintOCIDs = "kubectl oke-sign keys list -o wide shows the OCIDs of keys"

// Find returns the key of an OCID or of a name. Without either, it asks the user to pick
// a key.
func Find(ctx context.Context, s *connect.Session, c *connect.Cloud, key string) (signature.KeyID, error) {
	if strings.HasPrefix(key, "ocid1.") {
		return signature.ParseKeyID(key)
	}
	found := NewInventory(ctx, s, c)
	found.List(ctx)
	if key == "" {
		return pickKey(ctx, s, found)
	}
	return found.withName(key)
}

// withName returns the only key of the inventory with a name.
func (s *Inventory) withName(key string) (signature.KeyID, error) {
	var named []FoundKey
	for _, k := range s.Keys {
		if k.Name == key {
			named = append(named, k)
		}
	}
	switch {
	// A key that OCI could not list may have the same name.
	case len(s.Failed) > 0:
		return signature.KeyID{}, &cli.HintedError{What: fmt.Errorf("looking for a key named %q: %w", key, s.Failed[0]), Hint: "name the key by its OCID"}
	case len(named) == 0 && s.ListError() != nil:
		return signature.KeyID{}, s.ListError()
	case len(named) == 0:
		return signature.KeyID{}, &cli.HintedError{What: fmt.Errorf("no key is named %q in region %s", key, s.cloud.Who.Region()), Hint: "kubectl oke-sign keys list shows the keys"}
	case len(named) > 1:
		var ids []string
		for _, k := range named {
			ids = append(ids, fmt.Sprintf("%s (vault %s, %s)", k.ID, k.Vault.Name, k.State))
		}
		return signature.KeyID{}, &cli.HintedError{What: fmt.Errorf("%d keys are named %q: %s", len(named), key, strings.Join(ids, ", ")), Hint: "name one by its OCID"}
	}
	return named[0].ID, nil
}

// pickKey asks the user for one of the keys that can sign images.
func pickKey(ctx context.Context, s *connect.Session, found *Inventory) (signature.KeyID, error) {
	var usable []FoundKey
	var choices []string
	width := 0
	for _, k := range found.Keys {
		if WhyUseless(k.Key) == "" {
			usable = append(usable, k)
			width = max(width, len(k.Name))
		}
	}
	for _, k := range usable {
		choices = append(choices, fmt.Sprintf("%-*s  vault %s  %s", width, k.Name, k.Vault.Name, k.ID.Short()))
	}
	for _, err := range found.Failed {
		s.Remark("could not list all keys: %v", err)
	}
	if len(usable) == 0 {
		return signature.KeyID{}, cmp.Or(found.ListError(), error(&cli.HintedError{
			What: fmt.Errorf("no key in region %s can sign images", found.cloud.Who.Region()), Hint: "kubectl oke-sign keys list says why; kubectl oke-sign keys create creates a key",
		}))
	}
	i, err := s.Pick(ctx, "Key to sign with", choices)
	if err != nil {
		return signature.KeyID{}, err
	}
	return usable[i].ID, nil
}

// SigningKeyError returns an error if a key cannot sign images, with a hint.
func SigningKeyError(key vault.MasterKey) error {
	name := fmt.Sprintf("key %s (%s)", key.Name, key.ID.Short())
	const others = "kubectl oke-sign keys list shows the keys that can"
	switch {
	case key.Missing:
		return &cli.HintedError{What: fmt.Errorf("OCI Vault has no key %s, or you may not read it", key.ID), Hint: "check --key, and that an IAM policy lets you `use keys`"}
	case key.Protection == "EXTERNAL":
		return &cli.HintedError{What: fmt.Errorf("%s is stored outside OCI Vault, and cannot sign images", name), Hint: others}
	case key.Algorithm == "AES":
		return &cli.HintedError{What: fmt.Errorf("%s is an AES key, and AES keys cannot sign", name), Hint: "sign with an RSA key; " + others}
	case key.Algorithm == "ECDSA":
		return &cli.HintedError{What: fmt.Errorf("%s is an ECDSA key, and OCI Registry takes signatures of RSA keys only", name), Hint: "sign with an RSA key; " + others}
	case key.Algorithm != "RSA":
		return &cli.HintedError{What: fmt.Errorf("%s is not an RSA key, and only RSA keys sign images", name), Hint: others}
	case key.State == "PENDING_DELETION" || key.State == "SCHEDULING_DELETION" || key.State == "DELETING" || key.State == "DELETED":
		return &cli.HintedError{What: fmt.Errorf("%s is %s, and its signatures would not hold", name, key.State), Hint: "sign with another key, or cancel the deletion in OCI Vault"}
	case key.State != verdict.Enabled:
		return &cli.HintedError{What: fmt.Errorf("%s is %s", name, key.State), Hint: "enable it in OCI Vault, or sign with another key"}
	}
	return nil
}
