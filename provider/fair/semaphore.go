package fair

import (
	"context"
	"sync"
)

// Semaphore has a number of slots, for which requests take turns. It is safe for
// concurrent use.
type Semaphore struct {
	mu      sync.Mutex
	free    int
	waiting Queue[chan struct{}]
}

// NewSemaphore returns a Semaphore with n free slots.
func NewSemaphore(n int) *Semaphore { return &Semaphore{free: n} }

// Acquire waits for a slot until ctx ends. Call release to free the slot; later calls of
// release have no effect.
func (s *Semaphore) Acquire(ctx context.Context) (release func(), err error) {
	s.mu.Lock()
	if s.free > 0 {
		s.free--
		s.mu.Unlock()
		return sync.OnceFunc(s.release), nil
	}
	assigned := make(chan struct{})
	turn := s.waiting.Wait(Of(ctx), assigned)
	s.mu.Unlock()
	select {
	case <-assigned:
		return sync.OnceFunc(s.release), nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := s.waiting.Leave(turn)
	s.mu.Unlock()
	if !left { // the slot was assigned at the same moment
		s.release()
	}
	return nil, context.Cause(ctx)
}

func (s *Semaphore) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if assigned, _, ok := s.waiting.Next(); ok {
		close(assigned)
		return
	}
	s.free++
}
