package keyring

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// Inventory is the vaults and keys of compartments, as far as the user may list them.
type Inventory struct {
	cloud        *connect.Cloud
	session      *connect.Session
	Compartments []oci.Compartment
	named        bool // with --compartment: then one that may not be listed is an error

	mu     sync.Mutex
	Vaults []vault.Vault
	Keys   []FoundKey
	Failed []error
	Closed map[string]bool // compartments that the user may not list
}

// FoundKey is a master key with its vault and compartment.
type FoundKey struct {
	vault.Key
	Vault       vault.Vault
	Compartment string // the name, if known
}

// NewInventory finds the vaults of the region in the compartments of --compartment, or in
// all compartments.
func NewInventory(ctx context.Context, session *connect.Session, c *connect.Cloud) *Inventory {
	s := &Inventory{cloud: c, session: session, named: len(session.Compartments) > 0, Closed: make(map[string]bool)}
	for _, id := range session.Compartments {
		s.Compartments = append(s.Compartments, oci.Compartment{ID: id})
	}
	if !s.named {
		all, err := c.Who.Compartments(ctx)
		if err != nil {
			s.Failed = append(s.Failed, err)
			return s
		}
		s.Compartments = all
	}
	session.Doing("listing vaults in %s", cli.Count(len(s.Compartments), "compartment"))
	group := cli.Limited()
	for _, compartment := range s.Compartments {
		group.Go(func() error {
			found, err := c.Vault.Vaults(ctx, compartment.ID)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.note(compartment, err)
			for _, v := range found {
				if v.State != "DELETED" && v.State != "DELETING" {
					s.Vaults = append(s.Vaults, v)
				}
			}
			return nil
		})
	}
	_ = group.Wait()
	return s
}

// has reports whether the inventory has the vault of a key.
func (s *Inventory) has(id signature.KeyID) bool {
	return id.Region() == s.cloud.Who.Region() && slices.ContainsFunc(s.Vaults, func(v vault.Vault) bool {
		return strings.HasPrefix(v.ManagementEndpoint, "https://"+id.VaultExtension()+"-management.")
	})
}

// note records an error. Without --compartment, it only counts compartments that the user
// may not list: they are other people's.
func (s *Inventory) note(in oci.Compartment, err error) {
	switch {
	case err == nil:
	case errors.Is(err, vault.ErrNotFound) && !s.named:
		s.Closed[in.ID] = true
	default:
		s.Failed = append(s.Failed, fmt.Errorf("compartment %s: %w", cmp.Or(in.Name, in.ID), err))
	}
}

// ListError returns an error if the user may list none of the compartments.
func (s *Inventory) ListError() error {
	if len(s.Closed) == 0 || len(s.Closed) < len(s.Compartments) {
		return nil
	}
	return &cli.HintedError{
		What: fmt.Errorf("you may not list vaults or keys in any of %s of region %s", cli.Count(len(s.Compartments), "compartment"), s.cloud.Who.Region()),
		Hint: "ask for an IAM policy that lets you `inspect vaults` and `inspect keys`, or name a compartment with --compartment",
	}
}

// List finds the keys of the vaults. A key may be in another compartment than its vault,
// and OCI lists keys by vault and compartment.
func (s *Inventory) List(ctx context.Context) {
	s.session.Doing("listing keys of %s", cli.Count(len(s.Vaults), "vault"))
	group := cli.Limited()
	for _, v := range s.Vaults {
		for _, compartment := range s.Compartments {
			group.Go(func() error {
				keys, err := s.cloud.Vault.Keys(ctx, v, compartment.ID)
				s.mu.Lock()
				defer s.mu.Unlock()
				s.note(compartment, err)
				for _, k := range keys {
					s.Keys = append(s.Keys, FoundKey{k, v, compartment.Name})
				}
				return nil
			})
		}
	}
	_ = group.Wait()
	slices.SortFunc(s.Keys, func(a, b FoundKey) int {
		return cmp.Or(cmp.Compare(a.Vault.Name, b.Vault.Name), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID.String(), b.ID.String()))
	})
}

// Describe adds the length of each key, which lists of OCI leave out. A key that the user
// may list and not read stays without a length.
func (s *Inventory) Describe(ctx context.Context) {
	s.session.Doing("reading %s", cli.Count(len(s.Keys), "key"))
	failed := make([]error, len(s.Keys))
	group := cli.Limited()
	for i := range s.Keys {
		group.Go(func() error {
			k := &s.Keys[i]
			full, err := s.cloud.Vault.Key(ctx, k.ID)
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
			s.Failed = append(s.Failed, err)
		}
	}
}
