// Package cache stores the results of calls to other services. Callers of the same key
// share one load. The cache bounds its entries and its concurrent loads. Each entry has
// its own TTL, and callers of an entry refresh it ahead of the end of its TTL.
//
// The cache is made for values that decide admission. It keeps these rules:
//
//   - It never serves a value past its TTL. The TTL counts from the start of the load,
//     or from an earlier time that the value names.
//   - It never caches an error.
//   - A failed refresh does not extend a TTL.
//   - A load outlives the caller that started it, because the next caller asks for the
//     same key. A load that hangs delays no later caller.
//
// Requests share the concurrent loads by turns, see package fair: each request has one
// load under way whatever other requests do, and takes turns with them for more.
//
// The package does not interpret values, does no I/O and logs nothing.
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

// ErrTimeout is the cause with which a load ends that took longer than Config.Timeout.
// Errors that wrap ErrTimeout also wrap context.DeadlineExceeded.
var ErrTimeout = fmt.Errorf("loading took too long: %w", context.DeadlineExceeded)

var errNoReturn = errors.New("internal error: the load ended without returning")

// Config configures a Cache.
type Config[K comparable, V any] struct {
	// Load fetches the value of a key. Its context carries the values of the caller
	// that started the load, without that caller's deadline or cancellation.
	Load func(ctx context.Context, key K) (V, error)
	// TTL returns how long a value may be served. A value with a TTL of zero or less
	// is not cached.
	TTL func(V) time.Duration
	// RefreshAfter returns the age at which a value is refreshed, if that is earlier
	// than the usual age. The usual age is at most three quarters of TTL. Nil means
	// the usual age.
	RefreshAfter func(V) time.Duration
	// AsOf returns the time at which a value was true, if that may be before the start
	// of its load. Nil means the start of the load.
	AsOf func(V) time.Time
	// MaxEntries bounds the number of entries. Zero means 10 000.
	MaxEntries int
	// Weigh returns the weight of an entry, and MaxWeight bounds the sum of weights in
	// place of MaxEntries. Nil means that MaxEntries counts.
	Weigh     func(K, V) uint32
	MaxWeight uint64
	// Timeout bounds one load. Zero means 15 seconds.
	Timeout time.Duration
	// JoinWithin is the greatest age at which another caller joins a load. Later
	// callers start their own load: a service that hung and has recovered answers new
	// calls, and may never answer the old one. Zero means a second.
	JoinWithin time.Duration
	// MaxLoads bounds the concurrent loads. Refreshes use half of them at most, and a
	// load older than JoinWithin does not count. A caller waits for its turn until its
	// context ends. A refresh that finds no room is left to the next caller. A request
	// without a load under way may exceed the bound by one load. Zero means 64.
	MaxLoads int
	// Random returns a number in the open interval from 0 to 1. It spreads the
	// refreshes of entries that were loaded together. Nil means math/rand/v2.
	Random func() float64
	// Panicked, if not nil, is called once for each load that panicked.
	Panicked func(*contain.PanicError)
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
}

// Cache caches the results of loads. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	cfg   Config[K, V]
	store *otter.Cache[K, entry[V]]
	loads sync.WaitGroup

	hits, misses atomic.Uint64
	underWay     atomic.Int64

	mu      sync.Mutex
	flights map[K]*flight[K, V]
	running int // loads that count against MaxLoads
	queue   fair.Queue[*flight[K, V]]
	begun   map[*fair.Waiters]int // loads under way, by the request that began them
}

// Stats describes what a Cache has done so far and what it does now.
type Stats struct {
	Entries  int    // approximate, with expired entries
	Hits     uint64 // values served from the cache
	Misses   uint64 // calls of Get that found no value
	UnderWay int    // loads, with those that nobody waits for
}

type entry[V any] struct {
	value        V
	asOf         time.Time     // start of the load, or earlier
	ttl          time.Duration // since asOf
	refreshAfter time.Duration // since asOf
}

func (e entry[V]) expired(now time.Time) bool { return now.Sub(e.asOf) >= e.ttl }

