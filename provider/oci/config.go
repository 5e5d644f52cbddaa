package oci

import (
	"context"
	"time"
)

// Config bounds the calls of a [Client] and says who observes them.
type Config struct {
	// CAFile holds the certificate authorities to trust, in PEM, in place of the
	// system's. Oracle's own tools take it from OCI_DEFAULT_CERTS_PATH. Empty
	// means the system's, which SSL_CERT_FILE replaces on most systems.
	CAFile string
	// Timeout bounds one call with all its attempts, when the caller's context
	// allows more. Zero means 30 seconds.
	Timeout time.Duration
	// AttemptTimeout bounds one attempt of a call. Zero means 10 seconds.
	AttemptTimeout time.Duration
	// HedgeAfter is how long nearly every answer takes at most. A call without an
	// answer by then may hang: it gives up its place in the limiter. If the call
	// can be repeated, a second attempt starts beside the first. Zero means
	// AttemptTimeout, so that no second attempt starts.
	HedgeAfter time.Duration
	// Concurrency is how many calls to one host may run at once; others wait.
	// Zero means 32.
	Concurrency int
	// Observe, if not nil, is called with every attempt. All its strings are from
	// fixed sets, so they are fit for labels of a metric.
	Observe func(Attempt)
	// OnDelay, if not nil, is called with the cause of a delay while a call
	// continues: OCI rejected an attempt that is repeated, the limiter makes the
	// call wait, or an answer is slow. Its context is the call's.
	OnDelay func(context.Context, error)
}

// WithDefaults returns the configuration with its defaults filled in.
func (c Config) WithDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = 30 * time.Second
	}
	if c.AttemptTimeout <= 0 {
		c.AttemptTimeout = 10 * time.Second
	}
	if c.HedgeAfter <= 0 {
		c.HedgeAfter = c.AttemptTimeout
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 32
	}
	return c
}

// Attempt is one request that was sent to OCI, or tried to be.
type Attempt struct {
	Service   string // such as "artifacts"
	Operation string // such as "ListContainerImageSignatures"
	Outcome   string // ok, refused, throttled, failing, malformed, late, canceled or unreachable
	Took      time.Duration
}
