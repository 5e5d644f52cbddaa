package manifest_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

func TestImages(t *testing.T) {
	const head = "apiVersion: v1\nkind: Any\nmetadata: {name: x}\n"
	for name, tc := range map[string]struct {
		text string
		want []string // place and reference
		err  string
	}{
		"a pod": {
			"spec: {containers: [{name: a, image: i1}], initContainers: [{name: b, image: i2}], ephemeralContainers: [{name: c, image: i3}]}",
			[]string{"initContainers/b i2", "containers/a i1", "ephemeralContainers/c i3"}, "",
		},
		"a volume": {
			"spec: {containers: [{name: a, image: i1}], volumes: [{name: tmp, emptyDir: {}}, {name: v, image: {reference: i2}}]}",
			[]string{"containers/a i1", "volumes/v i2"}, "",
		},
		"no name":               {"spec: {containers: [{image: i1}, {image: i2}]}", []string{"containers/0 i1", "containers/1 i2"}, ""},
		"a workload":            {"spec: {template: {spec: {containers: [{name: a, image: i1}]}}}", []string{"containers/a i1"}, ""},
		"a cron job":            {"spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a, image: i1}]}}}}}", []string{"containers/a i1"}, ""},
		"a template":            {"template: {spec: {containers: [{name: a, image: i1}]}}", []string{"containers/a i1"}, ""},
		"a set of jobs":         {"spec: {replicatedJobs: [{template: {spec: {template: {spec: {containers: [{name: a, image: i1}]}}}}}]}", []string{"containers/a i1"}, ""},
		"no pods":               {"spec: {ports: [{port: 80}]}", nil, ""},
		"nothing":               {"", nil, ""},
		"init containers alone": {"spec: {initContainers: [{name: a, image: i1}]}", []string{"initContainers/a i1"}, ""},
		"null lists":            {"spec: {containers: [{name: a, image: i1}], initContainers: null}", []string{"containers/a i1"}, ""},
		"no image":              {"spec: {containers: [{name: a}]}", nil, "containers/a names no image"},
		"an empty image":        {"spec: {containers: [{name: a, image: ''}]}", nil, "containers/a names no image"},
		"a number":              {"spec: {containers: [{name: a, image: 5}]}", nil, "containers/a names no image"},
		"a container as text":   {"spec: {containers: [a]}", nil, "containers/0 must be an object"},
		"containers as a map":   {"spec: {containers: {a: {image: i1}}}", nil, "containers must be a list"},
		"volumes as a map":      {"spec: {containers: [{name: a, image: i1}], volumes: {a: 1}}", nil, "volumes must be a list"},
		"a volume without":      {"spec: {containers: [{name: a, image: i1}], volumes: [{name: v, image: {}}]}", nil, "volumes/v names no image"},
		"a volume with text":    {"spec: {containers: [{name: a, image: i1}], volumes: [{name: v, image: i}]}", nil, "volumes/v names no image"},
	} {
		object, err := manifest.Object([]byte(head + tc.text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		images, err := manifest.Images(object)
		var got []string
		for _, i := range images {
			got = append(got, i.Place()+" "+i.Ref)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if (err != nil || tc.err != "") && (err == nil || err.Error() != tc.err) {
			t.Errorf("%s: error %v, want %q", name, err, tc.err)
		}
	}
}

func TestOverlooked(t *testing.T) {
	const head = "apiVersion: v1\nkind: Any\nmetadata: {name: x}\n"
	for name, tc := range map[string]struct{ text, want string }{
		"a pod":                   {"spec: {containers: [{image: i}], initContainers: [{image: i}], ephemeralContainers: [{image: i}]}", ""},
		"a workload":              {"spec: {template: {spec: {containers: [{image: i}]}}}", ""},
		"a template":              {"template: {spec: {containers: [{image: i}]}}", ""},
		"a cron job":              {"spec: {jobTemplate: {spec: {template: {spec: {containers: [{image: i}]}}}}}", ""},
		"a set of jobs":           {"spec: {replicatedJobs: [{template: {spec: {template: {spec: {initContainers: [{image: i}]}}}}}]}", ""},
		"a template in a field":   {"spec: {headGroupSpec: {template: {spec: {containers: [{image: i}]}}}}", "spec.headGroupSpec.template.spec.containers"},
		"a template in a list":    {"spec: {tasks: [{}, {pod: {initContainers: [{name: a}, {image: i}]}}]}", "spec.tasks.1.pod.initContainers"},
		"beside a pod":            {"spec: {containers: [{image: i}], sidecars: {containers: [{image: i}]}}", "spec.sidecars.containers"},
		"inside a container":      {"spec: {containers: [{image: i, containers: [{image: j}]}]}", "spec.containers.0.containers"},
		"the first of two":        {"spec: {b: {containers: [{image: i}]}, a: {containers: [{image: i}]}}", "spec.a.containers"},
		"containers without one":  {"spec: {resourcePolicy: {containers: [{name: a}, b]}}", ""},
		"the schema of a list":    {"spec: {schema: {containers: {type: array, items: {image: {}}}}}", ""},
		"names with dots in them": {"spec: {template: {spec: {}}}\nspec.template.spec: {containers: [{image: i}]}", "spec.template.spec.containers"},
	} {
		object, err := manifest.Object([]byte(head + tc.text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := manifest.Overlooked(object); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}
