// Package cache remembers what calls to other services returned: one flight
// per key, bounded in entries and in loads, each entry for a time of its own,
// renewed ahead of its end by those who use it.
//
// It is made for evidence that decides admission, so it keeps to four rules. A
// value is never served past its time, which is counted from when its load
// began, or from before that if the value says so. An error is never kept. A refresh that fails extends nothing. And a
// load belongs to nobody: it outlives the caller that caused it, because the
// next one will ask for the same thing, but one that may hang holds up nobody
// who comes later.
//
// It does not know what it holds, does no I/O of its own and logs nothing.
package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
)

// ErrTimeout is the cause of the end of a load that took longer than
// Config.Timeout. Errors that hold it also hold context.DeadlineExceeded.
var ErrTimeout = fmt.Errorf("loading took too long: %w", context.DeadlineExceeded)

var errNoReturn = errors.New("internal error: the load ended without returning")

// Config says what a Cache loads and how long it keeps it.
type Config[K comparable, V any] struct {
	// Load fetches the value of a key. Its context carries the values of the
	// caller that caused it, but neither its deadline nor its cancellation.
	Load func(ctx context.Context, key K) (V, error)
	// Keep says how long a value may be served; nothing at or below zero is kept.
	Keep func(V) time.Duration
	// Since says as of when a value holds, if that may be before its load began.
	// Nil: it never is.
	Since func(V) time.Time
	// Max is how many entries are held at most. Zero means 10 000.
	Max int
	// Timeout is how long one load may take. Zero means 15 seconds.
	Timeout time.Duration
	// Patience is how long a load may have been under way for another caller to
	// join it; later ones begin a load of their own. A service that hung and is
	// well again answers new calls, and may never answer the old one. Zero means
	// a second.
	Patience time.Duration
	// Loads is how many loads may run at once, refreshes only in half of them;
	// one that has taken longer than Patience no longer counts. A caller waits
	// for its turn as long as its context lets it; a refresh that finds no room
	// is left to the next caller. Zero means 64.
	Loads int
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Cache is a memory for calls, safe for concurrent use.
type Cache[K comparable, V any] struct {
	cfg   Config[K, V]
	store *otter.Cache[K, entry[V]]
	slots chan struct{}
	loads sync.WaitGroup

	hits, misses atomic.Uint64
	underWay     atomic.Int64

	mu      sync.Mutex
	flights map[K]*flight[V]
}

// Stats is what a Cache has done so far, and does now.
type Stats struct {
	Entries  int    // held, about, expired ones included
	Hits     uint64 // values served from memory
	Misses   uint64 // that Get did not find there
	UnderWay int    // loads, also those that nobody waits for
}

type entry[V any] struct {
	value V
	began time.Time     // the load of it, or what it was made of
	keep  time.Duration // since then
	renew time.Duration // since then, when the next caller begins a refresh
}

func (e entry[V]) expired(now time.Time) bool { return now.Sub(e.began) >= e.keep }

func (e entry[V]) due(now time.Time) bool { return now.Sub(e.began) >= e.renew }

// flight is one load and those who wait for it. value and err are written
// before done is closed and never after.
type flight[V any] struct {
	began   time.Time
	done    chan struct{}
	value   V
	err     error
	journal journal
}

// New makes a Cache. It panics without Load or Keep, which is a mistake in the
// program and not in what it is given.
func New[K comparable, V any](cfg Config[K, V]) *Cache[K, V] {
	if cfg.Load == nil || cfg.Keep == nil {
		panic("cache: Load and Keep are required")
	}
	if cfg.Max <= 0 {
		cfg.Max = 10_000
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.Patience <= 0 {
		cfg.Patience = time.Second
	}
	if cfg.Loads <= 0 {
		cfg.Loads = 64
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Cache[K, V]{
		cfg: cfg,
		// The store bounds the number of entries and nothing else. Time is
		// judged here, against one clock and to the nanosecond.
		store:   otter.Must(&otter.Options[K, entry[V]]{MaximumSize: cfg.Max}),
		slots:   make(chan struct{}, cfg.Loads),
		flights: make(map[K]*flight[V]),
	}
}

// Get returns the value of key, from memory or by a load that all who ask for
// the same key share. A caller whose context ends leaves with its error and with
// what the load has told [Note], while the load goes on and fills the cache.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	if v, ok := c.Peek(ctx, key); ok {
		return v, nil
	}
	c.misses.Add(1)
	f, err := c.join(ctx, key)
	if err != nil {
		var none V
		return none, err
	}
	select {
	case <-f.done:
		return f.value, f.err
	default:
	}
	f.journal.share(ctx)
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var none V
		return none, f.journal.add(context.Cause(ctx))
	}
}

// Peek returns the value of key if it is in memory.
func (c *Cache[K, V]) Peek(ctx context.Context, key K) (V, bool) {
	now := c.cfg.Now()
	e, ok := c.store.GetIfPresent(key)
	if !ok || e.expired(now) {
		var none V
		return none, false
	}
	c.hits.Add(1)
	if e.due(now) {
		c.refresh(ctx, key)
	}
	return e.value, true
}

// Discard drops the value held for key if it is stale by the caller's own
// measure. A load that is under way goes on and is kept if it began later than
// the value's. So however many callers find the same value stale at once, the
// next Gets share one load.
func (c *Cache[K, V]) Discard(key K, stale func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.store.GetIfPresent(key); ok && stale(e.value) {
		c.store.Invalidate(key)
	}
}

