package cache

import (
	"context"
	"fmt"
	"sync"
)

// journal is what has gone wrong so far in a load that goes on. Those who leave
// before the load ends take the newest entry along: "no answer in time" alone
// would hide that the service has said why.
type journal struct {
	mu     sync.Mutex
	newest string
	outer  []*journal // of loads that wait for this one
}

type journalKey struct{}

// Note tells those who wait for the load that ctx belongs to what is in its way.
// It is kept as text: an error of an attempt is not how the load ended. Without
// a load it does nothing.
func Note(ctx context.Context, err error) {
	if j, ok := ctx.Value(journalKey{}).(*journal); ok {
		j.note(err.Error())
	}
}

// open makes j the journal of a load's context.
func (j *journal) open(ctx context.Context) context.Context {
	return context.WithValue(ctx, journalKey{}, j)
}

// share has whatever is noted here noted also in the journal of the load that
// waits with ctx, if it is one that does.
func (j *journal) share(ctx context.Context) {
	outer, ok := ctx.Value(journalKey{}).(*journal)
	if !ok {
		return
	}
	j.mu.Lock()
	j.outer = append(j.outer, outer)
	newest := j.newest
	j.mu.Unlock()
	if newest != "" {
		outer.note(newest)
	}
}

func (j *journal) note(entry string) {
	j.mu.Lock()
	j.newest = entry
	outer := j.outer
	j.mu.Unlock()
	for _, o := range outer {
		o.note(entry)
	}
}

// add puts what was noted before the reason why somebody leaves.
func (j *journal) add(cause error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.newest == "" {
		return cause
	}
	return fmt.Errorf("%s; %w", j.newest, cause)
}
