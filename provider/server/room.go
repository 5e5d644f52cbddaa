package server

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
)

// Room in memory for bodies beyond usualBody and answers beyond usualAnswer, in
// bytes. Small requests, like those about a Pod, take no room and never wait for it.
const (
	roomForBodies  = 8 << 20
	roomForAnswers = 16 << 20
)

// share is the part of a room that one request holds. Its zero value holds nothing.
type share struct {
	of *semaphore.Weighted
	n  int64
}

// take waits for a share of n bytes, until the deadline at most.
func take(ctx context.Context, of *semaphore.Weighted, n int64, deadline time.Time) (share, bool) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if of.Acquire(ctx, n) != nil {
		return share{}, false
	}
	return share{of: of, n: n}, true
}

// shrink returns all but n bytes to the room.
func (s *share) shrink(n int64) {
	if n < s.n {
		s.of.Release(s.n - n)
		s.n = n
	}
}

func (s *share) release() { s.shrink(0) }
