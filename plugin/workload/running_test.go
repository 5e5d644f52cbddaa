package workload_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

func TestRunningPods(t *testing.T) {
	server := fakeapiserver.Start(t)
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
	got, err := running(t.Context(), kubeconfig, "", "")
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("error %v, difference:\n%s", err, cmp.Diff(want, got))
	}
	delete(want, "other/Pod/web")
	got, err = running(t.Context(), kubeconfig, "shop", "")
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("in a namespace: error %v, difference:\n%s", err, cmp.Diff(want, got))
	}
	got, err = running(t.Context(), kubeconfig, "", "app=web")
	if err != nil || len(got) != 1 {
		t.Errorf("of a label: %v, %v", got, err)
	}

	// The Pods come in pages.
	for i := range 1200 {
		pod := objects[len(objects)-3].DeepCopy()
		pod.SetName(fmt.Sprintf("bare-%04d", i))
		if err := server.Add(pod); err != nil {
			t.Fatal(err)
		}
	}
	before := len(server.Requests())
	got, err = running(t.Context(), kubeconfig, "", "")
	if err != nil || len(got) != 1207 {
		t.Errorf("%d Pods, %v", len(got), err)
	}
	pages := slices.DeleteFunc(server.Requests()[before:], func(r string) bool { return !strings.HasSuffix(r, "/pods") })
	if len(pages) != 3 {
		t.Errorf("%d pages of Pods, want 3", len(pages))
	}
}

// running returns the running Pods of a cluster by their names, each with its
// workload.
func running(ctx context.Context, kubeconfig, namespace, selector string) (map[string]string, error) {
	s := &connect.Session{Kube: connect.NewKube(io.Discard)}
	s.Streams.ErrOut = io.Discard
	*s.Kube.KubeConfig = kubeconfig
	pods, err := workload.RunningPods(ctx, s, namespace, selector)
	if err != nil {
		return nil, err
	}
	workloads, err := workload.Workloads(ctx, s, namespace, pods)
	found := make(map[string]string)
	for i, w := range workloads {
		found[pods[i].Name()] = w.APIVersion + "/" + w.Kind + "/" + w.Name
	}
	return found, err
}
