// Package vulnreport decides which scan of OCI Vulnerability Scanning is about an image,
// and reports its findings.
//
// The result of a scan names a repository and a tag but no digest, and tags move. A
// result counts for an image only if its tag pointed to that image when the scan began,
// and has done so since. Otherwise the report is unknown, with a reason. Choose makes this
// decision, and Summarize makes a report of a result. Both are pure. Checker gathers what
// they need, from functions in its Config, and caches it.
//
// The package assumes two things that OCI's API does not state. A scan reads its image no
// earlier than the start that it reports, by a clock that agrees with the registry's. The
// time of a tag is the time when the tag was last put on the image.
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

	none = "NONE" // does not count
)

// Severities returns the severities that count, the worst first.
func Severities() []Severity { return []Severity{Critical, High, Medium, Low} }

// ParseSeverity reads a severity as OCI writes it, and reports whether it counts.
// An unknown severity counts as the worst.
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

// Open reports whether the image has a problem in this state.
func Open(state string) bool { return state != "FIXED" && state != "NOT_APPLICABLE" }

// Report is what is known about an image: the findings of its newest scan, or a reason
// why no scan counts. The zero value is an unknown report.
type Report struct {
	Known bool

	// Fields of a known report.
	ScannedAt string           // RFC 3339, UTC: when the scan ended, by OCI's clock
	Counts    map[Severity]int // of open problems, each once; all severities are there
	Problems  []Problem        // the worst first, and at most MaxProblems
	Result    string           // the OCID of the result

	// Fields of an unknown report.
	Reason Reason
	Detail string

	// RetryAfter is how long a Checker repeats this unknown report from its cache.
	RetryAfter time.Duration
	// Age is how long ago the gathering began.
	Age time.Duration
}

// Problem is one finding of a scan.
type Problem struct {
	ID       string   `json:"id"`
	Severity Severity `json:"severity"`
}

// MarshalJSON writes the fields of a known or of an unknown report only.
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
	Since time.Time // when it was put on the image; zero if unknown
}

// Result is a scan of the image that a tag pointed to.
type Result struct {
	ID                string
	Tag               string
	Started, Finished time.Time
}

// Choose returns the newest result that is about one image. before are the image's tags
// before the results were listed, and after the tags when the list was complete. In
// between, a tag may have pointed to another image, whose scan is among the results. A
// tag counts only if it is in both lists and has the same time in both.
//
// Without such a result, the report says why.
func Choose(before, after []Tag, results []Result) (Result, Report) {
	var newest Result
	older := 0
	var last Result // perhaps about another image
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

// list returns the names of a few tags.
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

// Summarize makes a report of a result and its open problems. Of a problem that occurs
// several times, the worst severity counts.
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
	problems = slices.Clone(problems[:min(len(problems), MaxProblems)]) // so that the cached report is small
	for i := range problems {
		problems[i].ID = strings.Clone(printable(problems[i].ID))
	}
	return Report{Known: true, ScannedAt: stamp(of.Finished), Counts: counts, Problems: problems, Result: of.ID}
}

// printable returns a problem's name if it is safe in a message. An unsafe name cannot
// be the name in anybody's list of ignored problems.
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
