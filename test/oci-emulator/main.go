// Command oci-emulator emulates the parts of Oracle Cloud Infrastructure that image
// signing uses. Unmodified clients work with it. Package test/ocitest has the code.
//
// The emulator listens on loopback only. Each of its answers says that it is not
// Oracle Cloud. A program that reaches its port may do anything, so do not protect
// anything of value with it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUse):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "oci-emulator: %v\n", err)
		os.Exit(1)
	}
}

// errUse reports a wrong command line. Package flag has printed the reason.
var errUse = errors.New("wrong use")

const usage = `oci-emulator emulates Oracle Cloud Infrastructure for tests and demos.
It is not Oracle Cloud.

It is an HTTPS proxy on loopback that answers for OCI's host names: Artifacts, Key
Management, Vulnerability Scanning (of containers), Identity, Object Storage
(namespace) and OCI Registry. It writes into --home what clients need. When it is
ready, it prints what it holds, and what to type next:

  oci-emulator --listen 127.0.0.1:8040 --home /tmp/oci --seed demo &
  . /tmp/oci/env
  kubectl oke-sign keys list

With that environment, two commands change the running emulator, as an
administrator changes a tenancy:

  oci-emulator allow STATEMENT...    add IAM statements
  oci-emulator auth-token [USER]     make a password for OCI Registry

Its own pages are under http://127.0.0.1:PORT/_emulator/: faults, calls, requests,
state, switches, signatures, problems, workloads.

`

func run(ctx context.Context, args []string, out, errOut io.Writer) error {
	if len(args) > 0 && (args[0] == "allow" || args[0] == "auth-token") {
		return operate(ctx, args, out, errOut)
	}
	flags := flag.NewFlagSet("oci-emulator", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage) //nolint:errcheck // there is no other place for an error
		flags.PrintDefaults()
	}
	cfg := ocitest.Config{}
	flags.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "loopback `address` to listen on; port 0 picks a free one")
	flags.StringVar(&cfg.Home, "home", "", "`directory` for ca.pem, config and env")
	flags.StringVar(&cfg.Seed, "seed", "bare", "what to begin with: bare (a tenancy and an administrator) or demo")
	flags.StringVar(&cfg.State, "state", "", "`file` to load from if it exists, and to save to at the end and on POST /_emulator/save")
	flags.StringVar(&cfg.Policy, "policy", "", "JSON `file` of users and IAM statements to add: {\"users\":[{\"name\":\"ci\"}],\"statements\":[\"Allow user ci to read repos in tenancy\"]}; their profiles are in --home/users/NAME")
	switches := flags.String("switches", "strict", "what is unconfirmed about OCI: strict or lenient, and changes, as in lenient,salt=hash")
	flags.DurationVar(&cfg.Settle, "settle", 0, "how long keys, vaults and scan targets stay in states such as CREATING")
	flags.DurationVar(&cfg.ScanAfter, "scan-after", 0, "how long after a push a scan of the image begins")
	flags.DurationVar(&cfg.ScanTakes, "scan-takes", 0, "how long a scan takes")
	flags.IntVar(&cfg.VaultReads, "vault-reads", 0, "reads a second that a tenancy may make of its vaults; 0 is any number, OCI has 10")
	verbose := flags.Bool("v", false, "log every request to standard error")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUse
	}
	if flags.NArg() > 0 || cfg.Home == "" {
		fmt.Fprintln(errOut, "oci-emulator: set --home DIR; it takes no arguments; run oci-emulator --help") //nolint:errcheck // nowhere to report it
		return errUse
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	cfg.Log = slog.New(slog.NewTextHandler(errOut, &slog.HandlerOptions{Level: level}))
	var err error
	if cfg.Switches, err = ocitest.ParseSwitches(*switches); err != nil {
		return fmt.Errorf("--switches: %w", err)
	}
	return serve(ctx, cfg, out)
}

func serve(ctx context.Context, cfg ocitest.Config, out io.Writer) error {
	cloud, err := ocitest.New(cfg) //nolint:contextcheck // New only listens: it waits for no other program
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "oci-emulator (not Oracle Cloud) ready at %s, home %s\n%s", cloud.URL(), cloud.Home(), cloud.Welcome()) //nolint:errcheck // nowhere to report it
	<-ctx.Done()
	if cfg.State != "" {
		err = cloud.Save()
	}
	return errors.Join(err, cloud.Close())
}
