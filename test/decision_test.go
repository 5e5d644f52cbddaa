package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDecisionNamesItsTests checks that each invariant of docs/decision.md names a
// test, and that these tests exist.
func TestDecisionNamesItsTests(t *testing.T) {
	exists := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, root := range []string{"../provider", "../policies"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, found := range declared.FindAllStringSubmatch(string(text), -1) {
				exists[found[1]] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("../docs/decision.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	invariants := 0
	for line := range strings.Lines(string(text)) {
		if !regexp.MustCompile(`^\| \d+ \|`).MatchString(line) {
			continue
		}
		invariants++
		tests := named.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("this invariant names no test: %s", line)
		}
		for _, name := range tests {
			if !exists[name[1]] {
				t.Errorf("no test is named %s, in: %s", name[1], line)
			}
		}
	}
	if invariants < 9 {
		t.Errorf("read %d invariants, want at least 9", invariants)
	}
}

// TestTheDecisionIsShort keeps the deciding code readable in ten minutes.
func TestTheDecisionIsShort(t *testing.T) {
	const most = 275
	files, err := filepath.Glob("../provider/verdict/*.go")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.TrimSpace(line) != "" {
				lines++
			}
		}
	}
	if lines == 0 || lines > most {
		t.Errorf("provider/verdict has %d lines that are not blank, want at most %d", lines, most)
	}
}

// TestArchitectureNamesWhatExists checks that docs/architecture.md names existing files
// and folders, and that each function it names after a Go file is in that file.
func TestArchitectureNamesWhatExists(t *testing.T) {
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile("`((?:provider|plugin|policies|charts|test)/[\\w./-]+)`").FindAllStringSubmatch(string(text), -1)
	if len(paths) < 30 {
		t.Errorf("read %d paths, want at least 30", len(paths))
	}
	for _, path := range paths {
		if _, err := os.Stat(filepath.Join("..", path[1])); err != nil {
			t.Errorf("docs/architecture.md: %v", err)
		}
	}
	functions := regexp.MustCompile("`([\\w/-]+\\.go)`:\\s+`(\\w+)`").FindAllStringSubmatch(string(text), -1)
	if len(functions) < 8 {
		t.Errorf("read %d functions, want at least 8", len(functions))
	}
	for _, f := range functions {
		source, err := os.ReadFile(filepath.Join("..", f[1]))
		if err != nil || !regexp.MustCompile(`(?m)^func (\([^)]*\) )?`+f[2]+`\(`).Match(source) {
			t.Errorf("docs/architecture.md names %s in %s, which does not define it: %v", f[2], f[1], err)
		}
	}
}
