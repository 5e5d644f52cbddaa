package kubelet

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"
)

const (
	retry  = 500 * time.Millisecond // pause after a failure
	resync = 10 * time.Second       // interval for changes without an event, such as a token's age
)

// pod runs one Pod. One goroutine fills its volumes and reports its status. Others run
// its containers.
type pod struct {
	kubelet         *Kubelet
	uid             types.UID
	namespace, name string
	dir             string
	inits, mains    []*container
	wakeups         chan struct{}           // something has changed
	gone            chan struct{}           // closed when the object is
	kill            func()                  // ends the Pod without a grace period
	stop            context.CancelCauseFunc // ends the Pod; the cause is a stopCause

	// Set before the containers run, and constant then.
	addr    netip.Addr
	volumes map[string]string

	mu     sync.Mutex
	wanted *corev1.Pod

	// Used only by the reporting goroutine.
	sent corev1.PodStatus
	over bool // no container will run again
}

// newPod returns a Pod to run, and a context that ends when the Pod or the Kubelet must
// end.
func (k *Kubelet) newPod(ctx context.Context, object *corev1.Pod) (*pod, context.Context) {
	p := &pod{
		kubelet: k, uid: object.UID, namespace: object.Namespace, name: object.Name,
		dir:     filepath.Join(k.Dir, "pods", string(object.UID)),
		wakeups: make(chan struct{}, 1),
		gone:    make(chan struct{}),
		sent:    object.Status,
		wanted:  object,
	}
	life, stop := context.WithCancelCause(ctx)
	p.stop = stop
	p.kill = sync.OnceFunc(func() {
		close(p.gone)
		p.stop(stopCause{})
	})
	for i := range object.Spec.InitContainers {
		p.inits = append(p.inits, p.newContainer(&object.Spec.InitContainers[i], object.Status.InitContainerStatuses))
	}
	for i := range object.Spec.Containers {
		p.mains = append(p.mains, p.newContainer(&object.Spec.Containers[i], object.Status.ContainerStatuses))
	}
	return p, life
}

// newContainer continues from the status that an earlier Run reported.
func (p *pod) newContainer(spec *corev1.Container, before []corev1.ContainerStatus) *container {
	c := &container{
		pod: p, spec: spec, up: make(chan struct{}),
		log: filepath.Join(p.kubelet.Dir, "logs", p.namespace+"_"+p.name+"_"+spec.Name+".log"),
		state: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
			Reason: "ContainerCreating",
		}},
	}
	if s, ok := podutil.GetContainerStatus(before, spec.Name); ok && (s.State.Running != nil || s.RestartCount > 0) {
		c.restarts, c.last = s.RestartCount+1, s.LastTerminationState
	}
	return c
}

// wake makes the Pod's goroutine look for changes.
func (p *pod) wake() {
	select {
	case p.wakeups <- struct{}{}:
	default: // a wake-up is pending
	}
}

// want sets the wanted state of the Pod.
func (p *pod) want(object *corev1.Pod) {
	p.mu.Lock()
	p.wanted = object
	p.mu.Unlock()
	if object.DeletionTimestamp != nil {
		p.stop(stopCause{time.Duration(ptr.Deref(object.DeletionGracePeriodSeconds, 0)) * time.Second})
	}
	p.wake()
}

// object returns the wanted Pod with its addresses. The result shares memory with other
// copies, so callers must not change it.
func (p *pod) object() *corev1.Pod {
	p.mu.Lock()
	object := *p.wanted
	p.mu.Unlock()
	object.Status.HostIP = p.kubelet.addresses.node().String()
	object.Status.PodIP = p.addr.String()
	return &object
}

// grace returns the time that a process of the Pod has to end, when only this process
// must end.
func (p *pod) grace() time.Duration {
	return time.Duration(ptr.Deref(p.object().Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)) * time.Second
}

