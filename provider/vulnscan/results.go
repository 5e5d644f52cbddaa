package vulnscan

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/vulnerabilityscanning"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// Results returns the newest results of a tag of ref's repository, the newest first. An
// identity that may not list the whole tenancy searches the repository's compartment.
// Without a result there, the error says so.
func (c *Client) Results(ctx context.Context, ref image.Reference, repository, tag string) ([]vulnreport.Result, error) {
	if len(c.cfg.Compartments) > 0 {
		var all []vulnreport.Result
		for _, compartment := range c.cfg.Compartments {
			found, err := c.resultsIn(ctx, ref, place{compartment, false}, tag)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		slices.SortStableFunc(all, newestFirst)
		return all, nil
	}
	tenancy, err := c.cfg.Tenancy(ctx, ref)
	if err != nil {
		return nil, err
	}
	root := ref.Region().ID() + " " + tenancy
	everywhere := place{tenancy, true}
	places := []place{everywhere, {repository, false}}
	if c.denied.recently(root) {
		slices.Reverse(places)
	}
	var denied error
	for _, in := range places {
		found, err := c.resultsIn(ctx, ref, in, tag)
		if !oci.IsNotFound(err) && (err != nil || in == everywhere || len(found) > 0) {
			return found, err
		}
		if in == everywhere {
			c.denied.add(root)
		}
		denied = cmp.Or(denied, err)
	}
	// Results may be in any compartment, so an empty list here proves nothing.
	return nil, fmt.Errorf("this identity may not list the scan results of the whole tenancy, and the repository's compartment has none of tag %s: %w", tag, denied)
}

func newestFirst(a, b vulnreport.Result) int { return b.Started.Compare(a.Started) }

// place is a compartment, alone or with its child compartments.
type place struct {
	compartment string
	below       bool
}

// The ways in which a result may name its image. Oracle's documents do not show one.
const (
	byTag  = 1 // latest
	byName = 2 // scan-test:latest
)

// resultsIn lists results by the form of names that results are known to have. While
// the form is unknown, it tries both.
func (c *Client) resultsIn(ctx context.Context, ref image.Reference, in place, tag string) ([]vulnreport.Result, error) {
	known := c.form.Load()
	for _, form := range []int32{byTag, byName} {
		if known != 0 && known != form {
			continue
		}
		name := tag
		if form == byName {
			name = ref.Repository() + ":" + tag
		}
		found, err := c.list(ctx, ref, in, name)
		if err != nil {
			return nil, fmt.Errorf("listing results of scans: %w", err)
		}
		if len(found) > 0 {
			c.form.Store(form)
			for i := range found {
				found[i].Tag = tag
			}
			return found, nil
		}
	}
	return nil, nil
}

func (c *Client) list(ctx context.Context, ref image.Reference, in place, name string) ([]vulnreport.Result, error) {
	from := call(ref.Region(), "ListContainerScanResults", http.MethodGet, "/containerScanResults")
	request := vulnerabilityscanning.ListContainerScanResultsRequest{
		CompartmentId: common.String(in.compartment),
		Repository:    common.String(ref.Repository()),
		Image:         common.String(name),
		SortBy:        vulnerabilityscanning.ListContainerScanResultsSortByTimestarted,
		SortOrder:     vulnerabilityscanning.ListContainerScanResultsSortOrderDesc,
	}
	if in.below {
		request.AreSubcompartmentsIncluded = common.Bool(true)
	}
	var found []vulnreport.Result
	err := oci.Pages(func(page *string) (*string, error) {
		request.Page = page
		items, got, err := oci.ReadPage[vulnerabilityscanning.ContainerScanResultSummary](ctx, c.who, from, request)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if deref(item.Id) == "" || deref(item.Repository) == "" || deref(item.Image) == "" {
				return nil, from.Malformed("a result without an id, a repository or an image")
			}
			if deref(item.Repository) != ref.Repository() || deref(item.Image) != name {
				continue
			}
			r := vulnreport.Result{ID: deref(item.Id)}
			if !isResult(r.ID) || item.TimeStarted == nil || item.TimeFinished == nil {
				return nil, from.Malformed("a result with the id %.120q, or without its times", r.ID)
			}
			r.Started, r.Finished = item.TimeStarted.Time, item.TimeFinished.Time
			// Callers take the first result as the newest.
			if len(found) > 0 && r.Started.After(found[len(found)-1].Started) {
				return nil, from.Malformed("results are not in the requested order")
			}
			found = append(found, r)
		}
		if len(found) >= enough {
			return nil, nil
		}
		return got.Next, nil
	}, resultPages)
	return found[:min(len(found), enough)], err
}
