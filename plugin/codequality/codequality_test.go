package codequality_test

import (
	"encoding/json"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/codequality"
)

// GitLab compares branches by fingerprint: it stays when lines move, and no two issues of
// a report share one.
func TestFingerprints(t *testing.T) {
	issue := func(check, file string, line int) codequality.Issue {
		return codequality.Issue{Description: "web: no digest", Check: check, Severity: codequality.Blocker, Location: codequality.At(file, line)}
	}
	before := codequality.Report([]codequality.Issue{issue("a", "web.yaml", 8), issue("a", "web.yaml", 16), issue("b", "web.yaml", 8), issue("a", "db.yaml", 8)})
	after := codequality.Report([]codequality.Issue{issue("a", "web.yaml", 9), issue("a", "web.yaml", 17), issue("b", "web.yaml", 9), issue("a", "db.yaml", 9)})
	seen := make(map[string]bool)
	for i := range before {
		print := before[i].Fingerprint
		if !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(print) || seen[print] {
			t.Errorf("issue %d has no fingerprint, or the one of another issue: %q", i, print)
		}
		if seen[print] = true; after[i].Fingerprint != print {
			t.Errorf("issue %d: its fingerprint changes when lines move", i)
		}
	}
}

// A report has every member that GitLab requires, and a path below the repository.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for file, want := range map[string]string{
		"web.yaml": "web.yaml", "./a/../web.yaml": "web.yaml", "-": "stdin",
		filepath.Join(dir, "web.yaml"): "web.yaml", "/elsewhere/web.yaml": "/elsewhere/web.yaml",
	} {
		if got := codequality.At(file, 0); got.Path != want || got.Lines.Begin != 1 {
			t.Errorf("%s: got %+v, want %s:1", file, got, want)
		}
	}
	text, err := json.Marshal(codequality.Report([]codequality.Issue{{Description: "d", Check: "c", Severity: codequality.Info, Location: codequality.At("web.yaml", 3)}}))
	const want = `^\[{"description":"d","check_name":"c","fingerprint":"[0-9a-f]+","severity":"info","location":{"path":"web.yaml","lines":{"begin":3}}}\]$`
	if err != nil || !regexp.MustCompile(want).Match(text) {
		t.Errorf("got %s, %v", text, err)
	}
	if text, _ := json.Marshal(codequality.Report(nil)); string(text) != "[]" {
		t.Errorf("no issue: got %s", text)
	}
}
