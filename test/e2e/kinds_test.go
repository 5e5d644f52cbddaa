package e2e_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// kinds lists the kinds of objects that lead to Pods, with the kind whose events report
// that a Pod cannot be created.
var kinds = map[string]struct{ version, maker string }{
	"Pod":                   {"v1", ""},
	"Deployment":            {"apps/v1", "ReplicaSet"},
	"ReplicaSet":            {"apps/v1", "ReplicaSet"},
	"StatefulSet":           {"apps/v1", "StatefulSet"},
	"DaemonSet":             {"apps/v1", "DaemonSet"},
	"ReplicationController": {"v1", "ReplicationController"},
	"Job":                   {"batch/v1", "Job"},
	"CronJob":               {"batch/v1", "Job"},
}

// workload returns an object of that kind with one container. The container has the
// kind's name, so that a message shows its object.
func workload(kind, name, image string, annotations object) object {
	name += "-" + strings.ToLower(kind)
	labels := object{"app": name}
	spec := object{"containers": []object{{"name": strings.ToLower(kind), "image": image}}}
	template := object{"metadata": object{"labels": labels, "annotations": annotations}, "spec": spec}
	o := object{
		"apiVersion": kinds[kind].version, "kind": kind, "metadata": object{"name": name},
		"spec": object{"selector": object{"matchLabels": labels}, "template": template},
	}
	switch kind {
	case "Pod":
		o["metadata"] = object{"name": name, "labels": labels, "annotations": annotations}
		o["spec"] = spec
	case "ReplicationController":
		o["spec"] = object{"selector": labels, "template": template}
	case "Job", "CronJob":
		spec["restartPolicy"] = "Never"
		o["spec"] = object{"template": template}
		if kind == "CronJob" {
			o["spec"] = object{"schedule": "* * * * *", "jobTemplate": object{"spec": o["spec"]}}
		}
	}
	return o
}

// trial is an image that every kind of object runs.
type trial struct {
	image       string
	annotations object
	want        string // the reason of the denials; empty if the Pods run
}

// try applies every kind of object for each trial, then waits for all outcomes. It
// expects a policy that denies Pods and warns about other objects.
func (s space) try(t *testing.T, trials map[string]trial) {
	t.Helper()
	for name, trial := range trials {
		var objects []object
		for kind := range kinds {
			objects = append(objects, workload(kind, slug(name), trial.image, trial.annotations))
		}
		r := s.applyAll(t, objects...)
		if trial.want == "" {
			r.succeeds(t)
			if w := r.warnings(); len(w) > 0 {
				t.Errorf("%s: warnings %q; want none", name, w)
			}
			continue
		}
		r.fails(t, "Error from server (Forbidden)", trial.about("Pod"))
		if n := strings.Count(r.stderr, "denied the request"); n != 1 {
			t.Errorf("%s: %d objects denied; want the Pod alone:\n%s", name, n, r.stderr)
		}
		for kind := range kinds {
			warned := slices.ContainsFunc(r.warnings(), func(w string) bool { return strings.Contains(w, trial.about(kind)) })
			if want := kind != "Pod"; warned != want {
				t.Errorf("%s: warning about the %s: got %t, want %t: %q", name, kind, warned, want, r.warnings())
			}
		}
	}
	eventually(t, soon, "every object of "+s.name+" has come to its end", func() error {
		state := s.state(t)
		var all []error
		for name, trial := range trials {
			for kind := range kinds {
				all = append(all, state.came(kind, slug(name)+"-"+strings.ToLower(kind), trial))
			}
		}
		return errors.Join(all...)
	})
}

// about returns the prefix of messages about the object of that kind.
func (tr trial) about(kind string) string {
	return "containers/" + strings.ToLower(kind) + ": " + tr.want + ": "
}

// state is a snapshot of a space.
type state struct {
	pods   []corev1.Pod
	events []corev1.Event
}

func (s space) state(t *testing.T) state {
	t.Helper()
	var list struct{ Items []json.RawMessage }
	s.get(t, &list, "pods,events")
	var found state
	for _, item := range list.Items {
		var event corev1.Event
		var pod corev1.Pod
		if err := errors.Join(json.Unmarshal(item, &event), json.Unmarshal(item, &pod)); err != nil {
			t.Fatal(err)
		}
		if event.Kind == "Event" {
			found.events = append(found.events, event)
		} else {
			found.pods = append(found.pods, pod)
		}
	}
	return found
}

// came returns an error unless the object's Pods run, or all were denied for the
// trial's reason.
func (s state) came(kind, name string, trial trial) error {
	var phases []corev1.PodPhase
	for _, pod := range s.pods {
		if pod.Labels["app"] == name {
			phases = append(phases, pod.Status.Phase)
		}
	}
	switch {
	case trial.want == "":
		if !slices.Contains(phases, corev1.PodRunning) && !slices.Contains(phases, corev1.PodSucceeded) {
			return fmt.Errorf("%s: no Pod runs, but: %q", name, phases)
		}
	case len(phases) > 0:
		return fmt.Errorf("%s: has Pods, which are: %q", name, phases)
	case kind != "Pod" && len(s.failures(kinds[kind].maker, name, trial.about(kind))) == 0:
		return fmt.Errorf("%s: no event of a %s says %q", name, kinds[kind].maker, trial.about(kind))
	}
	return nil
}

// failures returns the FailedCreate events about objects of that kind and name prefix
// that contain a word.
func (s state) failures(kind, name, word string) []string {
	var found []string
	for _, e := range s.events {
		if e.Reason == "FailedCreate" && e.InvolvedObject.Kind == kind && strings.HasPrefix(e.InvolvedObject.Name, name) && strings.Contains(e.Message, word) {
			found = append(found, e.Message)
		}
	}
	return found
}
