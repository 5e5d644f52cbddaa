package cache

import (
	"context"
	"fmt"
	"sync"
)

// progress holds the newest error of a load that continues. Callers that leave before
// the load ends get this error, because "no answer in time" alone would hide what the
// service has said.
type progress struct {
	mu     sync.Mutex
	newest string
	outer  []*progress // of loads that wait for this one
}

type progressKey struct{}

// ReportProgress gives the waiters of the load of ctx an error that the load has met and
// tries to overcome. The error is stored as text, because it is not the result of the
// load. Without a load in ctx ReportProgress does nothing.
func ReportProgress(ctx context.Context, err error) {
	if p, ok := ctx.Value(progressKey{}).(*progress); ok {
		p.report(err.Error())
	}
}

// open returns a context for a load that reports to p.
func (p *progress) open(ctx context.Context) context.Context {
	return context.WithValue(ctx, progressKey{}, p)
}

// share passes the reports of p on to the load of ctx, if ctx belongs to a load.
func (p *progress) share(ctx context.Context) {
	outer, ok := ctx.Value(progressKey{}).(*progress)
	if !ok {
		return
	}
	p.mu.Lock()
	p.outer = append(p.outer, outer)
	newest := p.newest
	p.mu.Unlock()
	if newest != "" {
		outer.report(newest)
	}
}

func (p *progress) report(text string) {
	p.mu.Lock()
	p.newest = text
	outer := p.outer
	p.mu.Unlock()
	for _, o := range outer {
		o.report(text)
	}
}

// add puts the newest report in front of the cause for which a caller leaves.
func (p *progress) add(cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.newest == "" {
		return cause
	}
	return fmt.Errorf("%s; %w", p.newest, cause)
}
