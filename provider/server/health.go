package server

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Health answers probes and metrics. It belongs on an address of its own,
// without TLS: kubelet has no client certificate to show.
//
// /healthz says, with alive's error as its text, whether the process is of any
// use to anybody; /readyz, with ready's, whether it could decide anything now;
// /metrics is Prometheus's. Note is what /readyz tells beside that it is ready, if it
// is not empty: something that a person should know, and no reason to ask elsewhere.
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

func probe(check func() error, well func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			say(w, http.StatusServiceUnavailable, oneLine(err.Error(), maxSystemError))
			return
		}
		say(w, http.StatusOK, well())
	}
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
