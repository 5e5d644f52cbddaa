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
	stateWarns   = "warns"   // enforcement holds, and something weakens it
	stateFails   = "fails"   // enforcement does not hold
	stateUnknown = "unknown" // the check could not be done
	stateSkipped = "skipped" // the check needs to be told where to look
)

// finding is the outcome of a check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`

	err error
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
	fix := "try again; the error says what was in the way"
	switch {
	case apierrors.IsForbidden(err):
		fix = "you need the right to read it"
	case errors.Is(err, context.DeadlineExceeded):
		fix = "try again, perhaps with a longer --timeout"
	}
	return finding{State: stateUnknown, Detail: cli.Clip(err.Error(), 400), Fix: fix, err: err}
}

// helmInstall is the command that installs Gatekeeper.
const helmInstall = "helm install gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --create-namespace --wait --values gatekeeper-values.yaml"
