package verdict

import (
	"context"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unique"

	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// MaxRecords is how many records of one image are looked at: an image that has
// more was flooded, and an honest signature is among the newest or the oldest.
const MaxRecords = 250

// How long things are remembered. A deleted record counts for at most
// signedFor, a disabled key for at most stateFor, a new signature is seen after
// at most deniedFor; each plus the time Gatekeeper keeps answers itself.
const (
	signedFor = 10 * time.Minute
	stateFor  = 60 * time.Second
	deniedFor = 30 * time.Second
)

// Config is where a Checker gets what it decides from. All functions but Bulk are
// required. They are called by many goroutines at once, and report what they could
// not find out as an error.
type Config struct {
	// Covers reports whether the image is of a tenancy that the others can ask.
	Covers func(image.Reference) bool
	// Records returns the signature records of the image that ref pins, newest
	// first, at most MaxRecords.
	Records func(ctx context.Context, ref image.Reference) ([]signature.Record, error)
	// Bulk returns records of the image by some of the keys that were read together
	// with those of other images, newest first, and when; or none. They may not be
	// all, and are believed for a yes only; without one, Records is asked. It may be
	// nil, and says nothing of errors.
	Bulk func(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time)
	// Exists reports whether there is such an image. It is asked only when there
	// is no record, because OCI gives an empty list for an image it does not have.
	Exists func(ctx context.Context, ref image.Reference) (bool, error)
	// Key returns the present state of a key. That it is not found is a state.
	Key func(ctx context.Context, id signature.KeyID) (Key, error)
	// PublicKey returns the public key of a version that Key listed.
	PublicKey func(ctx context.Context, id signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error)

	// MaxImages bounds how many images are remembered; zero means 100 000.
	MaxImages int
	// Timeout bounds the gathering for one image, which goes on when nobody
	// waits for it any more; zero means 15 seconds.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Panicked is told, if not nil, of a panic of one of the functions above: it is
	// an error of the question that it was for, and of no other.
	Panicked func(*contain.PanicError)
}

// Checker answers whether images are signed by allowed keys, and remembers what
// it found out. It is safe for concurrent use.
type Checker struct {
	cfg      Config
	evidence *cache.Cache[question, gathered]
	keys     *cache.Cache[signature.KeyID, keyState]
	public   *cache.Cache[version, *rsa.PublicKey]
}

// question is what evidence is remembered by: the image without its tag and
// without the one of its registry's hosts it was called by, and the allowed keys.
// It is small, shares no memory with the request that asked it, and leads back
// to what it is about.
type question struct {
	image string // region/namespace/repository@, and the digest's 32 bytes
	keys  unique.Handle[string]
}

func ask(ref image.Reference, allowed []signature.KeyID) question {
	digest := strings.TrimPrefix(ref.Digest(), "sha256:")
	b := make([]byte, 0, 128+len(ref.Repository()))
	b = append(append(b, ref.Region().ID()...), '/')
	b = append(append(b, ref.Namespace()...), '/')
	b = append(append(b, ref.Repository()...), '@')
	b, err := hex.AppendDecode(b, []byte(digest))
	if err != nil { // the digest of a reference is hexadecimal
		b = append(b, digest...)
	}
	return question{image: string(b), keys: unique.Make(join(allowed))}
}

func (q question) reference() (image.Reference, error) {
	id, name, _ := strings.Cut(q.image, "/")
	region, err := image.ParseRegion(id)
	if err != nil {
		return image.Reference{}, err
	}
	name, digest, _ := strings.Cut(name, "@")
	return image.Parse(fmt.Sprintf("ocir.%s.oci.%s/%s@sha256:%x", region.ID(), region.Domain(), name, digest))
}

type version struct {
	key signature.KeyID
	id  signature.KeyVersionID
}

// gathered is evidence in the little room that a hundred thousand of them need,
// and what decides how long it may be remembered.
type gathered struct {
	proofs []proof
	other  *Evidence // instead of proofs, if there is more to it
	at     time.Time
	signed bool // at the time, it made the image signed
}

// proof is a Finding that says Signed.
type proof struct {
	by        unique.Handle[version]
	algorithm unique.Handle[string]
	signature string
	signedAt  time.Time
}

// remember makes evidence small. Where all findings are proofs and no record was
// left out, Decide looks at nothing else.
func remember(ev Evidence, signed bool) gathered {
	g := gathered{signed: signed}
	plain := func(f Finding) bool { return f.Reason == Signed && f.Detail == "" }
	if len(ev.Findings) == 0 || ev.Capped || slices.ContainsFunc(ev.Findings, func(f Finding) bool { return !plain(f) }) {
		g.other = &ev
		return g
	}
	g.proofs = make([]proof, len(ev.Findings))
	for i, f := range ev.Findings {
		g.proofs[i] = proof{unique.Make(version{f.Key, f.Version}), unique.Make(f.Algorithm), strings.Clone(f.Signature), f.SignedAt}
	}
	return g
}

// evidence is what was remembered; its findings are put into room, if they fit.
func (g gathered) evidence(room []Finding) Evidence {
	if g.other != nil {
		return *g.other
	}
	ev := Evidence{Findings: room[:0], Records: len(g.proofs)}
	for _, p := range g.proofs {
		by := p.by.Value()
		ev.Findings = append(ev.Findings, Finding{
			Reason: Signed, Key: by.key, Version: by.id,
			Signature: p.signature, Algorithm: p.algorithm.Value(), SignedAt: p.signedAt,
		})
	}
	return ev
}

// keyState is a key as Vault described it at a time.
type keyState struct {
	Key
	alone map[signature.KeyID]Key // it and no other, as Decide wants it; never written to
	at    time.Time
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
	c.evidence = cache.New(cache.Config[question, gathered]{
		Load: c.gather,
		Keep: func(g gathered) time.Duration {
			if g.signed {
				return signedFor
			}
			return deniedFor
		},
		Since: func(g gathered) time.Time { return g.at },
		Max:   cfg.MaxImages, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	c.keys = cache.New(cache.Config[signature.KeyID, keyState]{
		Load: func(ctx context.Context, id signature.KeyID) (keyState, error) {
			at := cfg.Now()
			k, err := cfg.Key(ctx, id)
			return keyState{k, map[signature.KeyID]Key{id: k}, at}, err
		},
		Keep: func(k keyState) time.Duration {
			if k.State == Enabled {
				return stateFor
			}
			return deniedFor
		},
		Max: 1000, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	c.public = cache.New(cache.Config[version, *rsa.PublicKey]{
		Load: func(ctx context.Context, v version) (*rsa.PublicKey, error) { return cfg.PublicKey(ctx, v.key, v.id) },
		// A version's public key never changes; the day lets go of what is unused.
		Keep: func(*rsa.PublicKey) time.Duration { return 24 * time.Hour },
		Max:  1000, Timeout: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	return c
}

// Check says whether the image that ref pins is signed by one of the allowed
// keys. An error means that it could not be found out.
func (c *Checker) Check(ctx context.Context, ref image.Reference, allowed []signature.KeyID) (Verdict, error) {
	if v, settled := c.settle(ref); settled {
		return v, nil
	}
	q := ask(ref, allowed)
	g, err := c.evidence.Get(ctx, q)
	if err != nil {
		return Verdict{}, err
	}
	v, err := c.judge(ctx, g, allowed, c.keys.Get)
	if err != nil || v.Signed || !c.old(g.at) {
		return v, err
	}
	// The evidence was a yes when it was gathered and would be kept for long; a
	// key has been disabled since. A newer signature may be there by now.
	c.evidence.Discard(q, func(g gathered) bool { return c.old(g.at) })
	if g, err = c.evidence.Get(ctx, q); err != nil {
		return Verdict{}, err
	}
	return c.judge(ctx, g, allowed, c.keys.Get)
}

// Known is what Check would say, if that is in memory. Whoever asks for much
// gets most of it at once by asking Known first.
func (c *Checker) Known(ctx context.Context, ref image.Reference, allowed []signature.KeyID) (Verdict, bool) {
	if v, settled := c.settle(ref); settled {
		return v, true
	}
	g, ok := c.evidence.Peek(ctx, ask(ref, allowed))
	if !ok {
		return Verdict{}, false
	}
	v, err := c.judge(ctx, g, allowed, func(ctx context.Context, id signature.KeyID) (keyState, error) {
		if k, ok := c.keys.Peek(ctx, id); ok {
			return k, nil
		}
		return keyState{}, errNotInMemory
	})
	if err != nil || !v.Signed && c.old(g.at) {
		return Verdict{}, false
	}
	return v, true
}

var errNotInMemory = errors.New("not in memory")

// settle decides what needs no evidence.
func (c *Checker) settle(ref image.Reference) (Verdict, bool) {
	switch {
	case ref.Digest() == "":
		return Verdict{Reason: NoDigest, Detail: "a tag can be moved to another image at any time; name the digest"}, true
	case !c.cfg.Covers(ref):
		return Verdict{Reason: NotCovered, Detail: fmt.Sprintf("namespace %s in %s is of no tenancy that was configured", ref.Namespace(), ref.Region())}, true
	}
	return Verdict{}, false
}

// old says that what was found out at a time must not deny any more.
func (c *Checker) old(at time.Time) bool { return c.cfg.Now().Sub(at) > deniedFor }

// Wait returns when no gathering is under way. Check must not be called any more.
func (c *Checker) Wait() {
	c.evidence.Wait()
	c.keys.Wait()
	c.public.Wait()
}

// Stats tells of the caches by what they hold: evidence, keys and public keys.
func (c *Checker) Stats() map[string]cache.Stats {
	return map[string]cache.Stats{"evidence": c.evidence.Stats(), "keys": c.keys.Stats(), "public-keys": c.public.Stats()}
}

// KeyStates counts the keys that are remembered by their lifecycle states, as
// OCI Vault calls them.
func (c *Checker) KeyStates() map[string]int {
	states := make(map[string]int)
	for k := range c.keys.All() {
		states[k.State]++
	}
	return states
}

// judge decides on what was gathered; see there.
func (c *Checker) judge(ctx context.Context, g gathered, allowed []signature.KeyID, state func(context.Context, signature.KeyID) (keyState, error)) (Verdict, error) {
	var room [2]Finding // most images are signed once
	v, err := judge(ctx, g.evidence(room[:]), allowed, state)
	if err == nil {
		v.Age = c.cfg.Now().Sub(g.at)
	}
	return v, err
}

// judge decides on evidence with the keys as state says they are now.
func judge(ctx context.Context, ev Evidence, allowed []signature.KeyID, state func(context.Context, signature.KeyID) (keyState, error)) (Verdict, error) {
	var keys map[signature.KeyID]Key
	var failed []signature.KeyID
	var unknown []error
	for _, f := range ev.Findings {
		if f.Reason != Signed || slices.Contains(failed, f.Key) {
			continue
		}
		k, ok := keys[f.Key]
		if !ok {
			now, err := state(ctx, f.Key)
			if err != nil {
				failed, unknown = append(failed, f.Key), append(unknown, err)
				continue
			}
			k = now.Key
			if keys == nil {
				keys = now.alone // nearly always all that is needed
			} else {
				keys = maps.Clone(keys)
				keys[f.Key] = k
			}
		}
		if k.unusable(f.Version) == "" {
			break // one proof is enough, and the other keys need not be asked for
		}
	}
	v := Decide(ev, allowed, keys)
	if !v.Signed {
		v.Kept = deniedFor
		if len(unknown) > 0 {
			return Verdict{}, errors.Join(unknown...)
		}
	}
	return v, nil
}

// gather finds out about one image. If a part could not be found out and the
// rest does not make the image signed, that is an error: the missing part might.
func (c *Checker) gather(ctx context.Context, q question) (gathered, error) {
	allowed, err := split(q.keys.Value())
	if err != nil {
		return gathered{}, err
	}
	ref, err := q.reference()
	if err != nil {
		return gathered{}, err
	}
	if c.cfg.Bulk != nil {
		if records, at := c.cfg.Bulk(ctx, ref, allowed); len(records) > 0 {
			if g, err := c.weigh(ctx, ref, allowed, records); err == nil && g.signed {
				g.at = at
				return g, nil
			}
		}
	}
	at := c.cfg.Now()
	records, err := c.cfg.Records(ctx, ref)
	if err != nil {
		return gathered{}, err
	}
	g, err := c.weigh(ctx, ref, allowed, records)
	g.at = at
	return g, err
}

// weigh holds an image's records against the allowed keys.
func (c *Checker) weigh(ctx context.Context, ref image.Reference, allowed []signature.KeyID, records []signature.Record) (gathered, error) {
	ev := Evidence{Capped: len(records) >= MaxRecords}
	byKey := make(map[signature.KeyID][]signature.Record)
	for _, rec := range records[:min(len(records), MaxRecords)] {
		if rec.State != signature.StateAvailable {
			ev.Unusable++
			continue
		}
		ev.Records++
		if id, err := signature.ParseKeyID(rec.KeyID); err == nil && slices.Contains(allowed, id) {
			byKey[id] = append(byKey[id], rec)
		} else {
			if short := signature.Short(rec.KeyID); !slices.Contains(ev.OtherKeys, short) {
				ev.OtherKeys = append(ev.OtherKeys, short)
			}
		}
	}
	if len(records) == 0 {
		exists, err := c.cfg.Exists(ctx, ref)
		if err != nil {
			return gathered{}, err
		}
		ev.Missing = !exists
	}

	findings := make([][]Finding, len(allowed))
	failed := make([]error, len(allowed))
	var group errgroup.Group // a key that cannot be asked for does not stop the others
	for i, id := range allowed {
		if len(byKey[id]) > 0 {
			group.Go(func() error {
				defer contain.Panic(&failed[i])
				findings[i], failed[i] = c.examine(ctx, ref, id, byKey[id])
				return nil
			})
		}
	}
	_ = group.Wait()
	ev.Findings = slices.Concat(findings...)
	slices.SortStableFunc(ev.Findings, func(a, b Finding) int { return b.SignedAt.Compare(a.SignedAt) })

	unknown := errors.Join(failed...)
	v, err := judge(ctx, ev, allowed, c.keys.Get)
	if err != nil {
		return gathered{}, errors.Join(err, unknown)
	}
	if unknown != nil && !v.Signed {
		return gathered{}, unknown
	}
	return remember(ev, v.Signed && unknown == nil), nil
}

// examine holds the records that name one allowed key against it. One proof per
// version is enough, and more than one way to fail need not be told.
func (c *Checker) examine(ctx context.Context, ref image.Reference, id signature.KeyID, records []signature.Record) ([]Finding, error) {
	key, err := c.listing(ctx, id, records)
	if err != nil {
		return nil, err
	}
	var findings []Finding
	var unknown []error
	proven := make(map[signature.KeyVersionID]bool)
	failed := make(map[Reason]bool)
	for _, rec := range records {
		f, err := c.finding(ctx, ref, key, rec)
		switch {
		case err != nil:
			unknown = append(unknown, err)
		case f.Reason == Signed && !proven[f.Version]:
			proven[f.Version] = true
			findings = append(findings, f)
		case f.Reason != Signed && !failed[f.Reason]:
			failed[f.Reason] = true
			findings = append(findings, f)
		}
	}
	return findings, firstOf(unknown)
}

// listing is the key with its versions. If a record names a version that is not
// among those remembered, the key may have been rotated since: it is asked for
// again, unless that was done a short while ago, whatever records say.
func (c *Checker) listing(ctx context.Context, id signature.KeyID, records []signature.Record) (Key, error) {
	k, err := c.keys.Get(ctx, id)
	if err != nil || !c.old(k.at) {
		return k.Key, err
	}
	listed := func(rec signature.Record) bool {
		version, err := signature.ParseKeyVersionID(rec.KeyVersionID)
		_, ok := k.Versions[version]
		return err == nil && ok
	}
	if !slices.ContainsFunc(records, func(rec signature.Record) bool { return !listed(rec) }) {
		return k.Key, nil
	}
	c.keys.Discard(id, func(k keyState) bool { return c.old(k.at) })
	k, err = c.keys.Get(ctx, id)
	return k.Key, err
}

// finding is what one record comes to. Only versions that Vault lists for the
// key are asked for: what a record names is its uploader's word.
func (c *Checker) finding(ctx context.Context, ref image.Reference, key Key, rec signature.Record) (Finding, error) {
	unusable := Finding{Reason: KeyUnusable, Key: key.ID, Signature: rec.ID, Algorithm: rec.Algorithm, SignedAt: rec.TimeCreated}
	id, err := signature.ParseKeyVersionID(rec.KeyVersionID)
	if err != nil {
		unusable.Detail = fmt.Sprintf("signature %s names no version of key %s", signature.Short(rec.ID), key.ID.Short())
		return unusable, nil
	}
	unusable.Version = id
	if unusable.Detail = key.unusable(id); unusable.Detail != "" {
		return unusable, nil
	}
	pub, err := c.public.Get(ctx, version{key.ID, id})
	if err != nil {
		return Finding{}, err
	}
	return Prove(ref, rec, key.ID, id, pub), nil
}

func firstOf(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return errs[0]
}

// join makes the allowed keys comparable, whatever their order.
func join(keys []signature.KeyID) string {
	if len(keys) == 1 {
		return keys[0].String()
	}
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.String()
	}
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), " ")
}

func split(keys string) ([]signature.KeyID, error) {
	var ids []signature.KeyID
	for s := range strings.FieldsSeq(keys) {
		id, err := signature.ParseKeyID(s)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}
