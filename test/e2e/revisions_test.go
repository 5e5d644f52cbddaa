package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A StatefulSet creates the Pods below its partition from the revision that its status
// names. A developer without the right to break-glass replaces that revision, so that
// the permitted controller creates the Pod.
func TestForgedRevision(t *testing.T) {
	t.Parallel()
	s, developer, engineer := staffed(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	stored := s.stored(t)
	developer.applyAll(t, workload("StatefulSet", "shop", good, nil)).succeeds(t)
	const set = "statefulset/shop-statefulset"
	s.kubectl(t, "rollout", "status", set, "--timeout=50s").succeeds(t)
	name := s.kubectl(t, "get", set, "-o", "jsonpath={.status.currentRevision}").succeeds(t).stdout

	for what, image := range map[string]string{"by digest": bad, "by tag": byTag(bad)} {
		forged := developer.revision(t, name)
		template := at(forged, "data", "spec", "template").(object)
		template["metadata"].(object)["annotations"] = emergency(time.Now().Add(30 * time.Minute))
		template["spec"].(object)["containers"].([]any)[0].(object)["image"] = image
		developer.kubectl(t, "delete", "controllerrevision", name).succeeds(t)
		r := developer.createObject(t, forged)
		t.Logf("%s: %s", what, r.stderr)
		r.fails(t, denies, "break-glass: not-allowed: ")
		// Restore the revision for the next cases.
		delete(template["metadata"].(object), "annotations")
		template["spec"].(object)["containers"].([]any)[0].(object)["image"] = good
		developer.createObject(t, forged).succeeds(t)
	}
	developer.kubectl(t, "patch", set, "-p", `{"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}`).succeeds(t)
	developer.kubectl(t, "delete", "pod", "shop-statefulset-0").succeeds(t)
	// The controller replaces a Pod that it made before it saw the partition.
	var pod corev1.Pod
	eventually(t, soon, "the Pod below the partition exists", func() error {
		r := s.kubectl(t, "get", "pod", "shop-statefulset-0", "-o", "json")
		if r.err != nil {
			return fmt.Errorf("%w: %s", r.err, r.stderr)
		}
		return json.Unmarshal([]byte(r.stdout), &pod)
	})
	if pod.Spec.Containers[0].Image != good || len(pod.Annotations) > 0 {
		t.Errorf("the Pod of the old revision has image %s and annotations %v", pod.Spec.Containers[0].Image, pod.Annotations)
	}
	if images := stored(); !slices.Equal(images, []string{good}) {
		t.Errorf("the API server stored Pods with images %q; want the signed one alone", images)
	}

	// The controller stores revisions of workloads that run under permitted
	// break-glass.
	engineer.applyAll(t, workload("StatefulSet", "urgent", bad, emergency(time.Now().Add(30*time.Minute)))).succeeds(t)
	s.kubectl(t, "rollout", "status", "statefulset/urgent-statefulset", "--timeout=50s").succeeds(t)
}

// revision reads a ControllerRevision in a form that can be created again.
func (s space) revision(t *testing.T, name string) object {
	t.Helper()
	var revision object
	s.get(t, &revision, "controllerrevision", name)
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "managedFields"} {
		delete(revision["metadata"].(object), field)
	}
	return revision
}

func (s space) createObject(t *testing.T, o object) result {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return s.pipe(t, string(text), "create", "-f", "-")
}

// A tag may have moved since its Pod was admitted. The Pod continues to run, but no new
// container in it starts from the tag.
func TestOldTagInANewPlace(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	good, bad := s.signed(t, "good", imageKey), s.push(t, "bad")
	for name, image := range map[string]string{"tagged": byTag(bad), "pinned": bad} {
		pod := workload("Pod", name, image, nil)
		spec := pod["spec"].(object)
		spec["containers"] = append(spec["containers"].([]object), object{"name": "second", "image": good})
		s.applyAll(t, pod).succeeds(t)
		s.running(t, name+"-pod")
	}
	s.enforce(t, standard(signedBy("", imageKey))...)

	debug := func(pod, image string) result {
		return s.kubectl(t, "debug", pod, "--image="+image, "--container=debugger", "--profile=general", "--attach=false")
	}
	debug("tagged-pod", byTag(bad)).fails(t, denies, "ephemeralContainers/debugger: no-digest: ")
	s.kubectl(t, "set", "image", "pod/tagged-pod", "second="+byTag(bad)).fails(t, denies, "containers/second: no-digest: ")
	s.kubectl(t, "label", "pod/tagged-pod", "seen=yes").succeeds(t)
	s.kubectl(t, "set", "image", "pod/tagged-pod", "second="+s.signed(t, "better", imageKey)).succeeds(t)
	// A digest always means the image that already runs.
	debug("pinned-pod", bad).succeeds(t)
}
