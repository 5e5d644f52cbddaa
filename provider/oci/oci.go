// Package oci is the one HTTP client to OCI. The client of each OCI service sends
// its calls through it.
//
// From the OCI SDK it takes how requests look: the request and model types, and
// their marshalling. It does not take how the SDK sends them. The SDK lets
// environment variables, a regions file and instance metadata choose hosts. It
// sleeps three seconds on a 401 and retries past deadlines. It panics on a JSON null
// in place of a body, and reads a body of another content type as an empty answer.
// This package takes hosts from package image's table and nowhere else. It rejects
// redirects, bounds bodies, and returns an answer or an error within the caller's
// deadline.
//
// It trusts the identity that signs its requests, the machine's certificate
// authorities, and the proxy that the environment names. The proxy is trusted with
// carrying bytes and nothing more.
//
// It does not trust OCI's answers to be short, well-formed or about what was asked.
// The caller checks the last of these.
package oci

import (
	"context"
	"net/http"

	"github.com/oke-sign/oke-sign/provider/image"
)

// UserAgent is the User-Agent header of all requests to OCI.
const UserAgent = "oke-sign"

// Identity signs the requests of a client. Package ociauth makes identities.
type Identity struct {
	// Name says where the identity comes from. It holds no secret.
	Name string
	// AuthKind is the auth kind, such as api_key. Errors carry it for hints.
	AuthKind string
	// Tenancy is the OCID of the identity's tenancy.
	Tenancy string
	// Region is where calls go when the caller names no other region.
	Region image.Region
	// Sign adds to a request what proves the identity. It is called for each
	// attempt, so that a renewed token is used at once.
	Sign func(context.Context, *http.Request) error
	// Refused, if not nil, is called when OCI answers a request with 401.
	Refused func()
}

// Client sends requests to OCI as one identity. It is safe for concurrent use.
type Client struct {
	cfg       Config
	id        Identity
	transport *http.Transport
	limiters  limiters
}

// New returns a client for an identity. The transport is one of [NewTransport].
func New(id Identity, transport *http.Transport, cfg Config) *Client {
	cfg = cfg.WithDefaults()
	if id.Refused == nil {
		id.Refused = func() {}
	}
	return &Client{cfg: cfg, id: id, transport: transport, limiters: limiters{limit: cfg.Concurrency}}
}

// WithConcurrency returns another client for the same identity, which shares no
// connections and no limits with this one. A host that throttles one of them does
// not slow down the other. The new client runs at most so many calls to one host
// at once.
func (c *Client) WithConcurrency(concurrency int) (*Client, error) {
	cfg := c.cfg
	cfg.Concurrency = concurrency
	transport, err := NewTransport(cfg)
	if err != nil {
		return nil, err
	}
	return New(c.id, transport, cfg), nil
}

// Tenancy returns the OCID of the identity's tenancy.
func (c *Client) Tenancy() string { return c.id.Tenancy }

// Region returns the region where calls go when the caller names no other.
func (c *Client) Region() image.Region { return c.id.Region }

// Realm returns the realm of the tenancy, such as oc1. The client reaches nothing
// in another realm.
func (c *Client) Realm() string { return c.id.Region.Realm() }

// String says where the identity comes from. It holds no secret.
func (c *Client) String() string { return c.id.Name }
