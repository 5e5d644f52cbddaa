package charts_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/meaning"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// An alert on reasons names the reasons that the table of reasons assigns to it.
func TestAlertsNameTheirReasons(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	read(t, "oke-sign/alerts.yaml", &file)
	matchers := map[string]struct {
		operator string
		alarm    meaning.Alarm
	}{
		"OkeSignNoImageFound":    {"!~", meaning.Unread}, // all other reasons prove that the provider may read
		"OkeSignSignatureForged": {"=~", meaning.Forged},
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			want, ours := matchers[rule.Alert]
			if !ours {
				continue
			}
			delete(matchers, rule.Alert)
			_, rest, _ := strings.Cut(rule.Expr, "reason"+want.operator+`"`)
			got, _, _ := strings.Cut(rest, `"`)
			var reasons []string
			for _, r := range verdict.Reasons() {
				if meaning.Of(r).Alarm == want.alarm {
					reasons = append(reasons, string(r))
				}
			}
			named := strings.Split(got, "|")
			slices.Sort(reasons)
			slices.Sort(named)
			if !slices.Equal(named, reasons) {
				t.Errorf("%s: reason%s of %q, want %q", rule.Alert, want.operator, named, reasons)
			}
		}
	}
	for name := range matchers {
		t.Errorf("no alert %s", name)
	}
}
