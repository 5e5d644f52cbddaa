package e2e_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The audit lists Pods from before the policy. It drops a Pod once its image is signed
// and three delays have passed: the provider caches its denial for 30 s, Gatekeeper
// caches for 30 s, and the audit runs every 5 s here.
func TestAuditFindsWhatRanBefore(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	images := map[string]string{"good": s.signed(t, "good", imageKey), "late": s.push(t, "late"), "bad": s.push(t, "bad")}
	for name, image := range images {
		s.kubectl(t, "run", name, "--image="+image).succeeds(t)
	}
	s.enforce(t, standard(signedBy("", imageKey))...)
	s.audited(t, "containers/late: unsigned: ", "pod/late")
	s.audited(t, "containers/bad: unsigned: ", "pod/bad")
	if diff := cmp.Diff(map[string]int{"deny": 2, "warn": 0}, s.violations(t)); diff != "" {
		t.Errorf("violations, -want +got:\n%s", diff)
	}

	okeSign(t, "sign", images["late"], "--key", imageKey.ID).succeeds(t)
	signed := time.Now()
	const slack = 40 * time.Second // for a busy machine
	eventually(t, 30*time.Second+30*time.Second+5*time.Second+slack, "the audit lists the Pod that nobody signed, and no other", func() error {
		if diff := cmp.Diff(map[string]int{"deny": 1, "warn": 0}, s.violations(t)); diff != "" {
			return fmt.Errorf("violations, -want +got:\n%s", diff)
		}
		return nil
	})
	t.Logf("cleared after %s", time.Since(signed).Round(time.Second))
	s.audited(t, "containers/bad: unsigned: ", "pod/bad")
}

// violations counts the audit's findings, by the enforcement action of the space's
// constraint.
func (s space) violations(t *testing.T) map[string]int {
	t.Helper()
	var list struct {
		Items []struct {
			Spec   struct{ EnforcementAction string }
			Status struct{ TotalViolations int }
		}
	}
	s.get(t, &list, "constraints", "-l", "e2e="+s.name)
	found := make(map[string]int)
	for _, c := range list.Items {
		found[c.Spec.EnforcementAction] = c.Status.TotalViolations
	}
	return found
}
