package main

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/policies/internal/inline"
	"github.com/oke-sign/oke-sign/test/generated"
)

// TestGeneratedFilesAreMarked finds generated files that reviews would show in full,
// and handwritten files that reviews would fold.
func TestGeneratedFilesAreMarked(t *testing.T) {
	const policies = "../.."
	made, err := inline.Files(os.DirFS(policies))
	if err != nil {
		t.Fatal(err)
	}
	marked, err := generated.Marked(t.Context(), policies)
	if err != nil {
		t.Fatal(err)
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
