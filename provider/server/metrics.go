package server

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/oke-sign/oke-sign/provider/verdict"
)

// metrics counts with labels from fixed sets only. Images and keys are never
// labels: whoever may create a Pod would choose how much memory they take.
type metrics struct {
	verdicts  map[verdict.Reason]prometheus.Counter
	missing   *prometheus.CounterVec
	capped    prometheus.Counter
	questions prometheus.Counter
	overruns  prometheus.Counter
	requests  *prometheus.HistogramVec
	decisions prometheus.Histogram
	ages      prometheus.Histogram
}

// buckets reach from a warm verdict to beyond the default budget.
var buckets = [...]float64{.00005, .0002, .0005, .001, .005, .02, .05, .1, .2, .4, .8, 1.3, 2}

func newMetrics(registry prometheus.Registerer) *metrics {
	verdicts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "oke_sign_verdicts_total",
		Help: "Verdicts given, by reason.",
	}, []string{"reason"})
	m := &metrics{
		verdicts: make(map[verdict.Reason]prometheus.Counter),
		missing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oke_sign_verdicts_missing_total",
			Help: "Questions that got no verdict, by cause.",
		}, []string{"cause"}),
		capped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oke_sign_verdicts_capped_total",
			Help: "Verdicts on images with more signature records than are looked at.",
		}),
		questions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oke_sign_malformed_questions_total",
			Help: "Keys that were no question.",
		}),
		overruns: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oke_sign_budget_overruns_total",
			Help: "Requests that were answered without some verdict because their time was over.",
		}),
		ages: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "oke_sign_evidence_age_seconds",
			Help:    "Age of what verdicts were decided on.",
			Buckets: []float64{1, 5, 15, 30, 60, 120, 300, 450, 600},
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "oke_sign_request_duration_seconds",
			Help:    "Time from a request's headers to its answer, by outcome.",
			Buckets: buckets[:],
		}, []string{"outcome"}),
		decisions: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "oke_sign_verdict_duration_seconds",
			Help:    "Time that one verdict took.",
			Buckets: buckets[:],
		}),
	}
	// Series that exist from the start show a rate from the first event on.
	for _, r := range verdict.Reasons() {
		m.verdicts[r] = verdicts.WithLabelValues(string(r))
	}
	for _, c := range [...]string{"deadline", "panic", "upstream"} {
		m.missing.WithLabelValues(c)
	}
	for _, o := range [...]string{"answered", "incomplete", "refused"} {
		m.requests.WithLabelValues(o)
	}
	if registry != nil {
		registry.MustRegister(verdicts, m.missing, m.capped, m.questions, m.overruns, m.requests, m.decisions, m.ages)
	}
	return m
}

func (m *metrics) decided(v verdict.Verdict, took time.Duration) {
	m.verdicts[v.Reason].Inc()
	m.decisions.Observe(took.Seconds())
	m.ages.Observe(v.Age.Seconds())
	if v.Capped {
		m.capped.Inc()
	}
}

// hasReason reports whether a reason is one of the fixed set.
func (m *metrics) hasReason(r verdict.Reason) bool { return m.verdicts[r] != nil }

// undecided reports whether it was for lack of time.
func (m *metrics) undecided(cause error) bool {
	label := "upstream"
	switch {
	case errors.Is(cause, errPanic):
		label = "panic"
	case errors.Is(cause, errBudgetSpent), errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, context.Canceled):
		label = "deadline"
	}
	m.missing.WithLabelValues(label).Inc()
	return label == "deadline"
}

func (m *metrics) notAQuestion() { m.questions.Inc() }

func (m *metrics) request(outcome string, took time.Duration) {
	m.requests.WithLabelValues(outcome).Observe(took.Seconds())
}
