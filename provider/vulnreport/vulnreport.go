// Package vulnreport decides what the scans of OCI Vulnerability Scanning say of an
// image.
//
// The result of a scan names a repository and a tag and no digest, and tags move.
// A result counts for an image only if its tag pointed to that image when the
// scan began and has done so ever since; what is left is unknown, and an unknown
// says why. Choose is that decision, Summarize what a result comes to; both are
// pure. Checker gathers what they need, from functions that it is given, and
// remembers it for a time.
//
// Two things are taken for granted, because nothing in OCI's API could tell
// otherwise: that a scan looks no earlier than it says it began, by a clock that
// agrees with the registry's; and that the time of a tag is when it was last put
// on the image.
package vulnreport

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Severity is how bad a problem is.
type Severity string

// The severities that count, the worst first.
const (
	Critical Severity = "CRITICAL"
	High     Severity = "HIGH"
	Medium   Severity = "MEDIUM"
	Low      Severity = "LOW"

	none = "NONE" // of no consequence
)

// Severities returns them all, the worst first.
func Severities() []Severity { return []Severity{Critical, High, Medium, Low} }

// ParseSeverity reads a severity as OCI writes it, and reports whether it counts.
// One that is not known here counts as the worst.
func ParseSeverity(s string) (Severity, bool) {
	switch severity := Severity(s); {
	case s == none:
		return "", false
	case slices.Contains(Severities(), severity):
		return severity, true
	}
	return Critical, true
}

// AtLeast reports whether s is as bad as another severity, or worse.
func (s Severity) AtLeast(other Severity) bool {
	return slices.Index(Severities(), s) <= slices.Index(Severities(), other)
}

// Open reports whether a problem in this state is one that the image has.
func Open(state string) bool { return state != "FIXED" && state != "NOT_APPLICABLE" }

// Report is what is known of an image: what its newest scan found, or why there
// is none. Its zero value says that nothing is known.
type Report struct {
	Known bool

	// Of what is known.
	ScannedAt string           // RFC 3339, UTC: when the scan ended, by OCI's clock
	Counts    map[Severity]int // of open problems, each once; all severities are there
	Problems  []Problem        // the worst first, and at most MaxProblems
	Result    string           // the OCID of the result

	// Of what is not.
	Reason Reason
	Detail string

	// Kept is for how long a Checker gives the same unknown again before it looks
	// anew.
	Kept time.Duration
	// Age is how long ago the gathering began.
	Age time.Duration
}

// Problem is something that a scan found.
type Problem struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
}

// MarshalJSON writes the fields that a report of its kind has, and no others.
func (r Report) MarshalJSON() ([]byte, error) {
	if !r.Known {
		return json.Marshal(struct {
			Known  bool   `json:"known"`
			Reason Reason `json:"reason"`
			Detail string `json:"detail,omitempty"`
		}{false, r.Reason, r.Detail})
	}
	problems := r.Problems
	if problems == nil {
		problems = []Problem{}
	}
	return json.Marshal(struct {
		Known     bool             `json:"known"`
		ScannedAt string           `json:"scannedAt"`
		Counts    map[Severity]int `json:"counts"`
		Problems  []Problem        `json:"problems"`
	}{true, r.ScannedAt, r.Counts, problems})
}

// Tag is a tag that points to an image.
type Tag struct {
	Name  string
	Since time.Time // when it was put there; zero if that is not known
}

// Result is a scan of whatever a tag pointed to.
type Result struct {
	ID                string
	Tag               string
	Started, Finished time.Time
}

// Choose finds the newest result that is of one image. before are the image's
// tags as they were before the results were listed, and after those as they were
// when that was done. Between the two a tag may have been to another image and
// its scan among the results, so only a tag that is there both times, since the
// same moment, has been there all the while.
//
// Where there is none, the report says why.
func Choose(before, after []Tag, results []Result) (Result, Report) {
	var newest Result
	older := 0
	var last Result // of other images, or perhaps so
	for _, r := range results {
		i := slices.IndexFunc(after, func(t Tag) bool { return t.Name == r.Tag })
		if i < 0 {
			continue
		}
		tag := after[i]
		switch {
		case !slices.ContainsFunc(before, tag.same) || tag.Since.IsZero() || !r.Started.After(tag.Since) || r.Finished.Before(r.Started):
			older++
			if r.Started.After(last.Started) {
				last = r
			}
		case r.Started.After(newest.Started):
			newest = r
		}
	}
	switch {
	case newest.ID != "":
		return newest, Report{}
	case len(after) == 0:
		return Result{}, Report{Reason: NoTag, Detail: "no tag points to it, and results of scans are found by tags only"}
	case older > 0:
		return Result{}, Report{Reason: OlderPush, Detail: fmt.Sprintf("the last scan of tag %s began at %s, before the tag was put on this image",
			last.Tag, stamp(last.Started))}
	}
	return Result{}, Report{Reason: NotScanned, Detail: "no scan of " + list(after) + " since it was pushed"}
}

func (t Tag) same(other Tag) bool { return t.Name == other.Name && t.Since.Equal(other.Since) }

// list names a few tags.
func list(tags []Tag) string {
	const most = 3
	var names []string
	for _, t := range tags[:min(len(tags), most)] {
		names = append(names, t.Name)
	}
	text := "tag " + strings.Join(names, ", ")
	if len(tags) > most {
		text += fmt.Sprintf(" and %d more", len(tags)-most)
	}
	return text
}

// MaxProblems is how many problems a report lists. All of them are counted.
const MaxProblems = 100

// maxID bounds the name of a problem, in characters: a CVE has fewer than twenty.
const maxID = 64

// Summarize makes a report of a result and the open problems that it found. Of a
// problem that is there several times the worst counts.
func Summarize(of Result, open []Problem) Report {
	worst := make(map[string]Severity, len(open))
	for _, p := range open {
		if known, again := worst[p.ID]; !again || !known.AtLeast(p.Severity) {
			worst[p.ID] = p.Severity
		}
	}
	counts := make(map[Severity]int)
	for _, s := range Severities() {
		counts[s] = 0
	}
	problems := make([]Problem, 0, len(worst))
	for id, severity := range worst {
		counts[severity]++
		problems = append(problems, Problem{id, severity})
	}
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(slices.Index(Severities(), a.Severity), slices.Index(Severities(), b.Severity)), strings.Compare(a.ID, b.ID))
	})
	problems = slices.Clone(problems[:min(len(problems), MaxProblems)]) // what is remembered is small
	for i := range problems {
		problems[i].ID = strings.Clone(printable(problems[i].ID))
	}
	return Report{Known: true, ScannedAt: stamp(of.Finished), Counts: counts, Problems: problems, Result: of.ID}
}

// printable is a name that may stand in a message; one that may not is no name
// that anybody ignores.
func printable(id string) string {
	if id == "" {
		return "(without a name)"
	}
	var b strings.Builder
	n := 0
	for _, r := range id {
		if n++; n > maxID {
			break
		}
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			r = '?'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
