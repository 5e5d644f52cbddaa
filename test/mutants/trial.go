package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Outcome is what the tests said of a mutant.
type Outcome int

// Outcomes.
const (
	noticed  Outcome = iota // a test failed
	survived                // no test failed
	unfit                   // the mutant does not compile
)

// testTime is how long the tests of one mutant may take. A mutant that makes a loop
// endless is noticed by it.
const testTime = 3 * time.Minute

// trial runs tests on mutants. It is safe for concurrent use.
type trial struct {
	dir  string // scratch
	root string // the module's folder
	// users are the packages that use those that are mutated.
	users []string
	// programs returns an error if the programs that judge Rego could not be built.
	programs  func() error
	policies  string // test binary of package policies
	generator string // writes what is generated from the Rego
}

func newTrial(ctx context.Context, root string) (*trial, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "oke-sign-mutants-")
	if err != nil {
		return nil, err
	}
	t := &trial{
		dir: dir, root: root,
		users:     []string{"./provider/verdict", "./provider/server", "./provider/oke-sign-provider"},
		policies:  filepath.Join(dir, "policies.test"),
		generator: filepath.Join(dir, "generate"),
	}
	t.programs = sync.OnceValue(func() error { return t.build(ctx) })
	return t, nil
}

func (t *trial) build(ctx context.Context) error {
	for _, args := range [][]string{
		{"test", "-c", "-o", t.policies, "./policies"},
		{"build", "-o", t.generator, "./policies/internal/generate"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = t.root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

func (t *trial) close() { _ = os.RemoveAll(t.dir) }

func (t *trial) try(ctx context.Context, m Mutant) (Outcome, error) {
	source, err := os.ReadFile(filepath.Join(t.root, m.File))
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(t.dir, "mutant-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // what is left goes with the trial
	if strings.HasSuffix(m.File, ".rego") {
		return t.tryRego(ctx, m, m.Apply(source), dir)
	}
	return t.tryGo(ctx, m, m.Apply(source), dir)
}

// tryGo runs the tests of the mutant's package, then those of the packages that use
// it.
func (t *trial) tryGo(ctx context.Context, m Mutant, text []byte, dir string) (Outcome, error) {
	overlay, err := writeOverlay(dir, map[string][]byte{filepath.Join(t.root, m.File): text})
	if err != nil {
		return 0, err
	}
	own := "./" + filepath.ToSlash(filepath.Dir(m.File))
	outcome, err := t.goTest(ctx, overlay, own)
	if err != nil || outcome != survived {
		return outcome, err
	}
	if own == "./provider/image" {
		// The table that Go and Rego share is tested there.
		outcome, err = t.goTest(ctx, overlay, "./policies", "-run", "^TestClasses|^TestGeneratedFiles")
		if err != nil || outcome != survived {
			return outcome, err
		}
	}
	return t.goTest(ctx, overlay, t.users...)
}

// tryRego runs the tests that are written in Rego on a mutated copy of the policies.
// If they notice nothing, it builds the templates from the copy and runs the tests
// that are written in Go, the specification among them.
func (t *trial) tryRego(ctx context.Context, m Mutant, text []byte, dir string) (Outcome, error) {
	copied := filepath.Join(dir, "policies")
	if err := t.programs(); err != nil {
		return 0, err
	}
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(t.root, "policies"))); err != nil {
		return 0, err
	}
	mutated := filepath.Join(dir, m.File)
	if err := os.WriteFile(mutated, text, 0o600); err != nil {
		return 0, err
	}
	outcome, err := t.regoTests(ctx, copied, "^TestRegoIsStrict$")
	if err != nil {
		return 0, err
	}
	if outcome == noticed {
		return unfit, nil
	}
	outcome, err = t.regoTests(ctx, copied, "^(TestRego|TestClassesAgree|TestClassesAgreeOnAnything|TestSuites)$")
	if err != nil || outcome == noticed {
		return outcome, err
	}
	if out, err := exec.CommandContext(ctx, t.generator, copied).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("generating from a mutant: %w\n%s", err, out)
	}
	changed, err := t.changed(copied)
	if err != nil {
		return 0, err
	}
	overlay, err := writeOverlay(dir, changed)
	if err != nil {
		return 0, err
	}
	return t.goTest(ctx, overlay, "./policies", "-skip", "^(TestRego|TestClasses|TestConftest|TestGator|TestGeneratedFiles|TestSuites)", "-model.cases", "10000")
}

// regoTests runs tests of package policies on a copy of its folder.
func (t *trial) regoTests(ctx context.Context, folder, tests string) (Outcome, error) {
	cmd := exec.CommandContext(ctx, t.policies, "-test.run", tests, "-test.failfast", "-test.timeout", testTime.String())
	cmd.Dir = folder
	return outcome(ctx, cmd)
}

// changed returns the files of a copy of the policies that differ from the tree's, by
// the tree's absolute paths.
func (t *trial) changed(copied string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(copied, func(file string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(copied, file)
		if err != nil {
			return err
		}
		here := filepath.Join(t.root, "policies", name)
		old, err := os.ReadFile(here)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(file)
		if err == nil && !bytes.Equal(old, text) {
			files[here] = text
		}
		return err
	})
	return files, err
}

// writeOverlay writes files and the list that has the go command read them in place of
// the tree's.
func writeOverlay(dir string, files map[string][]byte) (string, error) {
	replace := map[string]string{}
	for name, text := range files {
		file := filepath.Join(dir, fmt.Sprintf("overlay-%d-%s", len(replace), filepath.Base(name)))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
		replace[name] = file
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}

func (t *trial) goTest(ctx context.Context, overlay string, args ...string) (Outcome, error) {
	args = append([]string{"test", "-overlay", overlay, "-vet=off", "-count=1", "-failfast", "-timeout", testTime.String()}, args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = t.root
	return outcome(ctx, cmd)
}

// outcome runs tests. Only an end with an exit code says something about a mutant.
func outcome(ctx context.Context, cmd *exec.Cmd) (Outcome, error) {
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err == nil:
		return survived, nil
	case !errors.As(err, &exit):
		return 0, err
	case bytes.Contains(out, []byte("[build failed]")), bytes.Contains(out, []byte("[setup failed]")):
		return unfit, nil
	}
	return noticed, nil
}
