package oci

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

const (
	maxAttempts = 5
	firstPause  = 100 * time.Millisecond
	// leastTime is what an attempt needs to have a chance. With less time left, a
	// call returns the last error instead of a time-out.
	leastTime = 20 * time.Millisecond
)

// retryAfter reads a Retry-After header: a number of seconds or a date. Any other
// text asks for no wait.
func retryAfter(s string, now time.Time) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then n is the largest number
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second //nolint:gosec // an hour at most
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter) // Sub saturates
	}
	return 0
}

// maxRetryAfter is the longest wait that OCI's answer can ask for. It is longer than
// any deadline, and short enough that sums with it do not overflow.
const maxRetryAfter = time.Hour

// worthRepeating reports whether another attempt may succeed after err.
func worthRepeating(ctx context.Context, err error) bool {
	if ctx.Err() != nil || IsMalformed(err) || NoSuchHost(err) {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Status {
		case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*proxyRefusal](err); ok {
		return false
	}
	return isBroken(err)
}

// pauseAfter returns how long to wait after the nth attempt: as long as OCI asks for,
// or twice as long as the last time. A random half more or less spreads callers.
func pauseAfter(err error, n int) time.Duration {
	d := firstPause << (n - 1)
	d += rand.N(d) - d/2 //nolint:gosec // it only has to differ between callers
	if e, ok := errors.AsType[*Error](err); ok {
		d = max(d, e.retryAfter)
	}
	return d
}

// pause waits and returns true, or returns false if no time for another attempt
// would be left.
func pause(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d+leastTime {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
