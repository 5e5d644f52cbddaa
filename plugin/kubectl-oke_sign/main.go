// Command kubectl-oke_sign is the kubectl plugin of oke-sign: found on the PATH,
// it runs as `kubectl oke-sign`.
//
// Only this file exits and reads the environment. See package cmd for the
// commands and the exit codes.
package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/cmd"
)

// version is set by the linker for a release; nothing else writes to it.
var version string

// arguments returns the words of the command line. If kubectl runs the program under
// its name for completion, the words are a line to complete.
func arguments(args []string) []string {
	if strings.HasPrefix(filepath.Base(args[0]), "kubectl_complete-") {
		return append([]string{cobra.ShellCompRequestCmd}, args[1:]...)
	}
	return args[1:]
}

func main() {
	var interrupts cli.Interrupts
	ctx, stop := interrupts.Context(context.Background())
	configDir, err := os.UserConfigDir()
	if err != nil {
		configDir = "" // a machine without a home, such as in CI: nothing is kept
	}
	utilruntime.ErrorHandlers = nil // what Kubernetes' client would log, it returns as well
	code := cmd.Run(ctx, cmd.Config{
		Args:       arguments(os.Args),
		Streams:    genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Getenv:     os.Getenv,
		ConfigDir:  configDir,
		Version:    version,
		Interrupts: &interrupts,
	})
	stop()
	os.Exit(code)
}
