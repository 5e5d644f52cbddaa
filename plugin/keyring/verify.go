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

// RecordVerifier holds records against the keys that they name.
//
// A record's key is its uploader's word, and asking OCI Vault for it would make
// us call at a vault that the uploader chose. They could have put it up to learn
// from its audit log who looks at the image, or let everybody read a key in it
// that is called as one of ours. So only keys that the user has named are asked
// for, and keys of vaults that OCI lists as the user's own; and of the latter
// maxKeys at most, however many the records name, because OCI Vault answers ten
// reads a second for the whole tenancy.
type RecordVerifier struct {
	named  []signature.KeyID
	own    func() *Inventory // the user's vaults
	Keys   *cache.Cache[signature.KeyID, lookedUp]
	public *cache.Cache[keyVersion, *rsa.PublicKey]
	budget chan struct{} // one token for each key that may still be asked for
}

// lookedUp is a key, or why there is none. A command asks once for each key:
// what failed for one record will not do better for the next.
type lookedUp struct {
	vault.MasterKey
	err error
}

type keyVersion struct {
	key     signature.KeyID
	version signature.KeyVersionID
}

const maxKeys = 20

var (
	ErrTooManyKeys  = fmt.Errorf("the records name more than %d keys, and this one was not looked up", maxKeys)
	ErrForeignVault = errors.New("its key lies in none of the vaults that you may list; --key names a key to look up")
)

// NewRecordVerifier makes an examiner that asks for the named keys, and for those of the
// vaults that survey finds. Without survey, it asks for the named ones only.
func NewRecordVerifier(c *connect.Cloud, survey func() *Inventory, named ...signature.KeyID) *RecordVerifier {
	e := &RecordVerifier{named: named, own: survey, budget: make(chan struct{}, maxKeys)}
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

// admit says whether a key may be asked for.
func (e *RecordVerifier) admit(id signature.KeyID) error {
	if slices.Contains(e.named, id) {
		return nil
	}
	if e.own == nil {
		return ErrForeignVault
	}
	found := e.own()
	if !found.has(id) {
		if len(found.Failed) > 0 {
			return found.Failed[0]
		}
		return ErrForeignVault
	}
	select {
	case <-e.budget:
		return nil
	default:
		return ErrTooManyKeys
	}
}

// Verify says whether a record proves what it claims about the image that ref
// pins, under the key that it names, and returns that key as far as it is known.
func (e *RecordVerifier) Verify(ctx context.Context, ref image.Reference, rec signature.Record) (verdict.Verdict, vault.MasterKey, error) {
	id, err := signature.ParseKeyID(rec.KeyID)
	if err != nil {
		return verdict.Verdict{Reason: verdict.KeyUnusable, Detail: "it names no key of OCI Vault"}, vault.MasterKey{}, nil
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
		return verdict.Verdict{Reason: verdict.KeyUnusable, Detail: "it names no version of its key"}, key, nil
	}
	// Only a version that Vault lists has a public key to ask for.
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

// Check asks decides whether the image that ref pins is signed by one of keys.
func Check(ctx context.Context, decides *checker.Checker, ref image.Reference, keys []signature.KeyID) (verdict.Verdict, error) {
	allowed, err := signature.NewKeySet(keys...)
	if err != nil {
		return verdict.Verdict{}, err
	}
	img, _ := ref.Pinned()
	answer, err := decides.Check(ctx, img, allowed)
	return answer.Verdict, err
}