func (e entry[V]) due(now time.Time) bool { return now.Sub(e.asOf) >= e.refreshAfter }

// flight is one load and its waiters. value and err are written before done is closed,
// and never after.
type flight[K comparable, V any] struct {
	key     K
	waiters *fair.Waiters
	load    func()
	turn    *fair.Turn[*flight[K, V]] // its turn in the queue; nil once the load runs
	began   time.Time                 // start of the load
	done    chan struct{}
	value   V
	err     error

	progress progress
}

// New makes a Cache. It panics if Load or TTL is nil, which is a mistake in the program.
func New[K comparable, V any](cfg Config[K, V]) *Cache[K, V] {
	if cfg.Load == nil || cfg.TTL == nil {
		panic("cache: Load and TTL are required")
	}
	if cfg.MaxEntries <= 0 {
		cfg.MaxEntries = 10_000
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 15 * time.Second
	}
	if cfg.JoinWithin <= 0 {
		cfg.JoinWithin = time.Second
	}
	if cfg.MaxLoads <= 0 {
		cfg.MaxLoads = 64
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Float64
	}
	// The store bounds the entries. This package applies the TTLs, by one clock and to
	// the nanosecond.
	bounds := &otter.Options[K, entry[V]]{MaximumSize: cfg.MaxEntries}
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

// Get returns the value of key from the cache, or by a load that all callers of the key
// share. When ctx ends, Get returns its cause and the newest error that the load has
// given to [ReportProgress]. The load continues and fills the cache.
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
	f.progress.share(ctx)
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var none V
		return none, f.progress.add(context.Cause(ctx))
	}
}

// Peek returns the value of key if it is cached.
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

// Discard removes the value of key if stale reports true for it. A load under way
// continues, and its value is cached if the load began after the removed value's. Many
// callers may discard the same value at once: the next calls of Get share one load.
func (c *Cache[K, V]) Discard(key K, stale func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.store.GetIfPresent(key); ok && stale(e.value) {
		c.store.Invalidate(key)
	}
}

// Len returns the approximate number of entries, with expired ones.
func (c *Cache[K, V]) Len() int {
	return c.store.EstimatedSize()
}

// Stats returns the statistics of the cache.
func (c *Cache[K, V]) Stats() Stats {
	return Stats{Entries: c.Len(), Hits: c.hits.Load(), Misses: c.misses.Load(), UnderWay: int(c.underWay.Load())}
}

// All returns the values that may be served now.
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

// Wait returns when no load is under way. It is for shutting down: the caller must not
// call Get afterwards.
func (c *Cache[K, V]) Wait() {
	c.loads.Wait()
}

