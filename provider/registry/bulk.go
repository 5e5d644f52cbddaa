package registry

import (
	"context"
	"net/http"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"golang.org/x/sync/errgroup"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Bulk returns signature records of the image that ref pins, newest first, from the lists
// of its whole repository, and the time when reading these lists began, at most half a
// minute ago. It returns only records that name one of keys, and often none. Bulk is for
// callers that ask about many images: an image with records from Bulk costs no call.
//
// The records suffice for a yes, never for a no. Records would have returned each of them
// at that time, but there may be more: a page may have moved while the lists were read, a
// signature may be newer, a list may be too long to be read to its end. Bulk does not
// return OCI's errors, because Records will.
//
// Each call waits for one page of each list at most. A call whose image may not be on
// these pages has twice as many pages read in the background as the call before, up to
// the bounds, for later callers.
func (c *Client) Bulk(ctx context.Context, ref image.Reference, keys []signature.KeyID) ([]signature.Record, time.Time) {
	in, known := c.scopeOf(ctx, ref)
	q := bulkQuery{repositoryOf(ref), ref.Digest(), keys}
	inv, page := c.bulk.ask(q, known)
	if inv == nil {
		return nil, time.Time{}
	}
	if page.mine {
		go c.readAhead(context.WithoutCancel(ctx), ref, in, inv)
	}
	if page.done != nil {
		timer := time.NewTimer(pageTimeout)
		defer timer.Stop()
		select {
		case <-page.done:
		case <-timer.C:
			c.bulk.markLate(inv, page.done)
		case <-ctx.Done():
		}
	}
	return c.bulk.find(ctx, inv, q)
}

// scopeOf returns the scope in which a look-up would find the records of ref's repository,
// if that is known without a call.
func (c *Client) scopeOf(ctx context.Context, ref image.Reference) (scope, bool) {
	tenancy, err := c.Tenancy(ctx, ref)
	switch {
	case err != nil || ref.Digest() == "":
		return scope{}, false
	case len(c.compartments) == 1:
		return scope{c.compartments[0], false}, true
	case len(c.compartments) == 0 && c.cached.mayListTenancy(ref, tenancy):
		return scope{tenancy, true}, true
	}
	compartment := c.cached.get(ref)
	return scope{compartment, false}, compartment != ""
}

// readAhead reads as many pages as were asked for.
func (c *Client) readAhead(ctx context.Context, ref image.Reference, in scope, inv *inventory) {
	for more := true; more; {
		ctx, ids := oci.WithRequests(ctx)
		err := contain.Run(func() error { return c.readPages(ctx, ref, in, inv) })
		if p, ok := contain.Unlogged(err); ok && c.panicked != nil {
			c.panicked(p)
		}
		more = c.bulk.pageEnded(inv, ids(), err)
	}
}

// readPages reads the next page of both lists concurrently.
func (c *Client) readPages(ctx context.Context, ref image.Reference, in scope, inv *inventory) error {
	group, ctx := errgroup.WithContext(ctx)
	if !inv.imagesAt.done {
		group.Go(func() (err error) {
			defer contain.Panic(&err)
			return inv.imagesAt.advance(func(page *string) (oci.Page, error) {
				items, p, err := c.imagesPage(ctx, ref, in, page)
				c.bulk.addImages(inv, items)
				return p, err
			})
		})
	}
	if !inv.signaturesAt.done {
		group.Go(func() (err error) {
			defer contain.Panic(&err)
			from, request := signaturesOf(ref, in, artifacts.ListContainerImageSignaturesSortOrderDesc)
			return inv.signaturesAt.advance(func(page *string) (oci.Page, error) {
				request.Page = page
				items, p, err := oci.ReadPage[summary](ctx, c.who, from, request)
				if err != nil {
					return p, err
				}
				records := make([]signature.Record, len(items))
				for i, item := range items {
					if records[i], err = item.record(from); err != nil {
						return p, err
					}
				}
				c.bulk.addRecords(inv, records)
				return p, nil
			})
		})
	}
	return group.Wait()
}

// imagesPage reads a page of the images of ref's repository, newest first.
func (c *Client) imagesPage(ctx context.Context, ref image.Reference, in scope, page *string) ([]imageSummary, oci.Page, error) {
	from := call(ref, "ListContainerImages", http.MethodGet, "/container/images")
	request := artifacts.ListContainerImagesRequest{
		CompartmentId:  common.String(in.compartment),
		RepositoryName: common.String(ref.Repository()),
		SortBy:         artifacts.ListContainerImagesSortByTimecreated,
		SortOrder:      artifacts.ListContainerImagesSortOrderDesc,
		Page:           page,
	}
	if in.subtree {
		request.CompartmentIdInSubtree = common.Bool(true)
	}
	items, p, err := oci.ReadPage[imageSummary](ctx, c.who, from, request)
	if err != nil {
		return nil, p, err
	}
	for _, item := range items {
		if item.ID == "" || item.LifecycleState == "" {
			return nil, p, from.Malformed("an image without an id or a lifecycleState")
		}
	}
	return items, p, nil
}
