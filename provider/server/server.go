// Package server answers Gatekeeper's external data requests over HTTP. It has one
// endpoint for each kind of question: is this image signed by a key that the policy
// allows, what do scans say of it, and which digest does this tag have now?
//
// The package decodes, bounds, fans out, keeps the time and encodes. Those who
// configure it decide what is signed and what a scan found. It trusts nobody. It
// bounds all input before it reads it, and reads it strictly. Whatever does not end
// in a verdict or a report ends in an answer that admits nothing.
//
// Gatekeeper caches items, values and errors alike, for minutes, and never caches a
// systemError. Therefore:
//
//   - a verdict, yes or no, is the value of an item;
//   - a key that is no question is an item with an error, because no later attempt
//     can answer it;
//   - an image about which nothing could be found out (OCI throttles, is slow or is
//     down, the time is over, the code panicked) has no item; systemError names it,
//     so that Gatekeeper asks again;
//   - a request that is refused as a whole has no items, a systemError with the
//     cause, and a status from 400 on. Gatekeeper reads the systemError only.
//
// The package knows nothing of OCI, caches or certificates, and does not terminate
// TLS.
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

// Config says how a Handler answers. Endpoints share nothing that one request could
// keep from a request to another endpoint.
type Config struct {
	Signatures Signatures
	Scans      Scans
	Digests    Digests
	// Authorize returns an error if the caller behind a connection may not ask. It
	// runs on every request, before the body is read. Nil lets everybody ask who
	// can connect.
	Authorize func(*tls.ConnectionState) error
	// Trace returns a context whose calls of OCI leave the ids of their requests,
	// and a function that returns these ids for the log. Nil logs no ids.
	Trace func(context.Context) (context.Context, func() string)
	// Log gets one line for each question; nil discards them.
	Log *slog.Logger
	// Metrics is where the handler registers its metrics; nil registers none.
	Metrics prometheus.Registerer
}

// Signatures are the settings of SignaturesPath.
type Signatures struct {
	// Check decides whether img, zero for a reference without a digest, is signed by
	// one of the allowed keys. It is asked what Cached has not answered. A nil Check
	// leaves the endpoint out.
	//
	// A verdict, whichever way it went, is an answer; an error is the lack of one.
	// Many goroutines call Check at once. Check returns soon after ctx ends, and may
	// leave work behind that makes the next answer faster.
	Check func(ctx context.Context, img image.Pinned, allowed signature.KeySet) (checker.Answer, error)
	// Cached returns what Check would, if that takes no call. The handler calls
	// Cached first. Nil caches nothing.
	Cached func(ctx context.Context, img image.Pinned, allowed signature.KeySet) (checker.Answer, bool)
	// Limits default to 1.3 s, 16 questions and 256 requests. Three replicas of
	// Gatekeeper send at most 192 requests at a time with the values shipped.
	Limits
}

// Scans are the settings of ScansPath.
type Scans struct {
	// Check returns what scans say of an image, on the terms of Signatures.Check.
	Check func(ctx context.Context, ref image.Reference) (vulnreport.Report, error)
	// Cached returns what Check would, if that takes no call.
	Cached func(ctx context.Context, ref image.Reference) (vulnreport.Report, bool)
	// Limits default to 0.3 s, 16 questions and 64 requests.
	Limits
}

// Digests are the settings of DigestsPath.
type Digests struct {
	// Check returns the digest of the image that ref, which has none, points to
	// now, on the terms of Signatures.Check. The digest is empty if there is no such
	// image.
	Check func(ctx context.Context, ref image.Reference) (string, error)
	// Limits default to 0.7 s, 16 questions and 64 requests.
	Limits
}

// Limits bound the work of one endpoint. A field at or below zero means its default.
type Limits struct {
	// Timeout is the time for one request, from its headers to its answer. It must
	// be shorter than the timeout of Gatekeeper's Provider object: Gatekeeper drops
	// whatever comes later.
	Timeout time.Duration
	// Parallel is how many questions of one request Check works on at a time.
	Parallel int
	// Requests is how many requests Check works for at a time. Further ones wait
	// within their timeout. Answers from the cache wait for none of them.
	Requests int
}

// withDefaults returns l with the defaults of those fields that are at or below zero.
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
	elsewhere *endpoint            // for requests to another path
	buffers   sync.Pool            // of *encoder, for bodies as well
	bodies    *semaphore.Weighted
	answers   *semaphore.Weighted
	stuck     atomic.Int64 // requests without an answer long after their timeout
}

// endpoint is one path that is served.
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
		bodies: semaphore.NewWeighted(roomForBodies), answers: semaphore.NewWeighted(roomForAnswers),
	}
	metrics := newMetrics(cfg.Metrics)
	h.elsewhere = &endpoint{timeout: time.Second, metrics: metrics.elsewhere()}
	for _, e := range []*endpoint{signatures(cfg, metrics), scans(cfg, metrics), digests(cfg, metrics)} {
		if e != nil {
			h.endpoints[e.path] = e
		}
	}
	return h
}

// stuckAfter is how long after its timeout a request may still be without an answer.
// Beyond that, the fault is in this process and not outside.
const stuckAfter = 30 * time.Second

// Alive returns an error while requests are without an answer long after their
// timeout. The timeout ends whatever OCI does, so only a restart can help then.
func (h *Handler) Alive() error {
	if n := h.stuck.Load(); n > 0 {
		return fmt.Errorf("stuck: %d requests without an answer %s after their time", n, stuckAfter)
	}
	return nil
}

// watch counts a request as stuck from stuckAfter beyond its timeout on. The caller
// calls ended when the request has its answer.
func (h *Handler) watch(timeout time.Duration) (ended func()) {
	late := time.AfterFunc(timeout+stuckAfter, func() { h.stuck.Add(1) })
	return func() {
		if !late.Stop() {
			h.stuck.Add(-1)
		}
	}
}
