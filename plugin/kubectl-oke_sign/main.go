// Command kubectl-oke_sign is the kubectl plugin of oke-sign: found on the PATH,
// it runs as `kubectl oke-sign`.
//
// Only this file exits and reads the environment. See package cmd for the
// commands and the exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
)

// version is set by the linker for a release; nothing else writes to it.
var version string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop and to say what was done, the second kills.
	context.AfterFunc(ctx, stop)
	configDir, err := os.UserConfigDir()
	if err != nil {
		configDir = "" // a machine without a home, such as in CI: nothing is kept
	}
	code := cmd.Run(ctx, cmd.Config{
		Args:      os.Args[1:],
		Streams:   genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
		Getenv:    os.Getenv,
		ConfigDir: configDir,
		Version:   version,
	})
	stop()
	os.Exit(code)
}
