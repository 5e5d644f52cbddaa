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
// Places for loads are shared by request, see package fair: a request has one load
// under way whatever the others do, and takes turns with them for more.
//
// It does not know what it holds, does no I/O of its own and logs nothing.
package cache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/fair"
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
	// Renew says how long after its load began a value is renewed, if that is
	// earlier than after three quarters of Keep. Nil: it never is.
	Renew func(V) time.Duration
	// Since says as of when a value holds, if that may be before its load began.
	// Nil: it never is.
	Since func(V) time.Time
	// Max is how many entries are held at most. Zero means 10 000.
	Max int
	// Weigh says how much room an entry takes, and MaxWeight how much all of them
	// may; then it bounds them in place of Max. Nil: each entry counts as one.
	Weigh     func(K, V) uint32
	MaxWeight uint64
	// Timeout is how long one load may take. Zero means 15 seconds.
	Timeout time.Duration
	// Patience is how long a load may have been under way for another caller to
	// join it; later ones begin a load of their own. A service that hung and is
	// well again answers new calls, and may never answer the old one. Zero means
	// a second.
	Patience time.Duration
	// Loads is how many loads may run at once, refreshes only in half of them;
	// one that has taken longer than Patience does not count. A caller waits for
	// its turn as long as its context lets it; a refresh that finds no room is
	// left to the next caller. A request that has no load under way may begin one
	// beside these. Zero means 64.
	Loads int
	// Random returns a number from 0 to 1, exclusively. It spreads the refreshes
	// of entries that were loaded together. Nil means a generator of its own.
	Random func() float64
	// Panicked is told of a load that panicked, if not nil, once for each panic.
	Panicked func(*contain.PanicError)
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Cache is a memory for calls, safe for concurrent use.
type Cache[K comparable, V any] struct {
	cfg   Config[K, V]
	store *otter.Cache[K, entry[V]]
	loads sync.WaitGroup

	hits, misses atomic.Uint64
	underWay     atomic.Int64

	mu      sync.Mutex
	flights map[K]*flight[K, V]
	running int // loads that take a place
	queue   fair.Queue[*flight[K, V]]
	begun   map[*fair.Waiters]int // loads under way by the requests that began them
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
type flight[K comparable, V any] struct {
	key     K
	waiters *fair.Waiters
	load    func()                    // without a place yet
	turn    *fair.Turn[*flight[K, V]] // in the queue for one; nil once it has one
	began   time.Time                 // since it has one
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
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	// The store bounds the room that entries take and nothing else. Time is judged
	// here, against one clock and to the nanosecond.
	bounds := &otter.Options[K, entry[V]]{MaximumSize: cfg.Max}
	if cfg.Weigh != nil {
		bounds = &otter.Options[K, entry[V]]{
			MaximumWeight: cfg.MaxWeight,
			Weigher:       func(key K, e entry[V]) uint32 { return cfg.Weigh(key, e.value) },
		}
	}
	return &Cache[K, V]{
		cfg:     cfg,
		store:   otter.Must(bounds),
		flights: make(map[K]*flight[K, V]),
		begun:   make(map[*fair.Waiters]int),
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
	who := fair.Of(ctx)
	f := c.join(ctx, key, who)
	defer c.leave(f, who)
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

// join returns the flight for key that who waits for from now on. If there is none
// yet it begins one, or queues one for a place. Nothing runs for a flight in the
// queue, so a flood of keys causes no more goroutines than it has callers.
func (c *Cache[K, V]) join(ctx context.Context, key K, who *fair.Waiters) *flight[K, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.known(key)
	if f == nil {
		f = c.prepare(ctx, key)
		if c.running < c.cfg.Loads || c.mayBegin(who) {
			c.launch(f, who)
		} else {
			f.turn = c.queue.Wait(f.waiters, f)
		}
	}
	if f.waiters != nil {
		f.waiters.Join(who)
	}
	return f
}

// mayBegin reports whether a request may begin a load although all places are
// taken: it has none under way, and loads are not many times more than places.
func (c *Cache[K, V]) mayBegin(who *fair.Waiters) bool {
	const most = 16
	return who.IsRequest() && c.begun[who] == 0 && c.underWay.Load() < int64(most*c.cfg.Loads)
}

// leave ends a caller's wait for a flight. One that has no place yet, and for which
// nobody waits any more, is dropped.
func (c *Cache[K, V]) leave(f *flight[K, V], who *fair.Waiters) {
	if f.waiters == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.waiters.Leave(who) && f.turn != nil && c.queue.Leave(f.turn) && c.flights[f.key] == f {
		delete(c.flights, f.key)
	}
}

// known returns the flight that is under way, or one that has just landed
// between the caller's look into the store and now: without the second look a
// burst would now and then load twice. The caller holds c.mu.
func (c *Cache[K, V]) known(key K) *flight[K, V] {
	now := c.cfg.Now()
	if f, ok := c.flights[key]; ok && (f.turn != nil || now.Sub(f.began) <= c.cfg.Patience) {
		return f
	}
	e, ok := c.store.GetIfPresent(key)
	if !ok || e.expired(now) || e.due(now) {
		return nil
	}
	f := &flight[K, V]{done: make(chan struct{}), value: e.value}
	close(f.done)
	return f
}

// refresh begins a load that nobody waits for. Half of the places stay free for
// those who do wait.
func (c *Cache[K, V]) refresh(ctx context.Context, key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if 2*c.running < c.cfg.Loads && c.known(key) == nil {
		c.launch(c.prepare(ctx, key), nil)
	}
}

// prepare makes a flight that has no place yet. The caller holds c.mu.
func (c *Cache[K, V]) prepare(ctx context.Context, key K) *flight[K, V] {
	f := &flight[K, V]{key: key, waiters: fair.Shared(), done: make(chan struct{})}
	f.load = func() { c.fly(f.journal.open(f.waiters.With(context.WithoutCancel(ctx))), f) }
	c.flights[key] = f
	return f
}

// launch starts a flight in a place of its own, for a request or nobody. The caller
// holds c.mu.
func (c *Cache[K, V]) launch(f *flight[K, V], who *fair.Waiters) {
	// Age counts from the question and not from the answer: whatever changes
	// while the service is answering may not be in the answer.
	f.began, f.turn = c.cfg.Now(), nil
	c.running++
	if who != nil {
		c.begun[who]++
	}
	release := sync.OnceFunc(c.release)
	overdue := time.AfterFunc(c.cfg.Patience, release)
	c.underWay.Add(1)
	c.loads.Go(func() {
		defer func() {
			overdue.Stop()
			c.underWay.Add(-1)
			c.ended(who)
			release()
		}()
		f.load()
	})
}

// ended takes note that a load that a request began is no longer under way. A
// request that now has none begins its next one.
func (c *Cache[K, V]) ended(who *fair.Waiters) {
	if who == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun[who]--; c.begun[who] > 0 {
		return
	}
	delete(c.begun, who)
	if c.mayBegin(who) {
		if f, ok := c.queue.NextOf(who); ok {
			c.launch(f, who)
		}
	}
}

// release gives a place back, for those who wait for one.
func (c *Cache[K, V]) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	for c.running < c.cfg.Loads {
		f, who, ok := c.queue.Next()
		if !ok {
			return
		}
		c.launch(f, who)
	}
}

func (c *Cache[K, V]) fly(ctx context.Context, f *flight[K, V]) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, ErrTimeout)
	defer cancel()
	e := entry[V]{began: f.began}
	f.err = errNoReturn
	defer func() { c.land(f, e) }() // even when Load ends its goroutine
	f.value, f.err = c.fetch(ctx, f.key, &e)
	if p, ok := contain.Unlogged(f.err); ok && c.cfg.Panicked != nil {
		c.cfg.Panicked(p)
	}
}

