// Package server answers Gatekeeper's external data requests over HTTP. It has one
// endpoint for each kind of question: is this image signed by an allowed key, what do
// scans say about it, and which digest does this tag have now?
//
// The package decodes requests, bounds them, answers their questions in parallel within
// the timeout, and encodes the answers. The functions of Config decide what is signed and
// what a scan found. The package trusts nobody: it bounds all input before it reads the
// input, and parses strictly. A question without a verdict or a report gets an answer
// that admits nothing.
//
// Gatekeeper caches items, values and errors alike, for minutes, and never caches a
// systemError. Therefore:
//
//   - a verdict, yes or no, is the value of an item;
//   - a key that is not a question is an item with an error, because no later attempt
//     can answer it;
//   - an image without an answer (OCI throttles, is slow or is down, the time is over,
//     the code panicked) has no item; systemError names the image, so that Gatekeeper
//     asks again;
//   - a request that is rejected as a whole has no items, a systemError with the cause,
//     and a status of 400 or more. Gatekeeper reads only the systemError.
//
// The package does not call OCI, does not cache, and does not terminate TLS.
package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Handler answers requests. It is safe for concurrent use.
type Handler struct {
	authorize func(*tls.ConnectionState) error
	log       *slog.Logger
	endpoints map[string]*endpoint // by path
	unknown   *endpoint            // for requests to another path
	buffers   sync.Pool            // of *encoder, for bodies as well
	bodies    *semaphore.Weighted
	answers   *semaphore.Weighted
	stuck     atomic.Int64 // requests without an answer long after their timeout
}

// New makes a Handler. It answers POST requests to the configured endpoints, and all
// others in the protocol's own form with a systemError.
func New(cfg Config) *Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Trace == nil {
		cfg.Trace = func(ctx context.Context) (context.Context, func() string) {
			return ctx, func() string { return "" }
		}
	}
	h := &Handler{
		authorize: cfg.Authorize, log: cfg.Log, endpoints: make(map[string]*endpoint),
		bodies: semaphore.NewWeighted(maxLargeBodies), answers: semaphore.NewWeighted(maxLargeAnswers),
	}
	metrics := newMetrics(cfg.Metrics)
	h.unknown = &endpoint{timeout: time.Second, metrics: metrics.unknownPath()}
	for _, e := range []*endpoint{signatures(cfg, metrics), scans(cfg, metrics), digests(cfg, metrics)} {
		if e != nil {
			h.endpoints[e.path] = e
		}
	}
	return h
}

// stuckAfter is how long after its timeout a request may be without an answer. A longer
// delay is a fault of this process and not of OCI.
const stuckAfter = 30 * time.Second

// Alive returns an error while requests have no answer long after their timeout. OCI
// cannot cause this, so only a restart helps.
func (h *Handler) Alive() error {
	if n := h.stuck.Load(); n > 0 {
		return fmt.Errorf("stuck: %d requests without an answer %s after their time", n, stuckAfter)
	}
	return nil
}

// watch counts a request as stuck after its timeout plus stuckAfter. The caller calls
// ended when the request has its answer.
func (h *Handler) watch(timeout time.Duration) (ended func()) {
	late := time.AfterFunc(timeout+stuckAfter, func() { h.stuck.Add(1) })
	return func() {
		if !late.Stop() {
			h.stuck.Add(-1)
		}
	}
}
