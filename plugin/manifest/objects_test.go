package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

func TestObjects(t *testing.T) {
	a, b := "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n", "{apiVersion: v1, kind: Pod, metadata: {name: b}}\n"
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"one":                       {a, []string{"a"}},
		"two documents":             {a + "---\n" + b, []string{"a", "b"}},
		"empty documents":           {"---\n# nothing\n---\n" + a + "---\n---\n", []string{"a"}},
		"nothing":                   {"", nil},
		"a list":                    {"{apiVersion: v1, kind: List, items: [" + a + "," + b + "]}", []string{"a", "b"}},
		"a list of one kind":        {"{apiVersion: v1, kind: PodList, items: [" + a + "]}", []string{"a"}},
		"a list in a list":          {"{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: [" + a + "]}, " + b + "]}", []string{"a", "b"}},
		"an empty list":             {"{apiVersion: v1, kind: List, items: []}", nil},
		"JSON":                      {`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}`, []string{"a"}},
		"lines of Windows":          {strings.ReplaceAll(a+"---\n"+b, "\n", "\r\n"), []string{"a", "b"}},
		"a mark of byte order":      {"\ufeff" + a, []string{"a"}},
		"a separator and more":      {a + "--- # more\n" + b, []string{"a", "b"}},
		"one document ended":        {a + "...\n", []string{"a"}},
		"a separator before spaces": {a + "---  \n" + b, []string{"a", "b"}},
	} {
		objects, err := manifest.Objects([]byte(tc.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, o := range objects {
			got = append(got, o.GetName())
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	nested := strings.Repeat("{apiVersion: v1, kind: List, items: [", 20) + a + strings.Repeat("]}", 20)
	for name, text := range map[string]string{
		"a second document behind an end":       a + "...\n" + b,
		"a second document on the line":         a + "--- " + b,
		"a second object of JSON":               `{"apiVersion": "v1", "kind": "Pod"} {"apiVersion": "v1", "kind": "Pod"}`,
		"a second object of JSON, on a line":    "{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}\n{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}",
		"a field that is there twice":           "apiVersion: v1\nkind: Pod\nkind: Pod\n",
		"no object":                             "nginx",
		"a list of no objects":                  "{apiVersion: v1, kind: List, items: [nginx]}",
		"a list of what says not what it is":    "{apiVersion: v1, kind: List, items: [{metadata: {name: a}}]}",
		"items in a Pod":                        "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{image: nginx}]}, items: []}",
		"items in a Pod in a list":              "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: a}, items: []}]}",
		"items that are no list":                "{apiVersion: v1, kind: List, items: {a: b}}",
		"no kind":                               "apiVersion: v1",
		"half a document":                       a + "---\n{",
		"lists in lists in lists":               nested,
		"a second document that cannot be read": a + "---\n\tx: [",
	} {
		if objects, err := manifest.Objects([]byte(text)); err == nil || objects != nil {
			t.Errorf("%s: %d objects, %v", name, len(objects), err)
		}
	}
	for name, text := range map[string]string{"a comment": a + "--- # more\n" + b, "an end": a + "...\n" + b, "nothing": a + "---\n" + b} {
		if _, err := manifest.Object([]byte(text)); err == nil {
			t.Errorf("Object passed over a second document behind %s", name)
		}
	}
}

// A field is read if all readers of YAML understand it in the same way. Other fields
// are an error.
func TestMergedFields(t *testing.T) {
	const head = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec:\n  containers:\n  - &a {name: a, image: i, env: &e {x: y}}\n"
	for name, tc := range map[string]struct {
		text string
		want string // places and references, or nothing if an error is expected
	}{
		"merged":                        {"  - {<<: *a}\n", "containers/a i, containers/a i"},
		"overridden":                    {"  - {<<: *a, name: b, image: j}\n", "containers/a i, containers/b j"},
		"overridden on separate lines":  {"  - <<: *a\n    name: b\n    image: j\n", "containers/a i, containers/b j"},
		"two that say different things": {"  - {<<: [*a, *e], name: b}\n", "containers/a i, containers/b i"},
		"overridden twice":              {"  - {<<: *a, image: j, image: k}\n", ""},
		"overridden before":             {"  - {image: j, <<: *a}\n", ""},
		"two that say the same":         {"  - {<<: [*a, *a], image: j}\n", ""},
		"one after the other":           {"  - {<<: *a, <<: *a, image: j}\n", ""},
		"merged text":                   {"  - {<<: [*a, text], image: j}\n", ""},
		"a field twice beside":          {"  - {<<: *a, name: b}\n  - {image: j, image: k}\n", ""},
		"a field twice in a merged map": {"  - {<<: {image: j, image: k}, image: l}\n", ""},
		"a field twice deeper":          {"  - {<<: *a, name: b, env: [{image: j, image: k}]}\n", ""},
		"a field whose name is no text": {"  - {<<: *a, name: b, yes: no, true: no}\n", ""},
		"itself":                        {"  - &b {<<: *b, name: b}\n", ""},
	} {
		object, err := manifest.Object([]byte(head + tc.text))
		var got []string
		if err == nil {
			images, err := manifest.Images(object)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, i := range images {
				got = append(got, i.Place()+" "+i.Ref)
			}
		}
		if got := strings.Join(got, ", "); got != tc.want {
			t.Errorf("%s: %q, want %q (%v)", name, got, tc.want, err)
		}
		// kubectl reads repeated fields without an error.
		if tc.want != "" {
			var kubectl map[string]any
			if err := yaml.Unmarshal([]byte(head+tc.text), &kubectl); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(kubectl, object.Object); diff != "" {
				t.Errorf("%s: kubectl reads something else: %s", name, diff)
			}
		}
	}
}

func TestPods(t *testing.T) {
	template := "{metadata: {labels: {app: web}, annotations: {a: b}, name: other, namespace: other}, spec: {containers: [{image: nginx}]}}"
	for name, tc := range map[string]struct {
		text string
		want int
	}{
		"a Pod":              {"{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: ns}, spec: {containers: [{image: nginx}]}}", 0},
		"a Deployment":       {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: ns}, spec: {template: " + template + "}}", 1},
		"a CronJob":          {"{apiVersion: batch/v1, kind: CronJob, metadata: {name: web, namespace: ns}, spec: {jobTemplate: {spec: {template: " + template + "}}}}", 1},
		"a PodTemplate":      {"{apiVersion: v1, kind: PodTemplate, metadata: {name: web, namespace: ns}, template: " + template + "}", 1},
		"a JobSet":           {"{apiVersion: jobset.x-k8s.io/v1, kind: JobSet, metadata: {name: web, namespace: ns}, spec: {replicatedJobs: [{template: {spec: {template: " + template + "}}}, 1]}}", 1},
		"a Service":          {"{apiVersion: v1, kind: Service, metadata: {name: web, namespace: ns}, spec: {}}", 0},
		"an empty template":  {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: ns}, spec: {template: {}}}", 0},
		"a template of text": {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: ns}, spec: {template: nginx}}", 0},
		"text all over":      {"{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: ns}, spec: nginx, template: nginx}", 0},
	} {
		object, err := manifest.Object([]byte(tc.text))
		if err != nil {
			t.Fatal(err)
		}
		before := fmt.Sprint(object.Object)
		pods := manifest.Pods(object)
		if len(pods) != tc.want {
			t.Errorf("%s: %d Pods, want %d", name, len(pods), tc.want)
		}
		for _, pod := range pods {
			got := []string{pod.GetKind(), pod.GetName(), pod.GetNamespace(), pod.GetAnnotations()["a"], pod.GetLabels()["app"]}
			if diff := cmp.Diff([]string{"Pod", "web-pod", "ns", "b", "web"}, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
		if after := fmt.Sprint(object.Object); after != before {
			t.Errorf("%s was changed: %s", name, after)
		}
	}
}

func FuzzObjects(f *testing.F) {
	f.Add([]byte("{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n{apiVersion: v1, kind: List, items: []}"))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: []}}}"))
	f.Add([]byte("--- # x\n...\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, err := manifest.Objects(text)
		if err != nil && objects != nil {
			t.Error("objects beside an error")
		}
		for _, object := range objects {
			if object.GetKind() == "" {
				t.Error("an object without a kind")
			}
			manifest.Pods(object)
		}
	})
}

func FuzzObject(f *testing.F) {
	f.Add([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: x}"))
	f.Add([]byte(`{"apiVersion": "v1", "kind": "List", "items": [{"kind": "Pod"}]}`))
	f.Add([]byte("kind: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		object, err := manifest.Object(text)
		if err != nil {
			return
		}
		raw, err := object.MarshalJSON()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := manifest.Object(raw)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if diff := cmp.Diff(object.Object, again.Object); diff != "" {
			t.Error(diff)
		}
	})
}
