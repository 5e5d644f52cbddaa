package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// The plugin creates, previews, enforces, edits and deletes the image policy. The API
// server adds defaults and checks schemas, and Gatekeeper writes the status of
// constraints all the time.
func TestPolicyCommands(t *testing.T) {
	s := newSpace(t)
	t.Cleanup(func() { okeSign(t, "policy", "delete") }) // fails unless the test failed before
	unsigned, good, other := s.push(t, "unsigned"), s.signed(t, "good", imageKey), s.signed(t, "other", releaseKey)
	s.applyAll(t, workload("Deployment", "runs", unsigned, nil)).succeeds(t)

	okeSign(t, "policy", "set", "--new", "--key", "image-key", "--namespaces", s.name).
		fails(t, "Deployment/runs", "unsigned", "the change would deny 1 workload that runs,")
	okeSign(t, "policy", "set", "--new", "--key", "image-key", "--namespaces", s.name, "--mode", "warn").succeeds(t)
	policy := func() (p struct {
		Policy struct {
			Mode string
			Keys []string
		}
		Problems []string
		Enforced bool
	}) {
		t.Helper()
		r := okeSign(t, "policy", "get", "-o", "json").succeeds(t)
		if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	eventually(t, soon, "Gatekeeper warns", func() error {
		if p := policy(); strings.Join(p.Problems, "; ") != "its mode is warn" {
			return fmt.Errorf("problems %q", p.Problems)
		}
		return nil
	})
	enforced := func() {
		t.Helper()
		eventually(t, soon, "Gatekeeper enforces the policy", func() error {
			if p := policy(); !p.Enforced {
				return fmt.Errorf("problems %q", p.Problems)
			}
			return nil
		})
	}
	s.applyAll(t, workload("Pod", "warned", unsigned, nil)).succeeds(t).says(t, "Warning: ", "unsigned")
	s.kubectl(t, "delete", "pod", "warned-pod").succeeds(t)

	okeSign(t, "policy", "enable", "--preview").fails(t, "Deployment/runs")
	okeSign(t, "policy", "enable", "--yes", "--dry-run=server").succeeds(t)
	okeSign(t, "policy", "enable", "--yes").succeeds(t)
	enforced()
	s.applyAll(t, workload("Pod", "refused", unsigned, nil)).fails(t, "unsigned")
	s.applyAll(t, workload("Pod", "good", good, nil)).succeeds(t)
	s.applyAll(t, workload("Pod", "other", other, nil)).fails(t, "key-not-allowed")

	okeSign(t, "policy", "add-key", "release-key").succeeds(t)
	okeSign(t, "policy", "set", "--break-glass-group", "sre", "--break-glass-max", "8h", "--yes").succeeds(t)
	enforced()
	s.applyAll(t, workload("Pod", "other", other, nil)).succeeds(t)
	if r := okeSign(t, "policy", "set", "--break-glass-group", "sre").succeeds(t); !strings.Contains(r.stderr, "nothing to change") {
		t.Errorf("what is so already was changed: %s", r.stdout)
	}
	okeSign(t, "policy", "set", "--break-glass-max", "24h", "--exempt-image", "docker.io/library/**", "--yes").succeeds(t)
	okeSign(t, "policy", "remove-key", "image-key", "--yes").succeeds(t)
	enforced()
	okeSign(t, "policy", "remove-key", "release-key", "--yes").fails(t, "--allow-any")
	okeSign(t, "policy", "remove-key", "release-key", "--yes", "--allow-any").succeeds(t).says(t, "WARNING")
	okeSign(t, "policy", "disable").succeeds(t)
	okeSign(t, "policy", "delete").succeeds(t)
	okeSign(t, "policy", "get").fails(t, "the cluster has no image policy")
	s.kubectl(t, "get", "okesignedimages", "image-policy").fails(t, "NotFound")
}
