package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

func newKeys(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Find, choose and make the keys that sign images",

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeysList(g), newKeysDescribe(g), newKeysUse(g), newKeysCreate(g))
	return cmd
}

type keysListOptions struct {
	*global
	out output
}

func newKeysList(g *global) *cobra.Command {
	o := &keysListOptions{global: g}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys of all vaults, and say which can sign images",
		Long: `List the keys of all vaults in the region of the profile, and say which can sign
images and why the others cannot.

It looks in every compartment of the tenancy that you may see. In a large one,
--compartment is faster: it names the compartments to look in, those of the
vaults and those of the keys.`,
		Example: `  kubectl oke-sign keys list

  # The OCIDs of the keys that can sign images
  kubectl oke-sign keys list -o json | jq -r '.[] | select(.usable).id'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.out.bind(cmd.Flags())
	return cmd
}

// listedKey is a key as keys list shows it.
type listedKey struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Vault         string `json:"vault"`
	VaultID       string `json:"vaultId"`
	Compartment   string `json:"compartment,omitempty"`
	CompartmentID string `json:"compartmentId"`
	Algorithm     string `json:"algorithm"`
	Bits          int    `json:"bits,omitempty"`
	Curve         string `json:"curve,omitempty"`
	State         string `json:"state"`
	Protection    string `json:"protection,omitempty"`
	Created       string `json:"created,omitempty"`
	Usable        bool   `json:"usable"`
	Reason        string `json:"reason,omitempty"` // why it is not usable
}

func (o *keysListOptions) run(ctx context.Context) error {
	columns := []column{{name: "name"}, {name: "vault"}, {name: "algorithm"}, {name: "state"},
		{name: "compartment", wide: true}, {name: "protection", wide: true}, {name: "created", wide: true}, {name: "id"}, {name: "signs images"}}
	ctx, cancel := o.within(ctx)
	defer cancel()

	c, err := o.connect(ctx)
	if err != nil {
		return o.finish(o.out, columns, allFailed([]string{""}, because(ctx, err)))
	}
	s := o.survey(ctx, c)
	s.list(ctx)
	s.describe(ctx)
	results := make([]result, 0, len(s.keys)+len(s.failed))
	for _, found := range s.keys {
		results = append(results, o.show(found))
	}
	for _, err := range s.failed {
		results = append(results, result{err: because(ctx, err)})
	}
	if err := s.blind(); err != nil {
		return o.finish(o.out, columns, append(results, result{err: err}))
	}
	outcome := o.finish(o.out, columns, results)
	if n := len(s.closed); n > 0 {
		o.remark("%s could not be looked into: you may not list vaults or keys there", count(n, "compartment"))
	}
	if len(s.keys) == 0 && len(s.failed) == 0 {
		o.remark("no keys found in %s, region %s", count(len(s.compartments), "compartment"), c.who.Region())
	}
	return outcome
}

// asListed is a key as lists show it.
func asListed(f foundKey) listedKey {
	k := listedKey{
		ID: f.ID.String(), Name: f.Name, Vault: f.vault.Name, VaultID: cmp.Or(f.vault.ID, f.VaultID),
		Compartment: f.compartment, CompartmentID: f.CompartmentID,
		Algorithm: f.Algorithm, Bits: f.Bits, Curve: f.CurveID, State: f.State, Protection: f.Protection,
		Created: timestamp(f.TimeCreated),
	}
	k.Reason = useless(f.Key)
	k.Usable = k.Reason == ""
	return k
}

func (o *keysListOptions) show(f foundKey) result {
	k := asListed(f)
	signs, id := "yes", f.ID.Short()
	if !k.Usable {
		signs = "no: " + k.Reason
	}
	if o.out.format == "wide" {
		id = k.ID
	}
	return result{
		value: k,
		names: []string{k.ID},
		rows:  [][]string{{k.Name, k.Vault, kindOf(f.Key), k.State, k.Compartment, k.Protection, k.Created, id, signs}},
	}
}

// kindOf is a key's algorithm and length as people say it: "RSA 2048".
func kindOf(k vault.Key) string {
	switch {
	case k.CurveID != "":
		return k.Algorithm + " " + strings.ReplaceAll(strings.TrimPrefix(k.CurveID, "NIST_"), "P", "P-")
	case k.Bits > 0:
		return fmt.Sprintf("%s %d", k.Algorithm, k.Bits)
	default:
		return k.Algorithm
	}
}

// useless says why a key cannot sign images, or "". What can never sign comes
// before what only cannot sign now.
func useless(k vault.Key) string {
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

const hintOCIDs = "kubectl oke-sign keys list -o wide shows the OCIDs of keys"

// findKey is the key that a user means: by OCID, by name, or, at a terminal, the
// one that is picked when nothing is said.
func (g *global) findKey(ctx context.Context, c *cloud, key string) (signature.KeyID, error) {
	if strings.HasPrefix(key, "ocid1.") {
		return signature.ParseKeyID(key)
	}
	found := g.survey(ctx, c)
	found.list(ctx)
	if key == "" {
		return g.pickKey(ctx, found)
	}
	var named []foundKey
	for _, k := range found.keys {
		if k.Name == key {
			named = append(named, k)
		}
	}
	switch {
	// A key that could not be listed may have the name too.
	case len(found.failed) > 0:
		return signature.KeyID{}, &refusal{fmt.Errorf("looking for a key named %q: %w", key, found.failed[0]), "name the key by its OCID"}
	case len(named) == 0 && found.blind() != nil:
		return signature.KeyID{}, found.blind()
	case len(named) == 0:
		return signature.KeyID{}, &refusal{fmt.Errorf("no key is named %q in region %s", key, c.who.Region()), "kubectl oke-sign keys list shows the keys"}
	case len(named) > 1:
		var ids []string
		for _, k := range named {
			ids = append(ids, fmt.Sprintf("%s (vault %s, %s)", k.ID, k.vault.Name, k.State))
		}
		return signature.KeyID{}, &refusal{fmt.Errorf("%d keys are named %q: %s", len(named), key, strings.Join(ids, ", ")), "name one by its OCID"}
	}
	return named[0].ID, nil
}

// pickKey asks which of the keys that can sign images is meant.
func (g *global) pickKey(ctx context.Context, found *survey) (signature.KeyID, error) {
	var usable []foundKey
	var choices []string
	width := 0
	for _, k := range found.keys {
		if useless(k.Key) == "" {
			usable = append(usable, k)
			width = max(width, len(k.Name))
		}
	}
	for _, k := range usable {
		choices = append(choices, fmt.Sprintf("%-*s  vault %s  %s", width, k.Name, k.vault.Name, k.ID.Short()))
	}
	for _, err := range found.failed {
		g.remark("not all keys could be listed: %v", err)
	}
	if len(usable) == 0 {
		return signature.KeyID{}, cmp.Or(found.blind(), error(&refusal{
			fmt.Errorf("no key in region %s can sign images", found.cloud.who.Region()), "kubectl oke-sign keys list says why; keys create makes one",
		}))
	}
	i, err := g.pick(ctx, "Key to sign with", choices)
	if err != nil {
		return signature.KeyID{}, err
	}
	return usable[i].ID, nil
}

// survey is a look over compartments for vaults and keys.
type survey struct {
	cloud        *cloud
	compartments []ociauth.Compartment
	named        bool // by the user, who will want to know of each that is not readable

	mu     sync.Mutex
	vaults []vault.Vault
	keys   []foundKey
	failed []error
	closed map[string]bool // compartments that are not readable
}

type foundKey struct {
	vault.Key
	vault       vault.Vault
	compartment string // by name, if known
}

// survey finds the vaults of the region, in the compartments of --compartment or
// in all.
func (g *global) survey(ctx context.Context, c *cloud) *survey {
	s := &survey{cloud: c, named: len(g.compartments) > 0, closed: make(map[string]bool)}
	for _, id := range g.compartments {
		s.compartments = append(s.compartments, ociauth.Compartment{ID: id})
	}
	if !s.named {
		all, err := c.who.Compartments(ctx)
		if err != nil {
			s.failed = append(s.failed, err)
			return s
		}
		s.compartments = all
	}
	group := limited()
	for _, compartment := range s.compartments {
		group.Go(func() error {
			found, err := c.vault.Vaults(ctx, compartment.ID)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.note(compartment, err)
			for _, v := range found {
				if v.State != "DELETED" && v.State != "DELETING" {
					s.vaults = append(s.vaults, v)
				}
			}
			return nil
		})
	}
	_ = group.Wait()
	return s
}

// note remembers what was not found out. In a tree that was walked, compartments
// of other people are passed over, and counted.
func (s *survey) note(in ociauth.Compartment, err error) {
	switch {
	case err == nil:
	case errors.Is(err, vault.ErrNotFound) && !s.named:
		s.closed[in.ID] = true
	default:
		s.failed = append(s.failed, fmt.Errorf("compartment %s: %w", cmp.Or(in.Name, in.ID), err))
	}
}

// blind is the error of a survey that could look into nothing, or nil.
func (s *survey) blind() error {
	if len(s.closed) == 0 || len(s.closed) < len(s.compartments) {
		return nil
	}
	return &refusal{
		fmt.Errorf("you may not list vaults or keys in any of %s of region %s", count(len(s.compartments), "compartment"), s.cloud.who.Region()),
		"ask for a policy that lets you `inspect vaults` and `inspect keys`, or name a compartment with --compartment",
	}
}

// list finds the keys of the vaults in the compartments: OCI lets a key lie in
// another compartment than its vault, and lists keys by both.
func (s *survey) list(ctx context.Context) {
	group := limited()
	for _, v := range s.vaults {
		for _, compartment := range s.compartments {
			group.Go(func() error {
				keys, err := s.cloud.vault.Keys(ctx, v, compartment.ID)
				s.mu.Lock()
				defer s.mu.Unlock()
				s.note(compartment, err)
				for _, k := range keys {
					s.keys = append(s.keys, foundKey{k, v, compartment.Name})
				}
				return nil
			})
		}
	}
	_ = group.Wait()
	slices.SortFunc(s.keys, func(a, b foundKey) int {
		return cmp.Or(cmp.Compare(a.vault.Name, b.vault.Name), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
}

// describe adds what lists leave out: the length of each key. Who may list a
// key may not always read it, and it is listed all the same.
func (s *survey) describe(ctx context.Context) {
	failed := make([]error, len(s.keys))
	group := limited()
	for i := range s.keys {
		group.Go(func() error {
			k := &s.keys[i]
			full, err := s.cloud.vault.Key(ctx, k.ID)
			switch {
			case err == nil:
				k.Key = full
			case !errors.Is(err, vault.ErrNotFound):
				failed[i] = fmt.Errorf("key %s: %w", k.Name, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	for _, err := range failed {
		if err != nil {
			s.failed = append(s.failed, err)
		}
	}
}

// limited is a group that does not stop at an error: each call reports its own.
func limited() *errgroup.Group {
	group := new(errgroup.Group)
	group.SetLimit(parallel)
	return group
}
