package fair

import (
	"context"
	"sync"
)

// Places are a number of places that requests take turns for. They are safe for
// concurrent use.
type Places struct {
	mu      sync.Mutex
	free    int
	waiting Queue[chan struct{}]
}

// NewPlaces returns n free places.
func NewPlaces(n int) *Places { return &Places{free: n} }

// Acquire waits for a place as long as ctx lets it, and returns what gives the place
// back.
func (p *Places) Acquire(ctx context.Context) (release func(), err error) {
	p.mu.Lock()
	if p.free > 0 {
		p.free--
		p.mu.Unlock()
		return sync.OnceFunc(p.release), nil
	}
	come := make(chan struct{})
	turn := p.waiting.Wait(Of(ctx), come)
	p.mu.Unlock()
	select {
	case <-come:
		return sync.OnceFunc(p.release), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	left := p.waiting.Leave(turn)
	p.mu.Unlock()
	if !left { // its turn came in the same moment
		p.release()
	}
	return nil, context.Cause(ctx)
}

func (p *Places) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if come, _, ok := p.waiting.Next(); ok {
		close(come)
		return
	}
	p.free++
}
