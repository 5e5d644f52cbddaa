package breakglass

import (
	"context"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

// leftover is an object that keeps break-glass in use after its end: Pods that run, or a
// template that starts such Pods again.
type leftover struct {
	workload.ObjectName
	Pods    int    `json:"pods"` // that run
	Until   string `json:"until,omitempty"`
	Command string `json:"command"` // that ends it
}

// rollout is what has come of the end of break-glass for one workload.
type rollout struct {
	left    []leftover
	stalled string // why waiting does not help, or ""
	err     error
}

// Kinds whose ReplicaSets, revisions or Jobs keep the old template.
var (
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
	replicaSets = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "replicasets"}
	jobs        = schema.GroupVersionResource{Group: "batch", Version: "v1", Resource: "jobs"}
	revisions   = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "controllerrevisions"}
)

// follow waits until nothing of the workloads is under break-glass, until waiting does not
// help, or until the time is over. It returns the last state of each.
func (o *breakGlassOptions) follow(ctx context.Context, changes []change) []rollout {
	states := make([]rollout, len(changes))
	_ = o.Poll(ctx, "waiting for the Pods to restart", func() (string, bool, error) {
		pods, waits := 0, false
		for i, c := range changes {
			now := o.rollout(ctx, c)
			if ctx.Err() != nil && now.err != nil {
				return "", true, nil // the last state before the end of the time counts
			}
			states[i] = now
			waits = waits || now.err == nil && now.stalled == "" && len(now.left) > 0
			for _, l := range now.left {
				pods += l.Pods
			}
		}
		return cli.Count(pods, "Pod") + " under break-glass", !waits, nil
	}) // the states report that the time is over
	for i, s := range states {
		if s.err == nil && s.stalled == "" && len(s.left) > 0 {
			states[i].stalled = "its Pods did not restart in time"
		}
	}
	return states
}

// rollout looks at what is left of break-glass for one workload.
func (o *breakGlassOptions) rollout(ctx context.Context, c change) (r rollout) {
	name, namespace := workload.NameOf(c.of.Object), c.of.Object.GetNamespace()
	if name.Kind == "Pod" { // a Pod does not restart
		return rollout{}
	}
	running, err := o.underBreakGlass(ctx, name)
	if err != nil {
		return rollout{err: err}
	}
	add := func(of *unstructured.Unstructured, command string) {
		title := workload.NameOf(of)
		l := leftover{ObjectName: title, Pods: len(running[title]), Command: fmt.Sprintf(command, namespace, title.Name)}
		if u := useOf(of); u != nil {
			l.Until = u.Until
		}
		delete(running, title)
		r.left = append(r.left, l)
	}
	leaving := false // the Pods that are left end without another change
	switch name.Kind {
	case "Deployment":
		leaving = true
		r.err = o.owned(ctx, name, replicaSets, func(of *unstructured.Unstructured) {
			replicas, _, _ := unstructured.NestedInt64(of.Object, "spec", "replicas")
			leaving = leaving && replicas == 0
			if replicas > 0 || len(running[workload.NameOf(of)]) > 0 {
				add(of, "kubectl -n %s scale replicaset/%s --replicas=0")
			}
		})
	case "CronJob":
		r.err = o.owned(ctx, name, jobs, func(of *unstructured.Unstructured) {
			if !finished(of) {
				add(of, "kubectl -n %s delete job/%s")
			}
		})
	case "StatefulSet":
		r.err = o.partitioned(ctx, c, running, add)
	}
	for _, of := range sorted(running) {
		for _, pod := range running[of] {
			r.left = append(r.left, leftover{ObjectName: workload.NameOf(pod), Pods: 1, Until: pod.GetAnnotations()[simulate.UntilAnnotation],
				Command: fmt.Sprintf("kubectl -n %s delete pod/%s", namespace, pod.GetName())})
		}
	}
	if len(r.left) > 0 && r.err == nil && !leaving {
		r.stalled, r.err = o.stalled(ctx, c)
	}
	return r
}

// underBreakGlass returns the running Pods of a workload that have the annotation, by the
// object that controls them.
func (o *breakGlassOptions) underBreakGlass(ctx context.Context, of workload.ObjectName) (map[workload.ObjectName][]*unstructured.Unstructured, error) {
	pods, err := workload.RunningPods(ctx, o.Session, of.Namespace, "")
	if err != nil {
		return nil, fmt.Errorf("listing Pods: %w", err)
	}
	pods = slices.DeleteFunc(pods, func(d workload.Document) bool { return !inUse(d.Object) })
	owners, err := workload.Workloads(ctx, o.Session, of.Namespace, pods)
	if err != nil {
		return nil, err
	}
	running := make(map[workload.ObjectName][]*unstructured.Unstructured)
	for i, pod := range pods {
		if owners[i] == of {
			by := workload.Controller(pod.Object)
			running[by] = append(running[by], pod.Object)
		}
	}
	return running, nil
}

// inUse reports whether an object or its template has the annotation with effect.
func inUse(object *unstructured.Unstructured) bool {
	u := useOf(object)
	return u != nil && u.State != "no-effect"
}

func sorted(m map[workload.ObjectName][]*unstructured.Unstructured) []workload.ObjectName {
	names := make([]workload.ObjectName, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b workload.ObjectName) int { return strings.Compare(a.Title(), b.Title()) })
	return names
}

