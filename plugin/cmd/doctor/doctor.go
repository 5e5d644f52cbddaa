// Package doctor finds what keeps a cluster from enforcing its image policy. gather.go
// reads facts from the cluster and from OCI. The checks in checks_*.go, one file for
// each subject, judge the facts and read nothing. Facts are hostile input: any field of
// an object may be missing or have the wrong type.
package doctor

import (
	"cmp"
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
)

type doctorOptions struct {
	*connect.Session
	cluster connect.ClusterFlag
	all     bool
	out     cli.Output
}

// New makes the command.
func New(s *connect.Session) *cobra.Command {
	o := &doctorOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check that the cluster enforces its image policy",
		Long: `Check everything that can keep the image policy from being enforced: Gatekeeper,
its webhook and its settings, exempt namespaces and who may label one,
templates and constraints, the Provider objects, the provider behind them and
its certificate, keys, scans, how tags are pinned, clocks, the OKE image policy
beside it, and the images that run. Each finding says what to do. The worst
findings come first, and the last line is the one thing to do next.

  fails     the policy is not enforced, or denies everything
  warns     the policy is enforced, and something weakens it
  unknown   the check could not read what it needs
  skipped   the check needs a flag, such as --cluster
  holds     nothing to do; shown with --all

doctor changes nothing. It needs the rights to get and list Namespaces, Pods,
Deployments, Gatekeeper's objects and constraints, and to get webhook
configurations, ValidatingAdmissionPolicies, their bindings and the provider's
Secret. A check without its right is unknown. doctor asks OCI as you.

Exit code 0: the policy is enforced. 3: a check fails. 1: no check fails, and a
check is unknown.`,
		Example: `  kubectl oke-sign doctor

  # For a pipeline
  kubectl oke-sign doctor -o json | jq '.[] | select(.state == "fails")'`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "cluster"), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.cluster.Bind(cmd.Flags())
	cmd.Flags().BoolVar(&o.all, "all", false, "Show the checks that hold, too.")
	o.out.Bind(cmd.Flags())
	return cmd
}

var doctorColumns = []cli.Column{{Name: "state"}, {Name: "check"}, {Name: "what"}}

func (o *doctorOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	id, unnamed := o.cluster.Find(o.Session)
	if unnamed != nil && o.cluster.OCID != "" {
		return unnamed
	}
	f, err := gather(ctx, o.Session)
	if err != nil {
		return o.Finish(o.out, doctorColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	if unnamed == nil {
		f.oke = part(ctx, o.Timeout/8, func(ctx context.Context) fact[*okecluster.Cluster] { return okeFacts(ctx, o.Session, id) })
	}
	var results []cli.Result
	tally := make(map[string]int)
	found := bySeverity(f.run())
	for _, x := range found {
		tally[x.State]++
		r := cli.Result{Value: x, Denied: x.State == stateFails}
		if x.State == stateUnknown {
			r.PartialErr = cli.StopCause(ctx, x.err)
			r.Target = x.Check
		}
		if x.State == stateHolds {
			r.Names = []string{x.Check}
		}
		if o.all || x.State != stateHolds || o.out.Format == "wide" {
			r.Rows = [][]string{{x.State, x.Check, x.Detail}}
			if x.Fix != "" {
				r.Rows = append(r.Rows, []string{"", "", cli.ToCopy("-> " + x.Fix)})
			}
		}
		results = append(results, r)
	}
	switch {
	case tally[stateFails] > 0:
		o.Remark("the image policy is not enforced: %d fail, %d warn, %d unknown, %d hold", tally[stateFails], tally[stateWarns], tally[stateUnknown], tally[stateHolds])
	case tally[stateUnknown] > 0:
		o.Remark("the image policy may not be enforced: %d unknown, %d warn, %d hold", tally[stateUnknown], tally[stateWarns], tally[stateHolds])
	default:
		o.Remark("the image policy is enforced: %d warn, %d hold", tally[stateWarns], tally[stateHolds])
	}
	err = o.Finish(o.out, doctorColumns, results)
	if todo := next(found); todo != "" {
		o.Remark("next: %s", todo)
	}
	if errors.Is(err, cli.ErrFailed) && tally[stateFails] > 0 && ctx.Err() == nil {
		return cli.ErrNo // a check fails, whatever the unknown ones would say
	}
	return err
}
