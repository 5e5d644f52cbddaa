// Package checker gathers what the decision about an image needs, and caches it for
// a short while.
//
// It trusts nothing that it gathers: package verdict decides. It caches evidence and
// the states of keys apart, and decides anew for each answer, so that a disabled key
// counts against images whose signatures were verified long before. An error is
// never cached, and is never a yes. What is asked of OCI Vault depends on the allowed
// keys alone, not on what the signature records say or how many there are.
package checker

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// How long things are cached. A deleted signature record counts for at most
// signedFor, a disabled key for at most stateFor, a new signature is seen after
// at most deniedFor; each plus the time Gatekeeper caches answers itself.
const (
	signedFor = 10 * time.Minute
	stateFor  = 60 * time.Second
	deniedFor = 30 * time.Second
)

// Images is what a Checker asks OCI Registry. Many goroutines call it at once.
type Images interface {
	// Covers reports whether the images of a namespace can be asked about.
	Covers(region image.Region, namespace string) bool
	// Records returns the signature records of the image that ref pins, newest
	// first, and whether some were left out because there are too many.
	Records(ctx context.Context, ref image.Reference) (records []signature.Record, truncated bool, err error)
	// Bulk returns records of the image by some of the keys that were read together
	// with those of other images, newest first, and when; or none. There may be
	// more, so that they are believed for a yes only; without one, Records is asked.
	Bulk(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time)
	// Exists reports whether there is such an image. It is asked only when there
	// is no record, because OCI gives an empty list for an image it does not have.
	Exists(ctx context.Context, ref image.Reference) (bool, error)
}

// Keys is what a Checker asks OCI Vault. Many goroutines call it at once.
type Keys interface {
	// KeyState returns the present state of a key. A key that is not found is a
	// state, and no error.
	KeyState(ctx context.Context, id signature.KeyID) (verdict.Key, error)
	// PublicKey returns the public key of a version that KeyState listed.
	PublicKey(ctx context.Context, id signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error)
}

// Config is where a Checker gets what it decides from, and how much it caches.
type Config struct {
	Images Images
	Keys   Keys

	// MaxImages bounds how many images are cached; zero means 100 000.
	MaxImages int
	// Timeout bounds the gathering for one image, which goes on when nobody waits
	// for it any more; zero means 15 seconds.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Panicked is told, if not nil, of a panic of Images or Keys: it is an error of
	// the question that it was for, and of no other.
	Panicked func(*contain.PanicError)
}

// Answer is a verdict with what the cache and the log know of it.
type Answer struct {
	verdict.Verdict

	// RetryAfter is how long a Checker repeats this denial from its cache.
	RetryAfter time.Duration
	// Age is how long ago the gathering of the evidence began.
	Age time.Duration
	// Truncated is set when the image has more signature records than were looked
	// at.
	Truncated bool
}

// Checker answers whether images are signed by allowed keys. It is safe for
// concurrent use.
type Checker struct {
	cfg      Config
	evidence *cache.Cache[question, cachedEvidence]
	keys     *cache.Cache[signature.KeyID, keyState]
	public   *cache.Cache[version, *rsa.PublicKey]
}

// question is what evidence is cached by.
type question struct {
	image   image.Pinned
	allowed signature.KeySet
}

type version struct {
	key signature.KeyID
	id  signature.KeyVersionID
}

// keyState is a key as Vault described it at a time.
type keyState struct {
	verdict.Key
	at time.Time
}

