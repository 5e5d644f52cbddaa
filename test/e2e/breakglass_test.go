package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/policies"
)

const workloadResources = "pods,pods/ephemeralcontainers,replicationcontrollers," +
	"deployments.apps,deployments.apps/scale,replicasets.apps,statefulsets.apps,daemonsets.apps,controllerrevisions.apps,jobs.batch,cronjobs.batch"

// staffed returns a space with four actors: a developer, an engineer of the group
// sre, the user oncall and a service account. RBAC lets all of them change
// workloads. All except the developer may use break-glass, for an hour and with a
// reason.
func staffed(t *testing.T) (s, developer, engineer space) {
	t.Helper()
	s = newSpace(t)
	s.kubectl(t, "create", "role", "staff", "--verb=*", "--resource="+workloadResources).succeeds(t)
	s.kubectl(t, "create", "rolebinding", "staff", "--role=staff",
		"--group=developers", "--group=sre", "--user=oncall", "--serviceaccount="+s.name+":deployer").succeeds(t)
	s.kubectl(t, "create", "serviceaccount", "deployer").succeeds(t)
	may := fmt.Sprintf("{users: [oncall], groups: [sre], serviceAccounts: [%s/deployer], requireReason: true, maxDuration: 1h}", s.name)
	s.enforce(t, append(standard(signedBy("", imageKey)),
		constraint{kind: policies.BreakGlass, on: pods + ", " + workloads + ", " + revisions, parameters: may},
		constraint{kind: policies.BreakGlass, on: pods + ", " + deployments, parameters: "{report: true}", action: "warn"},
	)...)
	return s, s.as("dana", "developers"), s.as("erin", "sre")
}

// emergency returns annotations for break-glass with a reason, until the given time.
func emergency(until time.Time) object {
	return object{
		"oracle.image-policy.k8s.io/break-glass": "true",
		"oke-sign.dev/break-glass-reason":        "the registry is down, incident 4711",
		"oke-sign.dev/break-glass-until":         until.UTC().Format(time.RFC3339),
	}
}

// CVE-2024-48921, CVE-2026-84200: only permitted users can make an exception. Owner
// references prove nothing, because users write them.
func TestWhoMayUseBreakGlass(t *testing.T) {
	t.Parallel()
	s, developer, engineer := staffed(t)
	unsigned := s.push(t, "unsigned")
	proper := emergency(time.Now().Add(50 * time.Minute))
	but := func(name, value string) object {
		changed := object{}
		for k, v := range proper {
			if k != name {
				changed[k] = v
			} else if value != "" {
				changed[k] = value
			}
		}
		return changed
	}
	const annotation, reason, until = "oracle.image-policy.k8s.io/break-glass", "oke-sign.dev/break-glass-reason", "oke-sign.dev/break-glass-until"
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	for name, test := range map[string]struct {
		who         space
		annotations object
		refused     string
	}{
		"a user by name":         {who: s.as("oncall"), annotations: proper},
		"a member of the group":  {who: engineer, annotations: proper},
		"a service account":      {who: s.as("system:serviceaccount:" + s.name + ":deployer"), annotations: proper},
		"anybody else":           {who: developer, annotations: proper, refused: "not-allowed"},
		"an administrator":       {who: s, annotations: proper, refused: "not-allowed"},
		"the group's namesake":   {who: s.as("sre", "developers"), annotations: proper, refused: "not-allowed"},
		"without a reason":       {who: engineer, annotations: but(reason, ""), refused: "no-reason"},
		"a reason of spaces":     {who: engineer, annotations: but(reason, "  "), refused: "no-reason"},
		"without an end":         {who: engineer, annotations: but(until, ""), refused: "no-end"},
		"an end too far ahead":   {who: engineer, annotations: but(until, in(2*time.Hour)), refused: "too-long"},
		"an end gone by":         {who: engineer, annotations: but(until, in(-time.Minute)), refused: "expired"},
		"an end that is no time": {who: engineer, annotations: but(until, "tomorrow"), refused: "bad-end"},
		"a value with no effect": {who: engineer, annotations: but(annotation, "True"), refused: "no-effect"},
	} {
		for _, kind := range []string{"Pod", "Deployment"} {
			r := test.who.applyAll(t, workload(kind, slug(name), unsigned, test.annotations))
			if test.refused != "" {
				r.fails(t, denies, "break-glass: "+test.refused+": ")
				continue
			}
			r.succeeds(t).says(t, "Warning: ", "break-glass: in-use: ", "incident 4711")
		}
	}
	// Admitted Pods run. Controllers created them, though the policy names no
	// controller.
	for _, name := range []string{"a-user-by-name", "a-member-of-the-group", "a-service-account"} {
		s.running(t, name+"-pod")
		s.ready(t, soon, name+"-deployment", "1/1")
		s.audited(t, "break-glass: in-use: ", "pod/"+name+"-pod")
	}
	// No kind of workload bypasses the policy, nor does a Pod that pretends to belong
	// to a controller.
	var all []object
	for kind := range kinds {
		all = append(all, workload(kind, "way-round", unsigned, proper))
	}
	r := developer.applyAll(t, all...).fails(t)
	if got := strings.Count(r.stderr, "break-glass: not-allowed: "); got != len(kinds) {
		t.Errorf("%d of %d kinds refused:\n%s", got, len(kinds), r.stderr)
	}
	claims := workload("Pod", "claims", unsigned, proper)
	claims["metadata"].(object)["ownerReferences"] = []object{
		{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "some", "uid": "0d5c2c1e-6d5f-4f2e-9d6b-3a5d0c3a5b11", "controller": true},
	}
	developer.applyAll(t, claims).fails(t, denies, "break-glass: not-allowed: ")
}

