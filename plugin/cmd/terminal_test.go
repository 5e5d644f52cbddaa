package cmd_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// screen runs the command at a terminal. It types a line of typed at each question,
// and returns the terminal's text and the standard output.
func screen(t *testing.T, env []string, typed []string, args ...string) (shown, out string, err error) {
	t.Helper()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	var data bytes.Buffer
	command := exec.CommandContext(t.Context(), "kubectl-oke_sign", args...)
	command.Env = append(os.Environ(), env...)
	command.Stdin, command.Stdout, command.Stderr = tty, &data, tty
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close() //nolint:errcheck // the command has its own copy
	var text strings.Builder
	for buf := make([]byte, 4096); ; {
		n, err := terminal.Read(buf)
		text.Write(buf[:n])
		if strings.HasSuffix(text.String(), "search): ") && len(typed) > 0 {
			if _, err := io.WriteString(terminal, typed[0]); err != nil {
				t.Fatal(err)
			}
			typed = typed[1:]
		}
		if err != nil {
			break // on Linux, an error is the end
		}
	}
	err = command.Wait()
	terminal.Close() //nolint:errcheck // it was read
	return text.String(), data.String(), err
}

// A person at a terminal who names no key chooses from a list, and can search in it.
func TestPicker(t *testing.T) {
	cloud := ocitest.Start(t, ocitest.Config{})
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	vault := tenancy.NewVault("vault", "")
	material, err := newMaterial()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields("a b c d e f g h i j k l m n o p q r s t") {
		vault.ImportKey("team-"+name, ocitest.RSA2048, material.small)
	}
	vault.NewKey("etcd", ocitest.AES256)
	wanted := vault.ImportKey("zz-release", ocitest.RSA3072, material.large)
	image := tenancy.NewImage("web", "v1").Ref()
	env := append(cloud.Env(), "OCI_CONFIG_FILE="+tenancy.Admin().ConfigFile(), "KUBECONFIG="+t.TempDir()+"/none", "XDG_CONFIG_HOME="+t.TempDir())

	shown, out, err := screen(t, env, []string{"nothing like it\n", "RELEASE\n", "7\n", "\n"}, "sign", image, "-o", "json")
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	var signed []struct{ Key string }
	if err := json.Unmarshal([]byte(out), &signed); err != nil || len(signed) != 1 || signed[0].Key != wanted.ID {
		t.Errorf("%v, want a signature by %s, got %s", err, wanted.ID, out)
	}
	for _, want := range []string{"  1  team-a ", "     and 6 more; type a part of the name to search", `nothing matches "nothing like it"`, "  1  zz-release  vault vault  …", "there is no 7"} {
		if !strings.Contains(shown, want) {
			t.Errorf("%q is not on the screen:\n%s", want, shown)
		}
	}
	if strings.Contains(shown, "etcd") {
		t.Errorf("a key that cannot sign is offered:\n%s", shown)
	}

	// The end of the input picks nothing.
	shown, out, err = screen(t, env, []string{"\x04"}, "keys", "use", "-o", "json")
	if err == nil || !strings.Contains(out, `"error": "nothing was answered"`) {
		t.Errorf("%v\n%s\n%s", err, out, shown)
	}
}

// In an editor Ctrl-C is a key like any other. It ends neither the editor nor the
// command that waits for the editor.
func TestInterruptWhileEditing(t *testing.T) {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	editor := filepath.Join(dir, "editor.sh")
	for name, text := range map[string]string{
		policy: `apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: image-policy, labels: {oke-sign.dev/policy: pods}}
spec:
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
  parameters: {keys: [ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a]}
`,
		editor: `trap 'sed -i "s/^mode: deny/mode: warn/" "$1"; exit 0' INT
echo editing
while :; do sleep 0.1; done
`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.CommandContext(t.Context(), "kubectl-oke_sign", "policy", "edit", "--gitops", "-f", policy)
	command.Env = append(os.Environ(), "KUBE_EDITOR=sh "+editor, "KUBECONFIG="+dir+"/none")
	terminal, err := pty.Start(command)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close() //nolint:errcheck // it was read
	var shown strings.Builder
	typed := false
	for buf := make([]byte, 4096); ; {
		n, err := terminal.Read(buf)
		shown.Write(buf[:n])
		if !typed && strings.Contains(shown.String(), "editing") {
			typed = true
			if _, err := io.WriteString(terminal, "\x03"); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil {
			break // on Linux, an error is the end
		}
	}
	if err := command.Wait(); err != nil || !strings.Contains(shown.String(), "enforcementAction: warn") {
		t.Errorf("%v\n%s", err, &shown)
	}
}

// --watch repeats until an interrupt, and ends with the exit code of the last run.
func TestWatchEndsWithTheLastRun(t *testing.T) {
	for _, args := range [][]string{{"status", "--watch"}, {"explain", "pod/web", "-w"}} {
		command := exec.CommandContext(t.Context(), "kubectl-oke_sign", args...)
		command.Env = append(os.Environ(), "KUBECONFIG="+t.TempDir()+"/none")
		terminal, err := pty.Start(command)
		if err != nil {
			t.Fatal(err)
		}
		var shown strings.Builder
		for buf, typed := make([]byte, 4096), false; ; {
			n, err := terminal.Read(buf)
			shown.Write(buf[:n])
			if !typed && strings.Contains(shown.String(), "Ctrl-C ends") {
				typed = true
				if _, err := io.WriteString(terminal, "\x03"); err != nil {
					t.Fatal(err)
				}
			}
			if err != nil {
				break // on Linux, an error is the end
			}
		}
		_ = command.Wait()   // its exit code says more
		_ = terminal.Close() // it was read
		code, text := command.ProcessState.ExitCode(), shown.String()
		if code != 1 || !strings.Contains(text, "\x1b[H\x1b[2J") || strings.Count(text, "error: ") != 1 || !strings.Contains(text, "kubeconfig") {
			t.Errorf("%v: exit code %d\n%q", args, code, text)
		}
	}
}
