// Package checker gathers what the decision about an image needs, and caches it for
// a short while.
//
// It does not decide: package verdict does. It caches findings and states of keys apart,
// and package verdict decides for each answer again. Therefore a disabled key also counts
// against images whose signatures were verified before. An error is never cached and never
// a yes. The calls of OCI Vault depend only on the allowed keys, and not on the number or
// content of signature records.
package checker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// Answer is a verdict with its age and more for the log.
type Answer struct {
	verdict.Verdict

	// RetryAfter is how long a Checker repeats this denial from its cache.
	RetryAfter time.Duration
	// Age is how long ago the gathering began.
	Age time.Duration
	// Truncated is set if the image has more signature records than were read.
	Truncated bool
}

// Checker answers whether images are signed by allowed keys. It is safe for
// concurrent use.
type Checker struct {
	gatherer
	evidence *cache.Cache[question, cachedEvidence]
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
	c := &Checker{gatherer: newGatherer(cfg)}
	c.evidence = cache.New(cache.Config[question, cachedEvidence]{
		Load:       c.gather,
		TTL:        func(e cachedEvidence) time.Duration { return e.ttl },
		AsOf:       func(e cachedEvidence) time.Time { return e.at },
		MaxEntries: cfg.MaxImages, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	return c
}

// Check decides whether img is signed by one of the allowed keys. An error means that this
// is not known. The zero img stands for a reference without a digest.
func (c *Checker) Check(ctx context.Context, img image.Pinned, allowed signature.KeySet) (Answer, error) {
	if a, ok := c.Cached(ctx, img, allowed); ok {
		return a, nil
	}
	return c.Gather(ctx, img, allowed)
}

// Cached returns the answer of Check if that takes no call of OCI.
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

// Gather answers a question that Cached did not answer.
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
	// The findings were a yes when they were gathered, and a key has been disabled
	// since. The image may have a newer signature by another key. Therefore gather
	// again: this is the only case in which a question is decided twice.
	c.evidence.Discard(q, func(e cachedEvidence) bool { return c.old(e.at) })
	if e, err = c.evidence.Get(ctx, q); err != nil {
		return Answer{}, err
	}
	return c.answer(e, allowed, state)
}

// answer decides on cached findings, with the states of keys that state returns.
func (c *Checker) answer(e cachedEvidence, allowed signature.KeySet, state func(signature.KeyID) (verdict.Key, error)) (Answer, error) {
	var buf [2]verdict.Finding // most images are signed once
	ev := e.evidence(buf[:])
	v, err := verdict.Decide(ev, allowed, state)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Verdict: v, Age: c.cfg.Now().Sub(e.at), Truncated: ev.Truncated}
	if !v.Signed() {
		a.RetryAfter = deniedTTL
	}
	return a, nil
}

// Wait returns when no gathering is under way. The caller must not call Check afterwards.
func (c *Checker) Wait() {
	c.evidence.Wait()
	c.keys.Wait()
	c.public.Wait()
}

// Stats returns the statistics of the caches: "evidence", "keys" and "public-keys".
func (c *Checker) Stats() map[string]cache.Stats {
	return map[string]cache.Stats{"evidence": c.evidence.Stats(), "keys": c.keys.Stats(), "public-keys": c.public.Stats()}
}

// KeyStates counts the cached keys by lifecycle state, in OCI Vault's words.
func (c *Checker) KeyStates() map[string]int {
	states := make(map[string]int)
	for k := range c.keys.All() {
		states[k.State]++
	}
	return states
}
