package vulnreport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/cache"
	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/fair"
	"github.com/oke-sign/oke-sign/provider/image"
)

// The TTLs of the cache. A newer scan shows after at most knownFor, and the first scan of
// an image after at most unknownFor.
const (
	knownFor   = 10 * time.Minute
	unknownFor = 30 * time.Second
)

// Limits of one gathering.
const (
	maxTags    = 10 // tags whose results are read
	maxSkipped = 5  // results that are of another registry
	parallel   = 4
	reading    = 8 // problems of results, which may take some megabytes each
)

// maxBytes bounds the cache. It is enough for 100 000 images with 45
// problems each, and for 60 000 with as many as a report lists.
const maxBytes = 128 << 20

// Image is an image as the registry knows it.
type Image struct {
	Tags          []Tag
	CompartmentID string // of its repository
}

// ErrNoImage says that the image does not exist or that the identity may not read it.
var ErrNoImage = errors.New("no such image")

// Config gives a Checker its sources. All functions are required and safe for concurrent
// use. They return an error for anything that they could not find out.
type Config struct {
	// Covers reports whether the image is of a tenancy that the others can ask.
	Covers func(image.Reference) bool
	// Image returns the tags of the image that ref pins, or ErrNoImage.
	Image func(ctx context.Context, ref image.Reference) (Image, error)
	// Results returns the newest results of a tag of the image's repository, the
	// newest first.
	Results func(ctx context.Context, ref image.Reference, img Image, tag string) ([]Result, error)
	// Problems returns the open problems that a result found, and the region of the
	// registry that it is about. The region is zero if unknown.
	Problems func(ctx context.Context, ref image.Reference, id string) ([]Problem, image.Region, error)

	// MaxImages bounds how many images are cached; zero means 100 000. Their
	// reports take 128 MiB at most.
	MaxImages int
	// Loads is how many images are gathered at once, beside one for each request
	// that has none; zero means 8.
	Loads int
	// Timeout bounds the gathering for one image, which continues after its callers
	// left. Zero means 15 seconds.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Panicked, if not nil, receives each panic in one of the functions above. The
	// panic is an error of its question only.
	Panicked func(*contain.PanicError)
}

// Checker reports what scans found in images, and caches reports. It is safe for
// concurrent use.
type Checker struct {
	cfg     Config
	reports *cache.Cache[string, gathered] // by the reference that pins the image
	reading *fair.Semaphore
}

