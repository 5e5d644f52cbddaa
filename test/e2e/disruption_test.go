package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// disturbs makes the next test wait until the cluster is whole again. A test that
// breaks shared parts must call it first.
func disturbs(t *testing.T) {
	t.Helper()
	t.Cleanup(func() { eventually(t, soon, "the cluster is whole again", func() error { return whole(t) }) })
}

// whole returns an error while a part of the cluster is missing.
func whole(t *testing.T) error {
	t.Helper()
	for line := range strings.Lines(cluster("ps").succeeds(t).stdout) {
		if strings.Contains(line, " stopped ") || strings.Contains(line, " paused ") {
			return errors.New(strings.TrimSpace(line))
		}
	}
	for _, name := range []string{"gatekeeper-system", "oke-sign"} {
		var list appsv1.DeploymentList
		space{name: name}.get(t, &list, "deployments")
		for _, d := range list.Items {
			if err := rolledOut(d); err != nil {
				return err
			}
		}
	}
	for _, node := range nodes(t) {
		if !slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
			return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
		}) {
			return fmt.Errorf("node %s is not ready", node.Name)
		}
	}
	return nil
}

func nodes(t *testing.T) []corev1.Node {
	t.Helper()
	var list corev1.NodeList
	space{}.get(t, &list, "nodes")
	return list.Items
}

// rolledOut returns an error until a Deployment has all its wanted replicas.
func rolledOut(d appsv1.Deployment) error {
	want, s := *d.Spec.Replicas, d.Status
	if s.ObservedGeneration != d.Generation || s.Replicas != want || s.UpdatedReplicas != want || s.ReadyReplicas != want {
		return fmt.Errorf("deployment %s/%s: want %d replicas, have %d: %d of the last revision, %d ready", d.Namespace, d.Name, want, s.Replicas, s.UpdatedReplicas, s.ReadyReplicas)
	}
	return nil
}

// control applies an action to processes of the cluster.
func control(t *testing.T, action string, names ...string) {
	t.Helper()
	cluster(append([]string{action}, names...)...).succeeds(t)
}

// containers returns the processes of the Pods of a namespace.
func containers(t *testing.T, namespace string) []string {
	t.Helper()
	return slices.DeleteFunc(processes(t), func(name string) bool { return !strings.HasPrefix(name, namespace+"/") })
}

// pause makes the processes of a namespace's Pods hang until the test ends, or until
// the kubelet restarts them.
func pause(t *testing.T, namespace string) {
	t.Helper()
	names := containers(t, namespace)
	t.Cleanup(func() {
		for _, name := range names {
			_ = cluster("resume", name) // fails if it is gone
		}
	})
	control(t, "pause", names...)
}

// repeat makes four workers call do again and again, until the returned function is
// called or the test ends.
func repeat(t *testing.T, do func(worker, round int)) (end func()) {
	t.Helper()
	var workers sync.WaitGroup
	ended := make(chan struct{})
	for worker := range 4 {
		workers.Go(func() {
			for round := 0; ; round++ {
				select {
				case <-ended:
					return
				default:
					do(worker, round)
				}
			}
		})
	}
	end = sync.OnceFunc(func() {
		close(ended)
		workers.Wait()
	})
	t.Cleanup(end)
	return end
}

// client returns a Kubernetes client for watching and measuring, where kubectl is too
// slow.
func client(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1 // no limit
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// stored watches which images the API server stores in Pods of the space, even if the
// Pods vanish. The returned function ends the watch and lists the images.
func (s space) stored(t *testing.T) func() []string {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	watch, err := client(t).CoreV1().Pods(s.name).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var images []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for event := range watch.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok && ctx.Err() == nil {
				t.Errorf("watching Pods: %+v", event.Object)
			}
			if !ok {
				return
			}
			for _, c := range pod.Spec.Containers {
				images = append(images, c.Image)
			}
		}
		if ctx.Err() == nil {
			t.Error("the watch ended")
		}
	}()
	return func() []string {
		end()
		watch.Stop()
		<-ended
		return slices.Compact(slices.Sorted(slices.Values(images)))
	}
}
