package policy_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cmd/policy"
)

// Gatekeeper's Pods report in the status of each constraint whether it is enforced. The
// report of the audit alone does not count.
func TestTakenUp(t *testing.T) {
	pod := func(id string, generation int64, enforced bool, operations ...any) any {
		return map[string]any{"id": id, "observedGeneration": generation, "enforced": enforced, "operations": operations}
	}
	audit := pod("audit", 2, true, "audit", "generate", "status")
	for name, tc := range map[string]struct {
		pods  []any
		asked string
		want  string
	}{
		"nobody has":                         {nil, "", "Gatekeeper"},
		"the audit has":                      {[]any{audit}, "", "Gatekeeper's webhook"},
		"all have":                           {[]any{audit, pod("a", 2, true, "webhook", "mutation-webhook"), pod("b", 2, true, "webhook")}, "", ""},
		"all have, one as it was":            {[]any{audit, pod("a", 2, true, "webhook"), pod("b", 1, true, "webhook")}, "", "b"},
		"all have, one with an error":        {[]any{audit, pod("a", 2, false, "webhook")}, "", "a"},
		"all have, the audit as it was":      {[]any{pod("audit", 1, true, "audit"), pod("a", 2, true, "webhook")}, "", "audit"},
		"all that are asked have":            {[]any{audit, pod("a", 2, true, "webhook"), pod("b", 2, true, "webhook")}, "a b", ""},
		"one that is asked has said nothing": {[]any{audit, pod("a", 2, true, "webhook")}, "a b", "b"},
		"what only mutates denies nothing":   {[]any{audit, pod("m", 2, true, "mutation-webhook")}, "", "Gatekeeper's webhook"},
	} {
		o := &unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{"generation": int64(2)}, "status": map[string]any{"byPod": tc.pods},
		}}
		if got := policy.Lagging(o, strings.Fields(tc.asked)); got != tc.want {
			t.Errorf("%s: not loaded by %q, want %q", name, got, tc.want)
		}
	}
}
