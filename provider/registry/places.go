package registry

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/fair"
	"github.com/oke-sign/oke-sign/provider/image"
)

const (
	// placeFor is how long it is remembered where a repository lies, and that a
	// principal has no right on a root compartment. Neither decides anything:
	// they save calls, and being wrong costs some.
	placeFor = 10 * time.Minute
	// doubtFor is how long a first refusal at the root counts: while rights replicate,
	// OCI refuses now and then what it grants.
	doubtFor  = 30 * time.Second
	maxPlaces = 10_000
)

// places remembers in which compartments repositories lie.
type places struct {
	now     func() time.Time
	flights singleflight.Group

	mu       sync.Mutex
	known    map[repository]placed
	looking  map[repository]*fair.Waiters // for the look-ups that are under way
	rootless map[root]time.Time           // until when
}

type repository struct{ region, namespace, name string }

type root struct{ region, tenancy string }

type placed struct {
	compartment string
	until       time.Time
}

func newPlaces(now func() time.Time) *places {
	return &places{now: now, known: make(map[repository]placed), looking: make(map[repository]*fair.Waiters), rootless: make(map[root]time.Time)}
}

func repositoryOf(ref image.Reference) repository {
	return repository{ref.Region().ID(), ref.Namespace(), ref.Repository()}
}

// rooted reports whether a list at the tenancy's root is worth trying.
func (p *places) rooted(ref image.Reference, tenancy string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.now().Before(p.rootless[root{ref.Region().ID(), tenancy}])
}

// unroot remembers that the principal has no right on a tenancy's root: for doubtFor
// after a first refusal, for placeFor after a second one. Tenancies and regions are few.
func (p *places) unroot(ref image.Reference, tenancy string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := root{ref.Region().ID(), tenancy}
	keep := doubtFor
	if until, again := p.rootless[at]; again && !p.now().Before(until) {
		keep = placeFor
	}
	if until := p.now().Add(keep); until.After(p.rootless[at]) {
		p.rootless[at] = until
	}
}

// reroot forgets the refusals at a tenancy's root.
func (p *places) reroot(ref image.Reference, tenancy string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.rootless, root{ref.Region().ID(), tenancy})
}

// recall returns the compartment of a repository, or "" if it is not known.
func (p *places) recall(ref image.Reference) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.known[repositoryOf(ref)]; p.now().Before(at.until) {
		return at.compartment
	}
	return ""
}

func (p *places) forget(ref image.Reference) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, repositoryOf(ref))
}

func (p *places) remember(ref image.Reference, compartment string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxPlaces {
		clear(p.known) // rare, and a look-up for each repository makes up for it
	}
	p.known[repositoryOf(ref)] = placed{compartment, p.now().Add(placeFor)}
}

// find looks up the compartment of a repository, once for all who ask at the
// same time, by the image of the one that came first. If that image is not
// there, those of the others still may be.
func (p *places) find(ctx context.Context, ref image.Reference, look func(context.Context, image.Reference) (Image, error)) (string, error) {
	repo := repositoryOf(ref)
	waiters := p.wait(repo, fair.Of(ctx))
	defer p.leave(repo, waiters, fair.Of(ctx))
	result := p.flights.DoChan(repo.region+"/"+repo.namespace+"/"+repo.name, func() (_ any, err error) {
		defer contain.Panic(&err)
		if at := p.recall(ref); at != "" { // somebody found it a moment ago
			return found{Image{CompartmentID: at}, ref}, nil
		}
		img, err := look(waiters.With(context.WithoutCancel(ctx)), ref)
		if err == nil {
			p.remember(ref, img.CompartmentID)
		}
		return found{img, ref}, err
	})
	select {
	case r := <-result:
		at, _ := r.Val.(found)
		if errors.Is(r.Err, ErrNotFound) && at.ref != ref {
			img, err := look(ctx, ref)
			if err == nil {
				p.remember(ref, img.CompartmentID)
			}
			return img.CompartmentID, err
		}
		return at.image.CompartmentID, r.Err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// wait adds somebody to those who wait for the look-up of a repository.
func (p *places) wait(repo repository, who *fair.Waiters) *fair.Waiters {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiters := p.looking[repo]
	if waiters == nil {
		waiters = fair.Shared()
		p.looking[repo] = waiters
	}
	waiters.Join(who)
	return waiters
}

func (p *places) leave(repo repository, waiters, who *fair.Waiters) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiters.Leave(who) {
		delete(p.looking, repo)
	}
}

type found struct {
	image Image
	ref   image.Reference
}
