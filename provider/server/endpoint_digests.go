package server

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// Reasons of the answers to questions for digests.
const (
	pinnedNow = "pinned"
	asWritten = "as-written" // the image has a digest, or is of another registry
	noImage   = "no-image"   // OCI Registry has no such image, or the provider may not read it
)

// replacement is what to write in place of an image. An image that cannot be pinned
// stays as it is written: the policy on digests denies it, and says why.
type replacement struct {
	image  string
	reason string
}

// MarshalText implements encoding.TextMarshaler: the value of an item is the image.
func (r replacement) MarshalText() ([]byte, error) { return []byte(r.image), nil }

// digests returns the endpoint for questions for digests. A question is an image as
// a Pod writes it, and the answer is the text to put in its place, because
// Gatekeeper's mutation can do nothing else.
func digests(cfg Config, families *metrics) *endpoint {
	own := cfg.Digests
	if own.Check == nil {
		return nil
	}
	m := endpointMetricsOf(families, "digests", []string{pinnedNow, asWritten, noImage})
	limits := withDefaults(own.Limits, Limits{Timeout: 700 * time.Millisecond, Parallel: 16, Requests: 64})
	return serve(DigestsPath, cfg, limits, handler[replacement]{
		parse:         parseDigestQuestion,
		otherRegistry: func(a asked, _ error) replacement { return replacement{a.image, asWritten} },
		cached: func(_ context.Context, q *question) (replacement, bool) {
			return replacement{q.image, asWritten}, q.ref.Digest() != ""
		},
		check: func(ctx context.Context, q *question) (replacement, error) {
			digest, err := own.Check(ctx, q.ref)
			if err != nil || digest == "" {
				return replacement{q.image, noImage}, err
			}
			return replacement{q.image + "@" + digest, pinnedNow}, nil
		},
		validate: validReplacement,
		count:    func(r replacement) { m.answers[r.reason].Inc() },
		message:  "digest",
		attrs: func(a asked, r replacement, took time.Duration) []slog.Attr {
			return []slog.Attr{slog.String("image", a.image), slog.String("reason", r.reason),
				slog.String("reference", r.image), slog.String("duration", readable(took))}
		},
		metrics: m,
	})
}

// validReplacement returns an error unless r is the image of the question, or adds a
// digest to an image of OCI Registry that has none.
func validReplacement(a asked, r replacement) (replacement, error) {
	if r.image == a.image {
		return r, nil
	}
	ref, err := image.Parse(a.image)
	digest, added := strings.CutPrefix(r.image, a.image+"@")
	if err != nil || ref.Digest() != "" || !added || !image.ValidDigest(digest) {
		return replacement{}, fmt.Errorf("internal error: %q in place of %q", r.image, a.image)
	}
	return r, nil
}
