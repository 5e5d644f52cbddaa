package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/oke-sign/oke-sign/provider/fair"
)

// How long no caller sends anything to a host that throttles. OCI may ask for a longer
// wait than maxHold. One caller a second then tries, so that the limit does not outlast
// the host's recovery.
const (
	maxHold  = time.Second
	longHold = 400 * time.Millisecond // where OCI asks for no wait
)

// maxIdleHosts is how many limiters of hosts without calls stay in memory.
const maxIdleHosts = 100

// limiters bounds the calls in flight to each host. It shares the turns by request
// (see package fair), so that a large request does not starve a small one.
//
// The bound adapts as additive increase, multiplicative decrease (AIMD) does, for all
// callers together. Each 429 lowers it by a quarter, down to one call at a time and
// then none for a while. Each answer raises it by one. One throttled call among ten
// good ones delays only itself, unless OCI says when to come back. Halving would be
// too much: a few chance refusals among many calls would delay the rest for longer
// than a request may take.
type limiters struct {
	limit int

	mu     sync.Mutex
	byHost map[string]*limiter
}

// limiter bounds the calls in flight to one host. The caller holds the lock of
// limiters.
type limiter struct {
	maxInFlight  int // the bound when OCI does not throttle
	limit        int // the bound now
	running      int
	waiting      fair.Queue[chan struct{}]
	blockedUntil time.Time // nothing is sent before
	refusals     int       // in a row, with one call at a time
	last         *Error    // the newest refusal, until limit is maxInFlight again
}

// acquire waits for a turn, and returns the function that gives the turn back. While
// the host throttles, acquire tells delayed why the call waits.
func (ls *limiters) acquire(ctx context.Context, host string, delayed func(context.Context, error)) (func(), error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	ls.mu.Lock()
	l := ls.of(host)
	l.admit() // earlier callers go first, if there is room again
	if l.open() {
		l.running++
		ls.mu.Unlock()
		return ls.release(l), nil
	}
	turn := make(chan struct{})
	place := l.waiting.Wait(fair.Of(ctx), turn)
	last := l.last
	ls.mu.Unlock()
	if last != nil {
		delayed(ctx, last)
	}
	select {
	case <-turn:
		return ls.release(l), nil
	case <-ctx.Done():
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if !l.waiting.Leave(place) { // the turn came at the same moment
		l.running--
		l.admit()
	}
	if l.last != nil {
		return nil, fmt.Errorf("%w, and waited for a turn since %w", context.Cause(ctx), l.last)
	}
	return nil, fmt.Errorf("%w, and waited for one of the %d calls that may run at once", context.Cause(ctx), l.limit)
}

// spare takes a turn for a second attempt, if less than half of the turns are taken.
func (ls *limiters) spare(host string) (func(), bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.of(host)
	if !l.open() || 2*l.running >= l.limit {
		return nil, false
	}
	l.running++
	return ls.release(l), true
}

func (ls *limiters) release(l *limiter) func() {
	return sync.OnceFunc(func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		l.running--
		l.admit()
	})
}

// heard adapts the host's limit to how a call ended.
func (ls *limiters) heard(host string, err error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.of(host)
	e, refused := errors.AsType[*Error](err)
	switch {
	case refused && throttles(e):
		if hold := l.refused(e); hold > 0 {
			time.AfterFunc(hold, func() {
				ls.mu.Lock()
				defer ls.mu.Unlock()
				l.admit()
			})
		}
	case err == nil || refused && e.Status < 500:
		l.answered()
	}
}

// throttles reports whether a refusal is about the number of requests, so that it
// concerns other callers too.
func throttles(e *Error) bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable && e.retryAfter > 0
}

// of returns the limiter of a host. The caller holds ls.mu.
func (ls *limiters) of(host string) *limiter {
	l := ls.byHost[host]
	if l != nil {
		return l
	}
	if len(ls.byHost) >= maxIdleHosts {
		for name, l := range ls.byHost {
			if l.running == 0 && l.waiting.Len() == 0 && !time.Now().Before(l.blockedUntil) {
				delete(ls.byHost, name)
			}
		}
	}
	if ls.byHost == nil {
		ls.byHost = make(map[string]*limiter)
	}
	l = &limiter{maxInFlight: ls.limit, limit: ls.limit}
	ls.byHost[host] = l
	return l
}

// open reports whether another call may run now.
func (l *limiter) open() bool { return l.running < l.limit && !time.Now().Before(l.blockedUntil) }

// admit gives turns to waiting calls, as far as the limit allows.
func (l *limiter) admit() {
	for l.open() {
		turn, _, ok := l.waiting.Next()
		if !ok {
			return
		}
		close(turn)
		l.running++
	}
}

// refused lowers the limit and returns for how long nothing is sent.
func (l *limiter) refused(e *Error) time.Duration {
	hold := min(e.retryAfter, maxHold)
	if l.limit == 1 {
		hold = max(hold, min(firstPause<<min(l.refusals, 8), longHold))
		l.refusals++
	}
	l.limit = max(1, l.limit*3/4)
	l.last = e
	if until := time.Now().Add(hold); until.After(l.blockedUntil) {
		l.blockedUntil = until
	}
	return hold
}

// answered raises the limit.
func (l *limiter) answered() {
	l.refusals = 0
	if l.limit++; l.limit >= l.maxInFlight {
		l.limit, l.last = l.maxInFlight, nil
	}
	l.admit()
}
