package attacksurface_test

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

	"github.com/oke-sign/oke-sign/test/attacksurface"
)

// schemas holds the components of a small API in Kubernetes' notation.
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

// list lists the requests of one resource whose bodies have the given schema.
func list(t *testing.T, gv schema.GroupVersion, resource metav1.APIResource, body string) ([]attacksurface.Request, error) {
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
	return attacksurface.List(gv, []metav1.APIResource{resource}, &document)
}

func TestWhatARequestCarries(t *testing.T) {
	core, apps, gatekeeper := schema.GroupVersion{Version: "v1"}, schema.GroupVersion{Group: "apps", Version: "v1"}, schema.GroupVersion{Group: "config.gatekeeper.sh", Version: "v1"}
	for name, test := range map[string]struct {
		gv             schema.GroupVersion
		resource, body string
		want           []string
	}{
		"a Pod template in any field": {apps, "gangs", "Gang", []string{
			"spec.members.*.podSpec.initContainers (containers)", "spec.members.*.podSpec.initContainers[].image (image)", "spec.minReplicas (replicas)",
		}},
		"text, numbers and a recursive schema": {apps, "settings", "Settings", nil},
		"any JSON by a type of Kubernetes":     {apps, "revisions", "Revision", []string{"data (anything)"}},
		"any JSON, in another form":            {apps, "customs", "Custom", []string{"any (anything)", "extra (anything)", "spec (anything)"}},
		"a missing schema":                     {apps, "customs", "Missing", []string{"the object (anything)"}},
		"annotations for a Pod":                {core, "pods/binding", "Metadata", []string{"metadata.annotations (annotations)"}},
		"annotations of another object":        {apps, "pods", "Metadata", nil},
		"labels of a namespace":                {core, "namespaces/status", "Metadata", []string{"metadata.labels (labels)"}},
		"what Gatekeeper reads":                {gatekeeper, "configs", "Settings", []string{"the object (policy)"}},
	} {
		resource := metav1.APIResource{Name: test.resource, Namespaced: true, Kind: test.body, Verbs: metav1.Verbs{"create", "update", "patch"}}
		requests, err := list(t, test.gv, resource, test.body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, request := range requests {
			var got []string
			for _, field := range request.Carries {
				got = append(got, field.String())
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: %s, -want +got:\n%s", name, request, diff)
			}
		}
		if len(requests) != 3 {
			t.Errorf("%s: %d requests, want 3", name, len(requests))
		}
	}
}

// Requests without an object carry nothing. The list distinguishes requests that
// open a stream from those that create an object.
func TestRequestsWithoutABody(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	requests, err := list(t, apps, metav1.APIResource{Name: "gangs", Verbs: metav1.Verbs{"get", "delete"}}, "Gang")
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range requests {
		if len(request.Carries) > 0 || request.HasBody() || request.Writes() != (request.Verb == "delete") {
			t.Errorf("%s: %+v", request, request)
		}
	}
	requests, err = list(t, schema.GroupVersion{Version: "v1"}, metav1.APIResource{Name: "pods/exec", Verbs: metav1.Verbs{"create"}}, "Gang")
	if err != nil || len(requests) != 1 || !requests[0].Connects || len(requests[0].Carries) > 0 || requests[0].String() != "v1/pods/exec create" {
		t.Errorf("got %+v, %v; want one request that connects", requests, err)
	}
}

// A request that the schemas do not describe is an error, not a request that carries
// nothing.
func TestUnknownRequests(t *testing.T) {
	apps := schema.GroupVersion{Group: "apps", Version: "v1"}
	const want = "the schemas have no such operation of path /apis/apps/v1/gangs"
	for _, verb := range []string{"list", "deletecollection", "invent"} {
		requests, err := list(t, apps, metav1.APIResource{Name: "gangs", Verbs: metav1.Verbs{verb}}, "Gang")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v; want an error that says %q", verb, requests, err, want)
		}
	}
	var empty spec3.OpenAPI
	if err := json.Unmarshal([]byte(`{"paths": {}}`), &empty); err != nil {
		t.Fatal(err)
	}
	_, err := attacksurface.List(apps, []metav1.APIResource{{Name: "gangs", Verbs: metav1.Verbs{"create"}}}, &empty)
	if err == nil || !strings.Contains(err.Error(), "the schemas have no path /apis/apps/v1/gangs") {
		t.Errorf("got %v; want an error about the path", err)
	}
}