// writable reports whether containers may write to a volume.
func (p *pod) writable(name string) bool {
	return slices.ContainsFunc(p.object().Spec.Volumes, func(v corev1.Volume) bool {
		return v.Name == name && (v.EmptyDir != nil || v.HostPath != nil)
	})
}

func (p *pod) event(kind, reason, message string) {
	p.kubelet.events.Event(p.object(), kind, reason, message)
}

// run runs the Pod until it is deleted or the Kubelet ends.
func (p *pod) run(ctx, life context.Context) {
	defer p.stop(nil)
	if !podutil.IsPodTerminal(p.object()) {
		p.runUntilStopped(ctx, life)
		p.kubelet.addresses.free(p.addr)
	}
	if ctx.Err() != nil {
		return // the Pod and its files stay for the next Run
	}
	for ctx.Err() == nil {
		err := p.remove(ctx)
		if err == nil {
			break
		}
		p.kubelet.Log.Warn("remove pod", "namespace", p.namespace, "pod", p.name, "err", err)
		wait(ctx, retry)
	}
	p.kubelet.tokens.DeleteServiceAccountToken(p.uid)
	if err := os.RemoveAll(p.dir); err != nil {
		p.kubelet.Log.Warn("remove volumes", "namespace", p.namespace, "pod", p.name, "err", err)
	}
}

// runUntilStopped runs the Pod, fills its volumes and reports its status, until the Pod
// must end and its containers have ended.
func (p *pod) runUntilStopped(ctx, life context.Context) {
	var worked chan struct{} // closed when the containers have ended; nil until they run
	stopped := life.Done()
	for {
		again := resync
		if life.Err() == nil {
			if err := p.prepare(); err != nil {
				p.event(corev1.EventTypeWarning, "FailedMount", err.Error())
				again = retry
			} else if worked == nil && !p.over {
				worked = make(chan struct{})
				go func() {
					defer close(worked)
					p.runContainers(life)
				}()
			}
		}
		p.over = p.over || (life.Err() != nil && worked == nil)
		if err := p.report(ctx); err != nil && ctx.Err() == nil {
			p.kubelet.Log.Warn("report pod", "namespace", p.namespace, "pod", p.name, "err", err)
			again = retry
		}
		if p.over && life.Err() != nil {
			return
		}
		select {
		case <-p.wakeups:
		case <-time.After(again):
		case <-stopped:
			stopped = nil
		case <-worked:
			worked, p.over = nil, true
		}
	}
}

// prepare assigns the Pod's address, and creates or updates its volumes.
func (p *pod) prepare() error {
	if !p.addr.IsValid() {
		before, _ := netip.ParseAddr(p.sent.PodIP) // from an earlier Run
		addr, err := p.kubelet.addresses.take(before)
		if err != nil {
			return err
		}
		p.addr = addr
	}
	for _, dir := range []string{p.dir, filepath.Join(p.kubelet.Dir, "logs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	volumes, err := p.kubelet.fill(p.object(), filepath.Join(p.dir, "volumes"))
	if err != nil {
		return err
	}
	if p.volumes == nil {
		p.volumes = volumes
	}
	return nil
}

// runContainers runs the Pod's containers in order until all have ended.
func (p *pod) runContainers(life context.Context) {
	// Sidecars end after the containers that use them.
	beside, end := context.WithCancelCause(context.WithoutCancel(life))
	var sidecars sync.WaitGroup
	defer sidecars.Wait()
	defer func() {
		why := context.Cause(life)
		if why == nil {
			why = stopCause{p.grace()}
		}
		end(why)
	}()
	for _, c := range p.inits {
		if !podutil.IsRestartableInitContainer(c.spec) {
			if !c.run(life) {
				return
			}
			continue
		}
		sidecars.Go(func() { c.run(beside) })
		select {
		case <-c.up:
		case <-life.Done():
			return
		}
	}
	var mains sync.WaitGroup
	for _, c := range p.mains {
		mains.Go(func() { c.run(life) })
	}
	mains.Wait()
}

// processes returns the running containers.
func (p *pod) processes() []Process {
	var all []Process
	for _, c := range slices.Concat(p.inits, p.mains) {
		if s := c.process(); s.PID != 0 {
			all = append(all, s)
		}
	}
	return all
}

// report sends the Pod's status to the API server if it has changed.
func (p *pod) report(ctx context.Context) error {
	status := p.status()
	if equality.Semantic.DeepEqual(status, p.sent) {
		return nil
	}
	// Send only changes, because others write conditions too. Send the UID, so that the
	// patch cannot reach another Pod of this name.
	before, err := json.Marshal(corev1.Pod{Status: p.sent})
	if err != nil {
		return err
	}
	after, err := json.Marshal(corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: p.uid}, Status: status})
	if err != nil {
		return err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, corev1.Pod{})
	if err != nil {
		return err
	}
	_, err = p.kubelet.Client.CoreV1().Pods(p.namespace).Patch(ctx, p.name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return err
	}
	p.sent = status
	return nil
}

