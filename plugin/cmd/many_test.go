package cmd_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// A thousand images in one command take no more memory than a few. Ctrl-C stops the
// command at once, and each known result is printed.
func TestManyImages(t *testing.T) {
	const many = 1000
	cloud := ocitest.Start(t, ocitest.Config{})
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("key", ocitest.RSA2048)
	var refs []string
	for range many {
		image := tenancy.NewImage("web")
		tenancy.Add(image.Sign(key, "SHA_256_RSA_PKCS_PSS"))
		refs = append(refs, image.Ref())
	}
	env := append(append(os.Environ(), cloud.Env()...), "OCI_CONFIG_FILE="+tenancy.Admin().ConfigFile())
	verify := func(images []string) (*exec.Cmd, *bytes.Buffer) {
		command := exec.CommandContext(t.Context(), "kubectl-oke_sign", append([]string{"verify", "--key", key.ID, "-o", "json"}, images...)...)
		command.Env = env
		out := new(bytes.Buffer)
		command.Stdout = out
		return command, out
	}
	memory := func(images []string) int64 {
		command, out := verify(images)
		if err := command.Run(); err != nil {
			t.Fatalf("%v: %.500s", err, out)
		}
		if got := strings.Count(out.String(), `"signed": true`); got != len(images) {
			t.Errorf("%d of %d images are signed", got, len(images))
		}
		usage, ok := command.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			t.Skip("this system does not tell how much memory a process had")
		}
		return usage.Maxrss // KiB on Linux
	}
	few, all := memory(refs[:10]), memory(refs)
	if more := all - few; more > 64<<10 {
		t.Errorf("%d images take %d KiB more than 10, which take %d", many, more, few)
	}

	tenancy.Fault(ocitest.Fault{Kind: ocitest.Hang, Operation: "artifacts.ListContainerImageSignatures", Skip: 20})
	command, out := verify(refs)
	var errOut bytes.Buffer
	command.Stderr = &errOut
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	before := tenancy.Calls()["artifacts.ListContainerImageSignatures"]
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for tenancy.Calls()["artifacts.ListContainerImageSignatures"] < before+20 {
		select {
		case <-poll.C:
		case <-t.Context().Done():
			t.Fatal("nothing is asked")
		}
	}
	if err := command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); command.ProcessState.ExitCode() != 1 {
		t.Errorf("interrupted: %v", err)
	}
	var elements []struct {
		Signed bool
		Error  string
	}
	if err := json.Unmarshal(out.Bytes(), &elements); err != nil || len(elements) != many {
		t.Fatalf("%v: %d elements", err, len(elements))
	}
	known := 0
	for _, e := range elements {
		switch {
		case e.Signed:
			known++
		case !strings.HasPrefix(e.Error, "interrupted"):
			t.Errorf("got %+v", e)
		}
	}
	if want := fmt.Sprintf("stopped after %d of %d\n", known, many); strings.Count(errOut.String(), "error: interrupted\n") != 1 || !strings.HasSuffix(errOut.String(), want) {
		t.Errorf("want one complaint and %q, got %.2000s", want, errOut.String())
	}
	if known == 0 || known == many {
		t.Errorf("%d of %d images are said to be known", known, many)
	}
}
