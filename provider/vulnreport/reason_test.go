package vulnreport_test

import (
	"os"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

func TestEveryReasonHasItsMeaning(t *testing.T) {
	readme, err := os.ReadFile("../../policies/okescannedimages/README.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[vulnreport.Reason]bool)
	for _, m := range vulnreport.Meanings() {
		switch {
		case m.Reason == "" || seen[m.Reason]:
			t.Errorf("reason %q has no code, or occurs twice", m.Reason)
		case m.Sentence == "" || m.Remedy == "":
			t.Errorf("reason %s has no sentence or no remedy", m.Reason)
		case m.Reason.Meaning() != m:
			t.Errorf("reason %s means %+v", m.Reason, m.Reason.Meaning())
		case !strings.Contains(string(readme), "`"+string(m.Reason)+"`"):
			t.Errorf("the policy's README.md lacks the reason %s", m.Reason)
		}
		seen[m.Reason] = true
	}
	if got := vulnreport.Reason("because").Meaning(); got != (vulnreport.Meaning{}) {
		t.Errorf("the meaning of an unknown reason is %+v", got)
	}
}
