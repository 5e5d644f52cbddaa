package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// result is what came of one target of a command.
type result struct {
	target string // as a person named it
	value  any    // its element in json and yaml
	title  string // of its rows, if they are not part of a table with those of others
	rows   [][]string
	names  []string
	notes  []string // remarks about it
	no     bool     // the answer is no
	part   error    // why a part of it is not known
	err    error    // could not find out, or could not do; then nothing but rows counts
}

// failure is the element of a target that nothing is known about.
type failure struct {
	Image string `json:"image,omitempty"`
	Error string `json:"error"`
}

// common is an error that hit every target alike and is told once.
type common struct{ error }

func (c common) Unwrap() error { return c.error }

// forAll marks an error that hit every target alike.
func forAll(err error) error { return common{err} }

// allFailed is the result of not getting as far as the targets.
func allFailed(targets []string, err error) []result {
	results := make([]result, len(targets))
	for i, name := range targets {
		results[i] = result{target: name, err: forAll(err)}
	}
	return results
}

// each works on all targets, several at once. When ctx ends, what is left is not
// begun, and says so.
func each(ctx context.Context, targets []string, work func(ctx context.Context, i int) result) []result {
	results := make([]result, len(targets))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, target := range targets {
		group.Go(func() error {
			if ctx.Err() != nil {
				results[i] = result{err: ctx.Err()}
			} else {
				results[i] = work(ctx, i)
			}
			if results[i].target == "" {
				results[i].target = target
			}
			results[i].err = because(ctx, results[i].err)
			if stopped(results[i].err) {
				results[i].err = forAll(results[i].err)
			}
			return nil
		})
	}
	_ = group.Wait() // no function returns one: every target has its own
	return results
}

// maxComplaints bounds the errors told one by one: a thousand images of an
// unreachable region say no more than ten.
const maxComplaints = 10

// finish prints the results and makes the command's outcome of them: not knowing
// outweighs a no, and a no outweighs a yes.
func (t *terminal) finish(out output, columns []column, results []result) error {
	d := data{columns: columns, nothing: cmp.Or(out.nothing, "no signatures")}
	elements := make([]any, 0, len(results))
	for _, r := range results {
		if r.err != nil {
			elements = append(elements, failure{Image: r.target, Error: clip(r.err.Error(), 1000)})
		} else {
			elements = append(elements, r.value)
		}
		if r.title != "" || len(r.rows) > 0 {
			d.blocks = append(d.blocks, block{r.title, r.rows})
		}
		d.names = append(d.names, r.names...)
	}
	d.value = elements
	t.bar.clear(t.streams.ErrOut)
	if err := out.print(t.streams.Out, d); err != nil {
		return err
	}
	return t.conclude(results)
}

// finishDocument prints one JSON document in place of the results, and makes of the
// results what finish does.
func (t *terminal) finishDocument(document any, results []result) error {
	out := output{format: "json"}
	if err := out.print(t.streams.Out, data{value: document}); err != nil {
		return err
	}
	return t.conclude(results)
}

// failures are the errors of targets about which not everything is known.
func failures(results []result) (texts []string) {
	for _, r := range results {
		if err := cmp.Or(r.err, r.part); err != nil {
			texts = append(texts, clip(r.target+": "+err.Error(), 1000))
		}
	}
	return texts
}

// conclude tells what is no data, and returns the outcome.
func (t *terminal) conclude(results []result) error {
	for _, r := range results {
		for _, note := range r.notes {
			t.remark("%s", note)
		}
	}
	t.complainAbout(results)
	t.stoppedAfter(results)
	return outcome(results)
}

// stoppedAfter says how far a command with several targets came, if it was stopped.
func (t *terminal) stoppedAfter(results []result) {
	done, early := 0, false
	for _, r := range results {
		if r.err == nil {
			done++
		}
		early = early || stopped(r.err)
	}
	if early && len(results) > 1 {
		t.remark("stopped after %d of %d", done, len(results))
	}
}

func outcome(results []result) (err error) {
	for _, r := range results {
		switch {
		case r.err != nil || r.part != nil:
			return errFailed
		case r.no:
			err = errNo
		}
	}
	return err
}

func (t *terminal) complainAbout(results []result) {
	told, left := 0, 0
	seen := make(map[string]bool)
	for _, r := range results {
		err, hint := cmp.Or(r.err, r.part), ""
		if err == nil {
			continue
		}
		var refused *refusal
		if errors.As(err, &refused) {
			hint = refused.hint
		}
		var shared common
		if !errors.As(err, &shared) && r.target != "" {
			err = fmt.Errorf("%s: %w", r.target, err)
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
			complain(t.streams.ErrOut, err, hint)
		}
	}
	if left > 0 {
		t.remark("and %s more", count(left, "error"))
	}
}
