package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/scan"
)

// known labels reports of images that were scanned.
const known = "known"

// scans is the lane of questions about scans.
func scans(cfg Config) *lane {
	m := newMetrics(cfg.Metrics, "oke_sign_scan_", "report", append([]scan.Reason{known}, scan.Reasons()...))
	own := cfg.Scans
	if own.Known == nil {
		own.Known = func(context.Context, image.Reference) (scan.Report, bool) { return scan.Report{}, false }
	}
	return open(ScansPath, cmp.Or(max(own.Requests, 0), 64), &decider[scan.Report]{
		topic: topic[scan.Report]{
			parse: parseScanQuestion,
			foreign: func(_ question, err error) scan.Report {
				return scan.Report{Reason: scan.NotOCIRegistry, Detail: err.Error()}
			},
			known: func(ctx context.Context, p *pending) (scan.Report, bool) { return own.Known(ctx, p.ref) },
			check: func(ctx context.Context, p *pending) (scan.Report, error) { return own.Check(ctx, p.ref) },
			sound: func(_ question, r scan.Report) (scan.Report, error) { return soundReport(m, r) },
			count: func(r scan.Report) {
				m.decided(string(cmp.Or(r.Reason, known)), r.Age)
			},
			message: "scan",
			attrs:   reportAttrs,
		},
		budget: cmp.Or(max(own.Budget, 0), 300*time.Millisecond), parallel: cmp.Or(max(own.Parallel, 0), 16), log: cfg.Log, metrics: m,
	})
}

// soundReport holds a report against the contract with the policy: one that is
// known says when it was made and counts all that it lists, one that is not gives
// a reason of the fixed set.
func soundReport(m *metrics, r scan.Report) (scan.Report, error) {
	if !r.Known {
		if r.Reason == known || !m.hasReason(string(r.Reason)) {
			return scan.Report{}, fmt.Errorf("internal error: nothing is known, for the reason %q", r.Reason)
		}
		if r.Kept > 0 {
			r.Detail += again(r.Kept)
		}
		return r, nil
	}
	listed := make(map[scan.Severity]int)
	for _, p := range r.Problems {
		listed[p.Severity]++
	}
	_, err := time.Parse(time.RFC3339, r.ScannedAt)
	sound := err == nil && r.Reason == ""
	for _, severity := range scan.Severities() {
		n, ok := r.Counts[severity]
		sound = sound && ok && n >= listed[severity]
		delete(listed, severity)
	}
	if !sound || len(listed) > 0 {
		return scan.Report{}, fmt.Errorf("internal error: a report that contradicts itself (at %q, reason %q, counts %v)", r.ScannedAt, r.Reason, r.Counts)
	}
	return r, nil
}

func reportAttrs(q question, r scan.Report, took time.Duration) []slog.Attr {
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("image", q.image), slog.Bool(known, r.Known))
	if r.Known {
		attrs = append(attrs, slog.String("scannedAt", r.ScannedAt))
		for _, severity := range scan.Severities() {
			attrs = append(attrs, slog.Int(string(severity), r.Counts[severity]))
		}
	} else {
		attrs = append(attrs, slog.String("reason", string(r.Reason)), slog.String("detail", r.Detail))
	}
	attrs = append(attrs, slog.String("age", readable(r.Age)), slog.String("duration", readable(took)))
	if r.Requests != "" {
		attrs = append(attrs, slog.String("ociRequests", r.Requests))
	}
	return attrs
}
