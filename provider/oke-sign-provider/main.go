// Command oke-sign-provider answers Gatekeeper's external data requests: is this image
// signed in OCI by one of these keys, and what did scans find in it?
//
// Only this command knows all parts. ociauth signs in, and oci sends requests. registry,
// vault and vulnscan ask OCI's services. checker and vulnreport gather and cache, verdict
// decides, and server and certs talk to Gatekeeper. The command itself decides nothing.
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

// Each answer leaves some garbage. The collector runs when the garbage reaches a share of
// the live heap. The ballast raises the live heap without using memory, since nothing
// touches it. A provider with few images in its cache therefore collects a third as
// often. A provider that has just read a whole registry stays within 64 MB, and one with
// 100 000 verdicts, some 50 MB, within 128 MB.
const (
	ballast = 16 << 20
	garbage = 36 // per cent of the live heap
)

// memoryLimit returns the runtime's memory limit: 85 per cent of the container's, which
// it reads from the cgroup, version 1 or 2. The ballast uses no memory but counts, so it
// is added. A container without a limit gets no limit here. A constant would make the
// process collect without end as soon as something, such as many connections, exceeds it.
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
	// The first signal ends the program after the requests in flight. The second kills it.
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

// complain reports why the program ends.
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
