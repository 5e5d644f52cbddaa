// Command demo shows oke-sign with real parts and without a cloud account. A process
// emulates OCI and its wire protocol. The provider is a process that requires client
// certificates. The demo calls kubectl oke-sign as a user does. Gatekeeper's own
// engine has the shipped ConstraintTemplates, and asks the provider as in a cluster.
//
// Only the API server and its controllers are missing. This program creates the
// objects that they would create, and the engine decides.
//
// It prints one screen. With -all it prints every check, with attacks and outages,
// and ends with a table. It fails if one result is unexpected.
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
	bin := flag.String("bin", "bin", "`directory` with the programs of make build")
	// The laxer the emulated OCI is, the more attacks are possible.
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

// gatekeeperName is the name in Gatekeeper's client certificate.
const gatekeeperName = "gatekeeper-webhook-service.gatekeeper-system.svc"

func demo(ctx context.Context, bin, switches string, all bool, out printer) (err error) {
	began := time.Now()
	// The demo's programs must not use the cluster of the user.
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

// providerProcess is the running provider with its certificates.
type providerProcess struct {
	*process
	addr             string
	certificate, key string // files of Gatekeeper's client certificate
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
	// No Service sends requests to the provider at its end, so it need not wait for
	// any.
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
		return nil, fmt.Errorf("the provider's log does not have its address:\n%s", p.log)
	}
	return p, nil
}

// printer writes the story to the terminal.
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