// remove deletes the Pod's object. Its containers must have ended.
func (p *pod) remove(ctx context.Context) error {
	err := p.kubelet.Client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, metav1.DeleteOptions{
		GracePeriodSeconds: ptr.To(int64(0)),
		Preconditions:      metav1.NewUIDPreconditions(string(p.uid)),
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// status returns the Pod's status in the form of the API.
func (p *pod) status() corev1.PodStatus {
	object := p.object()
	s := *p.sent.DeepCopy()
	s.ObservedGeneration = object.Generation
	s.HostIP = object.Status.HostIP
	s.HostIPs = []corev1.HostIP{{IP: s.HostIP}}
	if p.addr.IsValid() {
		s.PodIP = p.addr.String()
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	if s.StartTime == nil {
		s.StartTime = ptr.To(metav1.Now())
	}
	s.InitContainerStatuses, s.ContainerStatuses = statuses(p.inits), statuses(p.mains)
	s.Phase = p.phase(s)

	initialized := !slices.ContainsFunc(s.InitContainerStatuses, func(c corev1.ContainerStatus) bool {
		return !*c.Started && (c.State.Terminated == nil || c.State.Terminated.ExitCode != 0)
	})
	ready := !slices.ContainsFunc(s.ContainerStatuses, func(c corev1.ContainerStatus) bool { return !c.Ready })
	for _, c := range []struct {
		kind corev1.PodConditionType
		met  bool
	}{
		{corev1.PodReadyToStartContainers, p.volumes != nil && !p.over},
		{corev1.PodInitialized, initialized},
		{corev1.ContainersReady, ready},
		{corev1.PodReady, ready},
	} {
		condition := &corev1.PodCondition{Type: c.kind, Status: corev1.ConditionFalse, ObservedGeneration: object.Generation}
		if c.met {
			condition.Status = corev1.ConditionTrue
		}
		podutil.UpdatePodCondition(&s, condition)
	}
	return s
}

func statuses(of []*container) []corev1.ContainerStatus {
	var all []corev1.ContainerStatus
	for _, c := range of {
		all = append(all, c.status())
	}
	return all
}

func (p *pod) phase(s corev1.PodStatus) corev1.PodPhase {
	switch {
	case p.over:
		// The kubelet ends sidecars, so their exit codes do not count.
		if slices.ContainsFunc(s.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Terminated == nil || c.State.Terminated.ExitCode != 0
		}) {
			return corev1.PodFailed
		}
		return corev1.PodSucceeded
	case slices.ContainsFunc(s.ContainerStatuses, func(c corev1.ContainerStatus) bool {
		return c.State.Running != nil || c.State.Terminated != nil || c.LastTerminationState.Terminated != nil
	}):
		return corev1.PodRunning
	}
	return corev1.PodPending
}
