package checker

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// maxRecords bounds the signature records of one image. An image with more records was
// flooded, and an honest signature is among the newest or the oldest. Package registry
// returns no more records; this bound holds for every implementation of Images.
const maxRecords = 250

// gatherer gathers findings. It caches states of keys and public keys.
type gatherer struct {
	cfg    Config
	keys   *cache.Cache[signature.KeyID, keyState]
	public *cache.Cache[version, *rsa.PublicKey]
}

// question is the key of the cache of findings.
type question struct {
	image   image.Pinned
	allowed signature.KeySet
}

// keyState is the state of a key, and when it was read.
type keyState struct {
	verdict.Key
	at time.Time
}

func newGatherer(cfg Config) gatherer {
	return gatherer{
		cfg: cfg,
		keys: cache.New(cache.Config[signature.KeyID, keyState]{
			Load: func(ctx context.Context, id signature.KeyID) (keyState, error) {
				at := cfg.Now()
				k, err := cfg.Keys.KeyState(ctx, id)
				return keyState{k, at}, err
			},
			TTL: func(k keyState) time.Duration {
				if k.State == verdict.Enabled {
					return stateTTL
				}
				return deniedTTL
			},
			MaxEntries: 1000, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
		}),
		public: cache.New(cache.Config[version, *rsa.PublicKey]{
			Load: func(ctx context.Context, v version) (*rsa.PublicKey, error) {
				return cfg.Keys.PublicKey(ctx, v.key, v.id)
			},
			// A version's public key never changes. After a day the cache drops unused keys.
			TTL:        func(*rsa.PublicKey) time.Duration { return 24 * time.Hour },
			MaxEntries: 1000, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
		}),
	}
}

// gather gathers the findings about one image.
func (g *gatherer) gather(ctx context.Context, q question) (cachedEvidence, error) {
	ref := q.image.Reference()
	if records, at := g.cfg.Images.Bulk(ctx, ref, q.allowed.Keys()); len(records) > 0 {
		if ev, unknown := g.evaluateRecords(ctx, q, records); unknown == nil && proven(ev, q.allowed.AtLeast()) {
			return compact(ev, at, signedTTL), nil
		}
	}
	at := g.cfg.Now()
	records, truncated, err := g.cfg.Images.Records(ctx, ref)
	if err != nil {
		return cachedEvidence{}, err
	}
	ev, unknown := g.evaluateRecords(ctx, q, records)
	ev.Truncated = ev.Truncated || truncated
	if len(records) == 0 {
		exists, err := g.cfg.Images.Exists(ctx, ref)
		if err != nil {
			return cachedEvidence{}, err
		}
		ev.Missing = !exists
	}
	switch {
	case unknown != nil && !proven(ev, q.allowed.AtLeast()):
		return cachedEvidence{}, unknown // an unknown record may be the proof
	case unknown != nil || !proven(ev, q.allowed.AtLeast()):
		// A yes with an unknown record is cached only as long as a denial: if its key
		// is disabled, the unknown record may be another proof.
		return compact(ev, at, deniedTTL), nil
	}
	return compact(ev, at, signedTTL), nil
}

// proven reports whether the findings prove at least so many different keys. The keys were
// enabled at the time of gathering. Each answer decides again whether they still are.
func proven(ev verdict.Evidence, atLeast int) bool {
	keys := make(map[signature.KeyID]bool, atLeast)
	for _, f := range ev.Findings {
		if f.Reason == verdict.Signed {
			keys[f.Key] = true
		}
	}
	return len(keys) >= atLeast
}

// evaluateRecords verifies an image's signature records under the allowed keys. It returns
// the findings, and the errors of records that are unknown.
func (g *gatherer) evaluateRecords(ctx context.Context, q question, records []signature.Record) (ev verdict.Evidence, unknown error) {
	ev.Truncated = len(records) > maxRecords
	byKey := make(map[signature.KeyID][]signature.Record)
	var others []string
	for _, rec := range records[:min(len(records), maxRecords)] {
		if rec.State != signature.StateAvailable {
			ev.Unusable++
			continue
		}
		ev.Records++
		if id, err := signature.ParseKeyID(rec.KeyID); err == nil && q.allowed.Contains(id) {
			byKey[id] = append(byKey[id], rec)
		} else if short := signature.Short(rec.KeyID); !slices.Contains(others, short) {
			others = append(others, short)
		}
	}
	ev.OtherKeys = inWords(others)

	allowed := q.allowed.Keys()
	findings := make([][]verdict.Finding, len(allowed))
	failed := make([]error, len(allowed))
	var group errgroup.Group // an error about one key does not stop the others
	for i, id := range allowed {
		if len(byKey[id]) > 0 {
			group.Go(func() error {
				defer contain.Panic(&failed[i])
				findings[i], failed[i] = g.examine(ctx, q.image, id, byKey[id])
				return nil
			})
		}
	}
	_ = group.Wait()
	ev.Findings = slices.Concat(findings...)
	slices.SortStableFunc(ev.Findings, func(a, b verdict.Finding) int { return b.SignedAt.Compare(a.SignedAt) })
	return ev, errors.Join(failed...)
}

