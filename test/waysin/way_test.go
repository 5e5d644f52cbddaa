package waysin_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/spec3"

	"github.com/oke-sign/oke-sign/test/waysin"
)

// schemas are the components of a small API in the words of Kubernetes.
const schemas = `
	"io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta": {"type": "object", "properties": {
		"annotations": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
		"creationTimestamp": {"type": "string", "format": "date-time"},
		"managedFields": {"type": "array", "items": {"type": "object", "properties": {
			"fieldsV1": {"allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"}]}}}}}},
	"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {"type": "object"},
	"io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object"},
	"IntOrString": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
	"Container": {"type": "object", "properties": {"image": {"type": "string"}, "imagePullPolicy": {"type": "string"}, "port": {"$ref": "#/components/schemas/IntOrString"}}},
	"PodSpec": {"type": "object", "properties": {
		"initContainers": {"type": "array", "items": {"$ref": "#/components/schemas/Container"}},
		"imagePullSecrets": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}}},
	"Meta": {"allOf": [{"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}], "default": {}},
	"Gang": {"type": "object", "properties": {
		"metadata": {"$ref": "#/components/schemas/Meta"},
		"spec": {"type": "object", "properties": {
			"members": {"type": "object", "additionalProperties": {"type": "object", "properties": {"podSpec": {"$ref": "#/components/schemas/PodSpec"}}}},
			"minReplicas": {"type": "integer"}, "replicas": {"type": "string"}}},
		"status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}},
	"Settings": {"type": "object", "properties": {
		"metadata": {"$ref": "#/components/schemas/Meta"},
		"data": {"type": "object", "additionalProperties": {"type": "string"}},
		"limit": {"x-kubernetes-int-or-string": true},
		"more": {"$ref": "#/components/schemas/Settings"}}},
	"Revision": {"type": "object", "properties": {"data": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.runtime.RawExtension"}}},
	"Custom": {"type": "object", "properties": {
		"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"size": {"type": "integer"}}},
		"extra": {"type": "object", "additionalProperties": true},
		"any": {}}},
	"Metadata": {"type": "object", "properties": {"metadata": {"$ref": "#/components/schemas/Meta"}}}`

// list lists the ways of one resource whose requests have bodies of that schema.
func list(t *testing.T, gv schema.GroupVersion, resource metav1.APIResource, body string) ([]waysin.Way, error) {
	t.Helper()
	name, sub, isSub := strings.Cut(resource.Name, "/")
	path := "/apis/" + gv.String()
	if gv.Group == "" {
		path = "/api/" + gv.Version
	}
	if resource.Namespaced {
		path += "/namespaces/{namespace}"
	}
	all, one := path+"/"+name, path+"/"+name+"/{name}"
	if isSub {
		one += "/" + sub
		all = one
	}
	content := fmt.Sprintf(`{"content": {"*/*": {"schema": {"$ref": "#/components/schemas/%s"}}}}`, body)
	answers := `"responses": {"200": ` + strings.Replace(content, "*/*", "application/json", 1) + `}`
	text := fmt.Sprintf(`{"paths": {
		%q: {"post": {"requestBody": %s, %s}},
		%q: {"put": {"requestBody": %s, %s}, "patch": {%s}, "get": {%s}, "delete": {%s}}
	}, "components": {"schemas": {%s}}}`, all, content, answers, one, content, answers, answers, answers, answers, schemas)
	if isSub {
		text = fmt.Sprintf(`{"paths": {%q: {"post": {"requestBody": %s, "x-kubernetes-action": %q}, "put": {"requestBody": %s}, "patch": {%s}}}, "components": {"schemas": {%s}}}`,
			one, content, map[string]string{"exec": "connect"}[sub], content, answers, schemas)
	}
	var document spec3.OpenAPI
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return waysin.List(gv, []metav1.APIResource{resource}, &document)
}

func TestWhatAWayCarries(t *testing.T) {
	core, apps, gatekeeper := schema.GroupVersion{Version: "v1"}, schema.GroupVersion{Group: "apps", Version: "v1"}, schema.GroupVersion{Group: "config.gatekeeper.sh", Version: "v1"}
	for name, test := range map[string]struct {
		gv             schema.GroupVersion
		resource, body string
		want           []string
	}{
		"a template of a Pod, wherever it stands": {apps, "gangs", "Gang", []string{
			"spec.members.*.podSpec.initContainers (containers)", "spec.members.*.podSpec.initContainers[].image (image)", "spec.minReplicas (replicas)",
		}},
		"text, numbers and a schema within itself": {apps, "settings", "Settings", nil},
		"any JSON by a type of Kubernetes":         {apps, "revisions", "Revision", []string{"data (anything)"}},
		"any JSON in other words":                  {apps, "customs", "Custom", []string{"any (anything)", "extra (anything)", "spec (anything)"}},
		"a schema that is missing":                 {apps, "customs", "Missing", []string{"the object (anything)"}},
		"annotations for a Pod":                    {core, "pods/binding", "Metadata", []string{"metadata.annotations (annotations)"}},
		"annotations of another object":            {apps, "pods", "Metadata", nil},
		"labels of a namespace":                    {core, "namespaces/status", "Metadata", []string{"metadata.labels (labels)"}},
		"what Gatekeeper reads":                    {gatekeeper, "configs", "Settings", []string{"the object (policy)"}},
	} {
		resource := metav1.APIResource{Name: test.resource, Namespaced: true, Kind: test.body, Verbs: metav1.Verbs{"create", "update", "patch"}}
		ways, err := list(t, test.gv, resource, test.body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, way := range ways {
			var got []string
			for _, place := range way.Carries {
				got = append(got, place.String())
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: %s, -want +got:\n%s", name, way, diff)
			}
		}
		if len(ways) != 3 {
			t.Errorf("%s: %d ways, want 3", name, len(ways))
		}
	}
}

// Requests without an object of their own carry nothing, and those that open a
// stream are told from those that create something.
func TestWaysWithoutABody(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	ways, err := list(t, apps, metav1.APIResource{Name: "gangs", Verbs: metav1.Verbs{"get", "delete"}}, "Gang")
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range ways {
		if len(way.Carries) > 0 || way.HasBody() || way.Writes() != (way.Verb == "delete") {
			t.Errorf("%s: %+v", way, way)
		}
	}
	ways, err = list(t, schema.GroupVersion{Version: "v1"}, metav1.APIResource{Name: "pods/exec", Verbs: metav1.Verbs{"create"}}, "Gang")
	if err != nil || len(ways) != 1 || !ways[0].Connects || len(ways[0].Carries) > 0 || ways[0].String() != "v1/pods/exec create" {
		t.Errorf("got %+v, %v; want one way that connects", ways, err)
	}
}

// What the schemas say nothing about is no way that carries nothing.
func TestUnknownWays(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	const want = "the schemas have no such operation of path /apis/apps/v1/gangs"
	for _, verb := range []string{"list", "deletecollection", "invent"} {
		ways, err := list(t, apps, metav1.APIResource{Name: "gangs", Verbs: metav1.Verbs{verb}}, "Gang")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v; want an error that says %q", verb, ways, err, want)
		}
	}
	var empty spec3.OpenAPI
	if err := json.Unmarshal([]byte(`{"paths": {}}`), &empty); err != nil {
		t.Fatal(err)
	}
	_, err := waysin.List(apps, []metav1.APIResource{{Name: "gangs", Verbs: metav1.Verbs{"create"}}}, &empty)
	if err == nil || !strings.Contains(err.Error(), "the schemas have no path /apis/apps/v1/gangs") {
		t.Errorf("got %v; want an error about the path", err)
	}
}
