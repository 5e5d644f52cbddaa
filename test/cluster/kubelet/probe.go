package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/probe"
	httpprobe "k8s.io/kubernetes/pkg/probe/http"
	tcpprobe "k8s.io/kubernetes/pkg/probe/tcp"
)

// eager is how often a container is asked that has never been ready: a period of
// ten seconds is for watching, not for waiting.
const eager = 250 * time.Millisecond

// probe asks the container's probes until the context ends. It says on sick when
// the container has to be started again.
func (c *container) probe(ctx context.Context, sick chan<- string) {
	if p := c.spec.StartupProbe; p != nil && !c.startUp(ctx, p, sick) {
		return
	}
	c.set(func() {
		c.started, c.ready = true, c.spec.ReadinessProbe == nil
		select {
		case <-c.up:
		default:
			close(c.up)
		}
	})
	var both sync.WaitGroup
	defer both.Wait()
	if p := c.spec.ReadinessProbe; p != nil {
		both.Go(func() { c.readiness(ctx, p) })
	}
	if p := c.spec.LivenessProbe; p != nil {
		both.Go(func() { c.liveness(ctx, p, sick) })
	}
}

// startUp returns whether the container has started up.
func (c *container) startUp(ctx context.Context, p *corev1.Probe, sick chan<- string) bool {
	failures := int32(0)
	for wait(ctx, initial(p)); ctx.Err() == nil; wait(ctx, period(p)) {
		why := c.ask(p)
		if why == "" {
			return true
		}
		if failures++; failures >= p.FailureThreshold {
			sick <- "startup probe: " + why
			return false
		}
	}
	return false
}

func (c *container) liveness(ctx context.Context, p *corev1.Probe, sick chan<- string) {
	failures := int32(0)
	for wait(ctx, initial(p)); ctx.Err() == nil; wait(ctx, period(p)) {
		why := c.ask(p)
		if why == "" {
			failures = 0
			continue
		}
		c.unhealthy("liveness", why)
		if failures++; failures >= p.FailureThreshold {
			sick <- "liveness probe: " + why
			return
		}
	}
}

func (c *container) readiness(ctx context.Context, p *corev1.Probe) {
	ready, row := false, int32(0) // answers in a row that say otherwise
	every, told := min(eager, period(p)), ""
	for wait(ctx, initial(p)); ctx.Err() == nil; wait(ctx, every) {
		why := c.ask(p)
		if why != told {
			told = why
			c.unhealthy("readiness", why)
		}
		if ready == (why == "") {
			row = 0
			continue
		}
		row++
		if (!ready && row < p.SuccessThreshold) || (ready && row < p.FailureThreshold) {
			continue
		}
		every = period(p)
		ready, row = !ready, 0
		c.set(func() { c.ready = ready })
	}
}

// unhealthy has people see what a probe does not like, if anything.
func (c *container) unhealthy(probe, why string) {
	if why != "" {
		c.pod.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("container %s: %s probe: %s", c.spec.Name, probe, why))
	}
}

// ask returns why the probe fails, or nothing if it does not.
func (c *container) ask(p *corev1.Probe) string {
	result, answer, err := c.answer(p, time.Duration(p.TimeoutSeconds)*time.Second)
	switch {
	case err != nil:
		return err.Error()
	case result == probe.Success || result == probe.Warning:
		return ""
	case answer == "":
		return string(result)
	}
	return answer
}

func (c *container) answer(p *corev1.Probe, timeout time.Duration) (probe.Result, string, error) {
	if p.HTTPGet != nil {
		req, err := httpprobe.NewRequestForHTTPGetAction(p.HTTPGet, c.spec, c.pod.addr.String(), "probe")
		if err != nil {
			return probe.Unknown, "", err
		}
		return httpprobe.New(false).Probe(req, timeout)
	}
	port, err := probe.ResolveContainerPort(p.TCPSocket.Port, c.spec)
	if err != nil {
		return probe.Unknown, "", err
	}
	return tcpprobe.New().Probe(cmp.Or(p.TCPSocket.Host, c.pod.addr.String()), port, timeout)
}

func initial(p *corev1.Probe) time.Duration {
	return time.Duration(p.InitialDelaySeconds) * time.Second
}
func period(p *corev1.Probe) time.Duration { return time.Duration(p.PeriodSeconds) * time.Second }

// wait waits, but not longer than the context lasts.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
