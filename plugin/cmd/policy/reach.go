package policy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/policies"
)

// unreached returns why constraints on the images of Pods apply to no Pod, one text for
// each cause. It returns an error if that is unknown.
func unreached(ctx context.Context, s *connect.Session, e enforcement.State, constraints []*unstructured.Unstructured) ([]string, error) {
	names := make(map[string][]string) // of constraints, by cause
	all := 0
	for _, c := range constraints {
		role := constraint.Role(c.GetLabels()[constraint.Label])
		ofPods := role == constraint.Pods || role == "" && enforcement.MatchesKind(*c, "", "Pod")
		if c.GetKind() == policies.BreakGlass || !ofPods {
			continue
		}
		all++
		r, err := e.ReadReach(ctx, s, c)
		if err != nil {
			return nil, err
		}
		if why := r.Why(); why != "" {
			names[why] = append(names[why], constraint.Name(c))
		}
	}
	var found []string
	for _, why := range slices.Sorted(maps.Keys(names)) {
		of := "it"
		if len(names[why]) < all {
			of = strings.Join(names[why], ", ")
		}
		found = append(found, fmt.Sprintf("%s applies to no Pod: %s", of, why))
	}
	if len(found) == 0 {
		return nil, errors.Join(e.Unknown, e.Unexcluded)
	}
	return found, nil
}

// reach returns an error if the policy applies to no Pod after the change. With
// --yes, it only warns.
func (o *changeOptions) reach(ctx context.Context, before Enforced, after *constraint.Policy) error {
	if after == nil || before.Policy != nil && reflect.DeepEqual(before.Policy.Scope, after.Scope) && !after.Denies(before.Policy) {
		return nil
	}
	bounded, cancel := o.WithTimeout(ctx)
	defer cancel()
	why, err := unreached(bounded, o.Session, enforcement.Scope(bounded, o.Session, ""), before.After(after))
	switch {
	case o.yes && err != nil:
		o.Remark("WARNING: it is unknown whether the policy applies to a Pod: %v", cli.StopCause(bounded, err))
		return nil
	case err != nil:
		return &cli.HintedError{What: fmt.Errorf("checking where the policy applies: %w", cli.StopCause(bounded, err)), Hint: "nothing was changed; --yes changes the policy without this check"}
	case len(why) == 0:
		return nil
	case o.yes:
		o.Remark("WARNING: %s", strings.Join(why, "; "))
		return nil
	}
	what := fmt.Errorf("the changed policy has no effect: %s", strings.Join(why, "; "))
	cli.Complain(o.Streams.ErrOut, what, "nothing was changed; choose among the namespaces that kubectl get namespaces lists, or add --yes")
	return fmt.Errorf("%w: %w", cli.ErrNo, what)
}
