package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts with labels from fixed sets only. Images and keys are never
// labels: whoever may create a Pod would choose how much memory they take.
type metrics struct {
	reasons   map[string]prometheus.Counter
	missing   *prometheus.CounterVec
	questions prometheus.Counter
	overruns  prometheus.Counter
	requests  *prometheus.HistogramVec
	answers   prometheus.Histogram
	ages      prometheus.Histogram
}

// buckets reach from a warm verdict to beyond the default budget.
var buckets = [...]float64{.00005, .0002, .0005, .001, .005, .02, .05, .1, .2, .4, .8, 1.3, 2}

// newMetrics makes the metrics of a lane: their names begin with prefix, and its
// answers are called by one word.
func newMetrics[R ~string](registry prometheus.Registerer, prefix, answer string, reasons []R) *metrics {
	given := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: prefix + answer + "s_total",
		Help: strings.ToUpper(answer[:1]) + answer[1:] + "s given, by reason.",
	}, []string{"reason"})
	m := &metrics{
		reasons: make(map[string]prometheus.Counter),
		missing: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + answer + "s_missing_total",
			Help: "Questions that got no " + answer + ", by cause.",
		}, []string{"cause"}),
		ages: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + "evidence_age_seconds",
			Help:    "Age of what " + answer + "s were decided on.",
			Buckets: []float64{1, 5, 15, 30, 60, 120, 300, 450, 600},
		}),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    prefix + "request_duration_seconds",
			Help:    "Time from a request's headers to its answer, by outcome.",
			Buckets: buckets[:],
		}, []string{"outcome"}),
		answers: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    prefix + answer + "_duration_seconds",
			Help:    "Time that one " + answer + " took.",
			Buckets: buckets[:],
		}),
	}
	m.questions = m.counter(registry, prefix+"malformed_questions_total", "Keys that were no question.")
	m.overruns = m.counter(registry, prefix+"budget_overruns_total", "Requests that were answered without some "+answer+" because their time was over.")
	// Series that exist from the start show a rate from the first event on.
	for _, r := range reasons {
		m.reasons[string(r)] = given.WithLabelValues(string(r))
	}
	for _, c := range [...]string{"deadline", "panic", "upstream"} {
		m.missing.WithLabelValues(c)
	}
	for _, o := range [...]string{"answered", "incomplete", "refused"} {
		m.requests.WithLabelValues(o)
	}
	if registry != nil {
		registry.MustRegister(given, m.missing, m.requests, m.answers, m.ages)
	}
	return m
}

// counter makes one more counter.
func (m *metrics) counter(registry prometheus.Registerer, name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	if registry != nil {
		registry.MustRegister(c)
	}
	return c
}

// decided counts an answer, whose reason is one of the fixed set.
func (m *metrics) decided(reason string, age time.Duration) {
	m.reasons[reason].Inc()
	m.ages.Observe(age.Seconds())
}

// hasReason reports whether a reason is one of the fixed set.
func (m *metrics) hasReason(reason string) bool { return m.reasons[reason] != nil }

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
