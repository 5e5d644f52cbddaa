// Package policy has kubectl oke-sign policy: it shows, previews and changes the image
// policy of a cluster or of manifests. The cluster checks every change by a dry run, and
// package constraint orders the steps. It does not install Gatekeeper or templates.
package policy

import (
	"cmp"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// New makes the command and those below it. getenv reads the environment, for the name of
// an editor.
func New(s *connect.Session, getenv func(string) string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Read, change and preview the cluster's image policy",
		Long: `Read, change and preview the cluster's image policy: the keys that must have
signed an image, where the policy applies, and what happens to other images.

The commands treat the policy as one object, although several Gatekeeper
constraints hold it. They show every change, ask at a terminal, check the Pods
that run, and change all constraints or none. They never overwrite an edit that
somebody else made in the meantime.

Constraints of kind OKEScannedImages say what scans must have found. get and
preview show them, and no command here changes them.`,
		Example: `  # Only images signed by this key run from now on
  kubectl oke-sign policy set --key image-key

  # What would be denied if the policy were enforced?
  kubectl oke-sign policy preview --mode deny`,

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newGet(s),
		newSet(s),
		newAddKey(s),
		newRemoveKey(s),
		newEnable(s),
		newDisable(s),
		newEdit(s, cmp.Or(getenv("KUBE_EDITOR"), getenv("EDITOR"), "vi")),
		newPreview(s),
		newDelete(s),
	)
	return cmd
}
