// Package ociauth is who this process is to OCI, and the one way to OCI that
// every client of an OCI service takes.
//
// It takes from the OCI SDK what says how requests look and are signed: the
// request and model types, their marshalling and the signer. It does not take
// how the SDK sends them. There, environment variables, a regions file and
// instance metadata choose hosts, a 401 costs three seconds of sleep, retries
// outlive deadlines, a JSON null for a body panics, and a body of another
// content type is an empty answer. Here, hosts come from package image's table
// and nowhere else, redirects are refused, bodies are bounded, and whoever
// calls gets an answer or an error within their deadline.
//
// It trusts the configuration file it is given, the machine's certificate
// authorities, and the proxy that the environment names with carrying bytes and
// nothing more. It does not trust what OCI answers to be short, well-formed or
// about what was asked; the last is for the caller to check.
package ociauth

import (
	"cmp"
	"context"
	"crypto/rsa"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
)

// The kinds of principal, by the names that Oracle's CLI has for them.
const (
	KindAPIKey              = "api_key"               // an API key of a profile, or its session token in a profile without user
	KindSecurityToken       = "security_token"        // the session token of a profile
	KindInstancePrincipal   = "instance_principal"    // the compute instance that this runs on
	KindInstanceOBOUser     = "instance_obo_user"     // a user whose delegation token the instance holds: Cloud Shell
	KindResourcePrincipal   = "resource_principal"    // a resource that OCI runs code for and gives a token to
	KindOKEWorkloadIdentity = "oke_workload_identity" // the service account of a Pod in an enhanced OKE cluster
	KindOIDC                = "oidc"                  // a job whose OIDC token an identity domain trusts; Oracle's CLI does not have it
)

// Kinds lists the kinds of principal.
func Kinds() []string {
	return []string{
		KindAPIKey, KindSecurityToken, KindInstancePrincipal, KindInstanceOBOUser,
		KindResourcePrincipal, KindOKEWorkloadIdentity, KindOIDC,
	}
}

// Config says who to be. [FromEnvironment] fills it as Oracle's CLI would.
type Config struct {
	// Kind is one of the kinds. Empty means what the profile's
	// authentication_type says, or KindAPIKey.
	Kind string
	// ConfigFile is the OCI configuration file. Empty means ~/.oci/config.
	ConfigFile string
	// Profile is the profile in it. Empty means DEFAULT.
	Profile string
	// Override holds values that replace those of the profile.
	Override Override
	// Region replaces the profile's or the instance's region, if not empty. A
	// workload, a resource and OIDC need it.
	Region string
	// Workload is where a Pod finds what its cluster vouches for.
	Workload Workload
	// Metadata is the URL of the instance's metadata service, which Oracle's own
	// tools take from OCI_METADATA_BASE_URL. Empty means where it is. Only this
	// machine and its link may be named.
	Metadata string
	// Resource is what OCI gave a resource.
	Resource Resource
	// OIDC is what an identity domain exchanges for a session token.
	OIDC OIDC

	// CAFile holds the certificate authorities to trust, in PEM, in place of the
	// system's. Oracle's own tools take it from OCI_DEFAULT_CERTS_PATH. Empty
	// means the system's, which SSL_CERT_FILE replaces on most systems.
	CAFile string
	// Timeout is how long one call may take, its repetitions included, when the
	// caller's context allows more. Zero means 30 seconds.
	Timeout time.Duration
	// Attempt is how long one attempt of a call may take. Zero means 10 seconds.
	Attempt time.Duration
	// Overdue is how long nearly every answer takes at most. A call that takes
	// longer may hang: it loses its place to others and, if nothing can be done
	// twice by it, is sent again beside the first. Zero means that none is: nobody
	// but a cluster's admission is in such a hurry.
	Overdue time.Duration
	// Concurrency is how many calls to one host may run at once; others wait.
	// Zero means 32.
	Concurrency int
	// Observe is told of every attempt, if not nil. All its strings are from
	// fixed sets: fit for labels of a metric.
	Observe func(Attempt)
	// Trouble is told, if not nil, of what is in the way of a call that goes on:
	// a refusal after which it is repeated or waits for its turn, an answer that
	// is long in coming. Its context is the call's.
	Trouble func(context.Context, error)
}

// Attempt is one request that was sent to OCI, or tried to be.
type Attempt struct {
	Service   string // such as "artifacts"
	Operation string // such as "ListContainerImageSignatures"
	Outcome   string // ok, refused, throttled, failing, malformed, late, canceled or unreachable
	Took      time.Duration
}

// Principal is an identity with a way to OCI. It is safe for concurrent use.
type Principal struct {
	cfg       Config
	name      string
	tenancy   string
	region    image.Region
	identify  func(context.Context) (credential, error)
	refused   func() // tells who identifies that OCI did not take it
	transport *http.Transport
	hosts     hosts
}

// credential is what one request is signed with. It is taken anew for each, so
// that a token that was renewed on disk counts at once.
type credential struct {
	keyID string
	key   *rsa.PrivateKey
	// delegation is the token of a user to act for, if there is one. It is sent
	// and signed with each request, and written nowhere else.
	delegation string
}

var _ common.KeyProvider = credential{}

func (c credential) KeyID() (string, error)                  { return c.keyID, nil }
func (c credential) PrivateRSAKey() (*rsa.PrivateKey, error) { return c.key, nil }

