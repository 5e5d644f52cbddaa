package server_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/server"
)

// seriesOf returns the number of requests or events of each series.
func seriesOf(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			series[name] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return series
}

// All series exist from the start, for any question, and each endpoint has its own series.
func TestSeriesAreFixed(t *testing.T) {
	registry := prometheus.NewRegistry()
	cfg := checking(signed)
	cfg.Metrics = registry
	cfg.Scans.Check = clean
	cfg.Digests.Check = func(context.Context, image.Reference) (string, error) { return "", errors.New("503") }
	h := server.New(cfg)
	before := seriesOf(t, registry)

	const tagged = "iad.ocir.io/ns/web:v1"
	digest := "iad.ocir.io/ns/web@sha256:" + strings.Repeat("0", 64)
	for _, r := range []struct{ method, path, body string }{
		{"POST", server.SignaturesPath, envelope(append(images(2), "no question")...)},
		{"POST", server.ScansPath, envelope(askScan(digest), askScan("nginx"), "no question")},
		{"POST", server.DigestsPath, envelope(tagged, digest)},
		{"GET", server.ScansPath, ""},
		{"POST", server.DigestsPath, "no request"},
		{"POST", "/v1/other", envelope(images(1)...)},
		{"POST", "/v1/" + strings.Repeat("x", 1000), ""},
	} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), r.method, r.path, strings.NewReader(r.body)))
	}

	changed := make(map[string]float64)
	for name, n := range seriesOf(t, registry) {
		was, there := before[name]
		if !there {
			t.Errorf("series %s did not exist before it was counted", name)
		}
		if n != was {
			changed[name] = n - was
		}
	}
	want := map[string]float64{
		"oke_sign_answer_duration_seconds endpoint=digests":                      1,
		"oke_sign_answer_duration_seconds endpoint=scans":                        2,
		"oke_sign_answer_duration_seconds endpoint=signatures":                   2,
		"oke_sign_answers_total endpoint=digests reason=as-written":              1,
		"oke_sign_answers_total endpoint=scans reason=known":                     1,
		"oke_sign_answers_total endpoint=scans reason=not-oci-registry":          1,
		"oke_sign_answers_total endpoint=signatures reason=signed":               2,
		"oke_sign_decision_errors_total cause=upstream endpoint=digests":         1,
		"oke_sign_evidence_age_seconds endpoint=scans":                           2,
		"oke_sign_evidence_age_seconds endpoint=signatures":                      2,
		"oke_sign_malformed_questions_total endpoint=scans":                      1,
		"oke_sign_malformed_questions_total endpoint=signatures":                 1,
		"oke_sign_request_duration_seconds endpoint=digests outcome=incomplete":  1,
		"oke_sign_request_duration_seconds endpoint=digests outcome=refused":     1,
		"oke_sign_request_duration_seconds endpoint=none outcome=refused":        2,
		"oke_sign_request_duration_seconds endpoint=scans outcome=answered":      1,
		"oke_sign_request_duration_seconds endpoint=scans outcome=refused":       1,
		"oke_sign_request_duration_seconds endpoint=signatures outcome=answered": 1,
	}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// An endpoint without a check is not served and has no series.
func TestDisabledEndpoints(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := server.New(server.Config{Scans: server.Scans{Check: clean}, Metrics: registry})
	for path, want := range map[string]int{server.ScansPath: http.StatusOK, server.SignaturesPath: http.StatusNotFound, server.DigestsPath: http.StatusNotFound} {
		if status, _ := postTo(t, h, path, askScan("nginx")); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
	}
	for name := range seriesOf(t, registry) {
		if strings.Contains(name, "endpoint=signatures") || strings.Contains(name, "endpoint=digests") {
			t.Errorf("series %s of an endpoint that is not served", name)
		}
	}
}
