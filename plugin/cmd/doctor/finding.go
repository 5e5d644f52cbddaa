package doctor

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/oke-sign/oke-sign/plugin/cli"
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

func unknown(err error) finding {
	fix := "try again; if it stays, fix the cause that the error names"
	switch {
	case apierrors.IsForbidden(err):
		fix = "ask for the right to read it"
	case errors.Is(err, context.DeadlineExceeded):
		fix = "try again with a longer --timeout"
	}
	return finding{State: stateUnknown, Detail: cli.Clip(err.Error(), 400), Fix: fix, err: err}
}

// helmInstall is the command that installs Gatekeeper.
const helmInstall = "helm install gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --create-namespace --wait --values gatekeeper-values.yaml"
