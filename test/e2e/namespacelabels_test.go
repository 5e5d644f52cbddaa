package e2e_test

import (
	"encoding/json"
	"testing"

	"github.com/oke-sign/oke-sign/policies"
)

const (
	ignore   = "admission.gatekeeper.sh/ignore"
	guardian = "ValidatingAdmissionPolicy 'oke-sign-namespace-labels'"
)

// owned returns a space whose Pods must be signed, and its owner, who has every right
// in it and none elsewhere.
func owned(t *testing.T) (s, owner space) {
	t.Helper()
	s = newSpace(t)
	s.kubectl(t, "create", "rolebinding", "owner", "--clusterrole=cluster-admin", "--user=olga").succeeds(t)
	s.enforce(t, constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)})
	return s, s.as("olga")
}

// finalize sends the namespace to its subresource finalize, with changed labels.
func (s space) finalize(t *testing.T, labels object) result {
	t.Helper()
	var namespace object
	s.get(t, &namespace, "namespace", s.name)
	for name, value := range labels {
		at(namespace, "metadata", "labels").(object)[name] = value
	}
	text, err := json.Marshal(namespace)
	if err != nil {
		t.Fatal(err)
	}
	return s.pipe(t, string(text), "replace", "--raw", "/api/v1/namespaces/"+s.name+"/finalize", "-f", "-")
}

// Gatekeeper skips namespaces with its ignore label. The owner of a namespace can send
// labels with three requests. None of them disables the policy.
func TestNamespaceLabelsStay(t *testing.T) {
	t.Parallel()
	s, owner := owned(t)
	status := func(patch string) result {
		return owner.kubectl(t, "patch", "namespace", s.name, "--subresource=status", "--type=merge", "-p", patch)
	}
	unsigned := s.push(t, "unsigned")
	for what, try := range map[string]func() result{
		"itself":   func() result { return owner.kubectl(t, "label", "namespace", s.name, ignore+"=x") },
		"status":   func() result { return status(`{"metadata": {"labels": {"`+ignore+`": "x"}}}`).fails(t, guardian) },
		"finalize": func() result { return owner.finalize(t, object{ignore: "x"}).fails(t, guardian) },
	} {
		t.Logf("%s: %s", what, try().fails(t).stderr)
		if got := s.kubectl(t, "get", "namespace", s.name, "--show-labels").succeeds(t); holds(got.stdout, ignore) {
			t.Errorf("%s: the label is stored: %s", what, got.stdout)
		}
		owner.kubectl(t, "run", "unsigned", "--image="+unsigned).fails(t, denies, "containers/unsigned: unsigned: ")
	}
	// Constraints select by other labels.
	status(`{"metadata": {"labels": {"team": "other"}}}`).fails(t, guardian)
	owner.finalize(t, object{"team": "other"}).fails(t, guardian)

	// Requests that change no label work as before.
	owner.kubectl(t, "annotate", "namespace", s.name, "seen=yes").succeeds(t)
	owner.kubectl(t, "label", "namespace", s.name, "team=own").succeeds(t)
	status(`{"metadata": {"annotations": {"seen": "again"}}}`).succeeds(t)
	owner.finalize(t, nil).succeeds(t)
}

// An administrator cannot exempt a namespace by its label alone either. Namespaces with
// labels can still be deleted.
func TestLabelledNamespacesEnd(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	other := space{name: s.name + "-other"}
	s.pipe(t, `{apiVersion: v1, kind: Namespace, metadata: {name: `+other.name+`, labels: {`+ignore+`: x}}}`, "create", "-f", "-").fails(t)
	s.pipe(t, `{apiVersion: v1, kind: Namespace, metadata: {name: `+other.name+`, labels: {team: own}}}`, "create", "-f", "-").succeeds(t)
	other.kubectl(t, "run", "pod", "--image="+s.push(t, "image")).succeeds(t)
	other.kubectl(t, "delete", "namespace", other.name, "--wait", "--timeout=100s").succeeds(t)
	other.kubectl(t, "get", "namespace", other.name).fails(t, "NotFound")
	// Gatekeeper's own namespace has the label, and can be changed.
	s.kubectl(t, "annotate", "namespace", "gatekeeper-system", "seen=yes", "--dry-run=server").succeeds(t)
}
