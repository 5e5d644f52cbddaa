package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/policies/internal/inline"
)

// TestGeneratedFilesAreMarked finds generated files that reviews would show in full,
// and files by hand that reviews would fold.
func TestGeneratedFilesAreMarked(t *testing.T) {
	const policies = "../.."
	made, err := inline.Files(os.DirFS(policies))
	if err != nil {
		t.Fatal(err)
	}
	tracked, err := exec.Command("git", "-C", policies, "ls-files").Output()
	if err != nil {
		t.Fatal(err)
	}
	attributes := exec.Command("git", "-C", policies, "check-attr", "--stdin", "linguist-generated")
	attributes.Stdin = bytes.NewReader(tracked)
	shown, err := attributes.Output()
	if err != nil {
		t.Fatal(err)
	}
	var marked []string
	for line := range strings.Lines(string(shown)) {
		if name, isMarked := strings.CutSuffix(line, ": linguist-generated: set\n"); isMarked {
			marked = append(marked, name)
		}
	}
	var want []string
	for name := range made {
		want = append(want, name)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, marked); diff != "" {
		t.Errorf("files that .gitattributes marks as generated (-generated +marked):\n%s", diff)
	}
}