// examine verifies the records that name one allowed key. It returns one proof for each key
// version and one failure for each reason, which is all that verdict.Decide needs.
func (g *gatherer) examine(ctx context.Context, img image.Pinned, id signature.KeyID, records []signature.Record) ([]verdict.Finding, error) {
	key, err := g.listing(ctx, id, records)
	if err != nil {
		return nil, err
	}
	var findings []verdict.Finding
	var unknown error
	type kind struct {
		reason  verdict.Reason
		version signature.KeyVersionID // of a proof
	}
	seen := make(map[kind]bool)
	for _, rec := range records {
		f, err := g.finding(ctx, img, key, rec)
		if err != nil {
			if unknown == nil {
				unknown = err
			}
			continue
		}
		k := kind{reason: f.Reason}
		if f.Reason == verdict.Signed {
			k.version = f.Version
		}
		if !seen[k] {
			seen[k] = true
			findings = append(findings, f)
		}
	}
	return findings, unknown
}

// listing returns the key with its versions. If a record names a version that is not among
// the cached ones, the key may have been rotated, and listing reads the key again. To
// bound the calls, it does so only if the cached state is old.
func (g *gatherer) listing(ctx context.Context, id signature.KeyID, records []signature.Record) (verdict.Key, error) {
	k, err := g.keys.Get(ctx, id)
	if err != nil || !g.old(k.at) {
		return k.Key, err
	}
	unlisted := func(rec signature.Record) bool {
		version, err := signature.ParseKeyVersionID(rec.KeyVersionID)
		_, listed := k.Versions[version]
		return err != nil || !listed
	}
	if !slices.ContainsFunc(records, unlisted) {
		return k.Key, nil
	}
	g.keys.Discard(id, func(k keyState) bool { return g.old(k.at) })
	k, err = g.keys.Get(ctx, id)
	return k.Key, err
}

// finding returns the finding of one record. It reads only versions that OCI Vault lists
// for the key, because the uploader chose the version that the record names.
func (g *gatherer) finding(ctx context.Context, img image.Pinned, key verdict.Key, rec signature.Record) (verdict.Finding, error) {
	unusable := verdict.Finding{Reason: verdict.KeyUnusable, Key: key.ID, Signature: rec.ID, Algorithm: rec.Algorithm, SignedAt: rec.TimeCreated}
	id, err := signature.ParseKeyVersionID(rec.KeyVersionID)
	if err != nil {
		unusable.Detail = fmt.Sprintf("signature %s names no version of key %s", signature.Short(rec.ID), key.ID.Short())
		return unusable, nil
	}
	unusable.Version = id
	if unusable.Detail = key.Unusable(id); unusable.Detail != "" {
		return unusable, nil
	}
	pub, err := g.public.Get(ctx, version{key.ID, id})
	if err != nil {
		return verdict.Finding{}, err
	}
	return verdict.Prove(img, rec, key.ID, id, pub), nil
}

// old reports whether findings of a time are too old for a denial.
func (g *gatherer) old(at time.Time) bool { return g.cfg.Now().Sub(at) > deniedTTL }

// inWords names at most three keys, because uploaders choose how many there are.
func inWords(keys []string) string {
	const most = 3
	switch n := len(keys); {
	case n == 0:
		return "no key that it names"
	case n == 1:
		return "key " + keys[0]
	case n > most:
		return fmt.Sprintf("keys %s and %d more", strings.Join(keys[:most], ", "), n-most)
	default:
		return "keys " + strings.Join(keys[:n-1], ", ") + " and " + keys[n-1]
	}
}
