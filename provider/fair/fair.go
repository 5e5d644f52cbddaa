// Package fair shares scarce places among requests, so that the many questions of
// one request keep no other request from being answered.
//
// A request is what somebody waits for as a whole: one POST of Gatekeeper with its
// questions. Work for it (a load of a cache, a call to OCI) may be shared with other
// requests, and may go on when its request has been given up. [Waiters] says who
// waits for some work now, and [Queue] lets those who wait for a place take turns
// by request: one turn each, however many questions a request has. All work that
// nobody waits for takes turns as if it were one more request.
//
// The identity of a request travels in a context, because it has to reach the call
// to OCI through packages that know nothing of requests. It decides who is first,
// and never what the answer is.
package fair

import (
	"context"
	"slices"
	"sync"
)

// Waiters are those who wait for some work now: one request, or the waiters of all
// who share the work.
type Waiters struct {
	shared bool

	mu   sync.Mutex
	from []*Waiters // of shared work
}

// unnamed stands for all callers who belong to no request, such as a program that
// serves nobody.
var unnamed = &Waiters{}

type key struct{}

// Request returns a context for the work of a new request.
func Request(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, &Waiters{})
}

// Of returns who waits for the work that is done with ctx.
func Of(ctx context.Context) *Waiters {
	if w, ok := ctx.Value(key{}).(*Waiters); ok {
		return w
	}
	return unnamed
}

// Shared returns the waiters of work that several may share. Nobody waits for it yet.
func Shared() *Waiters { return &Waiters{shared: true} }

// With returns a context for the work that w waits for.
func (w *Waiters) With(ctx context.Context) context.Context {
	return context.WithValue(ctx, key{}, w)
}

// IsRequest reports whether w is one request.
func (w *Waiters) IsRequest() bool { return !w.shared && w != unnamed }

// Join adds those who wait for the shared work from now on. Each Join ends with a
// Leave.
func (w *Waiters) Join(who *Waiters) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from = append(w.from, who)
}

// Leave takes away what a Join added, and reports whether nobody is left.
func (w *Waiters) Leave(who *Waiters) (last bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := slices.Index(w.from, who); n >= 0 {
		w.from = slices.Delete(w.from, n, n+1)
	}
	return len(w.from) == 0
}

// each calls see with every request that waits, some more than once, until it
// returns false. Shared work waits for shared work only if that is of another kind,
// so the calls end.
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

// includes reports whether a request waits.
func (w *Waiters) includes(request *Waiters) bool {
	return !w.each(func(r *Waiters) bool { return r != request })
}
