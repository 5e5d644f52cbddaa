package server

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/oke-sign/oke-sign/provider/checker"
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
	return serve(SignaturesPath, cfg, limits, handler[checker.Answer]{
		parse: parseSignatureQuestion,
		otherRegistry: func(_ subject, err error) checker.Answer {
			return checker.Answer{Verdict: verdict.Verdict{Reason: verdict.NotOCIRegistry, Detail: err.Error()}}
		},
		cached: func(ctx context.Context, q *question) (v checker.Answer, ok bool) {
			if own.Cached == nil {
				return v, false
			}
			return own.Cached(ctx, q.img, q.allowed)
		},
		check: func(ctx context.Context, q *question) (checker.Answer, error) {
			return own.Check(ctx, q.img, q.allowed)
		},
		validate: func(s subject, v checker.Answer) (checker.Answer, error) { return validVerdict(m, s, v) },
		value:    func(v checker.Answer) any { return v.Members() },
		count: func(v checker.Answer) {
			m.answers[string(v.Reason)].Inc()
			ages.Observe(v.Age.Seconds())
			if v.Truncated {
				families.truncated.Inc()
			}
		},
		message: "decision",
		attrs:   verdictAttrs,
		metrics: m,
	})
}

// validVerdict returns an error if a verdict contradicts its question. A yes must name a
// key that the question allows, and as many different ones as the question asks for.
func validVerdict(m *endpointMetrics, s subject, v checker.Answer) (checker.Answer, error) {
	if v.Signed() && !enough(s.allowed, v.Verdict) || !m.hasReason(string(v.Reason)) {
		return checker.Answer{}, fmt.Errorf("internal error: a verdict that contradicts its question (reason %q, key %q)", v.Reason, v.Key)
	}
	if !v.Signed() && v.RetryAfter > 0 {
		v.Detail += retryNote(v.RetryAfter)
	}
	return v, nil
}

// enough reports whether a verdict names an allowed key, and as many different allowed keys
// as must have signed.
func enough(allowed signature.KeySet, v verdict.Verdict) bool {
	named, first := 0, false
	for _, id := range allowed.Keys() {
		first = first || v.Key == id.String()
		if slices.ContainsFunc(v.By, func(p verdict.Proof) bool { return p.Key == id.String() }) {
			named++
		}
	}
	return first && (allowed.AtLeast() == 1 || named >= allowed.AtLeast())
}

func verdictAttrs(s subject, v checker.Answer, took time.Duration) []slog.Attr {
	attrs := make([]slog.Attr, 0, 10)
	attrs = append(attrs, slog.String("image", s.image), slog.String("verdict", word(v.Signed())), slog.String("reason", string(v.Reason)),
		slog.String("allowed", s.allowed.String()), slog.String("age", readable(v.Age)), slog.String("duration", readable(took)))
	if n := s.allowed.AtLeast(); n > 1 {
		attrs = append(attrs, slog.Int("atLeast", n))
	}
	for _, more := range [...]slog.Attr{slog.String("key", v.Key), slog.String("detail", v.Detail)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	return attrs
}

func word(signed bool) string {
	if signed {
		return "signed"
	}
	return "not-signed"
}
