package verdict_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/verdict"
)

func TestEveryReasonHasItsMeaning(t *testing.T) {
	seen := make(map[verdict.Reason]bool)
	for _, r := range verdict.Reasons() {
		m := r.Meaning()
		switch {
		case r == "" || seen[r]:
			t.Errorf("reason %q has no code, or occurs twice", m.Reason)
		case m.Sentence == "":
			t.Errorf("reason %s has no sentence", m.Reason)
		case (m.Remedy == "") != (m.Reason == verdict.Signed):
			t.Errorf("reason %s has the remedy %q; all have one but signed", m.Reason, m.Remedy)
		case m.Reason != r:
			t.Errorf("reason %s means %+v", r, m)
		}
		seen[m.Reason] = true
	}
	if got := verdict.Reason("because").Meaning(); got != (verdict.Meaning{}) {
		t.Errorf("the meaning of an unknown reason is %+v", got)
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
		want = append(want, "| `"+string(r)+"` | "+r.Meaning().Sentence+" |")
	}
	if diff := cmp.Diff(want, strings.Split(got, "\n")); diff != "" {
		t.Errorf("the table of reasons and README.md:\n%s", diff)
	}
}
