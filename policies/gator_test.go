package policies_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestGator runs the program that users have over the suites, and over manifests
// with a record of verdicts.
func TestGator(t *testing.T) {
	gator := tool(t, "gator")
	if out, exit := run(t, ".", gator, "verify", "./..."); exit != 0 || strings.Count(out, "\nok\t")+strings.Count(out, "PASS") < len(kinds) {
		t.Errorf("gator verify: exit code %d\n%s", exit, out)
	}
	dir := t.TempDir()
	record := func(verdict string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: oke-sign-verdicts, namespace: oke-sign}\ndata:\n  verdicts.json: |\n    [{\"question\": {\"image\": %q, \"keys\": [%q]}, \"verdict\": %s}]\n", goodImage, keyA, verdict)
	}
	matching := strings.Replace(signedBy(keyA), `"spec": {`, `"spec": {"match": {"kinds": [{"apiGroups": [""], "kinds": ["Pod"]}]}, `, 1)
	constraint := write(t, dir, "constraint.json", matching)
	manifest := write(t, dir, "pod.yaml", podOf(goodImage))
	for name, tc := range map[string]struct {
		record string
		want   string
		exit   int
	}{
		"signed":         {record(`{"signed": true}`), "", 0},
		"unsigned":       {record(`{"signed": false, "reason": "unsigned"}`), "containers/c0: unsigned: ", 1},
		"nothing at all": {"", "containers/c0: no-answer: ", 1},
	} {
		args := []string{"test", "-f", "okesignedimages/recorded/template.yaml", "-f", constraint, "-f", manifest}
		if tc.record != "" {
			args = append(args, "-f", write(t, dir, "verdicts.yaml", tc.record))
		}
		out, exit := run(t, ".", gator, args...)
		if exit != tc.exit || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q in\n%s", name, exit, tc.exit, tc.want, out)
		}
	}
}
