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
	"math"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// version is set by the linker for a release; nothing else writes to it.
var version string

// An answer leaves some garbage behind and nothing else. How much may lie about
// before it is collected follows from what is kept, to which the ballast adds: it
// is never touched, so it takes no memory, and has a provider that knows few images
// collect a third as often. One that has just met a whole registry stays within
// 64 MB, and 100 000 verdicts, some 50 MB, within 128.
const (
	ballast = 16 << 20
	garbage = 36 // per cent of what is kept
)

// memoryLimit is the most that the runtime takes before it collects all the time: 85
// per cent of what the container may, read from its cgroup, of version 1 or 2. The
// ballast, which takes nothing, counts against it. Without a limit of the container
// there is none here: a constant would have the process collect without end as soon
// as something, such as many connections, is larger.
func memoryLimit(read func() (uint64, error)) int64 {
	limit, err := read()
	if err != nil || limit > math.MaxInt64/2 {
		return math.MaxInt64
	}
	return int64(limit)/100*85 + ballast //nolint:gosec // compared above
}

func main() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryLimit(memlimit.FromCgroup))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
		defer runtime.KeepAlive(make([]byte, ballast))
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
		complain(fmt.Sprintf("oke-sign-provider: %v\nRun oke-sign-provider --help for the flags.\n", err))
		os.Exit(2)
	default:
		complain(fmt.Sprintf("oke-sign-provider: %v\n", err))
		os.Exit(1)
	}
}

// complain says why it ends, if somebody listens.
func complain(why string) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		_, _ = os.Stderr.WriteString(why)
	}()
	select {
	case <-said:
	case <-time.After(flushTime):
	}
}
