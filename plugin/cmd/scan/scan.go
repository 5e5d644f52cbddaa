// Package scan has kubectl oke-sign scan: it sets up OCI's vulnerability scanning of
// repositories and shows what scans found.
package scan

import (
	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
)

// New makes the command with its subcommands.
func New(s *connect.Session) *cobra.Command {
	cmd := cli.NewGroup("scan", "Set up scans of images, and show what they found", `Set up OCI Vulnerability Scanning for images of OCI Registry, and show the known
problems that it found. The constraint OKEScannedImages denies images with known
problems in a cluster.`)
	recipe := cli.NewGroup("recipe", "List, create and delete scan recipes", "A recipe says how OCI scans images.")
	recipe.AddCommand(newRecipeList(s), newRecipeCreate(s), newRecipeDelete(s))
	target := cli.NewGroup("target", "List, create and delete scan targets", "A target says which images OCI scans, and by which recipe.")
	target.AddCommand(newTargetList(s), newTargetCreate(s), newTargetDelete(s))
	cmd.AddCommand(newScanSetup(s), newScanResults(s), recipe, target)
	return cmd
}
