package oci

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Error is OCI's answer that it refuses a request. Its text is one line, with only
// the short and printable parts of OCI's answer.
type Error struct {
	Operation string // such as "ListContainerImageSignatures"
	Host      string
	Status    int    // of HTTP
	Code      string // OCI's own, such as "NotAuthorizedOrNotFound"; empty if the answer is not in OCI's form
	Message   string
	RequestID string // opc-request-id, which Oracle's support asks for
	Hint      string // the probable cause, if this package knows it
	Identity  string // the name of the identity that sent the request
	AuthKind  string // the auth kind of the identity, such as "api_key"

	retryAfter time.Duration
}

// RetryAfter returns how long OCI asks the caller to wait, or 0.
func (e *Error) RetryAfter() time.Duration { return e.retryAfter }

func (e *Error) Error() string {
	code := e.Code
	if code == "" {
		code = http.StatusText(e.Status)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %d %s", e.Host, e.Operation, e.Status, code)
	for _, more := range []string{e.Message, e.Hint} {
		if more != "" {
			b.WriteString(": " + more)
		}
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (opc-request-id %s)", e.RequestID)
	}
	return b.String()
}

// IsNotFound reports whether err is OCI's answer that the object does not exist or
// that the identity may not see it. OCI does not distinguish the two. A 404 that is
// not in OCI's form comes from something on the way, such as a proxy, and does not
// count.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound && e.Code != ""
}

// failure says that a call got no answer, or one that cannot be read.
type failure struct {
	op, host string
	err      error
}

func (e *failure) Error() string {
	return fmt.Sprintf("%s %s: %s", e.host, e.op, Printable(e.err.Error(), 300))
}

func (e *failure) Unwrap() error { return e.err }

// NoAnswer returns the host of a call that got no answer, or one that cannot be read.
// For other errors it returns "".
func NoAnswer(err error) string {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.host
	}
	return ""
}

// brokenError says that a connection was not made or broke. Another attempt may
// succeed.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }

func (e *brokenError) Unwrap() error { return e.err }

func isBroken(err error) bool {
	_, broken := errors.AsType[*brokenError](err)
	return broken
}

// lateError is a time-out that this package set.
type lateError struct{ after time.Duration }

func (e lateError) Error() string { return fmt.Sprintf("no answer within %s", e.after) }

// Is reports that a lateError is a context.DeadlineExceeded.
func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// explain says whose time-out ended an attempt. "context deadline exceeded" alone
// sends people looking in the wrong place.
func explain(ctx context.Context, err error, waited time.Duration) error {
	if ctx.Err() == nil {
		// Go's transport may hand on a connection while the call before it, which was
		// answered without a body, is being canceled. The next call on the connection
		// then gets the cause of that. An error of OCI that arrives here was given to
		// another caller.
		if _, anothers := errors.AsType[*Error](err); anothers {
			return &brokenError{errors.New("the connection broke, because another call on it was abandoned")}
		}
		return err
	}
	cause := context.Cause(ctx)
	if own, ok := errors.AsType[lateError](cause); ok {
		return &brokenError{own}
	}
	waited = waited.Round(time.Millisecond)
	switch {
	case errors.Is(cause, context.Canceled):
		return fmt.Errorf("abandoned after %s, because the caller left: %w", waited, cause)
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("no answer in the %s that the caller had left: %w", waited, cause)
	}
	return fmt.Errorf("no answer after %s: %w", waited, cause)
}

// ErrMalformed says that an answer lacks what OCI's API promises.
var ErrMalformed = errors.New("the answer is not what OCI's API says it is")

// IsMalformed reports whether err is about an answer that cannot be used.
func IsMalformed(err error) bool { return errors.Is(err, ErrMalformed) }

// proxyRefusal is a proxy's answer to CONNECT that is not 200. Go itself would keep
// only the text of that answer.
type proxyRefusal struct {
	proxy  string
	status int
}

func (e *proxyRefusal) Error() string {
	return fmt.Sprintf("the proxy %s answered CONNECT with %d %s", e.proxy, e.status, http.StatusText(e.status))
}

// ProxyStatus returns the status with which a proxy refused to connect to OCI, or 0.
func ProxyStatus(err error) int {
	if refusal, ok := errors.AsType[*proxyRefusal](err); ok {
		return refusal.status
	}
	return 0
}

// NoSuchHost reports whether a call failed because its host does not exist. The name
// has no address, or a proxy answered 502, 503 or 504. Proxies answer so for unknown
// names and for hosts that they cannot reach.
func NoSuchHost(err error) bool {
	if refusal, ok := errors.AsType[*proxyRefusal](err); ok {
		return refusal.status >= http.StatusBadGateway && refusal.status <= http.StatusGatewayTimeout
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "proxyconnect" {
		return false // the proxy's own name has no address
	}
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}
