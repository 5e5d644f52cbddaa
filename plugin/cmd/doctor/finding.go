package doctor

import (
	"errors"
	"fmt"
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

// helmInstall is the command that installs Gatekeeper.
const helmInstall = "helm install gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --create-namespace --wait --values gatekeeper-values.yaml"
