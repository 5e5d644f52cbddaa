// Command oke-sign-provider answers Gatekeeper's external data requests: is this
// image signed, in OCI, by one of these keys, and what do scans say of it?
//
// It is the only place that knows all the parts: who asks OCI (principal), what
// is asked (registry, vault, scanning), what decides (verdict, scan), what is
// remembered (inside those two), and what speaks to Gatekeeper (server, certs). It decides nothing
// itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version is set by the linker for a release; nothing else writes to it.
var version string

// An answer leaves some garbage behind and nothing else, and 100 000 verdicts in
// memory are some 50 MB. Collected a little sooner than is usual, a provider that
// has just met a whole registry stays within 64 MB; later would take a few per
// cent of the work off each answer.
const (
	garbage = 75 // per cent of what is kept
	memory  = 96 << 20
)

func main() {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(garbage)
		debug.SetMemoryLimit(memory)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to finish what was begun, the second kills.
	context.AfterFunc(ctx, stop)
	err := run(ctx, process{args: os.Args[1:], getenv: os.Getenv, stdout: os.Stdout, stderr: os.Stderr})
	stop()
	var wrong usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, &wrong):
		fmt.Fprintf(os.Stderr, "oke-sign-provider: %v\nRun oke-sign-provider --help for the flags.\n", err)
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "oke-sign-provider: %v\n", err)
		os.Exit(1)
	}
}
