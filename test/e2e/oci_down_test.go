package e2e_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// While OCI is unreachable, running Pods can be handled as usual. New Pods start only
// if the provider has cached their images as signed.
func TestHandlingPodsWithoutOCI(t *testing.T) {
	disturbs(t)
	// In this namespace everything ran before the policy, which is created while OCI is
	// down. So no cache can help.
	s := newSpace(t)
	good, next := s.signed(t, "good", imageKey), s.signed(t, "next", imageKey)
	s.apply(t, nginx("shop", good)).succeeds(t)
	for _, name := range []string{"handled", "evicted", "deleted", "held"} {
		s.kubectl(t, "run", name, "--image="+good, "--override-type=strategic", `--overrides={"spec": {"containers": [`+given(name, "100m")+"]}}").succeeds(t)
		s.running(t, name)
	}
	// A kubelet reports a container's resources, and only then can they be resized.
	s.kubectl(t, "patch", "pod", "handled", "--subresource=status", "-p", `{"status": {"containerStatuses": [`+given("handled", "100m")+"]}}").succeeds(t)
	hold := []string{"patch", "pod", "held", "-p", `{"metadata": {"finalizers": ["example.com/held"]}}`}
	let := []string{"patch", "pod", "held", "-p", `{"metadata": {"finalizers": null}}`}
	s.kubectl(t, hold...).succeeds(t)
	t.Cleanup(func() { s.kubectl(t, let...) }) // otherwise it would never be deleted
	s.ready(t, soon, "shop", "3/3")
	// In the other namespace the policy already applies.
	cached := newSpace(t)
	cached.enforce(t, standard(signedBy("", imageKey))...)
	cached.apply(t, nginx("shop", cached.signed(t, "known", imageKey))).succeeds(t)
	cached.ready(t, soon, "shop", "3/3")

	// A paused kwok starts and ends nothing, so the Job's Pod is pending when OCI goes
	// down.
	t.Cleanup(func() { control(t, "resume", "kwok") })
	control(t, "pause", "kwok")
	s.kubectl(t, "create", "job", "once", "--image="+good).succeeds(t)
	eventually(t, soon, "the Job has a Pod", func() error {
		if n := len(s.names(t, "pods")); n != 8 {
			return fmt.Errorf("there are %d Pods", n)
		}
		return nil
	})
	t.Cleanup(func() { control(t, "resume", "oci-emulator") })
	control(t, "pause", "oci-emulator")

	cached.kubectl(t, "scale", "deployment/shop", "--replicas=5").succeeds(t)
	control(t, "resume", "kwok")
	cached.ready(t, soon, "shop", "5/5")

	s.enforce(t, standard(signedBy("", imageKey))...)
	for _, args := range [][]string{
		{"label", "pod", "handled", "seen=yes"},
		{"annotate", "pod", "handled", "example.com/seen=yes"},
		{"patch", "pod", "handled", "--subresource=resize", "-p", `{"spec": {"containers": [` + given("handled", "200m") + "]}}"},
		{"delete", "pod", "deleted"},
		{"delete", "pod", "held", "--wait=false"},
		let,
		{"wait", "pod", "held", "--for=delete", "--timeout=50s"},
		{"wait", "job", "once", "--for=condition=Complete", "--timeout=50s"},
	} {
		s.kubectl(t, args...).succeeds(t)
	}
	eviction := object{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": object{"name": "evicted", "namespace": s.name}}
	text, err := json.Marshal(eviction)
	if err != nil {
		t.Fatal(err)
	}
	s.pipe(t, string(text), "create", "--raw", "/api/v1/namespaces/"+s.name+"/pods/evicted/eviction", "-f", "-").succeeds(t)
	s.kubectl(t, "wait", "pod", "evicted", "--for=delete", "--timeout=50s").succeeds(t)
	var pod corev1.Pod
	s.get(t, &pod, "pod", "handled")
	if cpu := pod.Spec.Containers[0].Resources.Requests.Cpu().String(); pod.Labels["seen"] != "yes" || pod.Annotations["example.com/seen"] != "yes" || cpu != "200m" {
		t.Errorf("labels %v, annotations %v, CPU %s; want the new ones", pod.Labels, pod.Annotations, cpu)
	}

	s.kubectl(t, "scale", "deployment/shop", "--replicas=2").succeeds(t)
	s.ready(t, soon, "shop", "2/2")
	ran := s.names(t, "pods")
	unknown := "containers/nginx: no-answer: could not find out whether it is signed, from provider oke-sign: "
	s.kubectl(t, "scale", "deployment/shop", "--replicas=4").succeeds(t)
	s.fails(t, "ReplicaSet", "shop-", unknown)
	s.kubectl(t, "set", "image", "deployment/shop", "nginx="+next).succeeds(t).says(t, "Warning: ", unknown)
	s.kubectl(t, "run", "new", "--image="+next).fails(t, denies, "containers/new: no-answer: ")
	s.kubectl(t, "debug", "handled", "--image="+next, "--container=debugger", "--profile=general", "--attach=false").
		fails(t, denies, "ephemeralContainers/debugger: no-answer: ")
	s.apply(t, nginx("new", next)).succeeds(t).says(t, "Warning: ", unknown)
	s.fails(t, "ReplicaSet", "new-", unknown)
	if got := s.names(t, "pods"); !slices.Equal(got, ran) {
		t.Errorf("Pods %q; want those that ran before, %q", got, ran)
	}

	control(t, "resume", "oci-emulator")
	s.ready(t, soon, "shop", "4/4")
	s.ready(t, soon, "new", "3/3")
}

// given returns a container with that much CPU, as a patch.
func given(container, cpu string) string {
	return fmt.Sprintf(`{"name": %q, "resources": {"requests": {"cpu": %q}}}`, container, cpu)
}
