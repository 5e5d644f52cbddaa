package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// Check decides whether the image that ref pins is signed by one of the allowed
// keys. A verdict, whichever way it went, is an answer; an error is the lack of
// one. It should return soon after ctx ends, and may leave work behind that
// makes the next answer faster. It is called by many goroutines at once.
type Check func(ctx context.Context, ref image.Reference, allowed []signature.KeyID) (verdict.Verdict, error)

// signatures is the lane of questions about signatures.
func signatures(cfg Config) *lane {
	m := newMetrics(cfg.Metrics, "oke_sign_", "verdict", verdict.Reasons())
	capped := m.counter(cfg.Metrics, "oke_sign_verdicts_capped_total", "Verdicts on images with more signature records than are looked at.")
	known := cfg.Known
	if known == nil {
		known = func(context.Context, image.Reference, []signature.KeyID) (verdict.Verdict, bool) {
			return verdict.Verdict{}, false
		}
	}
	return open(SignaturesPath, cmp.Or(max(cfg.Requests, 0), 256), &decider[verdict.Verdict]{
		topic: topic[verdict.Verdict]{
			parse: parseQuestion,
			foreign: func(_ question, err error) verdict.Verdict {
				return verdict.Verdict{Reason: verdict.NotOCIRegistry, Detail: err.Error()}
			},
			known: func(ctx context.Context, p *pending) (verdict.Verdict, bool) { return known(ctx, p.ref, p.allowed) },
			check: func(ctx context.Context, p *pending) (verdict.Verdict, error) {
				return cfg.Check(ctx, p.ref, p.allowed)
			},
			sound: func(q question, v verdict.Verdict) (verdict.Verdict, error) { return soundVerdict(m, q, v) },
			count: func(v verdict.Verdict) {
				m.decided(string(v.Reason), v.Age)
				if v.Capped {
					capped.Inc()
				}
			},
			message: "decision",
			attrs:   verdictAttrs,
		},
		budget: cmp.Or(max(cfg.Budget, 0), 1300*time.Millisecond), parallel: cmp.Or(max(cfg.Parallel, 0), 16), log: cfg.Log, metrics: m,
	})
}

// soundVerdict holds a verdict against the question: a yes must name a key that
// was asked for.
func soundVerdict(m *metrics, q question, v verdict.Verdict) (verdict.Verdict, error) {
	byAllowed := slices.ContainsFunc(q.allowed, func(id signature.KeyID) bool { return id.String() == v.Key })
	if v.Signed != (v.Reason == verdict.Signed) || v.Signed && !byAllowed || !m.hasReason(string(v.Reason)) {
		return verdict.Verdict{}, fmt.Errorf("internal error: a verdict that contradicts itself (signed %v, reason %q, key %q)", v.Signed, v.Reason, v.Key)
	}
	if !v.Signed && v.Kept > 0 {
		v.Detail += again(v.Kept)
	}
	return v, nil
}

func verdictAttrs(q question, v verdict.Verdict, took time.Duration) []slog.Attr {
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("image", q.image), slog.String("verdict", word(v.Signed)), slog.String("reason", string(v.Reason)),
		slog.String("allowed", list(q.allowed)), slog.String("age", readable(v.Age)), slog.String("duration", readable(took)))
	for _, more := range [...]slog.Attr{slog.String("key", v.Key), slog.String("detail", v.Detail), slog.String("ociRequests", v.Requests)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	return attrs
}

// list is the keys in one line.
func list(keys []signature.KeyID) string {
	if len(keys) == 1 {
		return keys[0].String()
	}
	ids := make([]string, len(keys))
	for i, id := range keys {
		ids[i] = id.String()
	}
	return strings.Join(ids, " ")
}

func word(signed bool) string {
	if signed {
		return "signed"
	}
	return "not-signed"
}
