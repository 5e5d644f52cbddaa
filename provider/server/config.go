package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
