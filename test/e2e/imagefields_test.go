package e2e_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/oke-sign/oke-sign/policies"
)

// podOf returns a Pod with an image in every field that a new Pod can have. Fields that
// are not in images have the usual image.
func podOf(name, usual string, images map[string]string) object {
	at := func(place string) string {
		if image, ok := images[place]; ok {
			return image
		}
		return usual
	}
	return object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "labels": object{"app": name}},
		"spec": object{
			"initContainers": []object{
				{"name": "first", "image": at("initContainers/first")},
				{"name": "sidecar", "image": at("initContainers/sidecar"), "restartPolicy": "Always"},
			},
			"containers": []object{
				{"name": "main", "image": at("containers/main")},
				{"name": "second", "image": at("containers/second"), "volumeMounts": []object{{"name": "model", "mountPath": "/model"}}},
			},
			"volumes": []object{{"name": "model", "image": object{"reference": at("volumes/model")}}},
		},
	}
}

// denies is kubectl's message about a denial.
const denies = `admission webhook "validation.gatekeeper.sh" denied the request`

// One unsigned image among signed ones is found in every field of a Pod, with every
// command that can set it. CVE-2023-2727: ephemeral containers were not checked.
func TestEveryImageField(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	s.enforce(t, standard(signedBy("", imageKey))...)
	places := []string{"initContainers/first", "initContainers/sidecar", "containers/main", "containers/second", "volumes/model"}

	s.applyAll(t, podOf("all-good", good, nil)).succeeds(t)
	all := s.applyAll(t, podOf("all-bad", bad, nil)).fails(t, denies)
	for _, place := range places {
		all.says(t, place+": unsigned: ")
		one := s.applyAll(t, podOf("one-bad", good, map[string]string{place: bad})).fails(t, denies, place+": unsigned: ")
		if n := strings.Count(one.stderr, ": unsigned: "); n != 1 {
			t.Errorf("%s: %d images denied, want 1:\n%s", place, n, one.stderr)
		}
	}
	s.running(t, "all-good")
	var pod corev1.Pod
	s.get(t, &pod, "pod", "all-good")
	if v := pod.Spec.Volumes[0]; v.Image == nil || v.Image.Reference != good {
		t.Errorf("the API server stores no image volumes, so they were not tested: %v", v)
	}

	better := s.signed(t, "better", imageKey)
	for _, change := range []struct {
		what string
		args []string // IMAGE stands for the image
		at   string
	}{
		{"kubectl run", []string{"run", "ran", "--image=IMAGE"}, "containers/ran"},
		{"kubectl debug", []string{"debug", "all-good", "--image=IMAGE", "--container=debugger", "--profile=general", "--attach=false"}, "ephemeralContainers/debugger"},
		{"kubectl debug with a copy", []string{"debug", "all-good", "--copy-to=copy", "--set-image=main=IMAGE", "--profile=general", "--attach=false"}, "containers/main"},
		{"kubectl set image", []string{"set", "image", "pod/all-good", "main=IMAGE"}, "containers/main"},
		{"kubectl patch of an init container", []string{"patch", "pod", "all-good", "-p", `{"spec": {"initContainers": [{"name": "sidecar", "image": "IMAGE"}]}}`}, "initContainers/sidecar"},
		{"kubectl create job", []string{"create", "job", "once", "--image=IMAGE"}, ""},
	} {
		with := func(image string) result {
			args := make([]string, len(change.args))
			for i, arg := range change.args {
				args[i] = strings.ReplaceAll(arg, "IMAGE", image)
			}
			return s.kubectl(t, args...)
		}
		if change.at == "" { // a controller creates the Pod
			with(bad).succeeds(t).says(t, "Warning: ", "containers/once: unsigned: ")
			s.fails(t, "Job", "once", "containers/once: unsigned: ")
			continue
		}
		with(bad).fails(t, denies, change.at+": unsigned: ")
		with(better).succeeds(t)
	}
	s.get(t, &pod, "pod", "all-good")
	got := fmt.Sprintln(pod.Spec.Containers[0].Image, pod.Spec.InitContainers[1].Image, pod.Spec.EphemeralContainers[0].Image)
	if want := fmt.Sprintln(better, better, better); got != want {
		t.Errorf("images of the Pod after the changes:\n%swant:\n%s", got, want)
	}

	unnamed := func(image string) string {
		return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {generateName: unnamed-}, spec: {containers: [{name: main, image: %q}]}}`, image)
	}
	s.pipe(t, unnamed(bad), "create", "-f", "-").fails(t, denies, "containers/main: unsigned: ")
	s.pipe(t, unnamed(good), "create", "-f", "-").succeeds(t).says(t, "pod/unnamed-")
}

// running waits until a Pod runs.
func (s space) running(t *testing.T, pod string) {
	t.Helper()
	s.kubectl(t, "wait", "pod/"+pod, "--for=jsonpath={.status.phase}=Running", "--timeout=50s").succeeds(t)
}

// fails waits until an event says why a controller cannot create the Pods of an object.
func (s space) fails(t *testing.T, kind, name string, reasons ...string) {
	t.Helper()
	eventually(t, soon, "events about "+name, func() error {
		state := s.state(t)
		for _, reason := range reasons {
			if len(state.failures(kind, name, reason)) == 0 {
				return fmt.Errorf("no event of a %s says %q", kind, reason)
			}
		}
		return nil
	})
}

// A running Deployment is updated to an unsigned image. Its Pods stay.
func TestRollout(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	s.enforce(t, standard(signedBy("", imageKey))...)
	s.apply(t, nginx("shop", good)).succeeds(t)
	s.ready(t, soon, "shop", "3/3")
	s.kubectl(t, "set", "image", "deployment/shop", "nginx="+bad).succeeds(t).says(t, "Warning: ", "containers/nginx: unsigned: ")
	s.fails(t, "ReplicaSet", "shop-", "containers/nginx: unsigned: ")
	s.ready(t, soon, "shop", "3/3")
	s.kubectl(t, "rollout", "undo", "deployment/shop").succeeds(t)
	s.kubectl(t, "rollout", "status", "deployment/shop", "--timeout=50s").succeeds(t)
}

func TestCronJobByHand(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	s.enforce(t, standard(signedBy("", imageKey))...)
	s.kubectl(t, "create", "cronjob", "report", "--image="+good, "--schedule=0 3 1 1 *").succeeds(t)
	s.kubectl(t, "create", "job", "report-now", "--from=cronjob/report").succeeds(t)
	s.kubectl(t, "wait", "job/report-now", "--for=condition=Complete", "--timeout=50s").succeeds(t)
	s.kubectl(t, "set", "image", "cronjob/report", "report="+bad).succeeds(t).says(t, "Warning: ", "containers/report: unsigned: ")
	s.kubectl(t, "create", "job", "report-again", "--from=cronjob/report").succeeds(t).says(t, "Warning: ", "containers/report: unsigned: ")
	s.fails(t, "Job", "report-again", "containers/report: unsigned: ")
}

// The policies find images in unknown kinds by the shape of the object.
func TestCustomKind(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	group := s.name + ".example.com"
	s.apply(t, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: rollouts.%[1]s}
spec:
  group: %[1]s
  scope: Namespaced
  names: {kind: Rollout, plural: rollouts}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
`, group)).succeeds(t)
	t.Cleanup(func() { s.kubectl(t, "delete", "crd", "rollouts."+group, "--wait=false").succeeds(t) })
	s.kubectl(t, "wait", "crd/rollouts."+group, "--for=condition=Established", "--timeout=50s").succeeds(t)
	s.enforce(t, constraint{kind: policies.SignedImages, on: "{apiGroups: [" + group + "], kinds: [Rollout]}", parameters: signedBy("", imageKey)})

	rollout := func(spec string) string {
		return fmt.Sprintf("apiVersion: %s/v1alpha1\nkind: Rollout\nmetadata: {name: shop}\nspec: %s", group, spec)
	}
	template := "{replicas: 3, strategy: {canary: {}}, template: {spec: {containers: [{name: main, image: %q}]}}}"
	s.apply(t, rollout(fmt.Sprintf(template, bad))).fails(t, denies, "containers/main: unsigned: ")
	s.apply(t, rollout(fmt.Sprintf(template, good))).succeeds(t)
	s.apply(t, rollout(fmt.Sprintf(template, bad))).fails(t, denies, "containers/main: unsigned: ")
	s.kubectl(t, "delete", "rollouts."+group, "shop").succeeds(t) // other tests define a Rollout as well
	s.apply(t, rollout("{replicas: 3, workloadRef: {kind: Deployment, name: shop}}")).fails(t, denies, "object: no-pod-spec: ")
}
