package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// goTest is one test function, compiled with switches for the mutants.
type goTest struct {
	binary string
	folder string // of its package
	name   string
	took   time.Duration // without a mutant
}

// command runs the test alone, for at most the timeout.
func (g *goTest) command(ctx context.Context, timeout time.Duration) *exec.Cmd {
	cmd := exec.CommandContext(ctx, g.binary, "-test.run", "^"+g.name+"$", "-test.failfast", "-test.timeout", timeout.String())
	cmd.Dir = g.folder
	return cmd
}

// prepareGo compiles the tests with all mutants of Go switched off, and finds the
// tests that reach each mutant.
func (t *trial) prepareGo(ctx context.Context, mutants []Mutant) (err error) {
	mutants = slices.DeleteFunc(slices.Clone(mutants), Mutant.isRego)
	if len(mutants) == 0 {
		return nil
	}
	slices.SortFunc(mutants, func(a, b Mutant) int { return cmp.Compare(a.number, b.number) })
	if t.unfit, err = t.compileSwitched(ctx, mutants); err != nil {
		return err
	}
	tests, err := t.goTests(ctx)
	if err != nil {
		return err
	}
	t.reachedBy = map[int][]*goTest{}
	for _, test := range tests {
		reached, err := t.reached(ctx, test)
		if err != nil {
			return err
		}
		for _, number := range reached {
			t.reachedBy[number] = append(t.reachedBy[number], test)
		}
	}
	for _, tests := range t.reachedBy {
		slices.SortFunc(tests, func(a, b *goTest) int { return cmp.Compare(a.took, b.took) })
	}
	return nil
}

// goTests lists the tests of all packages. Examples and the seeds of fuzz tests are
// tests too.
func (t *trial) goTests(ctx context.Context) ([]*goTest, error) {
	list := exec.CommandContext(ctx, "go", append([]string{"list", "-f", "{{.Dir}}"}, t.packages...)...)
	list.Dir = t.root
	folders, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("listing packages: %w", err)
	}
	var tests []*goTest
	for folder := range strings.Lines(string(folders)) {
		folder = strings.TrimSpace(folder)
		name := filepath.Base(folder)
		binary := filepath.Join(t.dir, name+".test")
		if _, err := os.Stat(binary); os.IsNotExist(err) {
			continue // a package without tests
		}
		cmd := exec.CommandContext(ctx, binary, "-test.list", "^(Test|Fuzz|Example)")
		cmd.Dir = folder
		names, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("listing the tests of %s: %w", folder, err)
		}
		for name := range strings.Lines(string(names)) {
			tests = append(tests, &goTest{binary: binary, folder: folder, name: strings.TrimSpace(name)})
		}
	}
	return tests, nil
}

// reached runs a test without a mutant. It returns the numbers of the mutants that
// the test reaches, which are those that would decide differently. A busy machine
// may fail a test, so it gets three attempts.
func (t *trial) reached(ctx context.Context, test *goTest) ([]int, error) {
	file := filepath.Join(t.dir, "reached")
	for attempt := 1; ; attempt++ {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			return nil, err
		}
		cmd := test.command(ctx, 10*time.Minute)
		cmd.Env = append(os.Environ(), reachedVariable+"="+file)
		began := time.Now()
		out, err := cmd.CombinedOutput()
		test.took = time.Since(began)
		if err == nil {
			break
		}
		if attempt == 3 || ctx.Err() != nil {
			return nil, fmt.Errorf("%s fails without a mutant: %w\n%s", test.name, err, out)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, line := range bytes.Fields(text) {
		number, err := strconv.Atoi(string(line))
		if err != nil {
			return nil, fmt.Errorf("reading what %s reached: %w", test.name, err)
		}
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}
