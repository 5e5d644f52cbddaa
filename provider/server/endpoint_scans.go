package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// known is the reason in the metrics for a report about a scanned image.
const known = "known"

// scans returns the endpoint for questions about scans.
func scans(cfg Config, families *metrics) *endpoint {
	own := cfg.Scans
	if own.Check == nil {
		return nil
	}
	m := endpointMetricsOf(families, "scans", append([]vulnreport.Reason{known}, vulnreport.Reasons()...))
	ages := families.ages.WithLabelValues("scans")
	limits := withDefaults(own.Limits, Limits{Timeout: 300 * time.Millisecond, Parallel: 16, Requests: 64})
	return serve(ScansPath, cfg, limits, handler[vulnreport.Report]{
		parse: parseScanQuestion,
		otherRegistry: func(_ subject, err error) vulnreport.Report {
			return vulnreport.Report{Reason: vulnreport.NotOCIRegistry, Detail: err.Error()}
		},
		cached: func(ctx context.Context, q *question) (r vulnreport.Report, ok bool) {
			if own.Cached == nil {
				return r, false
			}
			return own.Cached(ctx, q.ref)
		},
		check:    func(ctx context.Context, q *question) (vulnreport.Report, error) { return own.Check(ctx, q.ref) },
		validate: func(_ subject, r vulnreport.Report) (vulnreport.Report, error) { return validReport(m, r) },
		count: func(r vulnreport.Report) {
			m.answers[string(cmp.Or(r.Reason, known))].Inc()
			ages.Observe(r.Age.Seconds())
		},
		message: "scan",
		attrs:   reportAttrs,
		metrics: m,
	})
}

// validReport returns an error if a report violates the contract with the image policy. A
// known report has the time of its scan, and counts all problems that it lists. An unknown
// report has a reason of the fixed set.
func validReport(m *endpointMetrics, r vulnreport.Report) (vulnreport.Report, error) {
	if !r.Known {
		if r.Reason == known || !m.hasReason(string(r.Reason)) {
			return vulnreport.Report{}, fmt.Errorf("internal error: nothing is known, for the reason %q", r.Reason)
		}
		if r.RetryAfter > 0 {
			r.Detail += retryNote(r.RetryAfter)
		}
		return r, nil
	}
	listed := make(map[vulnreport.Severity]int)
	for _, p := range r.Problems {
		listed[p.Severity]++
	}
	_, err := time.Parse(time.RFC3339, r.ScannedAt)
	valid := err == nil && r.Reason == ""
	for _, severity := range vulnreport.Severities() {
		n, ok := r.Counts[severity]
		valid = valid && ok && n >= listed[severity]
		delete(listed, severity)
	}
	if !valid || len(listed) > 0 {
		return vulnreport.Report{}, fmt.Errorf("internal error: a report that contradicts itself (at %q, reason %q, counts %v)", r.ScannedAt, r.Reason, r.Counts)
	}
	return r, nil
}

func reportAttrs(s subject, r vulnreport.Report, took time.Duration) []slog.Attr {
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("image", s.image), slog.Bool(known, r.Known))
	if r.Known {
		attrs = append(attrs, slog.String("scannedAt", r.ScannedAt))
		for _, severity := range vulnreport.Severities() {
			attrs = append(attrs, slog.Int(string(severity), r.Counts[severity]))
		}
	} else {
		attrs = append(attrs, slog.String("reason", string(r.Reason)), slog.String("detail", r.Detail))
	}
	return append(attrs, slog.String("age", readable(r.Age)), slog.String("duration", readable(took)))
}
