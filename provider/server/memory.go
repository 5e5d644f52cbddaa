package server

import (
	"context"
	"time"

	"golang.org/x/sync/semaphore"
)

// Memory for bodies beyond usualBody and for answers beyond usualAnswer, in bytes. Small
// requests, such as those about one Pod, reserve nothing and never wait.
const (
	maxLargeBodies  = 8 << 20
	maxLargeAnswers = 16 << 20
)

// reservation is memory that one request has reserved. The zero reservation is empty.
type reservation struct {
	from *semaphore.Weighted
	n    int64
}

// reserve waits until n bytes are free, at most until the deadline.
func reserve(ctx context.Context, from *semaphore.Weighted, n int64, deadline time.Time) (reservation, bool) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if from.Acquire(ctx, n) != nil {
		return reservation{}, false
	}
	return reservation{from: from, n: n}, true
}

// shrink releases all but n bytes.
func (r *reservation) shrink(n int64) {
	if n < r.n {
		r.from.Release(r.n - n)
		r.n = n
	}
}

func (r *reservation) release() { r.shrink(0) }
