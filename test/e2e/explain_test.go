package e2e_test

import (
	"context"
	"strings"
	"testing"
)

// explain prints the state of a failed test's namespace, and the last log lines of
// Gatekeeper and the provider.
func (s space) explain(t *testing.T) {
	t.Helper()
	var text strings.Builder
	show := func(r result) {
		text.WriteString("\n$ " + r.command + "\n" + r.stdout + r.stderr)
	}
	show(s.kubectl(t, "get", "deployments,replicasets,statefulsets,daemonsets,jobs,cronjobs,replicationcontrollers,pods", "-o", "wide"))
	show(s.kubectl(t, "get", "events", "--sort-by=.lastTimestamp"))
	show(s.kubectl(t, "get", "constraints", "-l", "e2e="+s.name, "-o", "custom-columns="+
		"KIND:.kind,NAME:.metadata.name,ENFORCED:.status.byPod[*].enforced,PARAMETERS:.spec.parameters,AUDIT:.status.violations[*].message"))
	for _, name := range processes(t) {
		if strings.HasPrefix(name, "gatekeeper-system/gatekeeper-controller-manager") || strings.HasPrefix(name, "oke-sign/") {
			r := cluster("logs", name)
			r.stdout = about(s.name, r.stdout)
			show(r)
		}
	}
	t.Logf("what happened in namespace %s:\n%s", s.name, text.String())
}

// about returns the last lines of a log that name a namespace or report an error.
func about(namespace, log string) string {
	var lines []string
	for line := range strings.Lines(log) {
		if strings.Contains(line, namespace) || strings.Contains(line, `"level":"error"`) {
			lines = append(lines, line[:min(len(line), 400)])
		}
	}
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// cluster runs the command that controls the processes of the cluster.
func cluster(args ...string) result {
	return run(context.Background(), "", "cluster", args...)
}

// processes returns the names of the cluster's processes. A container's name is
// namespace/pod/container.
func processes(t *testing.T) []string {
	t.Helper()
	var names []string
	for i, line := range strings.Split(strings.TrimSpace(cluster("ps").succeeds(t).stdout), "\n") {
		if i > 0 {
			names = append(names, strings.Fields(line)[0])
		}
	}
	return names
}
