// Package okecluster reads and changes the OKE image policy, which belongs to a
// whole cluster, through the Container Engine API.
//
// A change applies to the state that the package read. If another user changed the
// cluster in the meantime, OKE rejects the change. A change takes minutes, and a
// work request shows its progress. Hosts come from the cluster's OCID and package
// image's table of regions.
package okecluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/containerengine"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

var (
	// ErrNotFound says that the cluster or work request does not exist, or that this
	// identity may not read it. OCI does not say which.
	ErrNotFound = errors.New("not found, or this identity may not read it")
	// ErrChanged says that the cluster has changed since it was read.
	ErrChanged = errors.New("somebody else has changed the cluster meanwhile")
)

const (
	basePath = "/20180222"
	// MaxKeys is the largest number of keys in an OKE image policy.
	MaxKeys = 5
)

// ID is the OCID of a cluster.
type ID struct {
	ocid   string
	region image.Region
}

// ParseID reads the OCID of a cluster in a known region.
func ParseID(s string) (ID, error) {
	parts := strings.Split(s, ".")
	if len(parts) != 5 || parts[0] != "ocid1" || parts[1] != "cluster" || parts[4] == "" || !oci.Segment(s) {
		return ID{}, fmt.Errorf("not the OCID of a cluster: %.120q", s)
	}
	region, err := image.ParseRegion(parts[3])
	if err != nil || region.Realm() != parts[2] {
		return ID{}, fmt.Errorf("not the OCID of a cluster in a region that is known: %.120q", s)
	}
	return ID{s, region}, nil
}

// String returns the OCID.
func (id ID) String() string { return id.ocid }

// Region returns the region of the cluster.
func (id ID) Region() image.Region { return id.region }

// Policy is an OKE image policy. An enabled policy without keys admits every image
// of OCI Registry.
type Policy struct {
	Enabled bool
	Keys    []signature.KeyID // in OKE's order
}

// Equal reports whether two policies admit the same images.
func (p Policy) Equal(q Policy) bool {
	for _, k := range p.Keys {
		if !slices.Contains(q.Keys, k) {
			return false
		}
	}
	return p.Enabled == q.Enabled && len(p.Keys) == len(q.Keys)
}

// Cluster is a cluster as it was read.
type Cluster struct {
	ID      ID
	Name    string
	State   string // such as ACTIVE or UPDATING
	Details string // the details of the state, in OKE's words
	Policy  Policy

	etag string
}

// Client calls Container Engine as one identity. It is safe for concurrent use.
type Client struct{ who *oci.Client }

// New makes a Client. It sends no request.
func New(who *oci.Client) *Client { return &Client{who} }

func (c *Client) call(id ID, operation, method, path string) (oci.Call, error) {
	if id.region.IsZero() {
		return oci.Call{}, errors.New("no cluster")
	}
	if id.region.Realm() != c.who.Realm() {
		return oci.Call{}, fmt.Errorf("the cluster is in realm %s, but this identity is in %s and reaches no other", id.region.Realm(), c.who.Realm())
	}
	return oci.Call{
		Service: "containerengine", Operation: operation, Method: method,
		Host: "containerengine." + id.region.ID() + ".oci." + id.region.Domain(), Path: basePath + path,
	}, nil
}

// Cluster reads a cluster.
func (c *Client) Cluster(ctx context.Context, id ID) (Cluster, error) {
	call, err := c.call(id, "GetCluster", http.MethodGet, "/clusters/{clusterId}")
	if err != nil {
		return Cluster{}, err
	}
	// The SDK's own type fails on unknown kinds of networks.
	var got struct {
		ID, Name, LifecycleState, LifecycleDetails string
		ImagePolicyConfig                          *containerengine.ImagePolicyConfig
	}
	header, err := c.who.Do(ctx, call, containerengine.GetClusterRequest{ClusterId: common.String(id.ocid)}, &got)
	if err != nil {
		return Cluster{}, fmt.Errorf("reading cluster %s: %w", signature.Short(id.ocid), notFound(err))
	}
	if got.ID != id.ocid || got.LifecycleState == "" {
		return Cluster{}, call.Malformed("asked for cluster %s, got %.120q, %.40q", id.ocid, got.ID, got.LifecycleState)
	}
	cluster := Cluster{ID: id, Name: oci.Text(&got.Name), State: got.LifecycleState, Details: oci.Text(&got.LifecycleDetails), etag: header.Get("Etag")}
	if p := got.ImagePolicyConfig; p != nil {
		cluster.Policy.Enabled = p.IsPolicyEnabled != nil && *p.IsPolicyEnabled
		for _, k := range p.KeyDetails {
			if k.KmsKeyId == nil {
				return Cluster{}, call.Malformed("a key without an OCID in the image policy")
			}
			key, err := signature.ParseKeyID(*k.KmsKeyId)
			if err != nil {
				return Cluster{}, call.Malformed("the image policy: %w", err)
			}
			cluster.Policy.Keys = append(cluster.Policy.Keys, key)
		}
	}
	return cluster, nil
}

