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
// /metrics is Prometheus's.
func Health(alive, ready func() error, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", probe(alive, "ok"))
	mux.HandleFunc("GET /readyz", probe(ready, "ready"))
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux
}

func probe(check func() error, well string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			say(w, http.StatusServiceUnavailable, oneLine(err.Error(), maxSystemError))
			return
		}
		say(w, http.StatusOK, well)
	}
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n")
}
