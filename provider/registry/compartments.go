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
	// compartmentTTL is how long a compartment of a repository is cached, and a
	// repeated refusal at a root compartment. Both save calls and decide nothing: a
	// wrong entry costs some calls.
	compartmentTTL = 10 * time.Minute
	// refusalTTL is how long a first refusal at a root compartment is cached. While
	// rights replicate, OCI now and then refuses what it grants.
	refusalTTL = 30 * time.Second
	// maxRepositories bounds the repositories about which something is cached.
	maxRepositories = 10_000
)

// compartmentCache caches the compartments of repositories.
type compartmentCache struct {
	now     func() time.Time
	lookUps singleflight.Group

	mu           sync.Mutex
	compartments map[repository]cachedCompartment
	waiters      map[repository]*fair.Waiters // for the look-ups that are under way
	refusedUntil map[root]time.Time
}

type repository struct{ region, namespace, name string }

// root is a tenancy's root compartment, as one region answers for it.
type root struct{ region, tenancy string }

type cachedCompartment struct {
	id    string
	until time.Time
}

func newCompartmentCache(now func() time.Time) *compartmentCache {
	return &compartmentCache{
		now: now, compartments: make(map[repository]cachedCompartment),
		waiters: make(map[repository]*fair.Waiters), refusedUntil: make(map[root]time.Time),
	}
}

func repositoryOf(ref image.Reference) repository {
	return repository{ref.Region().ID(), ref.Namespace(), ref.Repository()}
}

// mayListTenancy reports whether a list at the tenancy's root is worth a call.
func (c *compartmentCache) mayListTenancy(ref image.Reference, tenancy string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.now().Before(c.refusedUntil[root{ref.Region().ID(), tenancy}])
}

// refused notes that OCI refused a list at a tenancy's root: for refusalTTL after a first
// refusal, for compartmentTTL after a second one. Tenancies and regions are few.
func (c *compartmentCache) refused(ref image.Reference, tenancy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := root{ref.Region().ID(), tenancy}
	ttl := refusalTTL
	if until, again := c.refusedUntil[at]; again && !c.now().Before(until) {
		ttl = compartmentTTL
	}
	if until := c.now().Add(ttl); until.After(c.refusedUntil[at]) {
		c.refusedUntil[at] = until
	}
}

// granted removes the refusals at a tenancy's root.
func (c *compartmentCache) granted(ref image.Reference, tenancy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.refusedUntil, root{ref.Region().ID(), tenancy})
}

// get returns the cached compartment of a repository, or "".
func (c *compartmentCache) get(ref image.Reference) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.compartments[repositoryOf(ref)]; c.now().Before(at.until) {
		return at.id
	}
	return ""
}

func (c *compartmentCache) remove(ref image.Reference) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.compartments, repositoryOf(ref))
}

func (c *compartmentCache) set(ref image.Reference, compartment string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.compartments) >= maxRepositories {
		clear(c.compartments) // rare; each repository then costs one look-up
	}
	c.compartments[repositoryOf(ref)] = cachedCompartment{compartment, c.now().Add(compartmentTTL)}
}

// lookUp returns the compartment of a repository. Concurrent callers share one look-up,
// by the image of the first caller. If OCI does not have that image, each other caller
// looks its own image up.
func (c *compartmentCache) lookUp(ctx context.Context, ref image.Reference, look func(context.Context, image.Reference) (string, error)) (string, error) {
	repo := repositoryOf(ref)
	waiters := c.join(repo, fair.Of(ctx))
	defer c.leave(repo, waiters, fair.Of(ctx))
	result := c.lookUps.DoChan(repo.region+"/"+repo.namespace+"/"+repo.name, func() (_ any, err error) {
		defer contain.Panic(&err)
		if at := c.get(ref); at != "" { // an earlier look-up has just ended
			return lookedUp{at, ref}, nil
		}
		at, err := look(waiters.With(context.WithoutCancel(ctx)), ref)
		if err == nil {
			c.set(ref, at)
		}
		return lookedUp{at, ref}, err
	})
	select {
	case r := <-result:
		found, _ := r.Val.(lookedUp)
		if errors.Is(r.Err, ErrNotFound) && found.ref != ref {
			at, err := look(ctx, ref)
			if err == nil {
				c.set(ref, at)
			}
			return at, err
		}
		return found.compartment, r.Err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// join adds who to the waiters for the look-up of a repository.
func (c *compartmentCache) join(repo repository, who *fair.Waiters) *fair.Waiters {
	c.mu.Lock()
	defer c.mu.Unlock()
	waiters := c.waiters[repo]
	if waiters == nil {
		waiters = fair.Shared()
		c.waiters[repo] = waiters
	}
	waiters.Join(who)
	return waiters
}

func (c *compartmentCache) leave(repo repository, waiters, who *fair.Waiters) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if waiters.Leave(who) {
		delete(c.waiters, repo)
	}
}

// lookedUp is the compartment that a look-up found, and the reference that it looked up.
type lookedUp struct {
	compartment string
	ref         image.Reference
}