// delegationHeader carries the token of the user that an instance acts for.
const delegationHeader = "opc-obo-token"

// sign signs a request of an OCI service. A delegation token is among the signed
// headers, as Oracle's SDKs do it, so that nobody can take it out on the way.
func (c credential) sign(req *http.Request) error {
	if c.delegation == "" {
		return common.DefaultRequestSigner(c).Sign(req)
	}
	req.Header.Set(delegationHeader, c.delegation)
	generic := append(common.DefaultGenericHeaders(), delegationHeader)
	return common.RequestSigner(c, generic, common.DefaultBodyHeaders()).Sign(req)
}

// New reads who to be and prepares the way to OCI. It asks OCI nothing; for a
// workload it asks the cluster for a token, which says what tenancy it is of, for
// an instance the metadata service, and for OIDC the identity domain.
func New(ctx context.Context, cfg Config) (*Principal, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	if cfg.Attempt <= 0 {
		cfg.Attempt = 10 * time.Second
	}
	if cfg.Overdue <= 0 {
		cfg.Overdue = cfg.Attempt
	}
	if cfg.Concurrency <= 0 {
		cfg.Concurrency = 32
	}
	if cfg.Kind == "" {
		var err error
		if cfg.Kind, err = cfg.usual(); err != nil {
			return nil, err
		}
	}
	p := &Principal{cfg: cfg, hosts: hosts{limit: cfg.Concurrency}, refused: func() {}}
	var err error
	if p.transport, err = newTransport(cfg); err != nil {
		return nil, err
	}
	if err := p.signIn(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Principal) signIn(ctx context.Context) error {
	switch p.cfg.Kind {
	case KindAPIKey, KindSecurityToken:
		return p.fromProfile()
	case KindInstancePrincipal:
		return p.fromInstance(ctx)
	case KindInstanceOBOUser:
		return p.fromDelegation(ctx)
	case KindResourcePrincipal:
		return p.fromResource(ctx)
	case KindOKEWorkloadIdentity:
		return p.fromWorkload(ctx)
	case KindOIDC:
		return p.fromOIDC(ctx)
	}
	return fmt.Errorf("no such kind of principal: %.40q (want %s)", p.cfg.Kind, strings.Join(Kinds(), ", "))
}

// Apart is the same identity with a way to OCI of its own: with connections that
// it shares with nobody, and at most so many calls to one host at once, whatever
// the others do. What one is told by a host that throttles, the other is not.
func (p *Principal) Apart(concurrency int) (*Principal, error) {
	a := &Principal{
		cfg: p.cfg, name: p.name, tenancy: p.tenancy, region: p.region, identify: p.identify, refused: p.refused,
		hosts: hosts{limit: concurrency},
	}
	a.cfg.Concurrency = concurrency
	var err error
	a.transport, err = newTransport(a.cfg)
	return a, err
}

func (p *Principal) fromWorkload(ctx context.Context) error {
	w, err := newWorkload(p.cfg)
	if err != nil {
		return err
	}
	t, err := w.get(ctx)
	if err != nil {
		return err
	}
	p.name, p.identify, p.refused = w.String(), w.identify, w.refused
	return p.locate(t.tenancy, cmp.Or(p.cfg.Region, p.cfg.Resource.Region))
}

// locate holds tenancy and region against each other: a tenancy is in one realm,
// and a region that is not known has no hosts that could be trusted.
func (p *Principal) locate(tenancy, region string) error {
	if !isOCID(tenancy, "tenancy") {
		return fmt.Errorf("tenancy is not the OCID of a tenancy: %.80q", tenancy)
	}
	at, err := image.ParseRegion(strings.ToLower(region))
	if err != nil {
		return err
	}
	if realm := strings.Split(tenancy, ".")[2]; realm != at.Realm() {
		return fmt.Errorf("the tenancy is in realm %s and region %s in realm %s", realm, at, at.Realm())
	}
	p.tenancy, p.region = tenancy, at
	return nil
}

// Tenancy is the OCID of the principal's tenancy.
func (p *Principal) Tenancy() string { return p.tenancy }

// Region is where the principal's calls go unless what is asked for lies
// elsewhere.
func (p *Principal) Region() image.Region { return p.region }

// Realm is the realm of the tenancy, such as oc1. Nothing in another realm can
// be reached.
func (p *Principal) Realm() string { return p.region.Realm() }

// String says where the identity comes from. It holds no secret.
func (p *Principal) String() string { return p.name }

// isOCID reports whether s is an OCID of the kind, fit for a path segment, a
// query or the key id of a request's signature.
func isOCID(s, kind string) bool {
	rest, ok := strings.CutPrefix(s, "ocid1."+kind+".")
	realm, _, dots := strings.Cut(rest, ".")
	return ok && dots && realm != "" && Segment(s)
}

// Segment reports whether s may become a segment of a path as it is: the SDK
// does not escape path parameters, and "." or ".." would leave the segment.
// Every OCID passes; many have two dots in a row inside.
func Segment(s string) bool {
	if len(s) > 255 || strings.Trim(s, ".") == "" {
		return false
	}
	return consists(s, letters+"._-")
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// consists reports whether there is nothing in s but characters of set: Trim
// stops at the first that is not.
func consists(s, set string) bool { return strings.Trim(s, set) == "" }
