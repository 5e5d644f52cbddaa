// Package registry reads what OCI Registry knows about images and their signatures,
// through the Artifacts API, and uploads signatures.
//
// It contacts only the Artifacts host of the region that an image reference names.
// Package image takes that region from its own table. It returns signature records
// unchecked: everybody who may push to a repository may upload any record, so a record
// proves nothing before package signature has verified it.
//
// The package does promise that an answer is about what was asked, is bounded, and is
// complete. A list that could not be read to its end, or that OCI refused, is an error
// and never a shorter list.
//
// It caches the compartments of repositories, and for half a minute the lists of a whole
// repository; see Bulk.
package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

const (
	basePath = "/20160918"
	maxTag   = 128 // bytes
)

// Config configures which images a Client covers and where it looks for them.
type Config struct {
	// Tenancies are tenancies beside the identity's own, by namespace. OCI does not
	// say which tenancy has a namespace. The identity's own tenancy may be listed,
	// which saves the call that finds its namespace.
	Tenancies map[string]string
	// Compartments are where to look for signatures, in place of the whole tenancy.
	// They are for identities that have rights on compartments only.
	Compartments []string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Panicked is called for a panic of background work. Nil means that nobody is
	// told.
	Panicked func(*contain.PanicError)
}

// Client calls OCI Registry with one identity. It is safe for concurrent use.
type Client struct {
	who          *oci.Client
	compartments []string
	cached       *compartmentCache
	panicked     func(*contain.PanicError)
	bulk         *bulk

	mu         sync.Mutex
	tenancies  map[string]string // by namespace
	discovered bool              // the identity's own is among them
}

// New makes a Client. It makes no call; Discover does.
func New(who *oci.Client, cfg Config) (*Client, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Client{
		who:          who,
		compartments: cfg.Compartments,
		tenancies:    make(map[string]string, len(cfg.Tenancies)+1),
		cached:       newCompartmentCache(cfg.Now),
		panicked:     cfg.Panicked,
		bulk:         &bulk{now: cfg.Now, repos: make(map[repository]*interest)},
	}
	for namespace, tenancy := range cfg.Tenancies {
		if !oci.Segment(namespace) {
			return nil, fmt.Errorf("not a namespace: %.80q", namespace)
		}
		if !strings.HasPrefix(tenancy, "ocid1.tenancy.") || !oci.Segment(tenancy) {
			return nil, fmt.Errorf("not the OCID of the tenancy of namespace %s: %.80q", namespace, tenancy)
		}
		if realm, _, _ := strings.Cut(strings.TrimPrefix(tenancy, "ocid1.tenancy."), "."); realm != who.Realm() {
			return nil, fmt.Errorf("the tenancy of namespace %s is in realm %.20s, but this identity is in %s and reaches no other", namespace, realm, who.Realm())
		}
		if tenancy == who.Tenancy() {
			c.discovered = true
		}
	}
	maps.Copy(c.tenancies, cfg.Tenancies)
	for _, compartment := range cfg.Compartments {
		if !oci.Segment(compartment) || !strings.HasPrefix(compartment, "ocid1.compartment.") && !strings.HasPrefix(compartment, "ocid1.tenancy.") {
			return nil, fmt.Errorf("not the OCID of a compartment: %.80q", compartment)
		}
	}
	return c, nil
}

// Discover finds the namespace of the identity's own tenancy, once. Until then Covers
// reports true for every namespace of the realm, and the first call that needs the
// namespace finds it.
func (c *Client) Discover(ctx context.Context) error {
	c.mu.Lock()
	done := c.discovered
	c.mu.Unlock()
	if done {
		return nil
	}
	namespace, err := c.who.Namespace(ctx)
	if err != nil {
		return err
	}
	return c.Learn(namespace)
}

// Learn sets the namespace of the identity's own tenancy, for callers that know it. It
// saves the call of Discover. It fails if the configuration contradicts it.
func (c *Client) Learn(namespace string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for configured, tenancy := range c.tenancies {
		if tenancy == c.who.Tenancy() && configured != namespace {
			return fmt.Errorf("namespace %s is configured for the principal's own tenancy, but its namespace is %s", configured, namespace)
		}
	}
	if other := c.tenancies[namespace]; other != "" && other != c.who.Tenancy() {
		return fmt.Errorf("namespace %s is configured for another tenancy, but it is the principal's own", namespace)
	}
	c.tenancies[namespace], c.discovered = c.who.Tenancy(), true
	return nil
}

// Covers reports whether the images of a namespace in a region can be asked about:
// it is of a tenancy that was configured or of the identity's own, in the
// identity's realm.
func (c *Client) Covers(region image.Region, namespace string) bool {
	if region.IsZero() || region.Realm() != c.who.Realm() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tenancies[namespace] != "" || !c.discovered
}

