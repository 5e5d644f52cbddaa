package server

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the families that all endpoints share, each with the label endpoint.
// All labels come from fixed sets. Images and keys are never labels: anybody who may
// create a Pod would choose how much memory they take.
type metrics struct {
	answers   *prometheus.CounterVec
	errors    *prometheus.CounterVec
	malformed *prometheus.CounterVec
	late      *prometheus.CounterVec
	requests  *prometheus.HistogramVec
	took      *prometheus.HistogramVec
	ages      *prometheus.HistogramVec
	truncated prometheus.Counter
}

// Values of the labels outcome and cause.
const (
	outcomeAnswered   = "answered"
	outcomeIncomplete = "incomplete" // some question has no answer
	outcomeRefused    = "refused"

	causeDeadline = "deadline"
	causePanic    = "panic"
	causeUpstream = "upstream"
)

// durations are buckets from an answer of the cache to beyond the default timeout.
var durations = [...]float64{.00005, .0002, .0005, .001, .005, .02, .05, .1, .2, .4, .8, 1.3, 2}

// newMetrics makes the metric families. A nil registry leaves them unregistered.
func newMetrics(registry prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		answers:   counter("oke_sign_answers_total", "Questions answered, by reason.", "endpoint", "reason"),
		errors:    counter("oke_sign_decision_errors_total", "Questions without an answer, by cause: deadline, panic or upstream.", "endpoint", "cause"),
		malformed: counter("oke_sign_malformed_questions_total", "Keys of requests that do not parse as questions.", "endpoint"),
		late:      counter("oke_sign_deadline_exceeded_total", "Requests with a question that got no answer in time.", "endpoint"),
		requests: histogram("oke_sign_request_duration_seconds", "Time from the headers of a request to its answer, by outcome: answered, incomplete (a question has no answer) or refused.",
			durations[:], "endpoint", "outcome"),
		took: histogram("oke_sign_answer_duration_seconds", "Time that the answer to one question took.", durations[:], "endpoint"),
		ages: histogram("oke_sign_evidence_age_seconds", "Age of the evidence that an answer is based on.",
			[]float64{1, 5, 15, 30, 60, 120, 300, 450, 600}, "endpoint"),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "oke_sign_records_truncated_total", Help: "Verdicts on images with more signature records than the provider reads.",
		}),
	}
	if registry != nil {
		registry.MustRegister(m.answers, m.errors, m.malformed, m.late, m.requests, m.took, m.ages, m.truncated)
	}
	return m
}

// endpointMetrics are the series of one endpoint.
type endpointMetrics struct {
	answers   map[string]prometheus.Counter  // by reason
	errors    map[string]prometheus.Counter  // by cause
	requests  map[string]prometheus.Observer // by outcome
	malformed prometheus.Counter
	late      prometheus.Counter
	took      prometheus.Observer
}

// endpointMetricsOf returns the series of an endpoint with its reasons. All series exist
// from the start, so that a rate includes the first event.
func endpointMetricsOf[R ~string](m *metrics, endpoint string, reasons []R) *endpointMetrics {
	e := &endpointMetrics{
		answers: make(map[string]prometheus.Counter), errors: make(map[string]prometheus.Counter), requests: make(map[string]prometheus.Observer),
		malformed: m.malformed.WithLabelValues(endpoint), late: m.late.WithLabelValues(endpoint),
		took: m.took.WithLabelValues(endpoint),
	}
	for _, r := range reasons {
		e.answers[string(r)] = m.answers.WithLabelValues(endpoint, string(r))
	}
	for _, c := range [...]string{causeDeadline, causePanic, causeUpstream} {
		e.errors[c] = m.errors.WithLabelValues(endpoint, c)
	}
	for _, o := range [...]string{outcomeAnswered, outcomeIncomplete, outcomeRefused} {
		e.requests[o] = m.requests.WithLabelValues(endpoint, o)
	}
	return e
}

// unknownPath returns the series of requests to no endpoint. All of them are rejected.
func (m *metrics) unknownPath() *endpointMetrics {
	return &endpointMetrics{requests: map[string]prometheus.Observer{
		outcomeRefused: m.requests.WithLabelValues("none", outcomeRefused),
	}}
}

// hasReason reports whether a reason is one of the fixed set.
func (e *endpointMetrics) hasReason(reason string) bool { return e.answers[reason] != nil }

// failed counts a question without an answer, and reports whether time ran out.
func (e *endpointMetrics) failed(err error) (late bool) {
	cause := causeUpstream
	switch {
	case errors.Is(err, errPanic):
		cause = causePanic
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		cause = causeDeadline
	}
	e.errors[cause].Inc()
	return cause == causeDeadline
}

// request observes one request.
func (e *endpointMetrics) request(outcome string, took time.Duration) {
	e.requests[outcome].Observe(took.Seconds())
}