// While another user's break-glass holds, a developer may make changes that concern
// neither images nor break-glass. Kritis accepts any value of the annotation as
// break-glass.
func TestEditUnderBreakGlass(t *testing.T) {
	t.Parallel()
	s, developer, engineer := staffed(t)
	unsigned, other := s.push(t, "unsigned"), s.push(t, "other")
	end := time.Now().Add(30 * time.Minute)
	engineer.applyAll(t, workload("Deployment", "shop", unsigned, emergency(end)), workload("Pod", "bare", unsigned, emergency(end))).succeeds(t)
	s.ready(t, soon, "shop-deployment", "1/1")

	developer.kubectl(t, "label", "deployment/shop-deployment", "pod/bare-pod", "seen=yes").succeeds(t)
	developer.kubectl(t, "scale", "deployment/shop-deployment", "--replicas=2").succeeds(t)
	s.ready(t, soon, "shop-deployment", "2/2")

	later := `{"spec": {"template": {"metadata": {"annotations": {"oke-sign.dev/break-glass-until": "` + end.Add(time.Minute).UTC().Format(time.RFC3339) + `"}}}}}`
	for _, edit := range [][]string{
		{"set", "image", "deployment/shop-deployment", "deployment=" + other},
		{"patch", "deployment/shop-deployment", "-p", later},
		{"set", "image", "pod/bare-pod", "pod=" + other},
		{"debug", "bare-pod", "--image=" + s.push(t, "debugger"), "--profile=general", "--attach=false"},
		{"annotate", "pod/bare-pod", "--overwrite", "oke-sign.dev/break-glass-reason=because"},
	} {
		developer.kubectl(t, edit...).fails(t, denies, "break-glass: not-allowed: ")
		engineer.kubectl(t, edit...).succeeds(t)
	}
	// A running Pod cannot be put under break-glass.
	developer.applyAll(t, workload("Pod", "plain", s.signed(t, "good", imageKey), nil)).succeeds(t)
	developer.kubectl(t, "annotate", "pod/plain-pod", "oracle.image-policy.k8s.io/break-glass=true").fails(t, denies, "break-glass: not-allowed: ")
	developer.kubectl(t, "delete", "deployment/shop-deployment", "pod/bare-pod").succeeds(t)
}

// After break-glass ends, no new Pod starts. Running Pods stay, and the audit lists
// them.
func TestBreakGlassEnds(t *testing.T) {
	t.Parallel()
	s, developer, engineer := staffed(t)
	unsigned := s.push(t, "unsigned")
	engineer.applyAll(t, workload("Deployment", "shop", unsigned, emergency(time.Now().Add(45*time.Second)))).succeeds(t)
	engineer.kubectl(t, "scale", "deployment/shop-deployment", "--replicas=2").succeeds(t)
	s.ready(t, soon, "shop-deployment", "2/2")
	ran := s.names(t, "pods")

	s.audited(t, "break-glass: expired: ", ran...)
	developer.kubectl(t, "scale", "deployment/shop-deployment", "--replicas=3").succeeds(t)
	s.fails(t, "ReplicaSet", "shop-deployment-", "break-glass: expired: ")
	s.ready(t, soon, "shop-deployment", "2/3")
	if got := s.names(t, "pods"); !slices.Equal(got, ran) {
		t.Errorf("Pods %q; want those that ran before, %q", got, ran)
	}
}

// names returns the sorted names of objects, for example pod/a.
func (s space) names(t *testing.T, resource string) []string {
	t.Helper()
	return strings.Fields(s.kubectl(t, "get", resource, "-o", "name", "--sort-by=.metadata.name").succeeds(t).stdout)
}

// audited waits until the audit lists Pods with a message of that prefix in the
// statuses of the constraints.
func (s space) audited(t *testing.T, message string, pods ...string) {
	t.Helper()
	eventually(t, soon, "the audit lists Pods", func() error {
		listed := make(map[string]bool)
		for _, c := range s.constraints(t) {
			for _, v := range c.Status.Violations {
				listed[strings.ToLower(v.Kind)+"/"+v.Name] = listed[strings.ToLower(v.Kind)+"/"+v.Name] || strings.HasPrefix(v.Message, message)
			}
		}
		for _, pod := range pods {
			if !listed[pod] {
				return fmt.Errorf("%q on %s is not listed", message, pod)
			}
		}
		return nil
	})
}
