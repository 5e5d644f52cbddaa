package fair

import (
	"slices"
	"time"
)

// freshFor is for how long waiters of the same standing are served in the order in
// which they came. Later the newest is served first: places are then so scarce that
// the oldest has no time left to make use of one.
const freshFor = 500 * time.Millisecond

// Queue holds those who wait for a place, each with a value of its owner's. It is
// not safe for concurrent use: the lock that guards the places guards it as well.
// Its zero value is empty.
//
// The next place goes to the request that has had the fewest since it began to wait
// among the others; a request that has just come is taken to have had as many as
// the one that was served last. So each place that one request gets is followed by
// at most one for each other request before it gets another.
type Queue[T any] struct {
	turns  []*Turn[T] // in the order of their coming
	served map[*Waiters]uint64
	clock  uint64 // what had been served to the one that was served last
}

// Turn is a place in the queue.
type Turn[T any] struct {
	value T
	who   *Waiters
	since time.Time
}

// Len returns how many wait.
func (q *Queue[T]) Len() int { return len(q.turns) }

// Wait puts a value into the queue for those who wait for it.
func (q *Queue[T]) Wait(who *Waiters, value T) *Turn[T] {
	t := &Turn[T]{value, who, time.Now()}
	q.turns = append(q.turns, t)
	return t
}

// Leave takes a turn out of the queue, and reports whether it was still there.
func (q *Queue[T]) Leave(t *Turn[T]) bool {
	n := slices.Index(q.turns, t)
	if n >= 0 {
		q.remove(n)
	}
	return n >= 0
}

// Next takes out the value whose turn it is, with the request that it is charged
// to, which is nil if nobody waits for it.
func (q *Queue[T]) Next() (value T, request *Waiters, ok bool) {
	best := -1
	var least standing
	now := time.Now()
	for n, t := range q.turns {
		s := q.standing(t, now)
		if best < 0 || s.before(least) {
			best, least = n, s
		}
		if least.served == q.clock && least.class == fresh {
			break // nobody is before the first of these
		}
	}
	if best < 0 {
		return value, nil, false
	}
	q.clock = least.served
	return q.take(best, least)
}

// NextOf takes out the first value that a request waits for.
func (q *Queue[T]) NextOf(request *Waiters) (value T, ok bool) {
	n := slices.IndexFunc(q.turns, func(t *Turn[T]) bool { return t.who.includes(request) })
	if n < 0 {
		return value, false
	}
	value, _, ok = q.take(n, standing{request: request, served: max(q.clock, q.served[request])})
	return value, ok
}

func (q *Queue[T]) take(n int, s standing) (T, *Waiters, bool) {
	if q.served == nil {
		q.served = make(map[*Waiters]uint64)
	}
	q.served[s.request] = s.served + 1
	value := q.turns[n].value
	q.remove(n)
	return value, s.request, true
}

// remove takes out the nth turn. What was served is forgotten where it makes no
// difference: for all once nobody waits, and for those whom the clock has passed.
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

// standing is what decides who is next.
type standing struct {
	request *Waiters // nil: nobody waits
	served  uint64
	class   class
}

type class int

const (
	fresh class = iota
	stale
	left // nobody waits for it
)

// before compares a later comer with an earlier one.
func (s standing) before(earlier standing) bool {
	switch {
	case s.served != earlier.served:
		return s.served < earlier.served
	case s.class != earlier.class:
		return s.class < earlier.class
	}
	return s.class == stale
}

// standing is that of the request that has had the least, of those who wait.
func (q *Queue[T]) standing(t *Turn[T], now time.Time) standing {
	s := standing{class: left}
	t.who.each(func(request *Waiters) bool {
		if served := max(q.clock, q.served[request]); s.class == left || served < s.served {
			s = standing{request, served, fresh}
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
