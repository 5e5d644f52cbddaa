package vault

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// MasterKey is a key with all its versions.
type MasterKey struct {
	Key
	Versions []Version
	Missing  bool // there is none, or this identity may not read it; only ID is set then
}

// MasterKey reads a key and its versions concurrently. A key that does not exist is an
// answer and no error.
func (c *Client) MasterKey(ctx context.Context, id signature.KeyID) (MasterKey, error) {
	var found MasterKey
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		defer contain.Panic(&err)
		found.Key, err = c.Key(ctx, id)
		return err
	})
	group.Go(func() (err error) {
		defer contain.Panic(&err)
		found.Versions, err = c.Versions(ctx, id)
		return err
	})
	switch err := group.Wait(); {
	case errors.Is(err, ErrNotFound):
		return MasterKey{Key: Key{ID: id}, Missing: true}, nil
	case err != nil:
		return MasterKey{}, err
	}
	return found, nil
}

// Decisive returns what decides whether the key's signatures count.
func (k MasterKey) Decisive() verdict.Key {
	if k.Missing {
		return verdict.Key{ID: k.ID, State: verdict.NotFound}
	}
	v := verdict.Key{ID: k.ID, State: k.State, Algorithm: k.Algorithm, Versions: make(map[signature.KeyVersionID]string, len(k.Versions))}
	for _, version := range k.Versions {
		v.Versions[version.ID] = version.State
	}
	return v
}

// KeyState reads what decides whether the key's signatures count.
func (c *Client) KeyState(ctx context.Context, id signature.KeyID) (verdict.Key, error) {
	key, err := c.MasterKey(ctx, id)
	if err != nil {
		return verdict.Key{}, err
	}
	return key.Decisive(), nil
}