// owned calls f for each object that a workload controls and whose template has the
// annotation.
func (o *breakGlassOptions) owned(ctx context.Context, by workload.ObjectName, kind schema.GroupVersionResource, f func(*unstructured.Unstructured)) error {
	client, err := o.Kube.Objects()
	if err != nil {
		return err
	}
	err = workload.EachObject(ctx, client, kind, by.Namespace, metav1.ListOptions{}, func(object *unstructured.Unstructured) error {
		if workload.Controller(object) == by && inUse(object) {
			f(object)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", kind.Resource, err)
	}
	return nil
}

// finished reports whether a Job has ended.
func finished(job *unstructured.Unstructured) bool {
	return condition(job, "Complete") != nil || condition(job, "Failed") != nil
}

// condition returns a condition of an object's status that is true, or nil.
func condition(object *unstructured.Unstructured, kind string) map[string]any {
	list, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	for _, item := range list {
		if c, ok := item.(map[string]any); ok && c["type"] == kind && c["status"] == "True" {
			return c
		}
	}
	return nil
}

// partitioned adds a revision of a StatefulSet from which Pods below the partition are made
// again.
func (o *breakGlassOptions) partitioned(ctx context.Context, c change, running map[workload.ObjectName][]*unstructured.Unstructured, add func(*unstructured.Unstructured, string)) error {
	if partition, _, _ := unstructured.NestedInt64(c.of.Object.Object, "spec", "updateStrategy", "rollingUpdate", "partition"); partition == 0 {
		return nil
	}
	client, err := o.Kube.Objects()
	if err != nil {
		return err
	}
	name := workload.NameOf(c.of.Object)
	return workload.EachObject(ctx, client, revisions, name.Namespace, metav1.ListOptions{}, func(object *unstructured.Unstructured) error {
		annotations, _, _ := unstructured.NestedStringMap(object.Object, "data", "spec", "template", "metadata", "annotations")
		if workload.Controller(object) == name && annotations[simulate.BreakGlassAnnotation] == "true" {
			running[workload.NameOf(object)] = running[name] // the StatefulSet controls them
			delete(running, name)
			add(object, "kubectl -n %s patch statefulset/"+name.Name+` --type merge -p '{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}' # keeps %s`)
		}
		return nil
	})
}

// stalled returns why waiting for a workload does not help, or "".
func (o *breakGlassOptions) stalled(ctx context.Context, c change) (string, error) {
	object := c.of.Object
	strategy, _, _ := unstructured.NestedString(object.Object, "spec", "updateStrategy", "type")
	partition, _, _ := unstructured.NestedInt64(object.Object, "spec", "updateStrategy", "rollingUpdate", "partition")
	switch kind := object.GetKind(); {
	case !restarts(object):
		return "a " + kind + " does not restart its Pods", nil
	case strategy == "OnDelete":
		return "its update strategy is OnDelete, so its Pods do not restart", nil
	case partition > 0:
		return fmt.Sprintf("its partition %d keeps older Pods", partition), nil
	case kind != "Deployment":
		return "", nil
	}
	client, err := o.Kube.Objects()
	if err != nil {
		return "", err
	}
	now, err := client.Resource(deployments).Namespace(object.GetNamespace()).Get(ctx, object.GetName(), metav1.GetOptions{})
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", c.of.Name(), err)
	}
	if paused, _, _ := unstructured.NestedBool(now.Object, "spec", "paused"); paused {
		return "it is paused", nil
	}
	observed, _, _ := unstructured.NestedInt64(now.Object, "status", "observedGeneration")
	if failure := condition(now, "ReplicaFailure"); failure != nil && observed >= now.GetGeneration() {
		message, _ := failure["message"].(string)
		return "the cluster denied its new Pod: " + cli.Clip(message, 300), nil
	}
	return "", nil
}

// restarts reports whether a workload replaces its Pods when its template changes.
func restarts(object *unstructured.Unstructured) bool {
	switch object.GetKind() {
	case "ReplicaSet", "ReplicationController", "CronJob", "Job":
		return false
	}
	_, ok := manifest.PodMetadata(object)
	return ok
}

// finishEnd waits, and prints what came of the end and what is left.
func (o *breakGlassOptions) finishEnd(ctx context.Context, changes []change, results []cli.Result) error {
	for i, state := range o.follow(ctx, changes) {
		r := &results[i]
		if r.Err != nil {
			continue
		}
		if state.err != nil {
			r.PartialErr = fmt.Errorf("break-glass is ended, and it is unknown what still runs under it: %w", cli.StopCause(ctx, state.err))
		}
		if len(state.left) == 0 {
			continue
		}
		g, _ := r.Value.(result)
		g.Left = state.left
		r.Value, r.Denied = g, true
		name := changes[i].of.Name()
		r.Notes = append(r.Notes, name+" still has Pods under break-glass: "+state.stalled)
		for _, l := range state.left {
			r.Rows = append(r.Rows, []string{"  " + l.Title(), "still in use, " + cli.Count(l.Pods, "Pod"), l.Until, ""})
			r.Notes = append(r.Notes, "to end it: "+l.Command)
		}
		if strings.HasPrefix(state.stalled, "the cluster denied") {
			r.Notes = append(r.Notes, fmt.Sprintf("to get the new Pod admitted: kubectl oke-sign explain %s/%s -n %s", strings.ToLower(changes[i].of.Object.GetKind()), changes[i].of.Object.GetName(), changes[i].of.Object.GetNamespace()))
		}
	}
	return o.Finish(o.out, resultColumns, results)
}
