// Package keyring finds master keys of OCI Vault as a person names them, says which of
// them can sign images, and verifies signature records for display.
//
// A record names its key by the word of its uploader. The package asks OCI only for keys
// that the user named and for keys of vaults that OCI lists as the user's.
package keyring

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// KindOf is a key's algorithm and length as people say it: "RSA 2048".
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

// WhyUseless says why a key cannot sign images, or "". What can never sign comes
// before what only cannot sign now.
func WhyUseless(k vault.Key) string {
	switch {
	case k.Protection == "EXTERNAL":
		return "it is kept outside OCI Vault"
	case k.Algorithm == "AES":
		return "AES keys cannot sign"
	case k.Algorithm == "ECDSA":
		return "OCI Registry knows RSA only"
	case k.Algorithm != "RSA":
		return "not an RSA key"
	case k.State == "PENDING_DELETION" || k.State == "SCHEDULING_DELETION":
		return "about to be deleted"
	case k.State != verdict.Enabled:
		return "not enabled"
	}
	return ""
}

// HintOCIDs is the hint for a key whose name is not enough.
const HintOCIDs = "kubectl oke-sign keys list -o wide shows the OCIDs of keys"

// Find is the key that a user means: by OCID, by name, or, at a terminal, the
// one that is picked when nothing is said.
func Find(ctx context.Context, s *connect.Session, c *connect.Cloud, key string) (signature.KeyID, error) {
	if strings.HasPrefix(key, "ocid1.") {
		return signature.ParseKeyID(key)
	}
	found := NewInventory(ctx, s, c)
	found.List(ctx)
	if key == "" {
		return pickKey(ctx, s, found)
	}
	var named []FoundKey
	for _, k := range found.Keys {
		if k.Name == key {
			named = append(named, k)
		}
	}
	switch {
	// A key that could not be listed may have the name too.
	case len(found.Failed) > 0:
		return signature.KeyID{}, &cli.HintedError{What: fmt.Errorf("looking for a key named %q: %w", key, found.Failed[0]), Hint: "name the key by its OCID"}
	case len(named) == 0 && found.ListError() != nil:
		return signature.KeyID{}, found.ListError()
	case len(named) == 0:
		return signature.KeyID{}, &cli.HintedError{What: fmt.Errorf("no key is named %q in region %s", key, c.Who.Region()), Hint: "kubectl oke-sign keys list shows the keys"}
	case len(named) > 1:
		var ids []string
		for _, k := range named {
			ids = append(ids, fmt.Sprintf("%s (vault %s, %s)", k.ID, k.Vault.Name, k.State))
		}
		return signature.KeyID{}, &cli.HintedError{What: fmt.Errorf("%d keys are named %q: %s", len(named), key, strings.Join(ids, ", ")), Hint: "name one by its OCID"}
	}
	return named[0].ID, nil
}

// pickKey asks which of the keys that can sign images is meant.
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
		s.Remark("not all keys could be listed: %v", err)
	}
	if len(usable) == 0 {
		return signature.KeyID{}, cmp.Or(found.ListError(), error(&cli.HintedError{
			What: fmt.Errorf("no key in region %s can sign images", found.cloud.Who.Region()), Hint: "kubectl oke-sign keys list says why; keys create makes one",
		}))
	}
	i, err := s.Pick(ctx, "Key to sign with", choices)
	if err != nil {
		return signature.KeyID{}, err
	}
	return usable[i].ID, nil
}

// SigningKeyError says why a key cannot sign images, and what to do instead.
func SigningKeyError(key vault.MasterKey) error {
	name := fmt.Sprintf("key %s (%s)", key.Name, key.ID.Short())
	const others = "kubectl oke-sign keys list shows the keys that can"
	switch {
	case key.Missing:
		return &cli.HintedError{What: fmt.Errorf("OCI Vault has no key %s, or you may not read it", key.ID), Hint: "check --key, and that a policy lets you `use keys`"}
	case key.Protection == "EXTERNAL":
		return &cli.HintedError{What: fmt.Errorf("%s is kept outside OCI Vault, and cannot sign images", name), Hint: others}
	case key.Algorithm == "AES":
		return &cli.HintedError{What: fmt.Errorf("%s is an AES key, and AES keys cannot sign", name), Hint: "sign with an RSA key; " + others}
	case key.Algorithm == "ECDSA":
		return &cli.HintedError{What: fmt.Errorf("%s is an ECDSA key, and OCI Registry knows signatures by RSA keys only", name), Hint: "sign with an RSA key; " + others}
	case key.Algorithm != "RSA":
		return &cli.HintedError{What: fmt.Errorf("%s is no RSA key, and only those sign images", name), Hint: others}
	case key.State == "PENDING_DELETION" || key.State == "SCHEDULING_DELETION" || key.State == "DELETING" || key.State == "DELETED":
		return &cli.HintedError{What: fmt.Errorf("%s is %s, and signatures by it would not hold", name, key.State), Hint: "sign with another key, or cancel the deletion in OCI Vault"}
	case key.State != verdict.Enabled:
		return &cli.HintedError{What: fmt.Errorf("%s is %s", name, key.State), Hint: "enable it in OCI Vault, or sign with another key"}
	}
	return nil
}

// ParseIDs reads the keys of --key, each once. Names are for signing: what an
// image must be signed by is told by OCID, because a name belongs to whoever
// gave it to a key last.
func ParseIDs(ocids []string) ([]signature.KeyID, error) {
	var ids []signature.KeyID
	for _, s := range ocids {
		id, err := signature.ParseKeyID(strings.TrimSpace(s))
		if err != nil {
			return nil, cli.Usage("--key: "+err.Error(), HintOCIDs)
		}
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
