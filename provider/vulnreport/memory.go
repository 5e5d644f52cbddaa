package vulnreport

import (
	"strings"
	"time"
)

// gathered is a report in the little room that a hundred thousand of them need.
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

// entryBytes is what a remembered report takes beside its texts, about.
const entryBytes = 384

// size is how many bytes g takes, about.
func (g gathered) size() int {
	return entryBytes + len(g.scannedAt) + len(g.result) + len(g.problems) + len(g.detail)
}

// remember makes a report small. Its problems are sorted, so the counts say how severe
// each is; their names are printable and hold no newline.
func remember(r Report, at time.Time) gathered {
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

// report is the one that was remembered.
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
				break // all are counted, and not all are listed
			}
			r.Problems, names = append(r.Problems, Problem{name, severity}), rest
		}
	}
	return r
}
