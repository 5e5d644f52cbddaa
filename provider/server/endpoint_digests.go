package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/provider/image"
)

// DigestsPath is where Gatekeeper's mutation asks for references with a digest in
// place of those with a tag. A question is an image as a Pod names it, and the
// answer the text to put in its place: mutation knows no others.
const DigestsPath = "/v1/digests"

// Digests says how tags become digests.
type Digests struct {
	// Digest is that of the image that ref, which has none, points to now; empty if
	// there is no such image. If nil, nobody may ask.
	Digest func(ctx context.Context, ref image.Reference) (string, error)
	// Budget is the time for one request; 0.7 s if zero.
	Budget time.Duration
}

// What became of a reference.
const (
	pinnedNow = "pinned"
	asWritten = "as-written" // it has a digest, or is none of OCI Registry
	noImage   = "no-image"   // in OCI Registry, as far as the principal may know
)

// reference is what to put in an image's place. What cannot be pinned stays as it
// is written: a policy on digests refuses it, and says why.
type reference struct {
	image  string
	reason string
}

// MarshalText implements encoding.TextMarshaler: the value of an item is the text.
func (r reference) MarshalText() ([]byte, error) { return []byte(r.image), nil }

// digests is the lane of questions for digests.
func digests(cfg Config) *lane {
	m := newMetrics(cfg.Metrics, "oke_sign_digest_", "reference", []string{pinnedNow, asWritten, noImage})
	return open(DigestsPath, 64, &decider[reference]{
		topic: topic[reference]{
			parse:   parseImage,
			foreign: func(q question, _ error) reference { return reference{q.image, asWritten} },
			known: func(_ context.Context, p *pending) (reference, bool) {
				return reference{p.image, asWritten}, p.ref.Digest() != ""
			},
			check: func(ctx context.Context, p *pending) (reference, error) {
				digest, err := cfg.Digests.Digest(ctx, p.ref)
				if err != nil || digest == "" {
					return reference{p.image, noImage}, err
				}
				return reference{p.image + "@" + digest, pinnedNow}, nil
			},
			sound:   soundReference,
			count:   func(r reference) { m.decided(r.reason, 0) },
			message: "digest",
			attrs: func(q question, r reference, took time.Duration) []slog.Attr {
				return []slog.Attr{slog.String("image", q.image), slog.String("reason", r.reason),
					slog.String("reference", r.image), slog.String("duration", readable(took))}
			},
		},
		budget: cmp.Or(max(cfg.Digests.Budget, 0), 700*time.Millisecond), parallel: 16, log: cfg.Log, metrics: m,
	})
}

// soundReference holds an answer against its question: all that may be added to an
// image is the digest that a tag of its own repository has.
func soundReference(q question, r reference) (reference, error) {
	if r.image == q.image {
		return r, nil
	}
	before, err := image.Parse(q.image)
	after, err2 := image.Parse(r.image)
	if err := errors.Join(err, err2); err != nil {
		return reference{}, fmt.Errorf("internal error: %w", err)
	}
	if with, err := before.WithDigest(after.Digest()); err != nil || before.Digest() != "" || with != after {
		return reference{}, fmt.Errorf("internal error: %q in place of %q", r.image, q.image)
	}
	return r, nil
}

// parseImage takes any text: of an image that is not named, Gatekeeper sends "".
func parseImage(key string) (question, error) {
	if len(key) > maxQuestion || !utf8.ValidString(key) {
		return question{}, fmt.Errorf("not valid UTF-8 of at most %d bytes", maxQuestion)
	}
	return question{image: key}, nil
}
