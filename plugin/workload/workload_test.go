package workload_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

func object(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o, err := manifest.Object([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// An argument is an object or an image, and the rule is predictable.
func TestIsObject(t *testing.T) {
	for arg, want := range map[string]bool{
		"deployment/web":          true,
		"deploy.apps/web":         true,
		"iad.ocir.io/ns/web":      false,
		"iad.ocir.io/ns/web:1":    false,
		"library/nginx:1":         false,
		"library/nginx@sha256:ab": false,
		"nginx":                   false,
		"":                        false,
	} {
		if got := workload.IsObject(arg); got != want {
			t.Errorf("%q: got %v", arg, got)
		}
	}
	for arg, want := range map[string]bool{"pods": true, "nginx": true, "": false, "nginx:1": false, "a/b": false, "a@b": false} {
		if got := workload.IsWord(arg); got != want {
			t.Errorf("the word %q: got %v", arg, got)
		}
	}
}

func TestCheckSelector(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "app=web": true, "tier in (web, api),!canary": true, "app=": true, "=web": false, "app in web": false, "a b": false} {
		if err := workload.CheckSelector(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNames(t *testing.T) {
	owned := `{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, ownerReferences: [{apiVersion: %s, kind: %s, name: %s, controller: %s}]}}`
	with := func(parts ...string) string {
		text := owned
		for _, p := range parts {
			text = strings.Replace(text, "%s", p, 1)
		}
		return text
	}
	for name, tc := range map[string]struct{ text, want string }{
		"a Pod by itself":           {`{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}`, "shop/Pod/web"},
		"an object of no namespace": {`{apiVersion: v1, kind: Namespace, metadata: {name: shop}}`, "Namespace/shop"},
		"a Pod of a ReplicaSet":     {with("apps/v1", "ReplicaSet", "web", "true"), "shop/ReplicaSet/web"},
		"an owner without control":  {with("apps/v1", "ReplicaSet", "web", "false"), "shop/Pod/web-1"},
		"a static Pod of a node":    {with("v1", "Node", "node-1", "true"), "shop/Pod/web-1"},
	} {
		if got := workload.Controller(object(t, tc.text)).Title(); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
	d := workload.Document{File: "web.yaml", Object: object(t, `{apiVersion: batch/v1, kind: Job, metadata: {generateName: nightly-, namespace: shop}}`)}
	if d.Name() != "shop/Job/nightly-*" || d.At(7) != "web.yaml:7" {
		t.Errorf("a document: %s, %s", d.Name(), d.At(7))
	}
}

// A short message omits only text that is next to it.
func TestBrief(t *testing.T) {
	for message, want := range map[string]string{
		"containers/web: unsigned: no signature: img:1": "unsigned: no signature",
		"unsigned: no signature":                        "unsigned: no signature",
		"containers/web: unsigned":                      "unsigned",
		"no-answer: asking OCI: 503":                    "no-answer: asking OCI: 503",
		"":                                              "",
	} {
		if got := (workload.Violation{Message: message}).Brief("img:1"); got != want {
			t.Errorf("%q: got %q, want %q", message, got, want)
		}
	}
}

// Of thousands of Pods, only the parts with images stay in memory. Unreadable parts
// stay too, so that they cause an error.
func TestSlim(t *testing.T) {
	pod := object(t, `{apiVersion: v1, kind: Pod,
		metadata: {name: web, namespace: shop, managedFields: [{manager: x}], annotations: {a: b, kubectl.kubernetes.io/last-applied-configuration: "{}"}},
		spec: {nodeName: n, containers: [{name: c, image: "nginx:1", env: [{name: SECRET, value: x}]}], volumes: [{name: t, secret: {}}, {name: m, image: {reference: "model:1"}}, odd]},
		status: {phase: Running, podIP: 10.0.0.1, containerStatuses: [{name: c, image: "nginx:1", imageID: "nginx@sha256:1", ready: true}]}}`)
	want := object(t, `{apiVersion: v1, kind: Pod,
		metadata: {name: web, namespace: shop, annotations: {a: b}},
		spec: {containers: [{name: c, image: "nginx:1"}], volumes: [{name: m, image: {reference: "model:1"}}, odd]},
		status: {phase: Running, containerStatuses: [{name: c, image: "nginx:1", imageID: "nginx@sha256:1"}]}}`)
	if diff := cmp.Diff(want.Object, workload.Slim(pod.DeepCopy()).Object); diff != "" {
		t.Error(diff)
	}
}

func TestReadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.yaml":             "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: b}}",
		"deeper/c.json":      `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "c"}}`,
		".git/d.yaml":        "{apiVersion: v1, kind: Pod, metadata: {name: d}}",
		"README.md":          "no manifest",
		"empty/README.md":    "no manifest",
		"broken/values.yaml": "replicas: 2",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const piped = "{apiVersion: v1, kind: Pod, metadata: {name: piped}}"
	for name, tc := range map[string]struct {
		paths     []string
		recursive bool
		want, err string
	}{
		"none":                          {nil, false, "", ""},
		"a file of two":                 {[]string{"a.yaml"}, false, "a b", ""},
		"standard input":                {[]string{"-", "a.yaml"}, false, "piped a b", ""},
		"what is deeper":                {[]string{"deeper"}, true, "c", ""},
		"a directory, and no deeper":    {[]string{"."}, false, "a b", ""},
		"a directory without any":       {[]string{"empty"}, true, "", "has no .yaml"},
		"a file without a manifest":     {[]string{"broken"}, true, "", "broken"},
		"a missing file":                {[]string{"gone.yaml"}, false, "", "no such file"},
		"a file that is not a manifest": {[]string{"a.yaml", "README.md"}, false, "", "README.md"},
	} {
		var paths []string
		for _, p := range tc.paths {
			if p != "-" {
				p = filepath.Join(dir, p)
			}
			paths = append(paths, p)
		}
		found, err := workload.ReadFiles(t.Context(), strings.NewReader(piped), paths, tc.recursive)
		var names []string
		for _, d := range found {
			names = append(names, d.Object.GetName())
		}
		if got := strings.Join(names, " "); got != tc.want || (err != nil) != (tc.err != "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// Images in arguments are found once each, in their order.
func TestFind(t *testing.T) {
	streams, in, _, errOut := genericiooptions.NewTestIOStreams()
	in.WriteString(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {template: {spec: {
		initContainers: [{name: i, image: "init:1"}], containers: [{name: c, image: "web:1"}, {name: d, image: "web:1"}]}}}}`)
	s := &connect.Session{Terminal: cli.Terminal{Streams: streams}}
	flags := workload.TargetFlags{Files: []string{"-"}}
	found, err := flags.Find(t.Context(), s, []string{"iad.ocir.io/ns/x:1", "web:1", "nginx", "iad.ocir.io/ns/x:1"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"iad.ocir.io/ns/x:1", "web:1", "nginx", "init:1"}, workload.ImagesOf(found)); diff != "" {
		t.Error(diff)
	}
	var places []string
	for _, u := range found[1].Users {
		places = append(places, u.Name()+" "+u.Place)
	}
	if diff := cmp.Diff([]string{"shop/Deployment/web containers/c", "shop/Deployment/web containers/d"}, places); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(errOut.String(), "nginx is taken for an image") {
		t.Errorf("said %q", errOut)
	}
	in.WriteString(`{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}`)
	if _, err := flags.Find(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "no image found") {
		t.Errorf("objects without images: %v", err)
	}
	in.WriteString(`{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: {c: {image: "hidden:1"}}}}`)
	if _, err := flags.Find(t.Context(), s, nil); err == nil || !strings.Contains(err.Error(), "Pod/x") {
		t.Errorf("an object in which an image may hide: %v", err)
	}
}
