package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// How many records of one image are read. Anybody who may push can add records,
// but not records older than those that were there, so a flood hides an honest
// signature neither among the newest nor among the oldest.
const (
	newest   = 200
	oldest   = 50
	maxPages = 60
)

// Bounds for the fields of a record, in bytes. A message is at most 4096 bytes
// and a signature 512, both in base64. A field beyond its bound is taken for
// empty, so that the record is seen and proves nothing.
const (
	maxMessage   = 6 << 10
	maxSignature = 1 << 10
	maxField     = 255
)

// summary is what is used of artifacts.ContainerImageSignatureSummary. The tags,
// which are most of a record, are left unread.
type summary struct {
	ID               string    `json:"id"`
	ImageID          string    `json:"imageId"`
	KeyID            string    `json:"kmsKeyId"`
	KeyVersionID     string    `json:"kmsKeyVersionId"`
	SigningAlgorithm string    `json:"signingAlgorithm"`
	Message          string    `json:"message"`
	Signature        string    `json:"signature"`
	LifecycleState   string    `json:"lifecycleState"`
	DisplayName      string    `json:"displayName"`
	CreatedBy        string    `json:"createdBy"`
	TimeCreated      time.Time `json:"timeCreated"`
}

// Records returns the signature records of the image that ref pins, newest
// first: all of them, or the 200 newest and the 50 oldest, and whether any are left
// out.
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
	if c.places.rooted(ref, tenancy) {
		records, truncated, err := c.list(ctx, ref, place{tenancy, true})
		if err == nil {
			c.places.reroot(ref, tenancy)
		}
		if !ociauth.IsNotFound(err) {
			return records, truncated, err
		}
		// No right on the root compartment. A right on the image's may do.
		c.places.unroot(ref, tenancy)
	}
	return c.recordsWhereItIs(ctx, ref)
}

// recordsIn looks in one compartment after another, first where records of the
// repository were found before. It lies in one of them, so the first that has
// records has them all.
func (c *Client) recordsIn(ctx context.Context, ref image.Reference, compartments []string) ([]signature.Record, bool, error) {
	if n := slices.Index(compartments, c.places.recall(ref)); n > 0 {
		compartments = slices.Concat(compartments[n:n+1], compartments[:n], compartments[n+1:])
	}
	var failed error
	for _, compartment := range compartments {
		records, truncated, err := c.list(ctx, ref, place{compartment, false})
		if err == nil && len(records) > 0 {
			c.places.remember(ref, compartment)
			return records, truncated, nil
		}
		if failed == nil {
			failed = err
		}
	}
	return nil, false, failed
}

// recordsWhereItIs finds out in which compartment the repository lies, or
// remembers it, and looks there.
func (c *Client) recordsWhereItIs(ctx context.Context, ref image.Reference) ([]signature.Record, bool, error) {
	known := c.places.recall(ref)
	if known != "" {
		records, truncated, err := c.list(ctx, ref, place{known, false})
		if len(records) > 0 || err != nil && !ociauth.IsNotFound(err) {
			return records, truncated, err
		}
		// Nothing there: either there is nothing, or the repository has moved.
		c.places.forget(ref)
	}
	at, err := c.places.find(ctx, ref, c.Image)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil // an image that is not there has no records
	}
	if err != nil {
		return nil, false, err
	}
	records, truncated, err := c.list(ctx, ref, place{at, false})
	if ociauth.IsNotFound(err) {
		// The place may have been found by another image of the repository. One that
		// is not there has no records, whatever the right to list them.
		if _, missing := c.Image(ctx, ref); errors.Is(missing, ErrNotFound) {
			return nil, false, nil
		}
	}
	return records, truncated, err
}

// place is where a list is asked for: a compartment alone, or a tenancy with all
// that is below it.
type place struct {
	compartment string
	below       bool
}

// list reads the records of an image in one place, and reports whether some are left
// out. The newest and the oldest are all of them if they overlap, for which one more
// of the oldest is read than returned.
func (c *Client) list(ctx context.Context, ref image.Reference, in place) (records []signature.Record, truncated bool, err error) {
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

// walk reads pages until it has enough records, and says whether there are more.
func (c *Client) walk(ctx context.Context, ref image.Reference, in place, enough int, order artifacts.ListContainerImageSignaturesSortOrderEnum) ([]signature.Record, bool, error) {
	from, request := signaturesOf(ref, in, order)
	request.ImageDigest = common.String(ref.Digest())
	var records []signature.Record
	more := false
	err := ociauth.Pages(func(page *string) (*string, error) {
		request.Page = page
		items, got, err := ociauth.ReadPage[summary](ctx, c.who, from, request)
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
		return nil, false, fmt.Errorf("listing signatures: %w", err) // the caller knows of which image
	}
	return records, more, nil
}

// signaturesOf asks for the signatures of ref's repository, by time.
func signaturesOf(ref image.Reference, in place, order artifacts.ListContainerImageSignaturesSortOrderEnum) (ociauth.Call, artifacts.ListContainerImageSignaturesRequest) {
	request := artifacts.ListContainerImageSignaturesRequest{
		CompartmentId:  common.String(in.compartment),
		RepositoryName: common.String(ref.Repository()), // OCI takes it for a pattern; a reference has no asterisk
		SortBy:         artifacts.ListContainerImageSignaturesSortByTimecreated,
		SortOrder:      order,
	}
	if in.below {
		request.CompartmentIdInSubtree = common.Bool(true)
	}
	return call(ref, "ListContainerImageSignatures", http.MethodGet, "/container/imageSignatures"), request
}

// record is the signature record that a list or an answer shows. One without an id
// or a state is not what OCI's API promises. It would look like a record that proves
// nothing, and its image like one that nobody signed, for as long as that is cached.
func (s summary) record(from ociauth.Call) (signature.Record, error) {
	if s.ID == "" || s.LifecycleState == "" {
		return signature.Record{}, from.Malformed("a signature without an id or a lifecycleState")
	}
	return signature.Record{
		ID: bounded(s.ID, maxField), ImageID: bounded(s.ImageID, maxField),
		KeyID: bounded(s.KeyID, maxField), KeyVersionID: bounded(s.KeyVersionID, maxField),
		Algorithm: bounded(s.SigningAlgorithm, maxField),
		Message:   bounded(s.Message, maxMessage), Signature: bounded(s.Signature, maxSignature),
		State:     bounded(s.LifecycleState, maxField),
		CreatedBy: bounded(s.CreatedBy, maxField), DisplayName: bounded(s.DisplayName, maxField),
		TimeCreated: s.TimeCreated,
	}, nil
}

func bounded(s string, limit int) string {
	if len(s) > limit {
		return ""
	}
	return s
}
