// Package cli has what any command-line program needs: exit codes, errors with a hint,
// output formats, tables, progress and questions. It knows nothing of OCI, clusters or
// the rest of the project.
//
// All text that it prints for people passes through Printable: names and messages come
// from others, and a terminal obeys some characters.
package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Exit codes. Of several targets the worst decides: what could not be found out
// outweighs a no, and a no outweighs a yes.
const (
	ExitDone   = 0 // yes, or done
	ExitFailed = 1 // could not find out, or could not do
	ExitUsage  = 2 // wrong use; nothing was asked or done
	ExitNo     = 3 // found out, and the answer is no
)

// UsageError is wrong use: what is wrong with the command line, and what to do
// instead.
type UsageError struct{ what, hint string }

func (e *UsageError) Error() string { return e.what }

// Usage returns a UsageError.
func Usage(what, hint string) error { return &UsageError{what, hint} }

// HintedError is an error that knows what to do about it.
type HintedError struct {
	What error
	Hint string
}

func (e *HintedError) Error() string { return e.What.Error() }

func (e *HintedError) Unwrap() error { return e.What }

// Outcomes that the command has already told.
var (
	ErrInterrupted = errors.New("interrupted")

	ErrFailed = errors.New("could not find out or failed")
	ErrNo     = errors.New("the answer is no")
)

// Report tells an error to a person, and returns the exit code for it.
func Report(w io.Writer, err error) int {
	var wrong *UsageError
	var refused *HintedError
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrFailed):
		return ExitFailed
	case errors.Is(err, ErrNo):
		return ExitNo
	case errors.As(err, &wrong):
		Complain(w, wrong, wrong.hint)
		return ExitUsage
	case errors.As(err, &refused):
		Complain(w, err, refused.Hint)
		return ExitFailed
	default:
		Complain(w, err, "")
		return ExitFailed
	}
}

// Complain writes an error and a hint. That it cannot is not worth a word:
// there is nowhere left to put it.
func Complain(w io.Writer, err error, hint string) {
	// Errors that are joined have a line each.
	_, _ = fmt.Fprintf(w, "error: %s\n", Printable(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")))
	for line := range strings.Lines(hint) { // one thing to type each
		_, _ = fmt.Fprintf(w, "hint: %s\n", Printable(strings.TrimSuffix(line, "\n")))
	}
}