// land keeps what a flight brought, and lets those who wait for it go.
func (c *Cache[K, V]) land(f *flight[K, V], e entry[V]) {
	defer close(f.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.key] == f { // a later one may have taken its place
		delete(c.flights, f.key)
	}
	if f.err != nil {
		c.postpone(f.key)
		return
	}
	if held, ok := c.store.GetIfPresent(f.key); ok && held.began.After(e.began) {
		return
	}
	if e.keep > 0 {
		c.store.Set(f.key, e)
	} else {
		c.store.Invalidate(f.key)
	}
}

// renewal is when a caller of an entry begins its refresh: after half to three
// quarters of its time, at random. What was loaded together, as by Gatekeeper's
// audit, would be due together otherwise.
func (c *Cache[K, V]) renewal(keep time.Duration) time.Duration {
	return keep/2 + time.Duration(c.cfg.Random()*float64(keep/4))
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

// fetch calls Load and completes e with what it returns. A panic is an error: the
// flight is not on the goroutine of the request, where the HTTP server would have
// contained it, and those who wait for it must get an answer.
func (c *Cache[K, V]) fetch(ctx context.Context, key K, e *entry[V]) (value V, err error) {
	defer func() {
		if err != nil {
			var none V
			value = none
		}
	}()
	defer contain.Panic(&err)
	value, err = c.cfg.Load(ctx, key)
	if err != nil {
		return value, err
	}
	e.value, e.keep = value, c.cfg.Keep(value)
	e.renew = c.renewal(e.keep)
	if c.cfg.Renew != nil {
		e.renew = min(e.renew, c.cfg.Renew(value))
	}
	if c.cfg.Since != nil {
		if since := c.cfg.Since(value); since.Before(e.began) {
			e.began = since
		}
	}
	return value, nil
}
