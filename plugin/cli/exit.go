// Package cli has what any command-line program needs: exit codes, errors with hints,
// output formats, tables, progress and questions. It knows nothing of OCI, clusters or
// the rest of the project.
//
// The package trusts no text. Names and messages come from others, and a terminal
// executes escape sequences in them. Printable replaces these in all text for people.
package cli

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// Exit codes. Of several targets the worst decides: a failure outranks a no, and a no
// outranks a yes.
const (
	ExitDone   = 0 // yes, or done
	ExitFailed = 1 // the command failed, or could not find the answer
	ExitUsage  = 2 // wrong use; the command did nothing
	ExitNo     = 3 // the answer is no
)

// UsageError is wrong use: what is wrong with the command line, and what to type
// instead.
type UsageError struct{ what, hint string }

func (e *UsageError) Error() string { return e.what }

// Usage returns a UsageError.
func Usage(what, hint string) error { return &UsageError{what, hint} }

// HintedError is an error with a hint: what the user can do about it.
type HintedError struct {
	What error
	Hint string
}

func (e *HintedError) Error() string { return e.What.Error() }

func (e *HintedError) Unwrap() error { return e.What }

// ErrInterrupted is the error of a command that the user stopped.
var ErrInterrupted = errors.New("interrupted")

// Outcomes of a command that has already printed why.
var (
	ErrFailed = errors.New("could not find out or failed")
	ErrNo     = errors.New("the answer is no")
)

// Report prints an error for people, and returns its exit code.
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

// Complain writes an error and its hints, each line of hint a hint. It ignores write
// errors: standard error is the last resort.
func Complain(w io.Writer, err error, hint string) {
	// Joined errors have a line each.
	tell(w, "error: ", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; "))
	for line := range strings.Lines(hint) {
		line = strings.TrimSuffix(line, "\n")
		at := command.FindStringIndex(line)
		if at == nil {
			tell(w, "hint: ", line)
			continue
		}
		tell(w, "hint: ", line[:at[0]+1], line[at[0]+2:])
	}
}

// command finds what a hint has to copy: a command, or a statement of an IAM policy. It
// follows a colon, and goes to the end of the line.
var command = regexp.MustCompile(`: (kubectl|oci|docker|sudo|helm|Allow) `)

// tell writes a text after a label. At a terminal the text wraps between words, below
// its beginning. The command is for copying: it follows the text, and never wraps.
func tell(w io.Writer, label, text string, command ...string) {
	lines := []string{Printable(text)}
	rest := Printable(strings.Join(command, " "))
	indent := strings.Repeat(" ", len(label))
	if width := terminalWidth(w) - len(label); width >= leastText {
		lines = broken(lines[0], width, nowhere)
		if last := len(lines) - 1; rest != "" && utf8.RuneCountInString(lines[last])+1+utf8.RuneCountInString(rest) > width {
			lines, rest = append(lines, rest), ""
		}
	}
	if rest != "" {
		lines[len(lines)-1] += " " + rest
	}
	_, _ = fmt.Fprintf(w, "%s%s\n", label, strings.Join(lines, "\n"+indent))
}

// leastText is the width in characters below which text is left to the terminal to wrap.
const leastText = 24
