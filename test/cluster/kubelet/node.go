package kubelet

import (
	"context"
	"fmt"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-base/version"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/utils/clock"
)

// Taint keeps Pods off the Node unless they ask to run as processes.
const Taint = "oke-sign.dev/runs"

const (
	leaseSeconds = 40
	renewEvery   = leaseSeconds / 4 * time.Second
	// The lease shows that the Node lives. Its status is renewed rarely, to overwrite
	// what others wrote there.
	beatEvery     = time.Minute
	registerAgain = 200 * time.Millisecond
)

// register creates the Node, or takes over an existing one, and declares it ready.
func (k *Kubelet) register(ctx context.Context) error {
	nodes := k.Client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: k.Node,
			Labels: map[string]string{
				corev1.LabelOSStable:   runtime.GOOS,
				corev1.LabelArchStable: runtime.GOARCH,
				corev1.LabelHostname:   k.Node,
			},
		},
		Spec: corev1.NodeSpec{
			PodCIDR:  k.Prefix.Masked().String(),
			PodCIDRs: []string{k.Prefix.Masked().String()},
			Taints:   []corev1.Taint{{Key: Taint, Value: "processes", Effect: corev1.TaintEffectNoSchedule}},
		},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		node, err = nodes.Get(ctx, k.Node, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	return k.updateStatus(ctx, node)
}

// updateStatus writes the Node's status.
func (k *Kubelet) updateStatus(ctx context.Context, node *corev1.Node) error {
	now := metav1.Now()
	since := now
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			since = c.LastTransitionTime
		}
	}
	resources := allocatable()
	node = node.DeepCopy()
	node.Status = corev1.NodeStatus{
		Capacity:    resources,
		Allocatable: resources,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: k.addresses.node().String()},
			{Type: corev1.NodeHostName, Address: k.Node},
		},
		Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue,
			Reason: "KubeletReady", Message: "runs Pods as processes",
			LastHeartbeatTime: now, LastTransitionTime: since,
		}},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion:          version.Get().GitVersion,
			ContainerRuntimeVersion: "process://" + runtime.Version(),
			OperatingSystem:         runtime.GOOS,
			Architecture:            runtime.GOARCH,
			OSImage:                 "processes of one machine",
		},
	}
	_, err := k.Client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// allocatable returns generous resources. Nothing is limited here, and the scheduler
// must not keep a test's Pod from starting.
func allocatable() corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("64"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("110"),
	}
}

// heartbeat renews the Node's status until ctx ends. It creates the Node again if it
// was deleted.
func (k *Kubelet) heartbeat(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := k.register(ctx); err != nil && ctx.Err() == nil {
				k.Log.Warn("node status", "node", k.Node, "err", err)
			}
		}
	}
}

// lease returns the controller of the Node's lease, which shows between heartbeats that
// the Node lives.
func (k *Kubelet) lease() lease.Controller {
	owned := func(l *coordinationv1.Lease) error {
		node, err := k.Client.CoreV1().Nodes().Get(context.Background(), k.Node, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("owner of the lease: %w", err)
		}
		l.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(node, corev1.SchemeGroupVersion.WithKind("Node"))}
		return nil
	}
	return lease.NewController(clock.RealClock{}, k.Client, k.Node, leaseSeconds, nil, renewEvery, k.Node, corev1.NamespaceNodeLease, owned)
}
