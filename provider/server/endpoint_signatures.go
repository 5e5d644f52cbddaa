package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// signatures returns the endpoint for questions about signatures.
func signatures(cfg Config, families *metrics) *endpoint {
	own := cfg.Signatures
	if own.Check == nil {
		return nil
	}
	m := endpointMetricsOf(families, "signatures", verdict.Reasons())
	ages := families.ages.WithLabelValues("signatures")
	limits := withDefaults(own.Limits, Limits{Timeout: 1300 * time.Millisecond, Parallel: 16, Requests: 256})
	return serve(SignaturesPath, cfg, limits, handler[verdict.Verdict]{
		parse: parseSignatureQuestion,
		otherRegistry: func(_ asked, err error) verdict.Verdict {
			return verdict.Verdict{Reason: verdict.NotOCIRegistry, Detail: err.Error()}
		},
		cached: func(ctx context.Context, q *question) (v verdict.Verdict, ok bool) {
			if own.Cached == nil {
				return v, false
			}
			return own.Cached(ctx, q.ref, q.allowed)
		},
		check: func(ctx context.Context, q *question) (verdict.Verdict, error) {
			return own.Check(ctx, q.ref, q.allowed)
		},
		validate: func(a asked, v verdict.Verdict) (verdict.Verdict, error) { return validVerdict(m, a, v) },
		count: func(v verdict.Verdict) {
			m.answers[string(v.Reason)].Inc()
			ages.Observe(v.Age.Seconds())
			if v.Capped {
				families.truncated.Inc()
			}
		},
		message: "decision",
		attrs:   verdictAttrs,
		metrics: m,
	})
}

// validVerdict holds a verdict against its question. A yes must name a key that the
// question allows.
func validVerdict(m *endpointMetrics, a asked, v verdict.Verdict) (verdict.Verdict, error) {
	byAllowed := slices.ContainsFunc(a.allowed, func(id signature.KeyID) bool { return id.String() == v.Key })
	if v.Signed != (v.Reason == verdict.Signed) || v.Signed && !byAllowed || !m.hasReason(string(v.Reason)) {
		return verdict.Verdict{}, fmt.Errorf("internal error: a verdict that contradicts itself (signed %v, reason %q, key %q)", v.Signed, v.Reason, v.Key)
	}
	if !v.Signed && v.Kept > 0 {
		v.Detail += askedAgain(v.Kept)
	}
	return v, nil
}

func verdictAttrs(a asked, v verdict.Verdict, took time.Duration) []slog.Attr {
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("image", a.image), slog.String("verdict", word(v.Signed)), slog.String("reason", string(v.Reason)),
		slog.String("allowed", list(a.allowed)), slog.String("age", readable(v.Age)), slog.String("duration", readable(took)))
	for _, more := range [...]slog.Attr{slog.String("key", v.Key), slog.String("detail", v.Detail)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	return attrs
}

// list returns the keys in one line.
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