// New makes a Checker.
func New(cfg Config) *Checker {
	cfg.MaxImages = cmp.Or(cfg.MaxImages, 100_000)
	cfg.Loads = cmp.Or(cfg.Loads, 8)
	cfg.Timeout = cmp.Or(cfg.Timeout, 15*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Checker{cfg: cfg, reading: fair.NewSemaphore(reading)}
	least := maxBytes / cfg.MaxImages
	c.reports = cache.New(cache.Config[string, gathered]{
		Load: c.gather,
		TTL: func(g gathered) time.Duration {
			if g.known {
				return knownFor
			}
			return unknownFor
		},
		Weigh:     func(pinned string, g gathered) uint32 { return uint32(max(least, len(pinned)+g.size())) }, //nolint:gosec // some kilobytes
		MaxWeight: maxBytes,
		// A load takes its slot until it ends. Scans are not urgent enough for more
		// loads.
		MaxLoads: cfg.Loads, Timeout: cfg.Timeout, JoinWithin: cfg.Timeout, Now: cfg.Now, Panicked: cfg.Panicked,
	})
	return c
}

// Check reports what scans found in the image that ref pins. An error means that the
// report could not be made.
func (c *Checker) Check(ctx context.Context, ref image.Reference) (Report, error) {
	if r, settled := c.settle(ref); settled {
		return r, nil
	}
	g, err := c.reports.Get(ctx, ref.Identity().String())
	if err != nil {
		return Report{}, err
	}
	return c.aged(g), nil
}

// Known returns Check's report if it is in the cache.
func (c *Checker) Known(ctx context.Context, ref image.Reference) (Report, bool) {
	if r, settled := c.settle(ref); settled {
		return r, true
	}
	g, ok := c.reports.Peek(ctx, ref.Identity().String())
	return c.aged(g), ok
}

func (c *Checker) aged(g gathered) Report {
	r := g.report()
	r.Age = c.cfg.Now().Sub(g.at)
	if !r.Known {
		r.RetryAfter = unknownFor
	}
	return r
}

// settle reports on images that need no call.
func (c *Checker) settle(ref image.Reference) (Report, bool) {
	switch {
	case ref.Digest() == "":
		return Report{Reason: NoDigest, Detail: "a tag can be moved to another image at any time; name the digest"}, true
	case !c.cfg.Covers(ref):
		return Report{Reason: NotCovered, Detail: fmt.Sprintf("namespace %s in %s is of no tenancy that was configured", ref.Namespace(), ref.Region())}, true
	}
	return Report{}, false
}

// Wait returns when no gathering is in flight. Do not call Check afterwards.
func (c *Checker) Wait() { c.reports.Wait() }

// Stats returns the statistics of the cache.
func (c *Checker) Stats() cache.Stats { return c.reports.Stats() }

// gather makes the report of one image.
func (c *Checker) gather(ctx context.Context, pinned string) (gathered, error) {
	at := c.cfg.Now()
	ref, err := image.Parse(pinned)
	if err != nil {
		return gathered{}, err
	}
	before, err := c.image(ctx, ref)
	var results []Result
	if err == nil {
		results, err = c.results(ctx, ref, before)
	}
	var after Image
	if err == nil {
		after, err = c.image(ctx, ref)
	}
	if errors.Is(err, ErrNoImage) {
		return compact(Report{Reason: ImageNotFound, Detail: "OCI Registry has no such image, or this identity may not read it"}, at), nil
	}
	if err != nil {
		return gathered{}, err
	}
	r, err := c.report(ctx, ref, before.Tags, after.Tags, results)
	return compact(r, at), err
}

// image returns an image with its newest tags, at most maxTags.
func (c *Checker) image(ctx context.Context, ref image.Reference) (Image, error) {
	img, err := c.cfg.Image(ctx, ref)
	slices.SortFunc(img.Tags, func(a, b Tag) int { return cmp.Or(b.Since.Compare(a.Since), cmp.Compare(a.Name, b.Name)) })
	img.Tags = img.Tags[:min(len(img.Tags), maxTags)]
	return img, err
}

// results returns the results of all tags. If a tag fails, it returns an error,
// because the newest scan may be under that tag.
func (c *Checker) results(ctx context.Context, ref image.Reference, img Image) ([]Result, error) {
	found := make([][]Result, len(img.Tags))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, tag := range img.Tags {
		group.Go(func() (err error) {
			defer contain.Panic(&err)
			found[i], err = c.cfg.Results(ctx, ref, img, tag.Name)
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(found...), err
}

// report returns a report of the newest result about this image. Repositories of two
// regions may have the same name, and one service may scan both.
func (c *Checker) report(ctx context.Context, ref image.Reference, before, after []Tag, results []Result) (Report, error) {
	skipped := ""
	for range maxSkipped {
		newest, unknown := Choose(before, after, results)
		if newest.ID == "" {
			unknown.Detail += skipped
			return unknown, nil
		}
		problems, region, err := c.problems(ctx, ref, newest.ID)
		if err != nil {
			return Report{}, err
		}
		if region == ref.Region() {
			return Summarize(newest, problems), nil
		}
		skipped = "; other results may be about another registry"
		results = slices.DeleteFunc(slices.Clone(results), func(r Result) bool { return r.ID == newest.ID })
	}
	return Report{}, fmt.Errorf("%s: none of the %d newest results is about this registry", ref, maxSkipped)
}

// problems reads the problems of one result. Results may be large, so it reads a few
// at a time.
func (c *Checker) problems(ctx context.Context, ref image.Reference, id string) ([]Problem, image.Region, error) {
	release, err := c.reading.Acquire(ctx)
	if err != nil {
		return nil, image.Region{}, err
	}
	defer release()
	return c.cfg.Problems(ctx, ref, id)
}
