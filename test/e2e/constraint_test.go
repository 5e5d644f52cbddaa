package e2e_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/ociclient"
)

// object is a Kubernetes object in JSON's form.
type object = map[string]any

// The matches of most constraints.
const (
	pods        = `{apiGroups: [""], kinds: [Pod]}`
	deployments = `{apiGroups: [apps], kinds: [Deployment]}`
	revisions   = `{apiGroups: [apps], kinds: [ControllerRevision]}`
	workloads   = `{apiGroups: [apps], kinds: [DaemonSet, Deployment, ReplicaSet, StatefulSet]}, ` +
		`{apiGroups: [batch], kinds: [CronJob, Job]}, {apiGroups: [""], kinds: [ReplicationController]}`
)

// constraint is a constraint on a space.
type constraint struct {
	kind       string // of the template
	action     string // deny unless given
	on         string
	parameters string // YAML in flow style; {} unless given
}

func (s space) manifest(c constraint) string {
	action := cmp.Or(c.action, "deny")
	return fmt.Sprintf(`
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: %[1]s
metadata: {name: %[2]s-%[3]s, labels: {e2e: %[2]s}}
spec:
  enforcementAction: %[3]s
  match: {namespaces: [%[2]s], kinds: [%[4]s]}
  parameters: %[5]s
---
`, c.kind, s.name, action, c.on, cmp.Or(c.parameters, "{}"))
}

// enforce creates or changes constraints on the space, and waits until all of
// Gatekeeper enforces them.
func (s space) enforce(t *testing.T, constraints ...constraint) {
	t.Helper()
	var text strings.Builder
	for _, c := range constraints {
		text.WriteString(s.manifest(c))
	}
	s.apply(t, text.String()).succeeds(t)
	eventually(t, soon, "Gatekeeper enforces the constraints of "+s.name, func() error { return s.enforced(t) })
}

// enforced returns an error until every Pod of Gatekeeper enforces the current
// constraints of the space.
func (s space) enforced(t *testing.T) error {
	t.Helper()
	var gatekeepers corev1.PodList
	system := space{name: "gatekeeper-system"}
	system.get(t, &gatekeepers, "pods", "-l", "gatekeeper.sh/system=yes")
	if len(gatekeepers.Items) < 2 {
		return fmt.Errorf("%d Pods of Gatekeeper; want one for admission and one for the audit at least", len(gatekeepers.Items))
	}
	list := s.constraints(t)
	if len(list) == 0 {
		return errors.New("no constraints")
	}
	for _, c := range list {
		for _, pod := range gatekeepers.Items {
			if !slices.ContainsFunc(c.Status.ByPod, func(p byPod) bool {
				return p.ID == pod.Name && p.Enforced && p.ObservedGeneration == c.Generation
			}) {
				return fmt.Errorf("%s: not enforced by %s: %+v", c.Name, pod.Name, c.Status.ByPod)
			}
		}
	}
	return nil
}

type byPod struct {
	ID                 string
	Enforced           bool
	ObservedGeneration int64
}

// enforcedConstraint is a constraint with its status.
type enforcedConstraint struct {
	metav1.ObjectMeta `json:"metadata"`
	Kind              string
	Status            struct {
		ByPod      []byPod
		Violations []struct{ Kind, Name, Message string } // that the audit found
	}
}

func (s space) constraints(t *testing.T) []enforcedConstraint {
	t.Helper()
	var list struct{ Items []enforcedConstraint }
	s.get(t, &list, "constraints", "-l", "e2e="+s.name)
	return list.Items
}

// signedBy returns parameters of OKESignedImages with these keys, and more.
func signedBy(more string, keys ...ociclient.Key) string {
	ids := make([]string, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return "{keys: [" + strings.Join(ids, ", ") + "]" + more + "}"
}

// standard returns the policy of most tests: it denies Pods and warns about workloads.
func standard(parameters string) []constraint {
	return []constraint{
		{kind: policies.SignedImages, on: pods, parameters: parameters},
		{kind: policies.SignedImages, on: workloads, parameters: parameters, action: "warn"},
	}
}

// push stores a unique image in OCI Registry and returns its digest reference. The
// image is unsigned.
func (s space) push(t *testing.T, name string) string {
	t.Helper()
	repository := s.name + "/" + name
	digest, err := cloud.Push(t.Context(), vault, repository)
	if err != nil {
		t.Fatal(err)
	}
	return ociclient.Registry + repository + "@" + digest
}

// signed pushes an image and signs it with each of the keys.
func (s space) signed(t *testing.T, name string, keys ...ociclient.Key) string {
	t.Helper()
	image := s.push(t, name)
	for _, key := range keys {
		okeSign(t, "sign", image, "--key", key.ID).succeeds(t)
	}
	return image
}

// byTag returns the same image by its tag.
func byTag(image string) string {
	name, _, _ := strings.Cut(image, "@")
	return name + ":v1"
}
