package policy

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
)

type policyModeOptions struct {
	changeOptions
	mode string
}

func newEnable(s *connect.Session) *cobra.Command {
	o := &policyModeOptions{changeOptions: changeOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "enable",
		Short: "Enforce the image policy",
		Long: `Enforce the image policy: what it forbids is refused, or only warned of with
--mode warn. The same as policy set --mode deny.`,
		Example: `  kubectl oke-sign policy enable --preview
  kubectl oke-sign policy enable`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.mode != constraint.Deny && o.mode != constraint.Warn {
				return cli.Usage(fmt.Sprintf("--mode %q does not enforce anything", o.mode), "use --mode deny or warn; policy disable ends enforcement")
			}
			return o.run(cmd)
		},
	}
	cmd.Flags().StringVar(&o.mode, "mode", constraint.Deny, "What becomes of an image that is forbidden, a `MODE`: deny or warn.")
	o.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	return cmd
}

func newDisable(s *connect.Session) *cobra.Command {
	o := &policyModeOptions{changeOptions: changeOptions{Session: s}, mode: constraint.DryRun}
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Refuse nothing any longer, but keep the image policy",
		Long: `Refuse nothing any longer, but keep the image policy: the audit goes on counting
what it would forbid. policy enable brings it back. The same as policy set
--mode dryrun. Constraints that are no part of it, such as those on scans, are
left as they are, and those that go on refusing are named.`,
		Example: `  kubectl oke-sign policy disable`,
		Args:    cli.NoArguments,
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	return cmd
}

func (o *policyModeOptions) run(cmd *cobra.Command) error {
	if err := o.validate(cmd); err != nil {
		return err
	}
	return o.change(cmd.Context(), func(_ context.Context, before Enforced) (*constraint.Policy, error) {
		p, err := before.existing()
		p.Mode = o.mode
		return &p, err
	})
}

func newDelete(s *connect.Session) *cobra.Command {
	o := &changeOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Delete the image policy",
		Long: `Delete the constraints that carry the image policy. Others stay, even of the
same kinds, and those that go on refusing are named. policy disable keeps the
policy, and only ends its enforcement.`,
		Example: `  kubectl oke-sign policy delete`,
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.gitops {
				return cli.Usage("--gitops has nothing to print of a policy that is deleted", "delete its manifests")
			}
			if err := o.validate(cmd); err != nil {
				return err
			}
			return o.change(cmd.Context(), func(_ context.Context, before Enforced) (*constraint.Policy, error) {
				if len(before.Parts)+len(before.Guards) == 0 {
					return nil, errors.New("the cluster has no image policy to delete")
				}
				return nil, nil //nolint:nilnil // no policy is what is wanted
			})
		},
	}
	o.bind(cmd.Flags())
	return cmd
}
