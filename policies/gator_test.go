package policies_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestGator runs the gator program on the suites, and on manifests with recorded verdicts.
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
		"signed":    {record(`{"signed": true}`), "", 0},
		"unsigned":  {record(`{"signed": false, "reason": "unsigned"}`), "containers/c0: unsigned: ", 1},
		"no record": {"", "containers/c0: no-answer: ", 1},
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

// TestGatorOverWorkloads runs the command of README.md. Constraints match Pods, so gator checks
// workloads only with the expansion.
func TestGatorOverWorkloads(t *testing.T) {
	gator := tool(t, "gator")
	dir := t.TempDir()
	matching := strings.Replace(signedBy(keyA), `"spec": {`, `"spec": {"match": {"kinds": [{"apiGroups": [""], "kinds": ["Pod"]}]}, `, 1)
	constraint := write(t, dir, "constraint.json", matching)
	record := func(name, namespace, image string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\ndata:\n  verdicts.json: |\n    [{\"question\": {\"image\": %q, \"keys\": [%q]}, \"verdict\": {\"signed\": true}}]\n", name, namespace, image, keyA)
	}
	verdicts := write(t, dir, "verdicts.yaml", record("oke-sign-verdicts", "oke-sign", goodImage))
	workload := func(version, kind, image string) string {
		return fmt.Sprintf("{apiVersion: %s, kind: %s, metadata: {name: web}, spec: {template: {spec: {containers: [{name: c0, image: '%s'}]}}}}\n", version, kind, image)
	}
	for name, tc := range map[string]struct {
		manifests string
		want      string
		exit      int
	}{
		"a signed Deployment":             {deploymentOf(goodImage), "", 0},
		"a Deployment":                    {deploymentOf(badImage), "containers/c0: no-answer: ", 1},
		"a ReplicaSet":                    {workload("apps/v1", "ReplicaSet", badImage), "containers/c0: no-answer: ", 1},
		"a StatefulSet":                   {workload("apps/v1", "StatefulSet", badImage), "containers/c0: no-answer: ", 1},
		"a DaemonSet":                     {workload("apps/v1", "DaemonSet", badImage), "containers/c0: no-answer: ", 1},
		"a ReplicationController":         {workload("v1", "ReplicationController", badImage), "containers/c0: no-answer: ", 1},
		"a Job":                           {workload("batch/v1", "Job", badImage), "containers/c0: no-answer: ", 1},
		"a CronJob":                       {"{apiVersion: batch/v1, kind: CronJob, metadata: {name: web}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c0, image: '" + badImage + "'}]}}}}}}\n", "containers/c0: no-answer: ", 1},
		"a record with another namespace": {podOf(badImage) + "---\n" + record("oke-sign-verdicts", "shop", badImage), "containers/c0: no-answer: ", 1},
		"a record with the same name":     {podOf(badImage) + "---\n" + record("oke-sign-verdicts", "oke-sign", badImage), "containers/c0: no-answer: ", 1},
		"a ConfigMap without a record":    {podOf(goodImage) + "---\n" + record("other", "oke-sign", badImage), "", 0},
	} {
		manifests := write(t, dir, "manifests.yaml", tc.manifests)
		out, exit := run(t, ".", gator, "test", "-f", "expansion.yaml", "-f", "okesignedimages/recorded/template.yaml",
			"-f", constraint, "-f", manifests, "-f", verdicts)
		if exit != tc.exit || !strings.Contains(out, tc.want) {
			t.Errorf("%s: exit code %d, want %d and %q in\n%s", name, exit, tc.exit, tc.want, out)
		}
	}
}
