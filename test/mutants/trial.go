package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Outcome is the result of the tests of a mutant.
type Outcome int

// Outcomes.
const (
	noticed  Outcome = iota // a test failed
	timedOut                // a test did not end in time, which counts as noticed
	survived                // no test failed
	unmet                   // survived, because no test reaches the change
	unfit                   // the mutant does not compile
)

func (o Outcome) isNoticed() bool { return o == noticed || o == timedOut }

func (o Outcome) isSurvivor() bool { return o == survived || o == unmet }

// remark returns what to print about a mutant with or without an explanation. It is empty
// if the outcome is as expected.
func (o Outcome) remark(explained bool) string {
	switch {
	case o.isNoticed() && explained:
		return "noticed, although explained"
	case o == timedOut:
		return "timed out"
	case o == survived && !explained:
		return "survived"
	case o == unmet && !explained:
		return "survived, no test reaches it"
	}
	return ""
}

// trial runs tests on mutants. After its preparation it is safe for concurrent use.
type trial struct {
	dir  string // scratch
	root string // the module's folder
	// packages are the packages whose tests run on mutants of Go.
	packages []string
	// slack is the time that a test of Go may take beyond ten times its usual time.
	slack time.Duration

	unfit     map[int]bool      // mutants of Go, by number
	reachedBy map[int][]*goTest // the same, the fastest test first

	// programs builds the programs that test Rego, once.
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
	var packages []string
	for _, name := range testedBy {
		packages = append(packages, "./provider/"+name)
	}
	t := &trial{
		dir: dir, root: root, packages: packages,
		slack:     10 * time.Second,
		policies:  filepath.Join(dir, "policies.test"),
		generator: filepath.Join(dir, "generate"),
	}
	t.programs = sync.OnceValue(func() error {
		return errors.Join(
			t.run(ctx, "go", "test", "-c", "-o", t.policies, "./policies"),
			t.run(ctx, "go", "build", "-o", t.generator, "./policies/internal/generate"),
		)
	})
	return t, nil
}

func (t *trial) close() { _ = os.RemoveAll(t.dir) }

// run runs a command in the module's folder.
func (t *trial) run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func (t *trial) try(ctx context.Context, m Mutant) (Outcome, error) {
	if m.isRego() {
		return t.tryRego(ctx, m)
	}
	return t.tryGo(ctx, m)
}

// tryGo runs the tests that reach the mutant.
func (t *trial) tryGo(ctx context.Context, m Mutant) (Outcome, error) {
	switch {
	case t.unfit[m.number]:
		return unfit, nil
	case len(t.reachedBy[m.number]) == 0:
		return unmet, nil
	}
	for _, test := range t.reachedBy[m.number] {
		// The timeout notices a mutant that makes a loop endless.
		cmd := test.command(ctx, t.slack+10*test.took)
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", switchVariable, m.number))
		if result, err := outcome(ctx, cmd); err != nil || result != survived {
			return result, err
		}
	}
	return survived, nil
}

// regoTime bounds the tests of one mutant of Rego.
const regoTime = 3 * time.Minute

// tryRego runs the tests in Rego on a mutated copy of the policies. If they pass, it
// builds the templates from the copy and runs the tests in Go, including the
// specification.
func (t *trial) tryRego(ctx context.Context, m Mutant) (Outcome, error) {
	if err := t.programs(); err != nil {
		return 0, err
	}
	source, err := os.ReadFile(filepath.Join(t.root, m.File))
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp(t.dir, "mutant-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the end of the trial removes the rest
	copied := filepath.Join(dir, "policies")
	if err := os.CopyFS(copied, os.DirFS(filepath.Join(t.root, "policies"))); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, m.File), m.Apply(source), 0o600); err != nil {
		return 0, err
	}
	if result, err := t.regoTests(ctx, copied, "-test.run", "^TestRegoIsStrict$"); err != nil || result.isNoticed() {
		return unfit, err
	}
	if err := t.run(ctx, t.generator, copied); err != nil {
		return 0, err
	}
	result, err := t.regoTests(ctx, copied, "-test.run", "^(TestRego|TestClassesAgree|TestClassesAgreeOnAnything|TestSuites)$")
	if err != nil || result.isNoticed() {
		return result, err
	}
	return t.regoTests(ctx, copied, "-test.skip", "^(TestRego|TestClasses|TestConftest|TestGator|TestGeneratedFiles|TestEmbedded|TestSuites)", "-model.cases", "10000")
}

// regoTests runs tests of package policies on a copy of its folder.
func (t *trial) regoTests(ctx context.Context, folder string, args ...string) (Outcome, error) {
	args = append([]string{"-test.failfast", "-test.timeout", regoTime.String()}, args...)
	cmd := exec.CommandContext(ctx, t.policies, args...)
	cmd.Dir = folder
	return outcome(ctx, cmd)
}

// outcome runs tests. Only an exit code is an outcome; other errors are errors of the run.
func outcome(ctx context.Context, cmd *exec.Cmd) (Outcome, error) {
	said, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case err == nil:
		return survived, nil
	case bytes.Contains(said, []byte("panic: test timed out")):
		return timedOut, nil
	case errors.As(err, &exit):
		return noticed, nil
	}
	return 0, err
}
