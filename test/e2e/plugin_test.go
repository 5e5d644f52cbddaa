package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/policies"
)

// The plugin helps through an emergency. It explains a denial, admits the workload
// under break-glass with a reason and an end, lists this use, and ends it.
func TestBreakGlassByThePlugin(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.enforce(t, append(standard(signedBy("", imageKey)),
		constraint{kind: policies.BreakGlass, on: pods + ", " + workloads, parameters: "{requireReason: true, maxDuration: 1h}"})...)
	unsigned := s.push(t, "unsigned")
	s.applyAll(t, workload("Deployment", "web", unsigned, nil)).succeeds(t)
	plugin := func(args ...string) result { return okeSign(t, append(args, "-n", s.name)...) }

	plugin("explain", "deployment/web-deployment").fails(t, s.name+"/Deployment/web-deployment: denied", "unsigned: no signature", "kubectl oke-sign sign "+unsigned+" --key "+imageKey.ID)
	breakGlass := []string{"break-glass", "deployment/web-deployment", "--reason", "incident 4711", "--yes", "--for"}
	plugin(append(breakGlass, "2h")...).fails(t, "the cluster denies it", "break-glass: too-long")
	plugin(append(breakGlass, "30m")...).succeeds(t).says(t, "its Pods restart")
	s.ready(t, soon, "web-deployment", "1/1")

	var list []struct {
		Kind, Name, State, Reason, SetBy string
		Pods                             int
		Images                           []string
	}
	eventually(t, soon, "one Pod is left", func() error {
		if err := json.Unmarshal([]byte(plugin("break-glass", "list", "-o", "json").succeeds(t).stdout), &list); err != nil {
			return err
		}
		if len(list) != 1 || list[0].Pods != 1 {
			return fmt.Errorf("listed: %+v", list)
		}
		return nil
	})
	got := list[0]
	if got.Kind != "Deployment" || got.Name != "web-deployment" || got.State != "in-use" || got.Reason != "incident 4711" || got.SetBy != "kubectl-oke_sign" || len(got.Images) != 1 || got.Images[0] != unsigned {
		t.Errorf("listed: %+v", got)
	}
	plugin("status").succeeds(t).says(t, "break-glass", "unsigned: no signature", "1 image: 1 not signed", "1 under break-glass")

	// The cluster denies the new Pod, so the old ReplicaSet stays under break-glass.
	plugin("break-glass", "end", "deployment/web-deployment", "--yes").fails(t, "the cluster denied its new Pod: ", "unsigned: no signature", "still in use, 1 Pod")
	left := strings.TrimSpace(plugin("break-glass", "list", "-o", "name").succeeds(t).stdout)
	if !strings.HasPrefix(left, s.name+"/ReplicaSet/web-deployment-") {
		t.Errorf("after the end, %q is under break-glass; want the old ReplicaSet", left)
	}
	s.kubectl(t, "scale", strings.TrimPrefix(left, s.name+"/"), "--replicas=0").succeeds(t)
	plugin("break-glass", "end", "deployment/web-deployment", "--yes").succeeds(t)
	eventually(t, soon, "nothing is under break-glass", func() error {
		if left := plugin("break-glass", "list", "-o", "name").succeeds(t).stdout; left != "" {
			return fmt.Errorf("listed: %s", left)
		}
		return nil
	})
	plugin("explain", "deployment/web-deployment").fails(t, ": denied")
	okeSign(t, "sign", unsigned, "--key", imageKey.ID).succeeds(t)
	plugin("explain", "deployment/web-deployment").succeeds(t).says(t, ": allowed")
}

// doctor finds no problem in the tests' cluster, except those that one machine cannot
// avoid.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	var found []struct{ Check, State, Detail string }
	r := okeSign(t, "doctor", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil {
		t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
	}
	for _, f := range found {
		switch {
		case f.State == "holds", f.State == "skipped" && f.Check == "OKE image policy":
		// Other tests change these at the same time.
		case f.Check == "running images", f.Check == "answers", f.Check == "audit lists all", strings.HasPrefix(f.Check, "constraints "), f.Check == "break-glass is limited", f.Check == "keys", f.Check == "scans":
		case f.State == "warns" && (f.Check == "gatekeeper runs" || strings.HasPrefix(f.Check, "provider")):
		default:
			t.Errorf("%s %s: %s", f.Check, f.State, f.Detail)
		}
	}
}
