// Package scan has kubectl oke-sign scan: it sets up OCI's vulnerability scanning of
// repositories and shows what scans found.
package scan

import (
	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// New makes the command and those below it.
func New(s *connect.Session) *cobra.Command {
	cmd := cli.NewGroup("scan", "Have images scanned, and see what was found", `Have OCI Vulnerability Scanning look for known problems in images of OCI
Registry, and see what it found. The constraint OKEScannedImages keeps what has
known problems out of a cluster.`)
	recipe := cli.NewGroup("recipe", "List, make and delete scan recipes", "A recipe says how images are scanned.")
	recipe.AddCommand(newRecipeList(s), newRecipeCreate(s), newRecipeDelete(s))
	target := cli.NewGroup("target", "List, make and delete scan targets", "A target says which images are scanned, by which recipe.")
	target.AddCommand(newTargetList(s), newTargetCreate(s), newTargetDelete(s))
	cmd.AddCommand(newScanSetup(s), newScanResults(s), recipe, target)
	return cmd
}
