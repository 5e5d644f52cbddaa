// Package vulnscan is a client of OCI Vulnerability Scanning. It reads the results of
// container scans, and makes the recipes and targets that cause scans.
//
// It contacts the service's host in the region of an image or of the identity. Both come
// from package image's table. It promises that an answer is about the question, bounded
// and whole. It cannot promise which image a result is about, since results name a tag.
// Package vulnreport decides that.
package vulnscan

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// ErrNotFound says that a recipe, target, result or compartment does not exist or that
// the identity may not see it. OCI does not say which.
var ErrNotFound = errors.New("not found, or this identity may not see it")

const (
	basePath = "/20210215"
	maxPages = 60

	enough      = 10 // results of a tag
	resultPages = 10 // read at most to find them
	// A problem takes some hundred bytes, and an old image has thousands.
	maxResult = 8 << 20
	// deniedRootTTL is how long an identity that may not list the whole tenancy lists
	// the repository's compartment first. A wrong guess costs one call.
	deniedRootTTL = 10 * time.Minute
)

// Config says where a Client searches for results.
type Config struct {
	// Tenancy is the OCID of the tenancy that an image belongs to.
	Tenancy func(context.Context, image.Reference) (string, error)
	// Compartments replace the whole tenancy as the places to search. A result is in
	// the compartment of its target, which may differ from the repository's.
	Compartments []string
}

// deniedRoots are the tenancies whose whole list OCI has denied.
type deniedRoots struct {
	mu    sync.Mutex
	until map[string]time.Time // by region and tenancy
}

// recently reports whether OCI has denied the list of the tenancy within the last
// ten minutes.
func (d *deniedRoots) recently(root string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until[root])
}

func (d *deniedRoots) add(root string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.until == nil {
		d.until = make(map[string]time.Time)
	}
	d.until[root] = time.Now().Add(deniedRootTTL)
}

// Client reads and writes as one identity. It is safe for concurrent use.
type Client struct {
	who *oci.Client
	cfg Config

	form atomic.Int32 // how results name images, once it is known

	denied deniedRoots
}

// New makes a Client. It sends no request.
func New(who *oci.Client, cfg Config) *Client {
	return &Client{who: who, cfg: cfg}
}

func call(in image.Region, operation, method, path string) oci.Call {
	return oci.Call{
		Service: "vulnerabilityscanning", Operation: operation, Method: method, Path: basePath + path,
		Host: "vss-cp-api." + in.ID() + ".oci." + in.Domain(),
	}
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

// notFound adds ErrNotFound to OCI's error for a missing object.
func notFound(err error) error {
	if oci.IsNotFound(err) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

func isResult(id string) bool {
	return strings.HasPrefix(id, "ocid1.vsscontainerscanresult.") && oci.Segment(id)
}
