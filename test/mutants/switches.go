package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// The switches are compiled into the tests and read these variables.
const (
	switchVariable  = "OKE_SIGN_MUTANT"          // the number of the mutant that is on
	reachedVariable = "OKE_SIGN_MUTANTS_REACHED" // the file that gets the numbers of mutants that run
)

// switches is the Go file that every package with mutants gets.
const switches = `package %s

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
)

var (
	mutantNumber, _ = strconv.Atoi(os.Getenv("` + switchVariable + `"))
	mutantReached   = os.Getenv("` + reachedVariable + `")
	mutantsReached  [1 << 16]atomic.Bool // by number; it allocates nothing, which some tests measure
)

func mutant(number int) bool {
	if mutantReached != "" && !mutantsReached[number].Swap(true) {
		file, err := os.OpenFile(mutantReached, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			panic(err)
		}
		fmt.Fprintln(file, number)
		file.Close()
	}
	return number == mutantNumber
}

func mutantLess[T cmp.Ordered](a, b T, number int) bool {
	return a < b || a == b && mutant(number)
}

func mutantLessOrEqual[T cmp.Ordered](a, b T, number int) bool {
	return a < b || a == b && !mutant(number)
}

func mutantGreater[T cmp.Ordered](a, b T, number int) bool {
	return a > b || a == b && mutant(number)
}

func mutantGreaterOrEqual[T cmp.Ordered](a, b T, number int) bool {
	return a > b || a == b && !mutant(number)
}
`

// wrap is the text before and after a piece of Go that asks a switch. It has no new
// lines. One of the texts has a verb for the mutant's number.
type wrap struct{ before, after string }

// withSwitches returns a file's text with its mutants, which are all off at the
// start. Outer mutants come before inner ones.
func withSwitches(source []byte, mutants []Mutant) []byte {
	type edit struct {
		start, end int
		text       string
	}
	var before, after []edit
	for _, m := range mutants {
		number := strconv.Itoa(m.number)
		before = append(before, edit{m.start, m.start, strings.ReplaceAll(m.switched.before, "%d", number)})
		after = append(after, edit{m.end, m.end, strings.ReplaceAll(m.switched.after, "%d", number)})
		if m.operator > 0 {
			before = append(before, edit{m.operator, m.operatorEnd, ","})
		}
	}
	// At one place, inner edits end first and outer edits start first.
	slices.Reverse(after)
	edits := slices.Concat(after, before)
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(a.start, b.start) })
	var b bytes.Buffer
	at := 0
	for _, e := range edits {
		b.Write(source[at:e.start])
		b.WriteString(e.text)
		at = e.end
	}
	b.Write(source[at:])
	return b.Bytes()
}

// compileSwitched compiles the tests of packages with all mutants of Go. It returns
// the numbers of the mutants that do not compile, such as changes in a constant,
// which cannot ask a switch.
func (t *trial) compileSwitched(ctx context.Context, mutants []Mutant) (unfit map[int]bool, err error) {
	unfit = map[int]bool{}
	for {
		fit := slices.DeleteFunc(slices.Clone(mutants), func(m Mutant) bool { return unfit[m.number] })
		overlay, err := t.overlay(fit)
		if err != nil {
			return nil, err
		}
		// -e reports all errors, not ten.
		args := append([]string{"test", "-c", "-gcflags=-e", "-overlay", overlay, "-o", t.dir + "/"}, t.packages...)
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = t.root
		out, err := cmd.CombinedOutput()
		if err == nil {
			return unfit, nil
		}
		errors, known := errorLines(out), len(unfit)
		for _, m := range fit {
			if slices.Contains(errors[t.written(m.File)], m.Line) {
				unfit[m.number] = true
			}
		}
		if len(unfit) == known {
			return nil, fmt.Errorf("compiling mutants: %w\n%s", err, out)
		}
	}
}

// errorLines returns the lines that a compiler's errors name, by file.
func errorLines(out []byte) map[string][]int {
	lines := map[string][]int{}
	for _, found := range regexp.MustCompile(`(?m)^(\S+\.go):(\d+):\d+: `).FindAllSubmatch(out, -1) {
		if line, err := strconv.Atoi(string(found[2])); err == nil {
			lines[string(found[1])] = append(lines[string(found[1])], line)
		}
	}
	return lines
}

// written returns the path of a file's copy in the overlay.
func (t *trial) written(file string) string {
	return filepath.Join(t.dir, strings.ReplaceAll(file, "/", "-"))
}

// overlay writes the changed files with switches. It also writes the list by which
// the go command reads them instead of the files in the tree.
func (t *trial) overlay(mutants []Mutant) (string, error) {
	byFile := map[string][]Mutant{}
	for _, m := range mutants {
		byFile[m.File] = append(byFile[m.File], m)
	}
	texts := map[string]string{}
	for file, mutants := range byFile {
		source, err := os.ReadFile(filepath.Join(t.root, file))
		if err != nil {
			return "", err
		}
		texts[file] = string(withSwitches(source, mutants))
		folder := path.Dir(file)
		texts[folder+"/mutant_switches.go"] = fmt.Sprintf(switches, path.Base(folder))
	}
	replace := map[string]string{}
	for file, text := range texts {
		written := t.written(file)
		if err := os.WriteFile(written, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(t.root, filepath.FromSlash(file))] = written
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(t.dir, "overlay.json")
	return overlay, os.WriteFile(overlay, list, 0o600)
}
