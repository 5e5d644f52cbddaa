package ci

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/codequality"
	"github.com/oke-sign/oke-sign/plugin/junit"
	"github.com/oke-sign/oke-sign/plugin/sarif"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
)

// problem is one problem at one place of an object, found by one or more
// constraints.
type problem struct {
	workload.Violation          // the strictest
	constraints        []string // all that find it
}

// problems merges violations of the same problem. The constraints for Pods and for
// workloads find the same problem, and so do those for signatures and for digests.
// The strictest violation comes first in the list. The problems are sorted by line.
func problems(of []workload.Violation) []problem {
	var merged []problem
	at := make(map[string]int)
	for _, x := range of {
		name := x.Kind + "/" + x.Constraint
		key := sameProblem(x)
		i, known := at[key]
		if !known {
			at[key] = len(merged)
			merged = append(merged, problem{x, []string{name}})
		} else if !slices.Contains(merged[i].constraints, name) {
			merged[i].constraints = append(merged[i].constraints, name)
		}
	}
	slices.SortStableFunc(merged, func(a, b problem) int { return cmp.Compare(a.Line, b.Line) })
	return merged
}

// by returns the names of the constraints: all, or the strictest one and the number
// of the others.
func (p problem) by(all bool) string {
	if n := len(p.constraints); !all && n > 1 {
		return fmt.Sprintf("%s (+%d)", p.constraints[0], n-1)
	}
	return strings.Join(p.constraints, ", ")
}

// sameProblem returns a key that violations of one problem share. Messages about it may
// differ, except those about scans, which name different problems of the image.
func sameProblem(x workload.Violation) string {
	if x.Reason == "" || x.Kind == policies.ScannedImages {
		return fmt.Sprint(x.Line, " ", x.Message)
	}
	place, _, _ := strings.Cut(x.Message, ": ")
	image := x.Message[strings.LastIndex(x.Message, ": ")+1:]
	return fmt.Sprintf("%d %q %q %q", x.Line, place, x.Reason, image)
}

// result returns the effect of a problem on its object, in one word.
func (p problem) result() string {
	switch {
	case p.Action == "deny" && p.Reason == simulate.NoAnswer:
		return "unknown"
	case p.Action == "deny":
		return "denied"
	case p.Action == "warn":
		return "warned"
	default:
		return "counted" // by the audit, of a dry run
	}
}

func (p problem) rule() string { return p.Kind + "/" + cmp.Or(p.Reason, "violation") }

// finishSARIF prints the problems as SARIF, and returns the outcome of the results.
func (o *checkOptions) finishSARIF(results []cli.Result) error {
	var rules []sarif.Rule
	var found []sarif.Result
	for _, r := range results {
		v, _ := r.Value.(simulate.ObjectResult)
		for _, p := range problems(v.Violations) {
			rule := sarif.Rule{ID: p.rule()}
			if !slices.Contains(rules, rule) {
				rules = append(rules, rule)
			}
			found = append(found, sarif.Result{
				RuleID:    rule.ID,
				Level:     map[string]string{"deny": "error", "warn": "warning", "dryrun": "note"}[p.Action],
				Message:   sarif.Message{Text: r.Target + ": " + p.Message},
				Locations: []sarif.Location{sarif.At(v.File, p.Line, r.Target)},
			})
		}
	}
	return o.FinishDocument(sarif.New("kubectl oke-sign check", rules, found, cli.Failures(results)), results)
}

// finishCodeQuality prints the problems for GitLab, and returns the outcome of the
// results. A check that failed is an issue too: a report without it would look clean.
func (o *checkOptions) finishCodeQuality(results []cli.Result) error {
	severity := map[string]string{"denied": codequality.Blocker, "unknown": codequality.Critical, "warned": codequality.Minor, "counted": codequality.Info}
	var issues []codequality.Issue
	for _, r := range results {
		v, ok := r.Value.(simulate.ObjectResult)
		if err := cmp.Or(r.Err, r.PartialErr); err != nil && len(v.Violations) == 0 {
			file := v.File
			if !ok {
				file = o.input.manifests.First()
			}
			issues = append(issues, codequality.Issue{
				Description: strings.TrimPrefix(r.Target+": ", ": ") + cli.Clip(err.Error(), 1000), Check: "unknown",
				Severity: severity["unknown"], Location: codequality.At(file, v.Line),
			})
		}
		for _, p := range problems(v.Violations) {
			issues = append(issues, codequality.Issue{
				Description: r.Target + ": " + cli.Printable(p.Message), Check: p.rule(),
				Severity: severity[p.result()], Location: codequality.At(v.File, p.Line),
			})
		}
	}
	return o.FinishDocument(codequality.Report(issues), results)
}

// finishJUnit prints a test for each object, and returns the outcome of the results.
func (o *checkOptions) finishJUnit(results []cli.Result) error {
	var cases []junit.Case
	for _, r := range results {
		v, ok := r.Value.(simulate.ObjectResult)
		if ok && len(r.Rows) == 0 {
			continue // no constraint matches its kind
		}
		c := junit.Case{Name: cmp.Or(r.Target, "check"), Class: cmp.Or(v.File, "kubectl oke-sign"), File: v.File}
		outcome := testOutcome(r, v)
		switch {
		case r.Err != nil || r.PartialErr != nil:
			c.Error = outcome
		case r.Denied:
			c.Failure = outcome
		case v.Result == "unmatched":
			c.Skipped = outcome
		case outcome != nil:
			c.Output = outcome.Text
		}
		cases = append(cases, c)
	}
	text, err := junit.Write("kubectl oke-sign check", cases)
	if err != nil {
		return err
	}
	return o.FinishDocument(cli.Text(text), results)
}

// testOutcome returns the outcome of a test in the report. It returns nil if the
// test passed.
func testOutcome(r cli.Result, v simulate.ObjectResult) *junit.Outcome {
	var o junit.Outcome
	for _, p := range problems(v.Violations) {
		o.Message, o.Type = cmp.Or(o.Message, cli.Printable(p.Message)), cmp.Or(o.Type, p.Reason)
		o.Text += fmt.Sprintf("%s:%d: %s: %s (%s)\n", v.File, p.Line, p.result(), cli.Printable(p.Message), p.by(true))
	}
	switch err := cmp.Or(r.Err, r.PartialErr); {
	case o.Message != "":
	case err != nil:
		o = junit.Outcome{Message: cli.Clip(err.Error(), 1000), Type: "unknown"}
	case v.Result == "unmatched":
		o = junit.Outcome{Message: "no constraint matches it", Type: v.Result}
	default:
		return nil
	}
	return &o
}
