package vulnreport

import (
	"strings"
	"time"
)

// gathered is a compact report. The cache may have a hundred thousand of them.
type gathered struct {
	at        time.Time
	known     bool
	scannedAt string
	result    string
	counts    [4]int32 // of the severities, the worst first
	problems  string   // names, each with a newline after it, the worst first
	reason    Reason
	detail    string
}

// entryBytes is the approximate size of a cached report besides its texts.
const entryBytes = 384

// size returns the approximate size of g in bytes.
func (g gathered) size() int {
	return entryBytes + len(g.scannedAt) + len(g.result) + len(g.problems) + len(g.detail)
}

// compact makes a report small. Its problems are sorted, so the counts tell the
// severity of each. Their names are printable and have no newline.
func compact(r Report, at time.Time) gathered {
	g := gathered{at: at, known: r.Known, scannedAt: r.ScannedAt, result: strings.Clone(r.Result), reason: r.Reason, detail: r.Detail}
	for i, severity := range Severities() {
		g.counts[i] = int32(r.Counts[severity]) //nolint:gosec // a result has some thousand problems
	}
	var names strings.Builder
	for _, p := range r.Problems {
		names.WriteString(p.ID + "\n")
	}
	g.problems = strings.Clone(names.String())
	return g
}

// report returns the report that compact got.
func (g gathered) report() Report {
	r := Report{Known: g.known, ScannedAt: g.scannedAt, Result: g.result, Reason: g.reason, Detail: g.detail}
	if !g.known {
		return r
	}
	r.Counts = make(map[Severity]int, len(g.counts))
	r.Problems = make([]Problem, 0, strings.Count(g.problems, "\n"))
	names := g.problems
	for i, severity := range Severities() {
		r.Counts[severity] = int(g.counts[i])
		for range g.counts[i] {
			name, rest, listed := strings.Cut(names, "\n")
			if !listed {
				break // a report counts all problems and lists some
			}
			r.Problems, names = append(r.Problems, Problem{name, severity}), rest
		}
	}
	return r
}
