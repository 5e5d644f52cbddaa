// Package vulnscan speaks to OCI Vulnerability Scanning: it reads the results of
// scans of container images, and makes the recipes and targets that cause them.
//
// It contacts the service's host in the region of an image or of the principal,
// both from package image's own table, and no other. What it promises is that an
// answer is about what was asked, is bounded, and is whole. What it cannot
// promise is which image a result is of: results name a tag. Package scan decides
// that.
package vulnscan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/vulnerabilityscanning"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// ErrNotFound says that OCI has no such recipe, target, result or compartment, or
// that this principal may not see it; OCI does not say which.
var ErrNotFound = errors.New("not found, or this principal may not see it")

const (
	basePath = "/20210215"
	maxPages = 60

	enough      = 10 // results of a tag
	resultPages = 10 // that may be read to find them
	// A problem takes some hundred bytes, and an old image has thousands.
	maxResult = 8 << 20
	// rootlessFor is how long a principal that may not look into the whole tenancy
	// looks beside the image first. Being wrong costs a call.
	rootlessFor = 10 * time.Minute
)

// Config says where a Client looks for results.
type Config struct {
	// Tenancy is the OCID of the tenancy that an image belongs to.
	Tenancy func(context.Context, image.Reference) (string, error)
	// Compartments are where to look, in place of the whole tenancy. Results lie
	// in the compartment of the target, which need not be the repository's.
	Compartments []string
}

// Client asks as one principal. It is safe for concurrent use.
type Client struct {
	who *ociauth.Principal
	cfg Config

	form atomic.Int32 // how results name images, once it is known

	mu       sync.Mutex
	rootless map[string]time.Time // tenancies by region, until when
}

// New makes a Client. It asks OCI nothing.
func New(who *ociauth.Principal, cfg Config) *Client {
	return &Client{who: who, cfg: cfg, rootless: make(map[string]time.Time)}
}

func call(in image.Region, operation, method, path string) ociauth.Call {
	return ociauth.Call{
		Service: "vulnerabilityscanning", Operation: operation, Method: method, Path: basePath + path,
		Host: "vss-cp-api." + in.ID() + ".oci." + in.Domain(),
	}
}

// Results returns the newest results of a tag of the repository that ref is in,
// the newest first. repository is the compartment in which the repository lies:
// a principal that may not look into the whole tenancy has to find a result
// there, or is told to say where else to look.
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
	if c.rootlessNow(root) {
		slices.Reverse(places)
	}
	var denied error
	for _, in := range places {
		found, err := c.resultsIn(ctx, ref, in, tag)
		if !ociauth.IsNotFound(err) && (err != nil || in == everywhere || len(found) > 0) {
			return found, err
		}
		if in == everywhere {
			c.unroot(root)
		}
		denied = cmp.Or(denied, err)
	}
	// Results may lie in any compartment, so that none here says nothing.
	return nil, fmt.Errorf("this principal may not list the scan results of the whole tenancy, and those of the repository's compartment have none of tag %s: %w", tag, denied)
}

// rootlessNow reports whether the whole tenancy was refused of late.
func (c *Client) rootlessNow(root string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.rootless[root])
}

func (c *Client) unroot(root string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rootless[root] = time.Now().Add(rootlessFor)
}

func newestFirst(a, b vulnreport.Result) int { return b.Started.Compare(a.Started) }

// place is a compartment alone, or with all that is below it.
type place struct {
	compartment string
	below       bool
}

// The ways in which a result may name its image: Oracle's documents show none.
const (
	byTag  = 1 // latest
	byName = 2 // scan-test:latest
)

