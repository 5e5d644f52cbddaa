package fair

import (
	"slices"
	"time"
)

// freshFor is how long equal waiters are served in the order of their arrival. After that
// the newest is served first, because the oldest have no time left to use a slot.
const freshFor = 500 * time.Millisecond

// Queue holds turns that wait for a slot, each with its owner's value. It is not safe for
// concurrent use: the lock of the slots also guards the queue. Its zero value is empty.
//
// The next slot goes to the request that has got the fewest slots. A new request starts
// with the count of the request that was served last. Between two slots of one request,
// each other waiting request gets at most one.
type Queue[T any] struct {
	turns  []*Turn[T] // in the order of arrival
	served map[*Waiters]uint64
	clock  uint64 // the count of the request that was served last, before that slot
}

// Turn is one entry of a queue.
type Turn[T any] struct {
	value T
	who   *Waiters
	since time.Time
}

// Len returns the number of turns.
func (q *Queue[T]) Len() int { return len(q.turns) }

// Wait adds a turn with a value, for the waiters in who.
func (q *Queue[T]) Wait(who *Waiters, value T) *Turn[T] {
	t := &Turn[T]{value, who, time.Now()}
	q.turns = append(q.turns, t)
	return t
}

// Leave removes a turn, and reports whether the queue still had it.
func (q *Queue[T]) Leave(t *Turn[T]) bool {
	n := slices.Index(q.turns, t)
	if n >= 0 {
		q.remove(n)
	}
	return n >= 0
}

// Next removes the next turn. It returns the turn's value and the request that the slot
// is charged to, or nil if the turn has no waiters.
func (q *Queue[T]) Next() (value T, request *Waiters, ok bool) {
	best := -1
	var least priority
	now := time.Now()
	for n, t := range q.turns {
		s := q.priority(t, now)
		if best < 0 || s.before(least) {
			best, least = n, s
		}
		if least.served == q.clock && least.class == fresh {
			break // no later turn can come before this one
		}
	}
	if best < 0 {
		return value, nil, false
	}
	q.clock = least.served
	return q.take(best, least)
}

// NextOf removes the first turn that a request waits for.
func (q *Queue[T]) NextOf(request *Waiters) (value T, ok bool) {
	n := slices.IndexFunc(q.turns, func(t *Turn[T]) bool { return t.who.includes(request) })
	if n < 0 {
		return value, false
	}
	value, _, ok = q.take(n, priority{request: request, served: max(q.clock, q.served[request])})
	return value, ok
}

func (q *Queue[T]) take(n int, s priority) (T, *Waiters, bool) {
	if q.served == nil {
		q.served = make(map[*Waiters]uint64)
	}
	q.served[s.request] = s.served + 1
	value := q.turns[n].value
	q.remove(n)
	return value, s.request, true
}

// remove removes the nth turn. It also drops counts that make no difference: all of them
// once the queue is empty, and those that are not above the clock.
func (q *Queue[T]) remove(n int) {
	q.turns = slices.Delete(q.turns, n, n+1)
	if len(q.turns) == 0 {
		clear(q.served)
		q.clock = 0
	}
	if len(q.served) > 64+2*len(q.turns) {
		for who, served := range q.served {
			if served <= q.clock {
				delete(q.served, who)
			}
		}
	}
}

// priority decides which turn is next.
type priority struct {
	request *Waiters // nil if no request waits
	served  uint64
	class   class
}

type class int

const (
	fresh class = iota
	stale
	left // no request waits
)

// before reports whether a turn comes before another one that arrived earlier.
func (s priority) before(earlier priority) bool {
	switch {
	case s.served != earlier.served:
		return s.served < earlier.served
	case s.class != earlier.class:
		return s.class < earlier.class
	}
	return s.class == stale
}

// priority returns the turn's priority. It counts the waiter with the fewest slots.
func (q *Queue[T]) priority(t *Turn[T], now time.Time) priority {
	s := priority{class: left}
	t.who.each(func(request *Waiters) bool {
		if served := max(q.clock, q.served[request]); s.class == left || served < s.served {
			s = priority{request, served, fresh}
		}
		return s.served > q.clock
	})
	switch {
	case s.class == left:
		s.served = max(q.clock, q.served[nil])
	case now.Sub(t.since) > freshFor:
		s.class = stale
	}
	return s
}
