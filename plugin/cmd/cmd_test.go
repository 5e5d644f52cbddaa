package cmd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// An interrupted command reports the interrupt for each target, and fails.
func TestInterrupted(t *testing.T) {
	cloud := ocitest.Start(t, ocitest.Config{})
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("key", ocitest.AES256)
	images := []string{tenancy.NewImage("web", "v1").Ref(), tenancy.NewImage("web", "v2").Ref()}
	config := tenancy.Admin().ConfigFile()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	for _, name := range []string{"sign", "verify", "signatures"} {
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		args := append([]string{name, "--config-file", config, "-o", "json", "--key", key.ID}, images...)
		code := cmd.Run(ctx, cmd.Config{Args: args, Streams: streams, Getenv: func(string) string { return "" }})
		if code != 1 {
			t.Errorf("%s: exit code %d, want 1", name, code)
		}
		var elements []struct{ Image, Error string }
		if err := json.Unmarshal(out.Bytes(), &elements); err != nil || len(elements) != len(images) {
			t.Errorf("%s: %v, got %s", name, err, out)
		}
		for i, e := range elements {
			if e.Image != images[i] || !strings.HasPrefix(e.Error, "interrupted") {
				t.Errorf("%s: got %v for %s", name, e, images[i])
			}
		}
		if got := errOut.String(); strings.Count(got, "error: interrupted") != 1 {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if got := cloud.Calls(); len(got) > 0 {
		t.Errorf("OCI was asked: %v", got)
	}
}

// A command that reads from a pipe ends at an interrupt.
func TestInterruptedWhileReading(t *testing.T) {
	const key = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
	for _, args := range []string{
		"sign -f - --key " + key, "verify -f - --key " + key, "signatures -f -", "scan results -f -",
		"pin -f -", "check -f -", "verdicts -f -", "policy preview -f -", "policy set --mode warn --gitops -f -",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		streams, _, _, errOut := genericiooptions.NewTestIOStreams()
		streams.In = endless{t.Context(), cancel}
		code := cmd.Run(ctx, cmd.Config{Args: strings.Fields(args), Streams: streams, Getenv: func(string) string { return "" }})
		if code != 1 || !strings.Contains(errOut.String(), "error: interrupted\n") {
			t.Errorf("%s: exit code %d, %s", args, code, errOut)
		}
	}
}

// endless calls a function and then returns no data until the test ends.
type endless struct {
	context.Context
	begun func()
}

func (r endless) Read([]byte) (int, error) {
	r.begun()
	<-r.Done()
	return 0, r.Err()
}

// A command fails if its help cannot be written.
func TestHelpIsNotLost(t *testing.T) {
	for _, args := range []string{"--help", "", "help sign", "policy", "sign -h", "__complete si"} {
		streams, _, _, errOut := genericiooptions.NewTestIOStreams()
		streams.Out = full{}
		code := cmd.Run(t.Context(), cmd.Config{Args: strings.Fields(args), Streams: streams, Getenv: func(string) string { return "" }})
		if args != "__complete si" && !strings.HasSuffix(errOut.String(), "error: writing the output: no space left\n") || code != 1 {
			t.Errorf("%q: exit code %d, %s", args, code, errOut)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// After an interrupt, a started upload is completed, and the command says what it
// has done.
func TestInterruptedUpload(t *testing.T) {
	cloud := ocitest.Start(t, ocitest.Config{})
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("key", ocitest.RSA2048)
	args := []string{"sign", "-o", "json", "--key", key.ID}
	for range 20 {
		args = append(args, tenancy.NewImage("web").Ref())
	}
	tenancy.Fault(ocitest.Fault{Kind: ocitest.Latency, Operation: "artifacts.CreateContainerImageSignature", Delay: ocitest.Duration(time.Second)})

	var out, errOut bytes.Buffer
	command := exec.CommandContext(t.Context(), "kubectl-oke_sign", args...)
	command.Env = append(append(os.Environ(), cloud.Env()...), "OCI_CONFIG_FILE="+tenancy.Admin().ConfigFile())
	command.Stdout, command.Stderr = &out, &errOut
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for tenancy.Calls()["artifacts.CreateContainerImageSignature"] == 0 {
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatal("no upload was begun")
		}
	}
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait() // the exit code tells
	if got := command.ProcessState.ExitCode(); got != 1 {
		t.Errorf("exit code %d, want 1", got)
	}

	var elements []struct{ Image, Signature, Error string }
	if err := json.Unmarshal(out.Bytes(), &elements); err != nil {
		t.Fatalf("%v, got %s", err, &out)
	}
	signed := 0
	for _, e := range elements {
		switch {
		case e.Signature != "":
			signed++
		case !strings.HasPrefix(e.Error, "interrupted"):
			t.Errorf("%s: %s", e.Image, e.Error)
		}
	}
	if begun := tenancy.Calls()["artifacts.CreateContainerImageSignature"]; signed == 0 || signed != begun || signed == len(elements) {
		t.Errorf("%d uploads begun, %d of %d said to be signed\n%s", begun, signed, len(elements), &errOut)
	}
	if !strings.Contains(errOut.String(), " images signed; run the same command again for the rest\n") {
		t.Errorf("got %s", &errOut)
	}
}
