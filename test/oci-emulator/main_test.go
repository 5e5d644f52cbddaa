package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain lets the test binary be the emulator, so that tests see the real process.
func TestMain(m *testing.M) {
	if os.Getenv("OCI_EMULATOR_TEST_RUN") != "" {
		main()
		return
	}
	m.Run()
}

func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "OCI_EMULATOR_TEST_RUN=1")
	return cmd
}

// start runs the emulator until the test ends or stop is called, and returns
// its address.
func start(t *testing.T, args ...string) (url string, stop func()) {
	t.Helper()
	// The test's own context ends before the clean-up that stops the emulator.
	cmd := command(context.WithoutCancel(t.Context()), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // Wait returns its error
		if err := cmd.Wait(); err != nil {
			t.Errorf("the emulator ended with %v", err)
		}
	}
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("no ready line: %v", err)
	}
	m := regexp.MustCompile(`^oci-emulator \(not Oracle Cloud\) ready at (http://127\.0\.0\.1:[0-9]+), home `).FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("ready line %q", line)
	}
	return m[1], stop
}

func TestHome(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), "a home's")
	url, _ := start(t, "--listen", "127.0.0.1:0", "--home", home, "--seed", "demo")

	// The environment of a shell that has sourced env, without this test's
	// variables.
	sh := exec.Command("/bin/sh", "-c", `. "$1" && env`, "sh", filepath.Join(home, "env"))
	sh.Env = []string{"PATH=/usr/bin:/bin"}
	b, err := sh.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && name != "PATH" && name != "PWD" && name != "_" && name != "SHLVL" && name != "OLDPWD" {
			got[name] = value
		}
	}
	want := map[string]string{
		"HTTPS_PROXY": url, "https_proxy": url, "NO_PROXY": "", "no_proxy": "",
		"SSL_CERT_FILE": home + "/ca.pem", "OCI_DEFAULT_CERTS_PATH": home + "/ca.pem", "REQUESTS_CA_BUNDLE": home + "/ca.pem",
		"OCI_CONFIG_FILE": home + "/config", "OCI_CLI_CONFIG_FILE": home + "/config",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("env (-want +got):\n%s", diff)
	}
	config, err := os.ReadFile(filepath.Join(home, "config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range []string{"[DEFAULT]", "[PASSPHRASE]", "[SESSION]"} {
		if !bytes.Contains(config, []byte(section)) {
			t.Errorf("no %s in config", section)
		}
	}
	for _, kind := range []string{"api_key", "security_token", "instance_principal", "instance_obo_user", "resource_principal", "oke_workload_identity", "oidc"} {
		sh := exec.Command("/bin/sh", "-c", `. "$1/env" && . "$1/env.d/$2" && env`, "sh", home, kind)
		sh.Env = []string{"PATH=/usr/bin:/bin", "OCI_RESOURCE_PRINCIPAL_RPST=/of/another"}
		b, err := sh.Output()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "OCI_CLI_AUTH="+kind+"\n") || !strings.Contains(string(b), "HTTPS_PROXY="+url+"\n") {
			t.Errorf("env.d/%s makes %s", kind, b)
		}
		if strings.Contains(string(b), "/of/another") {
			t.Errorf("env.d/%s leaves what other surroundings set:\n%s", kind, b)
		}
	}
	res, err := http.Get(url + "/_emulator/calls")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var calls map[string]int
	if err := json.NewDecoder(res.Body).Decode(&calls); err != nil || len(calls) != 0 {
		t.Errorf("calls %v %v, want none yet", calls, err)
	}
	if res.Header.Get("X-Oci-Emulator") == "" {
		t.Error("an answer does not say that the emulator sent it")
	}
}

func TestStateIsSavedAtTheEnd(t *testing.T) {
	t.Parallel()
	state := filepath.Join(t.TempDir(), "state.json")
	keys := func() string {
		t.Helper()
		url, stop := start(t, "--home", t.TempDir(), "--state", state, "--switches", "lenient")
		res, err := http.Get(url + "/_emulator/state")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var s struct{ Tenancies map[string]any }
		if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
			t.Fatal(err)
		}
		stop()
		return strings.Join(slices.Sorted(maps.Keys(s.Tenancies)), " ")
	}
	if first, second := keys(), keys(); first == "" || first != second {
		t.Errorf("tenancies %q, and after a restart %q", first, second)
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { busy.Close() }) // the parallel subtests end first
	for name, tt := range map[string]struct {
		args []string
		code int
		want string
	}{
		"help":                          {[]string{"--help"}, 0, "It is not Oracle Cloud"},
		"no home":                       {nil, 2, "--home"},
		"an argument":                   {[]string{"--home", t.TempDir(), "x"}, 2, "takes no arguments"},
		"an unknown flag":               {[]string{"--nonsense"}, 2, "nonsense"},
		"an address of every interface": {[]string{"--home", t.TempDir(), "--listen", "0.0.0.0:0"}, 1, "not a loopback address"},
		"an address in use":             {[]string{"--home", t.TempDir(), "--listen", busy.Addr().String()}, 1, "address already in use"},
		"an unknown seed":               {[]string{"--home", t.TempDir(), "--seed", "weed"}, 1, "weed"},
		"an unknown switch":             {[]string{"--home", t.TempDir(), "--switches", "odd"}, 1, "--switches"},
		"a missing policy file":         {[]string{"--home", t.TempDir(), "--policy", "/nowhere/policy.json"}, 1, "policy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := command(ctx, tt.args...)
			var errOut bytes.Buffer
			cmd.Stderr = &errOut
			out, _ := cmd.Output() // the exit code is checked below
			if got := cmd.ProcessState.ExitCode(); got != tt.code || !strings.Contains(errOut.String(), tt.want) {
				t.Errorf("exit %d, %q, want %d, …%s…", got, errOut.String(), tt.code, tt.want)
			}
			if len(out) != 0 {
				t.Errorf("standard output %q, want none", out)
			}
		})
	}
}
