package doctor

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// States of a finding.
const (
	stateHolds   = "holds"
	stateWarns   = "warns"   // the policy is enforced, and something weakens it
	stateFails   = "fails"   // the policy is not enforced, or denies everything
	stateUnknown = "unknown" // the check could not read what it needs
	stateSkipped = "skipped" // the check needs a flag
)

// finding is one outcome of a check, and what to do about it.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`

	err  error
	idle bool // a constraint applies to no Pod that runs
}

func holds(format string, args ...any) finding {
	return finding{State: stateHolds, Detail: fmt.Sprintf(format, args...)}
}

func fails(fix, format string, args ...any) finding {
	return finding{State: stateFails, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func warns(fix, format string, args ...any) finding {
	return finding{State: stateWarns, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

// unknown returns the finding of a check that could not read what it needs. Its fix is
// the advice about the cause.
func unknown(err error) finding {
	return unknownOr("try again; if it stays, fix the cause that the error names", err)
}

// unknownOr is unknown with the fix for a cause that nothing is known about.
func unknownOr(fix string, err error) finding {
	var given *cli.HintedError
	switch advice := connect.Advise(err); {
	case apierrors.IsForbidden(err):
		fix = "ask for the right to read it"
	case advice != "":
		fix = advice
	case errors.As(err, &given):
		fix = given.Hint
	}
	fix, _, _ = strings.Cut(fix, "\n") // the error shows the other hints
	return finding{State: stateUnknown, Detail: cli.Clip(err.Error(), 400), Fix: fix, err: err}
}

// severity is the order in which a report has its findings, the worst first.
var severity = []string{stateFails, stateUnknown, stateWarns, stateSkipped, stateHolds}

// bySeverity sorts findings, and leaves those of one state in the order of the checks: the
// parts that all others depend on come first.
func bySeverity(found []finding) []finding {
	slices.SortStableFunc(found, func(a, b finding) int {
		return cmp.Compare(slices.Index(severity, a.State), slices.Index(severity, b.State))
	})
	return found
}

// next returns the one thing to do next, of sorted findings, or "".
func next(sorted []finding) string {
	for _, x := range sorted {
		if x.Fix != "" && x.State != stateSkipped && x.State != stateHolds {
			return x.Check + ": " + x.Fix
		}
	}
	return ""
}
