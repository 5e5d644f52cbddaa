package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/oke-sign/oke-sign/policies"
)

// With pinTags of the policy's chart, Gatekeeper puts digests in the place of tags
// before it judges, wherever in a Pod they are; and what it could not pin is judged
// by its tag.
func TestTagsArePinned(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	chart := run(t.Context(), "", "helm", "template", "pin", "charts/oke-sign-policy", "--show-only", "templates/pintags.yaml",
		"--set", "pinTags=true", "--set", "keys={"+imageKey.ID+"}", "--set", "scope.namespaces={"+s.name+"}", "--set", "scope.excludedNamespaces=null").succeeds(t)
	s.apply(t, chart.stdout).succeeds(t)
	t.Cleanup(func() { s.pipe(t, chart.stdout, "delete", "-f", "-").succeeds(t) })
	s.enforce(t,
		constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)},
		constraint{kind: policies.ImageDigests, on: pods},
	)

	good, unsigned := s.signed(t, "good", imageKey), s.push(t, "unsigned")
	at := func(image string) string { // as the Pod has it then
		_, digest, _ := strings.Cut(image, "@")
		return byTag(image) + "@" + digest
	}
	pod := func(name string) string {
		text, err := json.Marshal(object{
			"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name},
			"spec": object{
				"initContainers": []object{{"name": "first", "image": byTag(good)}},
				"containers":     []object{{"name": "main", "image": byTag(good)}, {"name": "pinned", "image": good}},
				"volumes":        []object{{"name": "scratch", "emptyDir": object{}}, {"name": "model", "image": object{"reference": byTag(good)}}},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	eventually(t, soon, "Gatekeeper pins tags", func() error {
		return s.pipe(t, pod("pinned"), "apply", "-f", "-").err
	})
	var got corev1.Pod
	s.get(t, &got, "pod", "pinned")
	images := map[string]string{}
	for _, c := range append(got.Spec.InitContainers, got.Spec.Containers...) {
		images[c.Name] = c.Image
	}
	for _, v := range got.Spec.Volumes {
		if v.Image != nil {
			images[v.Name] = v.Image.Reference
		}
	}
	want := map[string]string{"first": at(good), "main": at(good), "pinned": good, "model": at(good)}
	if diff := cmp.Diff(want, images); diff != "" {
		t.Errorf("images, -want +got:\n%s", diff)
	}

	for name, tt := range map[string]struct{ image, want string }{
		"unsigned": {byTag(unsigned), "unsigned"},
		"absent":   {strings.Replace(byTag(good), ":v1", ":v2", 1), "no-digest"},
		"foreign":  {dockerHub, "not-oci-registry"},
	} {
		s.kubectl(t, "run", name, "--image="+tt.image).fails(t, fmt.Sprintf("containers/%s: %s: ", name, tt.want))
	}
	// What runs keeps the image that it runs.
	s.kubectl(t, "label", "pod", "pinned", "seen=yes").succeeds(t)
}
