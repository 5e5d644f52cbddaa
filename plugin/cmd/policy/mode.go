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
		Long: `Enforce the image policy: deny what it forbids, or only warn with --mode warn.
The same as policy set --mode deny.`,
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
	cmd.Flags().StringVar(&o.mode, "mode", constraint.Deny, "What happens to a forbidden image, a `MODE`: deny or warn.")
	o.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	return cmd
}

func newDisable(s *connect.Session) *cobra.Command {
	o := &policyModeOptions{changeOptions: changeOptions{Session: s}, mode: constraint.DryRun}
	cmd := &cobra.Command{
		Use:   "disable",
		Short: "Stop enforcing the image policy, but keep it",
		Long: `Stop enforcing the image policy, but keep it: the audit still counts what it
would deny. policy enable enforces it again. The same as policy set --mode
dryrun. Constraints that are not part of the policy, such as those on scans,
stay as they are. The command names those that still deny.`,
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
		Long: `Delete the constraints of the image policy. Other constraints stay, even of the
same kinds. The command names those that still deny. policy disable stops the
enforcement, but keeps the policy.`,
		Example: `  kubectl oke-sign policy delete`,
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.gitops {
				return cli.Usage("--gitops cannot print a deleted policy", "delete its manifests from the repository")
			}
			if err := o.validate(cmd); err != nil {
				return err
			}
			return o.change(cmd.Context(), func(_ context.Context, before Enforced) (*constraint.Policy, error) {
				if len(before.Parts)+len(before.Guards) == 0 {
					return nil, errors.New("the cluster has no image policy to delete")
				}
				return nil, nil //nolint:nilnil // nil means no policy
			})
		},
	}
	o.bind(cmd.Flags())
	return cmd
}
