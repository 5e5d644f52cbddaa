package e2e_test

import (
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// A cluster that was switched off starts again. No part of the start waits for
// Gatekeeper, because Gatekeeper needs the cluster. Until Gatekeeper is up, no other
// Pod starts.
func TestStartFromNothing(t *testing.T) {
	disturbs(t)
	s := guarded(t)
	good := s.signed(t, "good", imageKey)
	s.apply(t, nginx("shop", good)).succeeds(t)
	s.ready(t, soon, "shop", "3/3")
	s.kubectl(t, "expose", "deployment", "shop", "--port=80").succeeds(t)
	s.serves(t, "shop", 3)

	plane := []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}
	t.Cleanup(func() {
		for _, name := range append(plane, "kubelet") {
			_ = cluster("start", name) // unless it runs
		}
	})
	control(t, "stop", "kubelet") // this also stops Gatekeeper and the provider
	control(t, "kill", plane...)
	control(t, "start", plane...)

	const unjudged = `failed calling webhook "validation.gatekeeper.sh"`
	s.kubectl(t, "run", "pod", "--image="+good).fails(t, unjudged)

	// Nodes come back as new Nodes, report, and run the cluster's own Pods.
	var again []object
	for _, node := range nodes(t) {
		if _, pretended := node.Annotations["kwok.x-k8s.io/node"]; pretended {
			again = append(again, object{
				"apiVersion": "v1", "kind": "Node",
				"metadata": object{"name": node.Name, "labels": node.Labels, "annotations": object{"kwok.x-k8s.io/node": "fake"}},
				"status":   object{"allocatable": node.Status.Allocatable, "capacity": node.Status.Capacity},
			})
		}
	}
	s.kubectl(t, "delete", "nodes", "--all").succeeds(t)
	s.applyAll(t, again...).succeeds(t)
	s.kubectl(t, "wait", "node", "--all", "--for=condition=Ready", "--timeout=50s").succeeds(t)
	restarted := time.Now()
	system := space{name: "kube-system"}
	agent := "agent-" + s.name
	t.Cleanup(func() { system.kubectl(t, "delete", "deployment", agent).succeeds(t) })
	system.apply(t, nginx(agent, dockerHub)).succeeds(t)
	system.ready(t, soon, agent, "3/3")
	eventually(t, soon, "leases are renewed", func() error {
		var leases struct{ Items []coordinationv1.Lease }
		space{name: "kube-node-lease"}.get(t, &leases, "leases")
		renewed := 0
		for _, l := range leases.Items {
			if l.Spec.RenewTime.After(restarted) {
				renewed++
			}
		}
		if renewed != len(again) {
			return fmt.Errorf("%d of %d", renewed, len(again))
		}
		return nil
	})
	s.kubectl(t, "delete", "pods", "-l", "app=shop").succeeds(t)
	s.fails(t, "ReplicaSet", "shop-", unjudged)
	s.ready(t, soon, "shop", "0/3")
	s.serves(t, "shop", 0) // a Service must not send to Pods that are gone

	control(t, "start", "kubelet")
	s.ready(t, 4*time.Minute, "shop", "3/3") // its controller waits longer after each failure
	s.kubectl(t, "run", "unsigned", "--image="+s.push(t, "unsigned")).fails(t, denies, "containers/unsigned: unsigned: ")
}

// serves waits until a Service has that many endpoints.
func (s space) serves(t *testing.T, service string, want int) {
	t.Helper()
	eventually(t, soon, fmt.Sprintf("service %s has %d endpoints", service, want), func() error {
		var slices discoveryv1.EndpointSliceList
		s.get(t, &slices, "endpointslices", "-l", discoveryv1.LabelServiceName+"="+service)
		n := 0
		for _, slice := range slices.Items {
			n += len(slice.Endpoints)
		}
		if n != want {
			return fmt.Errorf("it has %d", n)
		}
		return nil
	})
}
