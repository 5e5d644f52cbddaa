package keyring

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// RecordVerifier verifies signature records with the keys that they name.
//
// The uploader of a record chooses the key that it names. Looking up this key would send
// a request to a vault that an attacker may own. Its audit log would show who looks at
// the image. A key there that everybody may read could have the name of one of ours.
// So the verifier looks up only keys that the user named, and keys of vaults that OCI
// lists as the user's own.
//
// Of the latter it looks up maxKeys at most, because OCI Vault answers ten reads a second
// for the whole tenancy.
type RecordVerifier struct {
	named  []signature.KeyID
	own    func() *Inventory // the user's vaults; nil means none
	Keys   *cache.Cache[signature.KeyID, lookedUp]
	public *cache.Cache[keyVersion, *rsa.PublicKey]
	budget chan struct{} // a token for each key that may still be looked up
}

// lookedUp is a key, or the error of its lookup. A command looks up each key once: an
// error for one record repeats for the next.
type lookedUp struct {
	vault.MasterKey
	err error
}

type keyVersion struct {
	key     signature.KeyID
	version signature.KeyVersionID
}

const maxKeys = 20

// Reasons for not looking up a key that the user did not name.
var (
	ErrTooManyKeys = fmt.Errorf("the records name more than %d keys, and this one was not looked up", maxKeys)
	ErrOtherVault  = errors.New("its key is in none of the vaults that you may list; to look it up, name it with --key")
)

// NewRecordVerifier makes a verifier that looks up the named keys, and keys of the vaults
// of own. If own is nil, it looks up the named keys only.
func NewRecordVerifier(c *connect.Cloud, own func() *Inventory, named ...signature.KeyID) *RecordVerifier {
	e := &RecordVerifier{named: named, own: own, budget: make(chan struct{}, maxKeys)}
	for range maxKeys {
		e.budget <- struct{}{}
	}
	e.Keys = cache.New(cache.Config[signature.KeyID, lookedUp]{
		Load: func(ctx context.Context, id signature.KeyID) (lookedUp, error) {
			if err := e.admit(id); err != nil {
				return lookedUp{err: err}, nil
			}
			key, err := c.Vault.MasterKey(ctx, id)
			return lookedUp{key, err}, nil
		},
		TTL:     func(lookedUp) time.Duration { return time.Hour }, // a command does not run that long
		Timeout: time.Minute,
	})
	e.public = cache.New(cache.Config[keyVersion, *rsa.PublicKey]{
		Load: func(ctx context.Context, v keyVersion) (*rsa.PublicKey, error) {
			return c.Vault.PublicKey(ctx, v.key, v.version)
		},
		TTL: func(*rsa.PublicKey) time.Duration { return time.Hour },
	})
	return e
}

// admit returns an error if the verifier must not look up a key.
func (e *RecordVerifier) admit(id signature.KeyID) error {
	if slices.Contains(e.named, id) {
		return nil
	}
	if e.own == nil {
		return ErrOtherVault
	}
	found := e.own()
	if !found.has(id) {
		if len(found.Failed) > 0 {
			return found.Failed[0]
		}
		return ErrOtherVault
	}
	select {
	case <-e.budget:
		return nil
	default:
		return ErrTooManyKeys
	}
}

// Verify returns the verdict on the image that ref pins, as if the image had no
// other record, and the record's key were the only allowed one. It returns what it
// knows of the key.
func (e *RecordVerifier) Verify(ctx context.Context, ref image.Reference, rec signature.Record) (verdict.Verdict, vault.MasterKey, error) {
	id, err := signature.ParseKeyID(rec.KeyID)
	if err != nil {
		return verdict.Verdict{Reason: verdict.KeyUnusable, Detail: "the record names no key of OCI Vault"}, vault.MasterKey{}, nil
	}
	if rec.State != signature.StateAvailable {
		return verdict.Verdict{Reason: verdict.Unsigned, Detail: "the record is " + cli.Clip(rec.State, 40)}, vault.MasterKey{}, nil
	}
	found, err := e.Keys.Get(ctx, id)
	if err = errors.Join(err, found.err); err != nil {
		return verdict.Verdict{}, vault.MasterKey{}, err
	}
	key, state := found.MasterKey, found.Decisive()
	version, err := signature.ParseKeyVersionID(rec.KeyVersionID)
	if err != nil {
		return verdict.Verdict{Reason: verdict.KeyUnusable, Detail: "the record names no version of its key"}, key, nil
	}
	// Only a version that OCI Vault lists has a public key.
	if why := state.Unusable(version); why != "" {
		return verdict.Verdict{Reason: verdict.KeyUnusable, Detail: why}, key, nil
	}
	pub, err := e.public.Get(ctx, keyVersion{id, version})
	if err != nil {
		return verdict.Verdict{}, key, err
	}
	allowed, err := signature.NewKeySet(id)
	if err != nil {
		return verdict.Verdict{}, key, err
	}
	img, _ := ref.Pinned()
	ev := verdict.Evidence{Findings: []verdict.Finding{verdict.Prove(img, rec, id, version, pub)}, Records: 1}
	v, err := verdict.Decide(ev, allowed, func(signature.KeyID) (verdict.Key, error) { return state, nil })
	return v, key, err
}

// Check returns the verdict on the image that ref pins, with keys as the allowed keys.
func Check(ctx context.Context, decides *checker.Checker, ref image.Reference, keys []signature.KeyID) (verdict.Verdict, error) {
	allowed, err := signature.NewKeySet(keys...)
	if err != nil {
		return verdict.Verdict{}, err
	}
	img, _ := ref.Pinned()
	answer, err := decides.Check(ctx, img, allowed)
	return answer.Verdict, err
}
