// Package policy has kubectl oke-sign policy: it shows, previews and changes the image
// policy of a cluster or of manifests.
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
		Long: `Read, change and preview the cluster's image policy: which keys must have signed
an image for it to run, where, and what becomes of all others.

The policy is one thing here, however many Gatekeeper constraints carry it.
Every change is shown, asked about at a terminal, held against what runs, and
made as a whole; somebody else's edit in the meantime is never lost.

What scans must have found is said by constraints of their own, of kind
OKEScannedImages: get shows them, preview counts them in, and no command here
changes them.`,
		Example: `  # Only images signed by this key run from now on
  kubectl oke-sign policy set --key image-key

  # What would be refused if the policy were enforced?
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
