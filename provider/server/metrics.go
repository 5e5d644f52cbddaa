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
	verdicts  *prometheus.CounterVec
	missing   *prometheus.CounterVec
	capped    prometheus.Counter
	questions prometheus.Counter
	requests  *prometheus.HistogramVec
	decisions prometheus.Histogram
}

// buckets reach from a warm verdict to beyond the default budget.
var buckets = [...]float64{.00005, .0002, .001, .005, .02, .05, .1, .2, .4, .8, 1.3, 2}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "oke_sign_verdicts_total",
			Help: "Verdicts given, by reason.",
		}, []string{"reason"}),
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
		m.verdicts.WithLabelValues(string(r))
	}
	for _, c := range [...]string{"deadline", "panic", "upstream"} {
		m.missing.WithLabelValues(c)
	}
	for _, o := range [...]string{"answered", "incomplete", "refused"} {
		m.requests.WithLabelValues(o)
	}
	if registry != nil {
		registry.MustRegister(m.verdicts, m.missing, m.capped, m.questions, m.requests, m.decisions)
	}
	return m
}

func (m *metrics) decided(v verdict.Verdict, took time.Duration) {
	m.verdicts.WithLabelValues(string(v.Reason)).Inc()
	m.decisions.Observe(took.Seconds())
	if v.Capped {
		m.capped.Inc()
	}
}

func (m *metrics) undecided(cause error) {
	label := "upstream"
	switch {
	case errors.Is(cause, errPanic):
		label = "panic"
	case errors.Is(cause, errBudgetSpent), errors.Is(cause, context.DeadlineExceeded), errors.Is(cause, context.Canceled):
		label = "deadline"
	}
	m.missing.WithLabelValues(label).Inc()
}

func (m *metrics) notAQuestion() { m.questions.Inc() }

func (m *metrics) request(outcome string, took time.Duration) {
	m.requests.WithLabelValues(outcome).Observe(took.Seconds())
}
