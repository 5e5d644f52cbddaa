package cmd_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cmd"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/test/apiserver"
)

func TestRunningPods(t *testing.T) {
	server := apiserver.Start(t)
	kubeconfig, err := server.Kubeconfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	owned := func(version, kind, name string) string {
		return fmt.Sprintf("ownerReferences: [{apiVersion: %s, kind: %s, name: %s, uid: u, controller: true}]", version, kind, name)
	}
	objects, err := manifest.Objects([]byte(`
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, namespace: shop, ` + owned("apps/v1", "Deployment", "web") + `}}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-1, namespace: other}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: nightly-7, namespace: shop, ` + owned("batch/v1", "CronJob", "nightly") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}, ` + owned("apps/v1", "ReplicaSet", "web-1") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: other, ` + owned("apps/v1", "ReplicaSet", "web-1") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gone, namespace: shop, ` + owned("apps/v1", "ReplicaSet", "deleted") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: nightly, namespace: shop, ` + owned("batch/v1", "Job", "nightly-7") + `}, status: {phase: Running}}
---
{apiVersion: v1, kind: Pod, metadata: {name: rollout, namespace: shop, ` + owned("argoproj.io/v1alpha1", "ReplicaSet", "web-1") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: proxy, namespace: shop, ` + owned("v1", "Node", "n1") + `}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bare, namespace: shop}, status: {phase: Pending}}
---
{apiVersion: v1, kind: Pod, metadata: {name: done, namespace: shop}, status: {phase: Succeeded}}
---
{apiVersion: v1, kind: Pod, metadata: {name: failed, namespace: shop}, status: {phase: Failed}}
`))
	if err == nil {
		err = server.Add(objects...)
	}
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"shop/Pod/web":     "apps/v1/Deployment/web",
		"other/Pod/web":    "apps/v1/ReplicaSet/web-1",
		"shop/Pod/gone":    "apps/v1/ReplicaSet/deleted",
		"shop/Pod/nightly": "batch/v1/CronJob/nightly",
		"shop/Pod/rollout": "argoproj.io/v1alpha1/ReplicaSet/web-1",
		"shop/Pod/proxy":   "v1/Pod/proxy",
		"shop/Pod/bare":    "v1/Pod/bare",
	}
	got, err := cmd.Running(t.Context(), kubeconfig, "", "")
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("error %v, difference:\n%s", err, cmp.Diff(want, got))
	}
	delete(want, "other/Pod/web")
	got, err = cmd.Running(t.Context(), kubeconfig, "shop", "")
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("in a namespace: error %v, difference:\n%s", err, cmp.Diff(want, got))
	}
	got, err = cmd.Running(t.Context(), kubeconfig, "", "app=web")
	if err != nil || len(got) != 1 {
		t.Errorf("of a label: %v, %v", got, err)
	}

	// Page by page.
	for i := range 1200 {
		pod := objects[len(objects)-3].DeepCopy()
		pod.SetName(fmt.Sprintf("bare-%04d", i))
		if err := server.Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	before := len(server.Requests())
	got, err = cmd.Running(t.Context(), kubeconfig, "", "")
	if err != nil || len(got) != 1207 {
		t.Errorf("%d Pods, %v", len(got), err)
	}
	pages := slices.DeleteFunc(server.Requests()[before:], func(r string) bool { return !strings.HasSuffix(r, "/pods") })
	if len(pages) != 3 {
		t.Errorf("%d pages of Pods, want 3", len(pages))
	}
}

// Pods are judged once as long as no constraint can tell them apart, and each by
// itself if one can.
func TestPodsAlike(t *testing.T) {
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: web-%[1]s, generateName: web-, namespace: shop, uid: "%[1]s", labels: {app: web, pod-template-hash: x, team: "%[1]s"}, annotations: {example.com/ip: 10.0.0.%[1]s}},
  spec: {nodeName: node-%[1]s, containers: [{name: web, image: "nginx:1", env: [{name: N, value: "%[1]s"}], volumeMounts: [{name: token-%[1]s, mountPath: /t}]}],
    volumes: [{name: token-%[1]s, projected: {sources: []}}, {name: model, image: {reference: "model:1"}}]}, status: {podIP: 10.0.0.%[1]s}}`
	const signed = `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: signed}, spec: {match: {%s}}}`
	for name, tc := range map[string]struct {
		match  string
		change func(*unstructured.Unstructured)
		want   int
	}{
		"Pods of one workload":         {want: 1},
		"a constraint on their labels": {match: "labelSelector: {matchLabels: {app: web}}", want: 1},
		"a constraint that tells":      {match: "labelSelector: {matchLabels: {team: a}}", want: 2},
		"a constraint on their names":  {match: "name: web-*", want: 2},
		"another namespace":            {change: func(o *unstructured.Unstructured) { o.SetNamespace("prod") }, want: 2},
		"break-glass": {change: func(o *unstructured.Unstructured) {
			o.SetAnnotations(map[string]string{"oracle.image-policy.k8s.io/break-glass": "true"})
		}, want: 2},
		"another image in a volume":    {change: func(o *unstructured.Unstructured) { set(o, "model:2", "volumes", 1, "image", "reference") }, want: 2},
		"another image of a container": {change: func(o *unstructured.Unstructured) { set(o, "nginx:2", "containers", 0, "image") }, want: 2},
		"a volume that cannot be read": {change: func(o *unstructured.Unstructured) { set(o, "odd", "volumes", 0) }, want: 2},
		"another volume without images": {change: func(o *unstructured.Unstructured) {
			set(o, map[string]any{"name": "x", "emptyDir": map[string]any{}}, "volumes", 0)
		}, want: 1},
	} {
		objects, err := manifest.Objects([]byte(fmt.Sprintf(pod, "1") + "\n---\n" + fmt.Sprintf(pod, "2") + "\n---\n" + fmt.Sprintf(signed, tc.match)))
		if err != nil {
			t.Fatal(err)
		}
		if tc.change != nil {
			tc.change(objects[1])
		}
		if got := cmd.Kinds(objects[2:], objects[:2]); got != tc.want {
			t.Errorf("%s: %d judged, want %d", name, got, tc.want)
		}
	}
}

// set changes a part of a Pod's spec.
func set(o *unstructured.Unstructured, value any, path ...any) {
	at := o.Object["spec"]
	for _, step := range path[:len(path)-1] {
		switch p := at.(type) {
		case map[string]any:
			at = p[step.(string)]
		case []any:
			at = p[step.(int)]
		}
	}
	switch p := at.(type) {
	case map[string]any:
		p[path[len(path)-1].(string)] = value
	case []any:
		p[path[len(path)-1].(int)] = value
	}
}
