package main

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/test/generated"
)

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	const charts = "../.."
	made, err := files(os.DirFS(charts))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range made {
		got, err := os.ReadFile(filepath.Join(charts, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is not as make generate writes it:\n%s", name, diff)
		}
	}
	copied, err := filepath.Glob(charts + "/oke-sign/policies/*")
	if err != nil || len(copied) != 4 {
		t.Errorf("copies of policies: %q, want 4: %v", copied, err)
	}
}

// TestGeneratedFilesAreMarked finds generated files that reviews would show in full,
// and handwritten files that reviews would fold.
func TestGeneratedFilesAreMarked(t *testing.T) {
	const charts = "../.."
	made, err := files(os.DirFS(charts))
	if err != nil {
		t.Fatal(err)
	}
	marked, err := generated.Marked(t.Context(), charts)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for name := range made {
		if path.Base(name) == "README.md" {
			continue // handwritten, except its tables
		}
		want = append(want, name)
	}
	slices.Sort(want)
	marked = slices.DeleteFunc(marked, func(name string) bool { return strings.HasPrefix(name, "testdata/") }) // golden files
	if diff := cmp.Diff(want, marked); diff != "" {
		t.Errorf("files that .gitattributes marks as generated (-generated +marked):\n%s", diff)
	}
}

func TestValuesNeedComments(t *testing.T) {
	for name, tc := range map[string]struct{ text, want, err string }{
		"a value, a group, and a map as a value": {
			"# About the file.\n\n# What it is:\n# a | b.\na: \"\"\ngroup:\n  # Within.\n  b: [1, \"x\"]\n# All of it.\nwhole: {c: d}\n",
			"| value | default | meaning |\n|---|---|---|\n| `a` | `\"\"` | What it is: a \\| b. |\n| `group.b` | `[1, \"x\"]` | Within. |\n| `whole` | `{c: d}` | All of it. |\n", "",
		},
		"a value without a comment": {"# All.\na: 1\ngroup:\n  b: 2\n", "", "line 4: group.b has no comment"},
		"an empty group":            {"# All.\na: 1\nb: {}\n", "", "line 3: b has no comment"},
	} {
		got, err := values([]byte(tc.text))
		switch {
		case tc.err != "" && (err == nil || err.Error() != tc.err):
			t.Errorf("%s: got error %v, want %s", name, err, tc.err)
		case tc.err == "" && (err != nil || got != tc.want):
			t.Errorf("%s: %v\n%s", name, err, cmp.Diff(tc.want, got))
		}
	}
}
