package e2e_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/policies"
)

// failures returns what doctor says of checks that fail, as CHECK: DETAIL.
func failures(t *testing.T) []string {
	t.Helper()
	var found []struct{ Check, State, Detail string }
	r := okeSign(t, "doctor", "-o", "json")
	if err := json.Unmarshal([]byte(r.stdout), &found); err != nil {
		t.Fatalf("%v: %s%s", err, r.stdout, r.stderr)
	}
	var list []string
	for _, f := range found {
		if f.State == "fails" {
			list = append(list, f.Check+": "+f.Detail)
		}
	}
	return list
}

// problems returns why policy get says that the policy is not enforced.
func problems(t *testing.T) []string {
	t.Helper()
	var p struct {
		Enforced bool
		Problems []string
	}
	r := okeSign(t, "policy", "get", "-o", "json").succeeds(t)
	if err := json.Unmarshal([]byte(r.stdout), &p); err != nil {
		t.Fatal(err)
	}
	if p.Enforced != (len(p.Problems) == 0) {
		t.Errorf("enforced: %v, with problems %q", p.Enforced, p.Problems)
	}
	return p.Problems
}

// has reports whether a text of the list begins with start.
func has(list []string, start string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.HasPrefix(s, start) })
}

// A policy for a namespace that nobody has denies nothing, and every command says so.
func TestPolicyForNobody(t *testing.T) {
	s := newSpace(t)
	t.Cleanup(func() { okeSign(t, "policy", "delete") })
	const nobody = `no namespace matches: only namespaces ["nobody-has-it"]`
	set := []string{"policy", "set", "--new", "--key", "image-key", "--namespaces"}
	okeSign(t, append(set, "nobody-has-it")...).fails(t, "the changed policy has no effect", nobody)
	okeSign(t, "policy", "get").fails(t, "the cluster has no image policy")
	okeSign(t, append(set, "nobody-has-it", "--yes")...).succeeds(t).says(t, "WARNING", nobody)
	s.applyAll(t, workload("Pod", "unsigned", s.push(t, "unsigned"), nil)).succeeds(t)
	if found := problems(t); !has(found, "it applies to no Pod: "+nobody) {
		t.Errorf("policy get: %q", found)
	}
	if found := failures(t); !has(found, "constraints enforce: OKESignedImages/image-policy applies to no Pod: "+nobody) {
		t.Errorf("doctor: %q", found)
	}
	okeSign(t, "policy", "set", "--namespaces", s.name, "--yes").succeeds(t)
	eventually(t, soon, "the policy is enforced", func() error {
		if found := problems(t); len(found) > 0 {
			return fmt.Errorf("%q", found)
		}
		return nil
	})
}

// The policy that the cluster of the documents starts with is one that policy get and
// doctor accept.
func TestPolicyOfTheCluster(t *testing.T) {
	s := newSpace(t)
	file := filepath.Join(os.Getenv("OKE_SIGN_CLUSTER"), "policy.yaml")
	t.Cleanup(func() { s.kubectl(t, "delete", "-f", file, "--ignore-not-found") })
	s.kubectl(t, "apply", "-f", file).succeeds(t)
	eventually(t, soon, "the policy is enforced", func() error {
		if found := problems(t); len(found) > 0 {
			return fmt.Errorf("%q", found)
		}
		return nil
	})
	for _, f := range failures(t) {
		if check, _, _ := strings.Cut(f, ": "); check == "constraints enforce" || check == "break-glass is limited" {
			t.Errorf("doctor: %s", f)
		}
	}
}

// While no provider is ready, the cluster denies a signed image, and explain and status
// say so. explain shows the denial that the controller reports.
func TestExplainWithoutAProvider(t *testing.T) {
	s := newSpace(t)
	s.enforce(t, constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)})
	image := s.signed(t, "good", imageKey)
	explain := func() result { return okeSign(t, "explain", "deployment/web-deployment", "-n", s.name) }
	t.Cleanup(func() { scaleProvider(t, "2") })
	scaleProvider(t, "0")
	s.applyAll(t, workload("Deployment", "web", image, nil)).succeeds(t)
	eventually(t, soon, "the ReplicaSet reports a denial", func() error {
		if r := explain(); !strings.Contains(r.stdout, "last denial") {
			return fmt.Errorf("%s%s", r.stdout, r.stderr)
		}
		return nil
	})
	explain().fails(t, ": denied", "no Pod of the provider is ready", "ReplicaSet/web-deployment-", "no-answer: ")
	okeSign(t, "explain", image, "-n", s.name).fails(t, ": denied", "no Pod of the provider is ready")
	okeSign(t, "explain", image, "-n", "nobody-has-it").fails(t, `the cluster has no namespace "nobody-has-it"`)
	scaleProvider(t, "2")
	okeSign(t, "explain", image, "-n", s.name).succeeds(t).says(t, ": allowed")
	s.kubectl(t, "rollout", "restart", "deployment/web-deployment").succeeds(t)
	s.ready(t, soon, "web-deployment", "1/1")
	explain().succeeds(t).says(t, ": allowed")
	okeSign(t, "status", "-n", s.name).succeeds(t).says(t, "allowed", "Deployment/web-deployment")
}