// New makes a Checker.
func New(cfg Config) *Checker {
	if cfg.MaxImages == 0 {
		cfg.MaxImages = 100_000
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Checker{cfg: cfg}
	c.evidence = cache.New(cache.Config[question, cachedEvidence]{
		Load:       c.gather,
		TTL:        func(e cachedEvidence) time.Duration { return e.ttl },
		AsOf:       func(e cachedEvidence) time.Time { return e.at },
		MaxEntries: cfg.MaxImages, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	c.keys = cache.New(cache.Config[signature.KeyID, keyState]{
		Load: func(ctx context.Context, id signature.KeyID) (keyState, error) {
			at := cfg.Now()
			k, err := cfg.Keys.KeyState(ctx, id)
			return keyState{k, at}, err
		},
		TTL: func(k keyState) time.Duration {
			if k.State == verdict.Enabled {
				return stateFor
			}
			return deniedFor
		},
		MaxEntries: 1000, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	c.public = cache.New(cache.Config[version, *rsa.PublicKey]{
		Load: func(ctx context.Context, v version) (*rsa.PublicKey, error) {
			return cfg.Keys.PublicKey(ctx, v.key, v.id)
		},
		// A version's public key never changes; the day lets go of what is unused.
		TTL:        func(*rsa.PublicKey) time.Duration { return 24 * time.Hour },
		MaxEntries: 1000, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	return c
}

// Check says whether img is signed by one of the allowed keys. An error means that
// it could not be found out. The zero image stands for a reference without a digest.
func (c *Checker) Check(ctx context.Context, img image.Pinned, allowed signature.KeySet) (Answer, error) {
	if a, ok := c.Cached(ctx, img, allowed); ok {
		return a, nil
	}
	return c.Gather(ctx, img, allowed)
}

// Cached answers at once, from the cache or because nothing has to be gathered, or
// not at all.
func (c *Checker) Cached(ctx context.Context, img image.Pinned, allowed signature.KeySet) (Answer, bool) {
	switch {
	case img.IsZero():
		return denied(verdict.NoDigest, "a tag can be moved to another image at any time; name the digest"), true
	case !c.cfg.Images.Covers(img.Region(), img.Namespace()):
		return denied(verdict.NotCovered, fmt.Sprintf("namespace %s in %s is of no tenancy that was configured", img.Namespace(), img.Region())), true
	}
	e, ok := c.evidence.Peek(ctx, question{img, allowed})
	if !ok {
		return Answer{}, false
	}
	a, err := c.answer(e, allowed, func(id signature.KeyID) (verdict.Key, error) {
		if k, ok := c.keys.Peek(ctx, id); ok {
			return k.Key, nil
		}
		return verdict.Key{}, errNotCached
	})
	if err != nil || !a.Signed() && c.old(e.at) {
		return Answer{}, false
	}
	return a, true
}

func denied(reason verdict.Reason, detail string) Answer {
	return Answer{Verdict: verdict.Verdict{Reason: reason, Detail: detail}}
}

var errNotCached = errors.New("not cached")

// Gather answers a question that Cached has not answered.
func (c *Checker) Gather(ctx context.Context, img image.Pinned, allowed signature.KeySet) (Answer, error) {
	q := question{img, allowed}
	e, err := c.evidence.Get(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	state := func(id signature.KeyID) (verdict.Key, error) {
		k, err := c.keys.Get(ctx, id)
		return k.Key, err
	}
	a, err := c.answer(e, allowed, state)
	if err != nil || a.Signed() || !c.old(e.at) {
		return a, err
	}
	// The evidence was a yes when it was gathered and would be cached for long; a
	// key has been disabled since. A newer signature may be there by now. This is
	// the one case in which a question is decided twice.
	c.evidence.Discard(q, func(e cachedEvidence) bool { return c.old(e.at) })
	if e, err = c.evidence.Get(ctx, q); err != nil {
		return Answer{}, err
	}
	return c.answer(e, allowed, state)
}

// answer decides on cached evidence with the keys as state says they are now.
func (c *Checker) answer(e cachedEvidence, allowed signature.KeySet, state func(signature.KeyID) (verdict.Key, error)) (Answer, error) {
	var buf [2]verdict.Finding // most images are signed once
	ev := e.evidence(buf[:])
	v, err := verdict.Decide(ev, allowed, state)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Verdict: v, Age: c.cfg.Now().Sub(e.at), Truncated: ev.Truncated}
	if !v.Signed() {
		a.RetryAfter = deniedFor
	}
	return a, nil
}

// old reports whether what was found out at a time must not deny any more.
func (c *Checker) old(at time.Time) bool { return c.cfg.Now().Sub(at) > deniedFor }

// Wait returns when no gathering is under way. Check must not be called any more.
func (c *Checker) Wait() {
	c.evidence.Wait()
	c.keys.Wait()
	c.public.Wait()
}

// Stats describes the caches by what they hold: evidence, keys and public keys.
func (c *Checker) Stats() map[string]cache.Stats {
	return map[string]cache.Stats{"evidence": c.evidence.Stats(), "keys": c.keys.Stats(), "public-keys": c.public.Stats()}
}

// KeyStates counts the cached keys by their lifecycle states, as OCI Vault calls
// them.
func (c *Checker) KeyStates() map[string]int {
	states := make(map[string]int)
	for k := range c.keys.All() {
		states[k.State]++
	}
	return states
}
