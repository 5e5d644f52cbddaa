package server

import "errors"

var (
	errTimeout = errors.New("no answer from OCI")
	errPanic   = errors.New("internal error, see the provider's log")
)

// malformedError says why a key is not a question.
type malformedError struct{ err error }

func (e *malformedError) Error() string { return "not a question: " + e.cause() }

func (e *malformedError) cause() string { return oneLine(e.err.Error(), maxCause) }
