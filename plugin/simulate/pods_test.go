package simulate_test

import (
	"fmt"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

// Pods that no constraint can distinguish are reviewed once. Otherwise each Pod is
// reviewed.
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
		if got := groups(objects[2:], objects[:2]); got != tc.want {
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

// groups returns how many of the Pods are reviewed under these constraints.
func groups(constraints, pods []*unstructured.Unstructured) int {
	var e enforcement.State
	for _, c := range constraints {
		e.Constraints = append(e.Constraints, workload.Document{Object: c})
	}
	var small []*unstructured.Unstructured
	for _, pod := range pods {
		small = append(small, workload.Slim(pod.DeepCopy()))
	}
	return len(simulate.GroupPods(e, small))
}
