package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testsOfTheTree returns the files of each test of the project, by the name of the Go
// function or of the Rego rule.
func testsOfTheTree(t *testing.T) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	test := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(|^(test_\w+)`)
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && entry.Name() != ".." || entry.Name() == "bin" || entry.Name() == "dist"):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go") && !strings.HasSuffix(path, "_test.rego"):
			return nil
		}
		text, err := os.ReadFile(path)
		for _, match := range test.FindAllStringSubmatch(string(text), -1) {
			name := match[1] + match[2]
			found[name] = append(found[name], path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestAdvisoriesHaveTests reads the table of SECURITY.md. Each row names a test that
// exists, or says why the advisory cannot apply here.
func TestAdvisoriesHaveTests(t *testing.T) {
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Advisories of similar programs\n")
	_, table, found := strings.Cut(section, "\n|---|---|---|\n")
	if !found {
		t.Fatal("SECURITY.md has no table of advisories")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	tests := testsOfTheTree(t)
	name := regexp.MustCompile("`((?:Test|Fuzz|test_)\\w+)`")
	rows, ids := 0, make(map[string]bool)
	for row := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(row, "| \n"), " | ")
		if len(cells) != 3 || cells[0] == "" || cells[1] == "" {
			t.Errorf("this row lacks an advisory, a sentence or a test: %s", row)
			continue
		}
		rows++
		if ids[cells[0]] {
			t.Errorf("the table has %s twice", cells[0])
		}
		ids[cells[0]] = true
		named := name.FindAllStringSubmatch(cells[2], -1)
		reason, cannot := strings.CutPrefix(cells[2], "cannot apply: ")
		documented, told := strings.CutPrefix(cells[2], "documented: ")
		if len(named) == 0 && (!cannot || len(reason) < 20) && (!told || len(documented) < 20) {
			t.Errorf("%s has neither a test nor a reason why it cannot apply", cells[0])
		}
		for _, n := range named {
			if tests[n[1]] == nil {
				t.Errorf("%s: no test is named %s", cells[0], n[1])
			}
		}
	}
	if rows < 30 {
		t.Errorf("found %d rows, want at least 30: the table ends too early", rows)
	}
}
