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

// firstPeriod is the period of readiness probes until the container is ready for the
// first time. The usual ten seconds would only make tests wait.
const firstPeriod = 250 * time.Millisecond

// probe runs the container's probes until ctx ends. It sends a reason on restart when
// the container must be started again.
func (c *container) probe(ctx context.Context, restart chan<- string) {
	if p := c.spec.StartupProbe; p != nil && !c.startUp(ctx, p, restart) {
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
		both.Go(func() { c.liveness(ctx, p, restart) })
	}
}

// startUp reports whether the container has started up.
func (c *container) startUp(ctx context.Context, p *corev1.Probe, restart chan<- string) bool {
	failures := int32(0)
	for wait(ctx, initial(p)); ctx.Err() == nil; wait(ctx, period(p)) {
		why := c.failure(p)
		if why == "" {
			return true
		}
		if failures++; failures >= p.FailureThreshold {
			restart <- "startup probe: " + why
			return false
		}
	}
	return false
}

func (c *container) liveness(ctx context.Context, p *corev1.Probe, restart chan<- string) {
	failures := int32(0)
	for wait(ctx, initial(p)); ctx.Err() == nil; wait(ctx, period(p)) {
		why := c.failure(p)
		if why == "" {
			failures = 0
			continue
		}
		c.unhealthy("liveness", why)
		if failures++; failures >= p.FailureThreshold {
			restart <- "liveness probe: " + why
			return
		}
	}
}

func (c *container) readiness(ctx context.Context, p *corev1.Probe) {
	ready, row := false, int32(0) // consecutive answers against the current state
	every, lastFailure := min(firstPeriod, period(p)), ""
	for wait(ctx, initial(p)); ctx.Err() == nil; wait(ctx, every) {
		why := c.failure(p)
		if why != lastFailure {
			lastFailure = why
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

// unhealthy records an event about a failed probe.
func (c *container) unhealthy(probe, why string) {
	if why != "" {
		c.pod.event(corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("container %s: %s probe: %s", c.spec.Name, probe, why))
	}
}

// failure returns why the probe fails, or "" if it succeeds.
func (c *container) failure(p *corev1.Probe) string {
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

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
