package ociauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/oke-sign/oke-sign/provider/fair"
)

// How long a host that throttles is left alone, by all callers together. OCI may
// ask for more than maxHold; then it hears from one caller a second, so that the
// first one after its recovery is not told of a limit that is gone.
const (
	maxHold  = time.Second
	longHold = 400 * time.Millisecond // where OCI asks for nothing
)

// maxGates is how many hosts may be remembered that nobody calls.
const maxGates = 100

// hosts bounds the calls that run at once against each host, shares their places by
// request (see package fair), and has them heed
// together what one of them was told: at each 429 a quarter fewer may run, down to
// one and then none for a while, and with each answer one more. One refused
// call among ten good ones holds up itself and no other, unless OCI says when
// to come back: halving would let a few chance refusals in a row, of many calls at
// once, keep the rest waiting for longer than a request has.
type hosts struct {
	limit int

	mu    sync.Mutex
	gates map[string]*gate
}

type gate struct {
	most, limit int // of calls at once: when all is well, and now
	running     int
	waiting     fair.Queue[chan struct{}]
	shut        time.Time // until when nothing is sent
	refusals    int       // in a row, with one call at a time
	last        *Error    // the newest refusal, until all is well
}

// acquire waits for a turn, and returns what gives it back. While the host
// throttles, trouble is told so.
func (h *hosts) acquire(ctx context.Context, host string, trouble func(context.Context, error)) (func(), error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	h.mu.Lock()
	g := h.gate(host)
	g.admit() // those who came before, if there is room again
	if g.open() {
		g.running++
		h.mu.Unlock()
		return h.release(g), nil
	}
	come := make(chan struct{})
	turn := g.waiting.Wait(fair.Of(ctx), come)
	last := g.last
	h.mu.Unlock()
	if last != nil {
		trouble(ctx, last)
	}
	select {
	case <-come:
		return h.release(g), nil
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !g.waiting.Leave(turn) { // its turn came in the same moment
		g.running--
		g.admit()
	}
	if g.last != nil {
		return nil, fmt.Errorf("%w, and waited for a turn since %w", context.Cause(ctx), g.last)
	}
	return nil, fmt.Errorf("%w, and waited for one of the %d calls that may run at once", context.Cause(ctx), g.limit)
}

// spare takes a place that nobody is likely to need soon, if there is one.
func (h *hosts) spare(host string) (func(), bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.gate(host)
	if !g.open() || 2*g.running >= g.limit {
		return nil, false
	}
	g.running++
	return h.release(g), true
}

func (h *hosts) release(g *gate) func() {
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		g.running--
		g.admit()
	})
}

// heard takes note of how a call ended.
func (h *hosts) heard(host string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g := h.gate(host)
	e, refused := errors.AsType[*Error](err)
	switch {
	case refused && throttles(e):
		if hold := g.refused(e); hold > 0 {
			time.AfterFunc(hold, func() {
				h.mu.Lock()
				defer h.mu.Unlock()
				g.admit()
			})
		}
	case err == nil || refused && e.Status < 500:
		g.answered()
	}
}

// throttles reports whether a refusal is about how much is asked and not about
// what: other callers had better heed it too.
func throttles(e *Error) bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.retryAfter > 0
}

// gate is that of a host. The caller holds h.mu.
func (h *hosts) gate(host string) *gate {
	g := h.gates[host]
	if g != nil {
		return g
	}
	if len(h.gates) >= maxGates {
		for name, g := range h.gates {
			if g.running == 0 && g.waiting.Len() == 0 && !time.Now().Before(g.shut) {
				delete(h.gates, name)
			}
		}
	}
	if h.gates == nil {
		h.gates = make(map[string]*gate)
	}
	g = &gate{most: h.limit, limit: h.limit}
	h.gates[host] = g
	return g
}

func (g *gate) open() bool { return g.running < g.limit && !time.Now().Before(g.shut) }

// admit lets in who may.
func (g *gate) admit() {
	for g.open() {
		come, _, ok := g.waiting.Next()
		if !ok {
			return
		}
		close(come)
		g.running++
	}
}

// refused returns how long nothing is sent because of it.
func (g *gate) refused(e *Error) time.Duration {
	hold := min(e.retryAfter, maxHold)
	if g.limit == 1 {
		hold = max(hold, min(firstPause<<min(g.refusals, 8), longHold))
		g.refusals++
	}
	g.limit = max(1, g.limit*3/4)
	g.last = e
	if until := time.Now().Add(hold); until.After(g.shut) {
		g.shut = until
	}
	return hold
}

func (g *gate) answered() {
	g.refusals = 0
	if g.limit++; g.limit >= g.most {
		g.limit, g.last = g.most, nil
	}
	g.admit()
}
