package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Result is the outcome of one target of a command.
type Result struct {
	Target     string // as a person named it
	Value      any    // its element in json and yaml
	Title      string // of its rows, if they are not part of a table with those of others
	Rows       [][]string
	Names      []string
	Notes      []string // remarks about it
	Denied     bool     // the answer is no
	PartialErr error    // why a part of it is not known
	Err        error    // could not find out, or could not do; then nothing but rows counts
}

// failure is the list element for a target about which nothing is known.
type failure struct {
	Image string `json:"image,omitempty"`
	Error string `json:"error"`
}

// sharedError is an error that all targets share. It is printed once.
type sharedError struct{ error }

func (c sharedError) Unwrap() error { return c.error }

// SharedError marks an error that all targets share.
func SharedError(err error) error { return sharedError{err} }

// AllFailed returns the results of a command that failed before it reached its targets.
func AllFailed(targets []string, err error) []Result {
	results := make([]Result, len(targets))
	for i, name := range targets {
		results[i] = Result{Target: name, Err: SharedError(err)}
	}
	return results
}

// ForEach processes the targets concurrently. When ctx ends, the results of the
// remaining targets say that they were not started.
func ForEach(ctx context.Context, targets []string, work func(ctx context.Context, i int) Result) []Result {
	results := make([]Result, len(targets))
	var group errgroup.Group
	group.SetLimit(Parallel)
	for i, target := range targets {
		group.Go(func() error {
			if ctx.Err() != nil {
				results[i] = Result{Err: ctx.Err()}
			} else {
				results[i] = work(ctx, i)
			}
			if results[i].Target == "" {
				results[i].Target = target
			}
			results[i].Err = StopCause(ctx, results[i].Err)
			if stopped(results[i].Err) {
				results[i].Err = SharedError(results[i].Err)
			}
			return nil
		})
	}
	_ = group.Wait() // no function returns one: every target has its own
	return results
}

// maxComplaints bounds the errors that are printed one by one. A thousand images of an
// unreachable region explain no more than ten do.
const maxComplaints = 10

// Finish prints the results and returns the outcome of the command: an unknown result
// outweighs a no, and a no outweighs a yes.
func (t *Terminal) Finish(out Output, columns []Column, results []Result) error {
	d := Document{Columns: columns, nothing: cmp.Or(out.Nothing, "no signatures")}
	elements := make([]any, 0, len(results))
	for _, r := range results {
		if r.Err != nil {
			elements = append(elements, failure{Image: r.Target, Error: Clip(r.Err.Error(), 1000)})
		} else {
			elements = append(elements, r.Value)
		}
		if r.Title != "" || len(r.Rows) > 0 {
			d.Sections = append(d.Sections, Section{r.Title, r.Rows})
		}
		d.Names = append(d.Names, r.Names...)
	}
	d.Value = elements
	t.Bar.Clear(t.Streams.ErrOut)
	if err := out.Print(t.Streams.Out, d); err != nil {
		return err
	}
	return t.conclude(results)
}

// Text is a document in a format that Output does not know.
type Text []byte

// FinishDocument prints a document instead of the results, and returns their outcome as
// Finish does. It prints Text as it is, and other documents as JSON.
func (t *Terminal) FinishDocument(document any, results []Result) error {
	t.Bar.Clear(t.Streams.ErrOut)
	out := Output{Format: "json"}
	if text, ok := document.(Text); ok {
		if _, err := t.Streams.Out.Write(text); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	} else if err := out.Print(t.Streams.Out, Document{Value: document}); err != nil {
		return err
	}
	return t.conclude(results)
}

// Failures are the errors of targets about which not everything is known.
func Failures(results []Result) (texts []string) {
	for _, r := range results {
		if err := cmp.Or(r.Err, r.PartialErr); err != nil {
			texts = append(texts, Clip(r.Target+": "+err.Error(), 1000))
		}
	}
	return texts
}

// conclude prints the remarks, and returns the outcome.
func (t *Terminal) conclude(results []Result) error {
	for _, r := range results {
		for _, note := range r.Notes {
			t.Remark("%s", note)
		}
	}
	t.ComplainAbout(results)
	stoppedAfter(t, results)
	return Outcome(results)
}

// stoppedAfter prints how many targets a stopped command has finished.
func stoppedAfter(t *Terminal, results []Result) {
	done, early := 0, false
	for _, r := range results {
		if r.Err == nil {
			done++
		}
		early = early || stopped(r.Err)
	}
	if early && len(results) > 1 {
		t.Remark("stopped after %d of %d", done, len(results))
	}
}

// Outcome returns ErrFailed if a result is unknown in part or whole, ErrNo if one is
// denied, and nil otherwise.
func Outcome(results []Result) (err error) {
	for _, r := range results {
		switch {
		case r.Err != nil || r.PartialErr != nil:
			return ErrFailed
		case r.Denied:
			err = ErrNo
		}
	}
	return err
}

// ComplainAbout prints the errors of results, each text once, and the hints.
func (t *Terminal) ComplainAbout(results []Result) {
	told, left := 0, 0
	seen := make(map[string]bool)
	for _, r := range results {
		err, hint := cmp.Or(r.Err, r.PartialErr), ""
		if err == nil {
			continue
		}
		if t.Advise != nil {
			err = t.Advise(err)
		}
		var refused *HintedError
		if errors.As(err, &refused) {
			hint = refused.Hint
		}
		var shared sharedError
		if !errors.As(err, &shared) && r.Target != "" {
			err = fmt.Errorf("%s: %w", r.Target, err)
		}
		switch text := err.Error(); {
		case seen[text]:
		case told == maxComplaints:
			left++
		default:
			seen[text] = true
			told++
			if seen[hint] {
				hint = ""
			}
			seen[hint] = true
			Complain(t.Streams.ErrOut, err, hint)
		}
	}
	if left > 0 {
		t.Remark("and %s more", Count(left, "error"))
	}
}
