package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// Reasons of the answers to questions about digests.
const (
	pinnedNow = "pinned"
	asWritten = "as-written" // the image has a digest, or is of another registry
	noImage   = "no-image"   // OCI Registry has no such image, or the provider may not read it
)

// replacement is the text to write in place of an image reference. A reference that cannot
// be pinned stays unchanged, and the policy on digests denies it with the reason.
type replacement struct {
	image  string
	reason string
}

// MarshalText implements encoding.TextMarshaler. It returns the image reference.
func (r replacement) MarshalText() ([]byte, error) { return []byte(r.image), nil }

// digests returns the endpoint for questions about digests. A question is an image
// reference, and the answer is the text that replaces it, because Gatekeeper's mutation
// can only replace text.
func digests(cfg Config, families *metrics) *endpoint {
	own := cfg.Digests
	if own.Check == nil {
		return nil
	}
	m := endpointMetricsOf(families, "digests", []string{pinnedNow, asWritten, noImage})
	limits := withDefaults(own.Limits, Limits{Timeout: 700 * time.Millisecond, Parallel: 16, Requests: 64})
	return serve(DigestsPath, cfg, limits, handler[replacement]{
		parse:         parseDigestQuestion,
		otherRegistry: func(s subject, _ error) replacement { return replacement{s.image, asWritten} },
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
		attrs: func(s subject, r replacement, took time.Duration) []slog.Attr {
			return []slog.Attr{slog.String("image", s.image), slog.String("reason", r.reason),
				slog.String("reference", r.image), slog.String("duration", readable(took))}
		},
		metrics: m,
	})
}

// validReplacement returns an error unless r is the reference of the question, or adds a
// digest to a reference of OCI Registry without a digest.
func validReplacement(s subject, r replacement) (replacement, error) {
	if r.image == s.image {
		return r, nil
	}
	after, err := image.Parse(r.image)
	if err != nil || r.image != s.image+"@"+after.Digest() {
		return replacement{}, fmt.Errorf("internal error: %q in place of %q", r.image, s.image)
	}
	return r, nil
}
