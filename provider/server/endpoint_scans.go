package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// known labels reports of images that were scanned.
const known = "known"

// scans is the lane of questions about scans.
func scans(cfg Config) *lane {
	m := newMetrics(cfg.Metrics, "oke_sign_scan_", "report", append([]vulnreport.Reason{known}, vulnreport.Reasons()...))
	own := cfg.Scans
	if own.Known == nil {
		own.Known = func(context.Context, image.Reference) (vulnreport.Report, bool) { return vulnreport.Report{}, false }
	}
	return open(ScansPath, cmp.Or(max(own.Requests, 0), 64), &decider[vulnreport.Report]{
		topic: topic[vulnreport.Report]{
			parse: parseScanQuestion,
			foreign: func(_ question, err error) vulnreport.Report {
				return vulnreport.Report{Reason: vulnreport.NotOCIRegistry, Detail: err.Error()}
			},
			known: func(ctx context.Context, p *pending) (vulnreport.Report, bool) { return own.Known(ctx, p.ref) },
			check: func(ctx context.Context, p *pending) (vulnreport.Report, error) { return own.Check(ctx, p.ref) },
			sound: func(_ question, r vulnreport.Report) (vulnreport.Report, error) { return soundReport(m, r) },
			count: func(r vulnreport.Report) {
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
func soundReport(m *metrics, r vulnreport.Report) (vulnreport.Report, error) {
	if !r.Known {
		if r.Reason == known || !m.hasReason(string(r.Reason)) {
			return vulnreport.Report{}, fmt.Errorf("internal error: nothing is known, for the reason %q", r.Reason)
		}
		if r.Kept > 0 {
			r.Detail += again(r.Kept)
		}
		return r, nil
	}
	listed := make(map[vulnreport.Severity]int)
	for _, p := range r.Problems {
		listed[p.Severity]++
	}
	_, err := time.Parse(time.RFC3339, r.ScannedAt)
	sound := err == nil && r.Reason == ""
	for _, severity := range vulnreport.Severities() {
		n, ok := r.Counts[severity]
		sound = sound && ok && n >= listed[severity]
		delete(listed, severity)
	}
	if !sound || len(listed) > 0 {
		return vulnreport.Report{}, fmt.Errorf("internal error: a report that contradicts itself (at %q, reason %q, counts %v)", r.ScannedAt, r.Reason, r.Counts)
	}
	return r, nil
}

func reportAttrs(q question, r vulnreport.Report, took time.Duration) []slog.Attr {
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("image", q.image), slog.Bool(known, r.Known))
	if r.Known {
		attrs = append(attrs, slog.String("scannedAt", r.ScannedAt))
		for _, severity := range vulnreport.Severities() {
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
