package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Records returns the signature records of the image that ref pins, newest first: all of
// them, or the 200 newest and the 50 oldest. It reports whether records are left out.
func (c *Client) Records(ctx context.Context, ref image.Reference) (records []signature.Record, truncated bool, err error) {
	tenancy, err := c.Tenancy(ctx, ref)
	if err != nil {
		return nil, false, err
	}
	if ref.Digest() == "" {
		return nil, false, fmt.Errorf("%s: it has no digest", ref)
	}
	if len(c.compartments) > 0 {
		return c.recordsIn(ctx, ref, c.compartments)
	}
	if c.cached.mayListTenancy(ref, tenancy) {
		records, truncated, err := c.list(ctx, ref, scope{tenancy, true})
		if err == nil {
			c.cached.granted(ref, tenancy)
		}
		if !oci.IsNotFound(err) {
			return records, truncated, err
		}
		// No right on the root compartment. A right on the image's compartment suffices.
		c.cached.refused(ref, tenancy)
	}
	return c.recordsOfRepository(ctx, ref)
}

// recordsIn looks in one compartment after another, first where it found records of the
// repository before. The repository is in one compartment, so the first compartment with
// records has all records.
func (c *Client) recordsIn(ctx context.Context, ref image.Reference, compartments []string) ([]signature.Record, bool, error) {
	if n := slices.Index(compartments, c.cached.get(ref)); n > 0 {
		compartments = slices.Concat(compartments[n:n+1], compartments[:n], compartments[n+1:])
	}
	var failed error
	for _, compartment := range compartments {
		records, truncated, err := c.list(ctx, ref, scope{compartment, false})
		if err == nil && len(records) > 0 {
			c.cached.set(ref, compartment)
			return records, truncated, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, false, failed
}

// recordsOfRepository looks in the compartment of the repository, which it takes from the
// cache or looks up.
func (c *Client) recordsOfRepository(ctx context.Context, ref image.Reference) ([]signature.Record, bool, error) {
	known := c.cached.get(ref)
	if known != "" {
		records, truncated, err := c.list(ctx, ref, scope{known, false})
		if len(records) > 0 || err != nil && !oci.IsNotFound(err) {
			return records, truncated, err
		}
		// No record: either the image has none, or the repository has moved.
		c.cached.remove(ref)
	}
	at, err := c.cached.lookUp(ctx, ref, c.compartmentOf)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil // an image that OCI does not have has no records
	}
	if err != nil {
		return nil, false, err
	}
	records, truncated, err := c.list(ctx, ref, scope{at, false})
	if oci.IsNotFound(err) {
		// The compartment may come from another image of the repository. An image that
		// OCI does not have has no records, whatever the right to list them.
		if _, missing := c.Image(ctx, ref); errors.Is(missing, ErrNotFound) {
			return nil, false, nil
		}
	}
	return records, truncated, err
}

// compartmentOf looks up the compartment of an image's repository.
func (c *Client) compartmentOf(ctx context.Context, ref image.Reference) (string, error) {
	img, err := c.Image(ctx, ref)
	return img.CompartmentID, err
}

// scope is where a list looks: in one compartment, or in a tenancy with its subtree.
type scope struct {
	compartment string
	subtree     bool
}

// list reads the records of an image in one scope, and reports whether records are left
// out. If the newest and the oldest records overlap, they are all records. To see an
// overlap, list reads one more of the oldest than it returns.
func (c *Client) list(ctx context.Context, ref image.Reference, in scope) (records []signature.Record, truncated bool, err error) {
	records, more, err := c.walk(ctx, ref, in, newest, artifacts.ListContainerImageSignaturesSortOrderDesc)
	if err != nil {
		return nil, false, err
	}
	if more {
		first, _, err := c.walk(ctx, ref, in, oldest+1, artifacts.ListContainerImageSignaturesSortOrderAsc)
		if err != nil {
			return nil, false, err
		}
		seen := make(map[string]bool, len(records))
		for _, r := range records {
			seen[r.ID] = true
		}
		again := func(r signature.Record) bool { return seen[r.ID] }
		truncated = !slices.ContainsFunc(first, again)
		first = slices.DeleteFunc(first[:min(len(first), oldest)], again)
		records = append(records, first...)
	}
	slices.SortStableFunc(records, func(a, b signature.Record) int { return b.TimeCreated.Compare(a.TimeCreated) })
	return records, truncated, nil
}

// walk reads pages until it has enough records, and reports whether there are more.
func (c *Client) walk(ctx context.Context, ref image.Reference, in scope, enough int, order artifacts.ListContainerImageSignaturesSortOrderEnum) ([]signature.Record, bool, error) {
	from, request := signaturesOf(ref, in, order)
	request.ImageDigest = common.String(ref.Digest())
	var records []signature.Record
	more := false
	err := oci.Pages(func(page *string) (*string, error) {
		request.Page = page
		items, got, err := oci.ReadPage[summary](ctx, c.who, from, request)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if len(records) == enough {
				more = true
				return nil, nil
			}
			rec, err := item.record(from)
			if err != nil {
				return nil, err
			}
			records = append(records, rec)
		}
		if got.Next != nil && len(records) == enough {
			more = true
			return nil, nil
		}
		return got.Next, nil
	}, maxPages)
	if err != nil {
		return nil, false, fmt.Errorf("listing signatures: %w", err) // the caller names the image
	}
	return records, more, nil
}

// signaturesOf returns the call that lists the signatures of ref's repository by time.
func signaturesOf(ref image.Reference, in scope, order artifacts.ListContainerImageSignaturesSortOrderEnum) (oci.Call, artifacts.ListContainerImageSignaturesRequest) {
	request := artifacts.ListContainerImageSignaturesRequest{
		CompartmentId:  common.String(in.compartment),
		RepositoryName: common.String(ref.Repository()), // OCI reads a pattern; a reference has no asterisk
		SortBy:         artifacts.ListContainerImageSignaturesSortByTimecreated,
		SortOrder:      order,
	}
	if in.subtree {
		request.CompartmentIdInSubtree = common.Bool(true)
	}
	return call(ref, "ListContainerImageSignatures", http.MethodGet, "/container/imageSignatures"), request
}
