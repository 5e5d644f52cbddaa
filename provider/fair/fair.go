// Package fair shares scarce slots among requests. A request with many questions cannot
// delay the others.
//
// A request is one POST of Gatekeeper with all its questions. Several requests may share
// work, such as the load of a cache entry or a call to OCI. The work continues after a
// request has given up. [Waiters] are the requests that wait for some work now. [Queue]
// gives each request one turn, whatever its number of questions. All work without waiters
// takes turns like one more request.
//
// The identity of a request travels in a context. It must reach the call to OCI
// through packages that know nothing about requests. It decides the order of answers
// and never their content.
package fair

import (
	"context"
	"slices"
	"sync"
)

// Waiters are the requests that wait for some work now: one request, or the waiters of
// everything that shares the work.
type Waiters struct {
	shared bool

	mu   sync.Mutex
	from []*Waiters // waiters of shared work
}

// unnamed represents all callers without a request, for example in the plugin.
var unnamed = &Waiters{}

type key struct{}

// Request returns a context with a new request.
func Request(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, &Waiters{})
}

// Of returns the waiters in ctx.
func Of(ctx context.Context) *Waiters {
	if w, ok := ctx.Value(key{}).(*Waiters); ok {
		return w
	}
	return unnamed
}

// Shared returns the waiters of work that several requests may share. It has none yet.
func Shared() *Waiters { return &Waiters{shared: true} }

// With returns a context with w as its waiters.
func (w *Waiters) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, w)
}

// IsRequest reports whether w is one request.
func (w *Waiters) IsRequest() bool { return !w.shared && w != unnamed }

// Join adds who to the waiters of shared work. Pair each Join with a Leave.
func (w *Waiters) Join(who *Waiters) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from = append(w.from, who)
}

// Leave removes who, and reports whether no waiter is left.
func (w *Waiters) Leave(who *Waiters) (last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := slices.Index(w.from, who); n >= 0 {
		w.from = slices.Delete(w.from, n, n+1)
	}
	return len(w.from) == 0
}

// each calls see with every waiting request until see returns false. It may call see
// several times with one request. The recursion ends because shared work waits only for
// shared work of another kind.
func (w *Waiters) each(see func(*Waiters) bool) bool {
	if !w.shared {
		return see(w)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, who := range w.from {
		if !who.each(see) {
			return false
		}
	}
	return true
}

// includes reports whether the request is one of the waiters.
func (w *Waiters) includes(request *Waiters) bool {
	return !w.each(func(r *Waiters) bool { return r != request })
}
