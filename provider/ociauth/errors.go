package ociauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// Error is an answer of OCI that is a refusal. Its text is one line, and holds
// nothing of OCI's answer but what is short and printable.
type Error struct {
	Operation string // such as "ListContainerImageSignatures"
	Host      string
	Status    int    // of HTTP
	Code      string // OCI's own, such as "NotAuthorizedOrNotFound"; empty if the answer is none of OCI's
	Message   string
	RequestID string // opc-request-id, which Oracle's support asks for
	Hint      string // what is probably wrong, if it can be told from here

	retryAfter time.Duration
}

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

// IsNotFound reports whether err is OCI's answer that there is no such thing, or
// that this principal may not see it, which OCI does not tell apart. A 404 that
// is not in OCI's form comes from something else on the way, and is neither.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound && e.Code != ""
}

// IsUnvouched reports whether New failed because the cluster, or the instance's
// metadata service, did not vouch for this process. It may in a moment, so that New
// is worth another try.
func IsUnvouched(err error) bool {
	_, ok := errors.AsType[*unvouchedError](err)
	return ok
}

type unvouchedError struct{ err error }

func (e *unvouchedError) Error() string { return e.err.Error() }
func (e *unvouchedError) Unwrap() error { return e.err }

// IsNoConfig reports whether New failed because there is no configuration file.
func IsNoConfig(err error) bool {
	_, ok := errors.AsType[*noConfigError](err)
	return ok
}

type noConfigError struct{ err error }

func (e *noConfigError) Error() string { return e.err.Error() }
func (e *noConfigError) Unwrap() error { return e.err }

// failure is the lack of an answer, or one that cannot be read.
type failure struct {
	op, host string
	err      error
}

func (e *failure) Error() string {
	return fmt.Sprintf("%s %s: %s", e.host, e.op, printable(e.err.Error(), 300))
}

func (e *failure) Unwrap() error { return e.err }

// brokenError is a connection that did not come about or broke: what another
// attempt may get round.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// lateError is a time-out of this package's own.
type lateError struct{ after time.Duration }

func (e lateError) Error() string { return fmt.Sprintf("no answer within %s", e.after) }

// Is makes a time-out of ours one for those who ask.
func (e lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// explain says whose time-out it was when an attempt ended because its context
// did: "context deadline exceeded" alone sends people looking in the wrong place.
func explain(ctx context.Context, err error, waited time.Duration) error {
	if ctx.Err() == nil {
		// Go's transport may hand on a connection while the call before, answered
		// without a body, is being given up, and then gives the next call the cause
		// of that. What OCI refused another caller was not refused to this one.
		if _, anothers := errors.AsType[*Error](err); anothers {
			return &brokenError{errors.New("the connection broke under another call that was given up")}
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
		return fmt.Errorf("given up after %s, nobody waits for it any more: %w", waited, cause)
	case errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("no answer in the %s that the caller had left: %w", waited, cause)
	}
	return fmt.Errorf("no answer after %s: %w", waited, cause)
}

var errMalformed = errors.New("the answer is not what OCI's API says it is")

// Malformed is the error for an answer that lacks what OCI's API promises, or
// is about something else than was asked. It names the call.
func (c Call) Malformed(format string, args ...any) error {
	return &failure{op: c.Operation, host: c.Host, err: fmt.Errorf("%w: %w", errMalformed, fmt.Errorf(format, args...))}
}

// IsMalformed reports whether err is about an answer that could not be used.
func IsMalformed(err error) bool { return errors.Is(err, errMalformed) }

// printable makes text from outside fit for a line of a log, an event or a
// terminal: short, and without control characters or spaces at its ends.
func printable(s string, limit int) string {
	const most = 4096 // bytes worth looking at
	if len(s) > most {
		s = s[:most]
	}
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return '?' // terminals act on some of them, and some turn text around
		}
		return r
	}, s)), " ")
	n := 0
	for i := range s {
		if n == limit {
			return s[:i] + "…"
		}
		n++
	}
	return s
}
