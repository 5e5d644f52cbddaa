package cmd_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// place is the environment of a place where people sign images.
type place struct {
	cloud *ocitest.Cloud
	file  string // the file with that environment
	dir   string
}

// runs runs a command in the environment, and expects this exit code.
func (p place) runs(t *testing.T, want int, args ...string) string {
	t.Helper()
	home := p.cloud.Home()
	command := exec.CommandContext(t.Context(), "sh", append([]string{"-c", `. "$0" && . "$1" && shift && exec kubectl-oke_sign "$@"`,
		filepath.Join(home, "env"), filepath.Join(home, p.file)}, args...)...)
	command.Env = append(os.Environ(), "HOME="+p.dir, "XDG_CONFIG_HOME="+p.dir, "KUBECONFIG="+filepath.Join(p.dir, "none"))
	var out, errOut bytes.Buffer
	command.Stdout, command.Stderr = &out, &errOut
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if got := command.ProcessState.ExitCode(); got != want {
		t.Fatalf("%s exits %d, want %d:\n%s%s", strings.Join(args, " "), got, want, &out, &errOut)
	}
	return out.String()
}

const signedConstraint = `apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: signed}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
  parameters: {keys: [%s]}
`

const onePod = `apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: web, image: %q}]}
`

// With each auth kind, users list keys, sign, verify and check manifests, in the
// environment of the place that has this auth kind.
func TestEveryWayToSignIn(t *testing.T) {
	cloud := ocitest.Start(t, ocitest.Config{Seed: "demo"})
	kinds := ociauth.Kinds()
	at := func(t *testing.T, file string) place { return place{cloud, file, t.TempDir()} }
	for i, kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			p := at(t, filepath.Join("env.d", kind))
			// No earlier case uses this image with this key.
			key := p.keyID(t, []string{"image-key", "release-key"}[i/4])
			image := "iad.ocir.io/idwpqivumvev/" + []string{"scan-test:v1", "scan-test:latest", "project01/ngnix-lb:v1", "project01/ngnix-lb:latest"}[i%4]
			p.runs(t, 3, "verify", image, "--resolve", "--key", key)
			p.runs(t, 0, "sign", image, "--resolve", "--key", key)
			pinned := regexp.MustCompile(`\S+@sha256:[0-9a-f]{64}`).FindString(p.runs(t, 0, "verify", image, "--resolve", "--key", key, "-o", "json"))
			pinned = strings.Trim(pinned, `",`)
			if pinned == "" {
				t.Fatal("verify names no digest")
			}
			p.runs(t, 0, "check", "-f", p.fill(t, onePod, pinned), "--constraints", p.fill(t, signedConstraint, key), "--live")
			p.runs(t, 3, "check", "-f", p.fill(t, onePod, strings.Replace(pinned, "sha256:", "sha256:0", 1)[:len(pinned)]), "--constraints", p.fill(t, signedConstraint, key), "--live")
		})
	}
	more, err := os.ReadDir(filepath.Join(cloud.Home(), "env.more"))
	if err != nil || len(more) == 0 {
		t.Fatalf("further places: %v, %v", more, err)
	}
	for _, file := range more {
		t.Run(file.Name(), func(t *testing.T) {
			p := at(t, filepath.Join("env.more", file.Name()))
			p.runs(t, 0, "verify", "iad.ocir.io/idwpqivumvev/scan-test:v1", "--resolve", "--key", p.keyID(t, "image-key"))
		})
	}
	files, err := os.ReadDir(filepath.Join(cloud.Home(), "env.d"))
	if err != nil || len(files) != len(kinds) || slices.ContainsFunc(files, func(f os.DirEntry) bool { return !slices.Contains(kinds, f.Name()) }) {
		t.Errorf("env.d has %v, %v; want %v", files, err, kinds)
	}
}

// keyID returns the OCID of a key by its name in keys list.
func (p place) keyID(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(p.runs(t, 0, "keys", "list", "-o", "wide")) {
		if words := strings.Fields(line); len(words) > 0 && words[0] == name {
			return regexp.MustCompile(`ocid1\.key\.[a-z0-9._-]+`).FindString(line)
		}
	}
	t.Fatalf("keys list has no %s", name)
	return ""
}

// fill writes a file with these values.
func (p place) fill(t *testing.T, text string, values ...any) string {
	t.Helper()
	file, err := os.CreateTemp(p.dir, "*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(file, text, values...); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
