// Command demo tells oke-sign's story with real parts and no cloud: OCI played
// over its real wire protocol by a process, the provider as a process that wants
// client certificates, kubectl oke-sign as a user runs it, and Gatekeeper's own
// engine with the shipped ConstraintTemplates, which asks the provider as it does
// in a cluster.
//
// Only the API server and its controllers are missing: this program creates what
// they would, and lets the engine decide.
//
// It prints one screen. With -all it prints every check, attacks and outages among
// them, and ends with a table. It fails if one result differs from what is expected.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/test/ociclient"
	"github.com/oke-sign/oke-sign/test/pki"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	bin := flag.String("bin", "bin", "`directory` of the programs that make build leaves")
	// The kinder the emulated OCI is to attackers, the more is shown.
	switches := flag.String("switches", "strict,deletedRecords=listed,dotDot=normalised", "what is unconfirmed about OCI, as oci-emulator has it")
	all := flag.Bool("all", false, "show every check, attacks and outages among them")
	color := flag.String("color", "auto", "`when` to use colour: auto, always or never")
	flag.Parse()
	info, err := os.Stdout.Stat()
	isTerminal := err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
	out := printer{os.Stdout, *color == "always" || *color == "auto" && isTerminal}
	err = demo(ctx, *bin, *switches, *all, out)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

// gatekeeperName is the name in the certificate that Gatekeeper shows providers.
const gatekeeperName = "gatekeeper-webhook-service.gatekeeper-system.svc"

func demo(ctx context.Context, bin, switches string, all bool, out printer) (err error) {
	began := time.Now()
	// The demo's programs must not find the user's own cluster.
	environ := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "KUBE") })
	home, err := os.MkdirTemp("", "oke-sign-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()

	emulator, line, err := start(ctx, environ, " ready at ", filepath.Join(bin, "oci-emulator"),
		"--listen", "127.0.0.1:0", "--home", filepath.Join(home, "oci"), "--seed", "demo", "--switches", switches)
	if err != nil {
		return err
	}
	defer emulator.stop()
	_, address, _ := strings.Cut(line, " ready at ")
	address, _, _ = strings.Cut(address, ",")
	env, err := ociclient.Environ(environ, filepath.Join(home, "oci"))
	if err != nil {
		return err
	}

	provider, err := startProvider(ctx, bin, home, env)
	if err != nil {
		return err
	}
	defer func() { provider.stop() }()
	c, err := newCluster(ctx, gatekeeper.Config{Certificate: provider.certificate, Key: provider.key, Memory: memory},
		gatekeeper.Provider{Name: "oke-sign", URL: "https://" + provider.addr + "/v1/signatures", CABundle: provider.authority.PEM(), Timeout: 2 * time.Second},
		gatekeeper.Provider{Name: "oke-sign-scans", URL: "https://" + provider.addr + "/v1/scans", CABundle: provider.authority.PEM(), Timeout: time.Second})
	if err != nil {
		return err
	}
	defer c.engine.Close()
	cloud, err := ociclient.Connect(address, filepath.Join(home, "oci"))
	if err != nil {
		return err
	}

	s := &story{printer: out, bin: bin, env: env, cluster: c, cloud: cloud, provider: provider}
	short := &screen{story: s}
	tell, end := short.tell, short.end
	if all {
		s.say("Ready in %s: %s and %s run, and Gatekeeper's engine holds the policies.", time.Since(began).Round(100*time.Millisecond), emulator.name, provider.name)
		tell, end = s.tell, s.table
	}
	if err := tell(ctx); err != nil {
		return fmt.Errorf("%w\n\nThe provider's log ends:\n%s", err, provider.log)
	}
	return end(time.Since(began))
}

// providerProcess is the running provider and the certificates around it.
type providerProcess struct {
	*process
	addr             string
	certificate, key string // files: what Gatekeeper shows
	authority        *pki.Authority
}

func startProvider(ctx context.Context, bin, home string, env []string) (*providerProcess, error) {
	authority, err := pki.NewAuthority("oke-sign demo")
	if err != nil {
		return nil, err
	}
	p := &providerProcess{authority: authority, certificate: filepath.Join(home, "gatekeeper.crt"), key: filepath.Join(home, "gatekeeper.key")}
	write := func(cert, key, name string) error {
		pair, err := authority.Issue(pki.Leaf{Names: []string{name}})
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(cert, pair.Cert, 0o600), os.WriteFile(key, pair.Key, 0o600))
	}
	cert, key, ca := filepath.Join(home, "tls.crt"), filepath.Join(home, "tls.key"), filepath.Join(home, "ca.crt")
	if err := errors.Join(write(cert, key, "127.0.0.1"), write(p.certificate, p.key, gatekeeperName), os.WriteFile(ca, authority.PEM(), 0o600)); err != nil {
		return nil, err
	}
	// No Service leads questions here after the end, so that none has to be awaited.
	p.process, _, err = start(ctx, env, `"ready"`, filepath.Join(bin, "oke-sign-provider"), "--drain", "0s",
		"--addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key,
		"--client-ca", ca, "--client-name", gatekeeperName, "--auth", "api_key", "--config-file", filepath.Join(home, "oci", "config"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(p.log.String()) {
		var entry struct{ Msg, Addr string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "serving" {
			p.addr = entry.Addr
		}
	}
	if p.addr == "" {
		p.stop()
		return nil, fmt.Errorf("the provider does not say where it listens:\n%s", p.log)
	}
	return p, nil
}

// printer writes the story for people.
type printer struct {
	io.Writer
	color bool
}

func (p printer) paint(code, text string) string {
	if !p.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p printer) say(format string, args ...any) {
	_, _ = fmt.Fprintf(p, format+"\n", args...) // a reader that has gone needs no story
}
