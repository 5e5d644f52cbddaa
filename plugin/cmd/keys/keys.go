// Package keys has kubectl oke-sign keys: it lists, describes, chooses and creates the
// master keys of OCI Vault that sign images.
package keys

import (
	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// New makes the command and those below it.
func New(s *connect.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Find, choose and make the keys that sign images",

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newList(s), newDescribe(s), newUse(s), newCreate(s))
	return cmd
}