// Tenancy is the OCID of the tenancy that an image belongs to.
func (c *Client) Tenancy(ctx context.Context, ref image.Reference) (string, error) {
	for range 2 {
		covered := c.Covers(ref.Region(), ref.Namespace())
		c.mu.Lock()
		tenancy := c.tenancies[ref.Namespace()]
		c.mu.Unlock()
		if !covered {
			break
		}
		if tenancy != "" {
			return tenancy, nil
		}
		if err := c.Discover(ctx); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s: %w", ref, ErrNotCovered)
}

// call returns a call of the Artifacts API in the region of an image.
func call(ref image.Reference, operation, method, path string) oci.Call {
	return callIn(ref.Region(), operation, method, path)
}

// Image is an image that OCI Registry has.
type Image struct {
	ID            string
	CompartmentID string // of its repository
	Digest        string
	RepositoryID  string
	Repository    string
	Tags          []string
	Versions      []Version // of Tags, those that can be asked for by name
	TimeCreated   time.Time
}

// Version is a tag of an image.
type Version struct {
	Tag   string
	Since time.Time // when the tag was put on the image; zero if OCI does not say
}

// Image looks an image up by its digest, or by its tag if the reference has no digest.
func (c *Client) Image(ctx context.Context, ref image.Reference) (Image, error) {
	if _, err := c.Tenancy(ctx, ref); err != nil {
		return Image{}, err
	}
	uri := ref.Namespace() + "/" + ref.Repository()
	switch {
	case ref.Digest() != "":
		uri += "@" + ref.Digest()
	case ref.Tag() != "":
		uri += ":" + ref.Tag()
	default:
		return Image{}, fmt.Errorf("%s: it has neither a tag nor a digest", ref)
	}
	lookup := call(ref, "LookupContainerImageByUri", http.MethodPost, "/container/images/actions/lookupImageByUri")
	lookup.Repeatable = true // it changes nothing
	var found artifacts.ContainerImage
	_, err := c.who.Do(ctx, lookup, artifacts.LookupContainerImageByUriRequest{
		LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(uri)},
	}, &found)
	if oci.IsNotFound(err) {
		return Image{}, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return Image{}, err
	}
	img, err := readImage(lookup, found)
	if err != nil {
		return Image{}, err
	}
	if img.Repository != ref.Repository() || ref.Digest() != "" && img.Digest != ref.Digest() {
		return Image{}, lookup.Malformed("asked for %s, got %.100q with digest %s", uri, img.Repository, img.Digest)
	}
	if found.LifecycleState == "" {
		return Image{}, lookup.Malformed("image %s without a lifecycleState", img.ID)
	}
	if found.LifecycleState != artifacts.ContainerImageLifecycleStateAvailable {
		return Image{}, fmt.Errorf("%w: its state is %.20q", ErrNotFound, found.LifecycleState)
	}
	return img, nil
}

// readImage reads the fields of an answer that are used. It validates the fields that
// become part of a later request.
func readImage(from oci.Call, found artifacts.ContainerImage) (Image, error) {
	img := Image{
		ID: deref(found.Id), CompartmentID: deref(found.CompartmentId), Digest: deref(found.Digest),
		RepositoryID: deref(found.RepositoryId), Repository: deref(found.RepositoryName),
	}
	if found.TimeCreated != nil {
		img.TimeCreated = found.TimeCreated.Time
	}
	for _, version := range found.Versions {
		if tag := oci.Text(version.Version); tag != "" {
			img.Tags = append(img.Tags, tag)
		}
		if tag := deref(version.Version); len(tag) <= maxTag && oci.Segment(tag) {
			v := Version{Tag: tag}
			if version.TimeCreated != nil {
				v.Since = version.TimeCreated.Time
			}
			img.Versions = append(img.Versions, v)
		}
	}
	switch {
	case !strings.HasPrefix(img.ID, "ocid1.containerimage.") || !oci.Segment(img.ID):
		return Image{}, from.Malformed("id %.100q is not the OCID of an image", img.ID)
	case !oci.Segment(img.CompartmentID):
		return Image{}, from.Malformed("compartmentId %.100q is not an OCID", img.CompartmentID)
	case !image.ValidDigest(img.Digest):
		return Image{}, from.Malformed("digest %.100q is no digest", img.Digest)
	}
	return img, nil
}

// Exists reports whether OCI Registry has the image and this identity may read it.
func (c *Client) Exists(ctx context.Context, ref image.Reference) (bool, error) {
	_, err := c.Image(ctx, ref)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// callIn returns a call of the Artifacts API in a region.
func callIn(in image.Region, operation, method, path string) oci.Call {
	return oci.Call{
		Service: "artifacts", Operation: operation, Method: method, Path: basePath + path,
		Host: "artifacts." + in.ID() + ".oci." + in.Domain(),
	}
}
