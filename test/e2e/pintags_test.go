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

// pinning returns a space in which Gatekeeper replaces tags with digests before it
// evaluates constraints, like pinTags of the policy's chart.
func pinning(t *testing.T) space {
	t.Helper()
	s := newSpace(t)
	chart := run(t.Context(), "", "helm", "template", "pin-"+s.name, "charts/oke-sign-policy", "--show-only", "templates/pintags.yaml",
		"--set", "pinTags=true", "--set", "keys={"+imageKey.ID+"}", "--set", "scope.namespaces={"+s.name+"}", "--set", "scope.excludedNamespaces=null").succeeds(t)
	s.apply(t, chart.stdout).succeeds(t)
	t.Cleanup(func() { s.pipe(t, chart.stdout, "delete", "-f", "-").succeeds(t) })
	s.enforce(t,
		constraint{kind: policies.SignedImages, on: pods, parameters: signedBy("", imageKey)},
		constraint{kind: policies.ImageDigests, on: pods},
	)
	return s
}

// A tag in any field of a Pod becomes a digest. A tag that cannot be pinned is
// evaluated as a tag.
func TestTagsArePinned(t *testing.T) {
	t.Parallel()
	s := pinning(t)
	good, unsigned := s.signed(t, "good", imageKey), s.push(t, "unsigned")
	at := func(image string) string { // as the admitted Pod has it
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
		"other":    {dockerHub, "not-oci-registry"},
	} {
		s.kubectl(t, "run", name, "--image="+tt.image).fails(t, fmt.Sprintf("containers/%s: %s: ", name, tt.want))
	}
	// A running Pod keeps its image.
	s.kubectl(t, "label", "pod", "pinned", "seen=yes").succeeds(t)
}

// While tags cannot be resolved, they are denied as tags. Break-glass still admits
// them.
func TestTagsWithoutAnAnswer(t *testing.T) {
	disturbs(t)
	s := pinning(t)
	emergency, err := json.Marshal(object{"metadata": object{"annotations": breakGlass("true")}})
	if err != nil {
		t.Fatal(err)
	}
	image := map[string]string{}
	for _, name := range []string{"pinned", "no-oci", "hung", "gone"} {
		image[name] = byTag(s.signed(t, name, imageKey))
	}
	eventually(t, soon, "Gatekeeper pins tags", func() error {
		return s.kubectl(t, "run", "pinned", "--image="+image["pinned"]).err
	})
	okeSign(t, "doctor", "--all").says(t, "by 3 rules")
	for _, test := range []struct {
		name string
		stop func(*testing.T)
	}{
		{"no-oci", func(t *testing.T) {
			t.Cleanup(func() { control(t, "resume", "oci-emulator") })
			control(t, "pause", "oci-emulator")
		}},
		{"hung", func(t *testing.T) { pause(t, "oke-sign") }},
		{"gone", func(t *testing.T) {
			deployment := []string{"scale", "deployment", "oke-sign", "--replicas"}
			own := space{name: "oke-sign"}
			t.Cleanup(func() {
				own.kubectl(t, append(deployment, "2")...).succeeds(t)
				own.ready(t, soon, "oke-sign", "2/2")
			})
			own.kubectl(t, append(deployment, "0")...).succeeds(t)
			eventually(t, soon, "no provider runs", func() error {
				if names := containers(t, "oke-sign"); len(names) > 0 {
					return fmt.Errorf("%s run", names)
				}
				return nil
			})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.stop(t)
			tag := image[test.name]
			s.kubectl(t, "run", test.name, "--image="+tag).fails(t, denies, "containers/"+test.name+": no-digest: ", tag)
			s.kubectl(t, "run", test.name, "--image="+tag, "--override-type=strategic", "--overrides="+string(emergency)).succeeds(t)
		})
	}
}