// Len is about how many entries are held, expired ones included.
func (c *Cache[K, V]) Len() int {
	return c.store.EstimatedSize()
}

// Stats is safe to call at any time.
func (c *Cache[K, V]) Stats() Stats {
	return Stats{Entries: c.Len(), Hits: c.hits.Load(), Misses: c.misses.Load(), UnderWay: int(c.underWay.Load())}
}

// All are the values that may be served now.
func (c *Cache[K, V]) All() iter.Seq[V] {
	now := c.cfg.Now()
	return func(yield func(V) bool) {
		for _, e := range c.store.All() {
			if !e.expired(now) && !yield(e.value) {
				return
			}
		}
	}
}

// Wait returns when no load is under way. It is for shutting down: nothing may
// call Get any more.
func (c *Cache[K, V]) Wait() {
	c.loads.Wait()
}

// join returns the flight for key, and begins one if there is none.
func (c *Cache[K, V]) join(ctx context.Context, key K) (*flight[V], error) {
	if f := c.begin(ctx, key); f != nil {
		return f, nil
	}
	// All slots are taken. Waiting here, and not inside a flight, keeps the
	// number of goroutines that a flood of keys can cause at that of callers.
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.known(key); f != nil {
		<-c.slots
		return f, nil
	}
	return c.launch(ctx, key), nil
}

// begin joins the flight for key or begins one, unless all slots are taken.
func (c *Cache[K, V]) begin(ctx context.Context, key K) *flight[V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.known(key); f != nil {
		return f
	}
	select {
	case c.slots <- struct{}{}:
		return c.launch(ctx, key)
	default:
		return nil
	}
}

// known returns the flight that is under way, or one that has just landed
// between the caller's look into the store and now: without the second look a
// burst would now and then load twice. The caller holds c.mu.
func (c *Cache[K, V]) known(key K) *flight[V] {
	now := c.cfg.Now()
	if f, ok := c.flights[key]; ok && now.Sub(f.began) <= c.cfg.Patience {
		return f
	}
	e, ok := c.store.GetIfPresent(key)
	if !ok || e.expired(now) || e.due(now) {
		return nil
	}
	f := &flight[V]{done: make(chan struct{}), value: e.value}
	close(f.done)
	return f
}

// refresh begins a load that nobody waits for. Half of the slots stay free for
// those who do wait.
func (c *Cache[K, V]) refresh(ctx context.Context, key K) {
	if 2*len(c.slots) < cap(c.slots) {
		c.begin(ctx, key)
	}
}

// launch starts a flight. The caller holds c.mu and one slot.
func (c *Cache[K, V]) launch(ctx context.Context, key K) *flight[V] {
	// Age counts from the question and not from the answer: whatever changes
	// while the service is answering may not be in the answer.
	f := &flight[V]{began: c.cfg.Now(), done: make(chan struct{})}
	c.flights[key] = f
	release := sync.OnceFunc(func() { <-c.slots })
	overdue := time.AfterFunc(c.cfg.Patience, release)
	c.underWay.Add(1)
	c.loads.Go(func() {
		defer c.underWay.Add(-1)
		defer release()
		defer overdue.Stop()
		c.fly(f.journal.open(context.WithoutCancel(ctx)), key, f)
	})
	return f
}

func (c *Cache[K, V]) fly(ctx context.Context, key K, f *flight[V]) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, ErrTimeout)
	defer cancel()
	f.err = errNoReturn
	defer c.land(key, f) // even when Load ends its goroutine
	f.value, f.err = c.load(ctx, key)
}

// land keeps what a flight brought, and lets those who wait for it go.
func (c *Cache[K, V]) land(key K, f *flight[V]) {
	defer close(f.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] == f { // a later one may have taken its place
		delete(c.flights, key)
	}
	if f.err != nil {
		c.postpone(key)
		return
	}
	began := f.began
	if c.cfg.Since != nil {
		if since := c.cfg.Since(f.value); since.Before(began) {
			began = since
		}
	}
	if held, ok := c.store.GetIfPresent(key); ok && held.began.After(began) {
		return
	}
	if keep := c.cfg.Keep(f.value); keep > 0 {
		c.store.Set(key, entry[V]{value: f.value, began: began, keep: keep, renew: keep / 4 * 3})
	} else {
		c.store.Invalidate(key)
	}
}

// postpone makes the next refresh of an entry that could not be refreshed wait
// a little, or a popular key would ask a service in trouble without a pause.
// How long the entry may be served stays as it is.
func (c *Cache[K, V]) postpone(key K) {
	now := c.cfg.Now()
	c.store.ComputeIfPresent(key, func(e entry[V]) (entry[V], otter.ComputeOp) {
		age := now.Sub(e.began)
		e.renew = age + max(time.Second, (e.keep-age)/4)
		return e, otter.WriteOp
	})
}

// load calls Load and turns a panic into an error: the flight is no longer on
// the goroutine of the request, where the HTTP server would have contained it,
// and those who wait for it must get an answer.
func (c *Cache[K, V]) load(ctx context.Context, key K) (value V, err error) {
	defer func() {
		if r := recover(); r != nil {
			var none V
			value, err = none, &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	return c.cfg.Load(ctx, key)
}

// PanicError says that a load panicked. Its text leaves the stack out.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("internal error: panic: %v", e.Value)
}