// Update starts a change of the policy of a cluster that was read just before, and
// returns the OCID of the work request. The request is sent once. If its answer is
// lost, only Cluster shows whether the change was made.
func (c *Client) Update(ctx context.Context, cluster Cluster, policy Policy) (work string, err error) {
	if len(policy.Keys) > MaxKeys {
		return "", fmt.Errorf("%d keys; an image policy lists %d at most", len(policy.Keys), MaxKeys)
	}
	if cluster.etag == "" {
		return "", errors.New("the cluster was read without an etag, so that a change could undo somebody else's")
	}
	call, err := c.call(cluster.ID, "UpdateCluster", http.MethodPut, "/clusters/{clusterId}")
	if err != nil {
		return "", err
	}
	keys := []containerengine.KeyDetails{}
	for _, k := range policy.Keys {
		keys = append(keys, containerengine.KeyDetails{KmsKeyId: common.String(k.String())})
	}
	header, err := c.who.Do(ctx, call, containerengine.UpdateClusterRequest{
		ClusterId: common.String(cluster.ID.ocid),
		IfMatch:   common.String(cluster.etag),
		UpdateClusterDetails: containerengine.UpdateClusterDetails{
			ImagePolicyConfig: &containerengine.UpdateImagePolicyConfigDetails{IsPolicyEnabled: common.Bool(policy.Enabled), KeyDetails: keys},
		},
	}, nil)
	if refused, ok := errors.AsType[*oci.Error](err); ok && refused.Status == http.StatusPreconditionFailed {
		return "", fmt.Errorf("%w: %w", ErrChanged, err)
	}
	if err != nil {
		return "", fmt.Errorf("changing the image policy of cluster %s: %w", signature.Short(cluster.ID.ocid), notFound(err))
	}
	work = header.Get("Opc-Work-Request-Id")
	if !oci.Segment(work) {
		return "", call.Malformed("no work request: %.120q", work)
	}
	return work, nil
}

// Work is the progress of a change.
type Work struct {
	Status string // ACCEPTED, IN_PROGRESS, SUCCEEDED, FAILED, CANCELING or CANCELED
	Errors []string
}

// Over reports whether the change has ended.
func (w Work) Over() bool { return w.Status == "SUCCEEDED" || w.Failed() }

// Failed reports whether the change was not made.
func (w Work) Failed() bool { return w.Status == "FAILED" || w.Status == "CANCELED" }

// Work reads a work request. For a failed one it also reads the cause.
func (c *Client) Work(ctx context.Context, id ID, work string) (Work, error) {
	call, err := c.call(id, "GetWorkRequest", http.MethodGet, "/workRequests/{workRequestId}")
	if err != nil {
		return Work{}, err
	}
	var got struct{ ID, CompartmentID, Status string }
	if _, err := c.who.Do(ctx, call, containerengine.GetWorkRequestRequest{WorkRequestId: common.String(work)}, &got); err != nil {
		return Work{}, fmt.Errorf("reading work request %s: %w", signature.Short(work), notFound(err))
	}
	w := Work{Status: got.Status}
	switch {
	case got.ID != work || w.Status == "":
		return Work{}, call.Malformed("asked for work request %s, got %.120q, %.40q", work, got.ID, w.Status)
	case !w.Failed():
		return w, nil
	}
	if call, err = c.call(id, "ListWorkRequestErrors", http.MethodGet, "/workRequests/{workRequestId}/errors"); err != nil {
		return w, err
	}
	var errs []struct{ Code, Message string }
	request := containerengine.ListWorkRequestErrorsRequest{WorkRequestId: common.String(work), CompartmentId: common.String(got.CompartmentID)}
	if _, err := c.who.Do(ctx, call, request, &errs); err != nil {
		return w, nil //nolint:nilerr // the failure is known, and only its cause is not
	}
	for _, e := range errs[:min(len(errs), 10)] {
		text := e.Code + ": " + e.Message
		w.Errors = append(w.Errors, oci.Text(&text))
	}
	return w, nil
}

// notFound adds ErrNotFound to OCI's error for a missing object.
func notFound(err error) error {
	if oci.IsNotFound(err) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