// resultsIn asks by the name that results are known to have, or by both until one
// has led to some.
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
	err := ociauth.Pages(func(page *string) (*string, error) {
		request.Page = page
		items, got, err := ociauth.ReadPage[vulnerabilityscanning.ContainerScanResultSummary](ctx, c.who, from, request)
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
				return nil, from.Malformed("a result with the id %.120q, without one or without its times", r.ID)
			}
			r.Started, r.Finished = item.TimeStarted.Time, item.TimeFinished.Time
			// The newest is taken from the front, so it had better be there.
			if len(found) > 0 && r.Started.After(found[len(found)-1].Started) {
				return nil, from.Malformed("results are not in the order that was asked for")
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

func isResult(id string) bool {
	return strings.HasPrefix(id, "ocid1.vsscontainerscanresult.") && ociauth.Segment(id)
}

// Problems returns the open problems that a result of the region found, and the
// region of the registry that was scanned: the result's word, or its target's.
// The region is zero where neither says.
func (c *Client) Problems(ctx context.Context, in image.Region, id string) ([]vulnreport.Problem, image.Region, error) {
	get := call(in, "GetContainerScanResult", http.MethodGet, "/containerScanResults/{containerScanResultId}")
	get.MaxAnswer = maxResult
	var got struct {
		ID       string  `json:"id"`
		Highest  string  `json:"highestProblemSeverity"`
		Count    *int    `json:"problemCount"`
		URL      *string `json:"registryUrl"`
		Target   *string `json:"containerScanTargetId"`
		Problems *[]struct {
			Name     string `json:"name"`
			Severity string `json:"severity"`
			State    string `json:"state"`
		} `json:"problems"`
	}
	if !isResult(id) {
		return nil, image.Region{}, fmt.Errorf("not the OCID of a result: %.120q", id)
	}
	if _, err := c.who.Do(ctx, get, vulnerabilityscanning.GetContainerScanResultRequest{ContainerScanResultId: common.String(id)}, &got); err != nil {
		return nil, image.Region{}, fmt.Errorf("reading the result of a scan: %w", err)
	}
	if got.ID != id || got.Problems == nil {
		return nil, image.Region{}, get.Malformed("asked for result %s, got %.120q with or without problems", id, got.ID)
	}
	var open []vulnreport.Problem
	var severities []string
	for _, p := range *got.Problems {
		severities = append(severities, p.Severity)
		if severity, counts := vulnreport.ParseSeverity(p.Severity); counts && vulnreport.Open(p.State) {
			open = append(open, vulnreport.Problem{ID: p.Name, Severity: severity})
		}
	}
	if err := whole(get, got.Count, got.Highest, severities); err != nil {
		return nil, image.Region{}, err
	}
	region, err := c.scanned(ctx, in, deref(got.URL), deref(got.Target))
	return open, region, err
}

// whole holds what a result says of itself against the severities of the problems
// that it lists: where it says more, something is missing from the list.
func whole(get ociauth.Call, said *int, highest string, severities []string) error {
	worst, bad := vulnreport.Severity(""), false
	for _, s := range severities {
		if severity, counts := vulnreport.ParseSeverity(s); counts && (!bad || severity.AtLeast(worst)) {
			worst, bad = severity, true
		}
	}
	told, counts := vulnreport.ParseSeverity(highest)
	if said != nil && *said > len(severities) || counts && (!bad || !worst.AtLeast(told)) {
		return get.Malformed("a result with %d problems of at worst %.20q lists %d of at worst %.20q", value(said), highest, len(severities), worst)
	}
	return nil
}

// scanned is the region of the registry that a result is about.
func (c *Client) scanned(ctx context.Context, in image.Region, url, target string) (image.Region, error) {
	if url == "" && target != "" {
		t, err := c.Target(ctx, in, target)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return image.Region{}, err
		}
		url = t.URL
	}
	return RegistryRegion(url), nil
}

// RegistryRegion is the region of the registry at an address such as
// https://iad.ocir.io; zero if it is not one of OCI Registry's.
func RegistryRegion(url string) image.Region {
	host := strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/")
	ref, err := image.Parse(host + "/x/x:x")
	if err != nil || strings.Contains(host, "/") {
		return image.Region{}
	}
	return ref.Region()
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func value(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

func when(t *common.SDKTime) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.Time
}
