package server

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health returns a handler of probes and metrics. It needs its own address without TLS,
// because the kubelet has no client certificate.
//
// /healthz fails with alive's error when only a restart helps. /readyz fails with ready's
// error while the process cannot decide anything. /metrics is for Prometheus. A note that
// is not empty is added to the text of a successful /readyz, for people.
func Health(alive, ready func() error, note func() string, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", probe(alive, func() string { return "ok" }))
	mux.HandleFunc("GET /readyz", probe(ready, func() string {
		if n := note(); n != "" {
			return "ready, but " + oneLine(n, maxSystemError)
		}
		return "ready"
	}))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux
}

func probe(check func() error, success func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			say(w, http.StatusServiceUnavailable, oneLine(err.Error(), maxSystemError))
			return
		}
		say(w, http.StatusOK, success())
	}
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
