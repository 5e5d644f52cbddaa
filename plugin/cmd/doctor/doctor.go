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
		Short: "Find out whether the cluster enforces its image policy, and what to mend",
		Long: `Look for everything that can make the image policy not hold: Gatekeeper, its
webhook and its settings, exempt namespaces and who may label one, templates and
constraints, the Provider objects, the provider behind them and its certificate,
keys, scans, how tags are pinned, clocks, OKE's own policy beside it, and what runs
already. Each finding comes with what to do.

  fails     the policy does not hold, or keeps everything out
  warns     it holds, and something weakens it
  unknown   the check could not be done
  skipped   it needs to be told where to look
  holds     shown with --all

Nothing is changed. Needed are the right to get and list Namespaces, Pods,
Deployments, Gatekeeper's objects and constraints, and to get webhook
configurations, ValidatingAdmissionPolicies, their bindings and the provider's
Secret. A check that may not read is unknown. OCI is asked as you.

Exit code 0: the policy holds. 3: it does not, whatever else is unknown. 1: a
check could not be done, and none of the others fails.`,
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
	cmd.Flags().BoolVar(&o.all, "all", false, "Show what holds, too.")
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
	for _, x := range f.run() {
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
		o.Remark("the image policy does not hold: %d fail, %d warn, %d unknown, %d hold", tally[stateFails], tally[stateWarns], tally[stateUnknown], tally[stateHolds])
	case tally[stateUnknown] > 0:
		o.Remark("whether the image policy holds is not known: %d unknown, %d warn, %d hold", tally[stateUnknown], tally[stateWarns], tally[stateHolds])
	default:
		o.Remark("the image policy holds: %d warn, %d hold", tally[stateWarns], tally[stateHolds])
	}
	err = o.Finish(o.out, doctorColumns, results)
	if errors.Is(err, cli.ErrFailed) && tally[stateFails] > 0 && ctx.Err() == nil {
		return cli.ErrNo // what fails is known, and nothing that is unknown could mend it
	}
	return err
}
