// Package keys has kubectl oke-sign keys: it lists, describes, chooses and creates the
// master keys of OCI Vault that sign images.
package keys

import (
	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// New makes the command with its subcommands.
func New(s *connect.Session) *cobra.Command {
	cmd := cli.NewGroup("keys", "Find, choose and create the keys that sign images", "")
	cmd.AddCommand(newList(s), newDescribe(s), newUse(s), newCreate(s))
	return cmd
}
