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

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/oke-sign/oke-sign/provider/checker"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// Paths of the endpoints.
const (
	SignaturesPath = "/v1/signatures"
	ScansPath      = "/v1/scans"
	DigestsPath    = "/v1/digests"
)

// Config configures a Handler. Endpoints do not share limits, so requests to one endpoint
// do not delay requests to another.
type Config struct {
	Signatures Signatures
	Scans      Scans
	Digests    Digests
	// Authorize returns an error if the caller of a connection may not ask. It runs
	// for every request before the body is read. Nil authorizes all callers.
	Authorize func(*tls.ConnectionState) error
	// Trace returns a context that collects the ids of OCI calls, and a function that
	// returns these ids for the log. Nil logs no ids.
	Trace func(context.Context) (context.Context, func() string)
	// Log gets one line for each question; nil discards them.
	Log *slog.Logger
	// Metrics is where the handler registers its metrics; nil registers none.
	Metrics prometheus.Registerer
}

// Signatures are the settings of SignaturesPath.
type Signatures struct {
	// Check decides whether img is signed by one of the allowed keys. The zero img
	// stands for a reference without a digest. The handler calls Check for questions
	// that Cached has not answered. Nil disables the endpoint.
	//
	// A verdict, yes or no, is an answer; an error is the lack of one. Many goroutines
	// call Check concurrently. Check returns soon after ctx ends, and may continue in
	// the background so that the next answer is faster.
	Check func(ctx context.Context, img image.Pinned, allowed signature.KeySet) (checker.Answer, error)
	// Cached returns the answer of Check if that takes no call of OCI. The handler
	// calls Cached first. Nil means that nothing is cached.
	Cached func(ctx context.Context, img image.Pinned, allowed signature.KeySet) (checker.Answer, bool)
	// Limits default to 1.3 s, 16 questions and 256 requests. Three replicas of
	// Gatekeeper send at most 192 requests at a time with the values shipped.
	Limits
}

// Scans are the settings of ScansPath.
type Scans struct {
	// Check returns what scans say about an image. The rules of Signatures.Check apply.
	Check func(ctx context.Context, ref image.Reference) (vulnreport.Report, error)
	// Cached returns the answer of Check if that takes no call of OCI.
	Cached func(ctx context.Context, ref image.Reference) (vulnreport.Report, bool)
	// Limits default to 0.3 s, 16 questions and 64 requests.
	Limits
}

// Digests are the settings of DigestsPath.
type Digests struct {
	// Check returns the digest of the image to which ref, a reference without a digest,
	// points now. The digest is empty if there is no such image. The rules of
	// Signatures.Check apply.
	Check func(ctx context.Context, ref image.Reference) (string, error)
	// Limits default to 0.7 s, 16 questions and 64 requests.
	Limits
}

// Limits bound the work of one endpoint. A field at or below zero means its default.
type Limits struct {
	// Timeout is the time for one request, from its headers to its answer. It must be
	// shorter than the timeout of Gatekeeper's Provider object, because Gatekeeper
	// drops later answers.
	Timeout time.Duration
	// Parallel bounds the concurrent checks of one request.
	Parallel int
	// Requests bounds the requests with concurrent checks. Further requests wait
	// within their timeout. Cached answers do not wait.
	Requests int
}

// withDefaults returns l with defaults in place of the fields at or below zero.
func withDefaults(l, defaults Limits) Limits {
	if l.Timeout <= 0 {
		l.Timeout = defaults.Timeout
	}
	if l.Parallel <= 0 {
		l.Parallel = defaults.Parallel
	}
	if l.Requests <= 0 {
		l.Requests = defaults.Requests
	}
	return l
}

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

// endpoint serves one path.
type endpoint struct {
	path    string
	timeout time.Duration
	metrics *endpointMetrics
	answer  func(ctx context.Context, questions []string, deadline time.Time) Response
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