// join adds who to the waiters of the flight for key and returns the flight. Without a
// flight join starts or queues one. A queued flight has no goroutine, so a flood of keys
// causes no more goroutines than callers.
func (c *Cache[K, V]) join(ctx context.Context, key K, who *fair.Waiters) *flight[K, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.current(key)
	if f == nil {
		f = c.prepare(ctx, key)
		if c.running < c.cfg.MaxLoads || c.mayBegin(who) {
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

// mayBegin reports whether a request may start a load beyond MaxLoads: the request has
// no load under way, and the loads under way are not many times MaxLoads.
func (c *Cache[K, V]) mayBegin(who *fair.Waiters) bool {
	const times = 16
	return who.IsRequest() && c.begun[who] == 0 && c.underWay.Load() < int64(times*c.cfg.MaxLoads)
}

// leave removes who from the waiters of a flight. It drops a queued flight that has no
// waiters left.
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

// current returns the flight for key, or nil. It looks into the store again, because a
// flight may have landed since the caller looked: otherwise a burst of callers could
// load twice. The caller holds c.mu.
func (c *Cache[K, V]) current(key K) *flight[K, V] {
	now := c.cfg.Now()
	if f, ok := c.flights[key]; ok && (f.turn != nil || now.Sub(f.began) <= c.cfg.JoinWithin) {
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

// refresh starts a load that nobody waits for. It leaves half of MaxLoads to loads with
// waiters.
func (c *Cache[K, V]) refresh(ctx context.Context, key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if 2*c.running < c.cfg.MaxLoads && c.current(key) == nil {
		c.launch(c.prepare(ctx, key), nil)
	}
}

// prepare makes a flight that does not run yet. The caller holds c.mu.
func (c *Cache[K, V]) prepare(ctx context.Context, key K) *flight[K, V] {
	f := &flight[K, V]{key: key, waiters: fair.Shared(), done: make(chan struct{})}
	f.load = func() { c.fly(f.progress.open(f.waiters.With(context.WithoutCancel(ctx))), f) }
	c.flights[key] = f
	return f
}

// launch starts a flight for a request, or for nobody if who is nil. The caller holds
// c.mu.
func (c *Cache[K, V]) launch(f *flight[K, V], who *fair.Waiters) {
	// Age counts from the start of the load, because a change during the load may be
	// missing from its answer.
	f.began, f.turn = c.cfg.Now(), nil
	c.running++
	if who != nil {
		c.begun[who]++
	}
	release := sync.OnceFunc(c.release)
	overdue := time.AfterFunc(c.cfg.JoinWithin, release)
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

// ended notes that a load of a request has ended. If that was the request's only load,
// ended starts its next one.
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

// release lowers the number of running loads, and starts queued flights.
func (c *Cache[K, V]) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	for c.running < c.cfg.MaxLoads {
		f, who, ok := c.queue.Next()
		if !ok {
			return
		}
		c.launch(f, who)
	}
}

// fly loads the value of a flight.
func (c *Cache[K, V]) fly(ctx context.Context, f *flight[K, V]) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, ErrTimeout)
	defer cancel()
	e := entry[V]{asOf: f.began}
	f.err = errNoReturn
	defer func() { c.land(f, e) }() // even when Load ends its goroutine
	f.value, f.err = c.fetch(ctx, f.key, &e)
	if p, ok := contain.Unlogged(f.err); ok && c.cfg.Panicked != nil {
		c.cfg.Panicked(p)
	}
}

// land caches the value of a flight and releases the waiters.
func (c *Cache[K, V]) land(f *flight[K, V], e entry[V]) {
	defer close(f.done)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[f.key] == f { // a later flight may have replaced it
		delete(c.flights, f.key)
	}
	if f.err != nil {
		c.postpone(f.key)
		return
	}
	if cached, ok := c.store.GetIfPresent(f.key); ok && cached.asOf.After(e.asOf) {
		return
	}
	if e.ttl > 0 {
		c.store.Set(f.key, e)
	} else {
		c.store.Invalidate(f.key)
	}
}

// refreshAge returns a random age between a half and three quarters of a TTL. Entries
// that were loaded together, as by Gatekeeper's audit, are therefore not refreshed
// together.
func (c *Cache[K, V]) refreshAge(ttl time.Duration) time.Duration {
	return ttl/2 + time.Duration(c.cfg.Random()*float64(ttl/4))
}

// postpone delays the next refresh of an entry after a failed one. Otherwise a popular
// key would call a failing service without a pause. The TTL of the entry is unchanged.
func (c *Cache[K, V]) postpone(key K) {
	now := c.cfg.Now()
	c.store.ComputeIfPresent(key, func(e entry[V]) (entry[V], otter.ComputeOp) {
		age := now.Sub(e.asOf)
		e.refreshAfter = age + max(time.Second, (e.ttl-age)/4)
		return e, otter.WriteOp
	})
}

// fetch calls Load and completes e with the value. It returns a panic as an error: the
// flight does not run on the goroutine of a request, where the HTTP server would contain
// the panic, and its waiters need an answer.
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
	e.value, e.ttl = value, c.cfg.TTL(value)
	e.refreshAfter = c.refreshAge(e.ttl)
	if c.cfg.RefreshAfter != nil {
		e.refreshAfter = min(e.refreshAfter, c.cfg.RefreshAfter(value))
	}
	if c.cfg.AsOf != nil {
		if asOf := c.cfg.AsOf(value); asOf.Before(e.asOf) {
			e.asOf = asOf
		}
	}
	return value, nil
}
