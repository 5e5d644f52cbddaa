package meaning_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/meaning"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

func TestEveryReasonHasItsMeaning(t *testing.T) {
	for _, r := range verdict.Reasons() {
		m := meaning.Of(r)
		if m.Sentence == "" || (m.Remedy == "") != (r == verdict.Signed) {
			t.Errorf("reason %s means %+v; all have a sentence, and a remedy but signed", r, m)
		}
	}
	if got := meaning.Of("because"); got != (meaning.Meaning{}) {
		t.Errorf("a text that is no reason means %+v", got)
	}
}

// README.md explains the reasons in the order of precedence.
func TestREADMEHasTheTableOfReasons(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "| reason | the image |\n|---|---|\n")
	got, _, _ := strings.Cut(rest, "\n\n")
	var want []string
	for _, r := range verdict.Reasons() {
		want = append(want, "| `"+string(r)+"` | "+meaning.Of(r).Sentence+" |")
	}
	if diff := cmp.Diff(want, strings.Split(got, "\n")); diff != "" {
		t.Errorf("the table of reasons and README.md:\n%s", diff)
	}
}
