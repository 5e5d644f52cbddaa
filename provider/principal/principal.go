// Package principal is who this process is to OCI, and the one way to OCI that
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
package principal

import (
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
	KindResourcePrincipal   = "resource_principal"    // a resource that OCI runs code for and gives a token to
	KindOKEWorkloadIdentity = "oke_workload_identity" // the service account of a Pod in an enhanced OKE cluster
)

// Config says who to be.
type Config struct {
	// Kind is one of the kinds. Empty means KindAPIKey.
	Kind string
	// ConfigFile is the OCI configuration file. Empty means ~/.oci/config.
	ConfigFile string
	// Profile is the profile in it. Empty means DEFAULT. A profile inherits
	// nothing from another one.
	Profile string
	// Passphrase opens the private key. Empty means the profile's pass_phrase.
	Passphrase string
	// Region replaces the profile's or the instance's region, if not empty. A
	// workload and a resource have to have it.
	Region string
	// KubernetesHost is the address of the cluster that a workload runs in.
	KubernetesHost string
	// ServiceAccount is the directory with a workload's token and its cluster's
	// ca.crt. Empty means where Kubernetes puts them.
	ServiceAccount string
	// Metadata is the URL of the instance's metadata service, which Oracle's own
	// tools take from OCI_METADATA_BASE_URL. Empty means where it is. Only this
	// machine and its link may be named.
	Metadata string
	// Resource is what OCI gave a resource.
	Resource Resource

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
}

var _ common.KeyProvider = credential{}

func (c credential) KeyID() (string, error)                  { return c.keyID, nil }
func (c credential) PrivateRSAKey() (*rsa.PrivateKey, error) { return c.key, nil }

// New reads who to be and prepares the way to OCI. It asks OCI nothing; for a
// workload it asks the cluster for a token, which says what tenancy it is of, and
// for an instance the metadata service.
func New(ctx context.Context, cfg Config) (*Principal, error) {
	if cfg.Kind == "" {
		cfg.Kind = KindAPIKey
	}
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
	p := &Principal{cfg: cfg, hosts: hosts{limit: cfg.Concurrency}, refused: func() {}}
	var err error
	if p.transport, err = newTransport(cfg); err != nil {
		return nil, err
	}
	switch cfg.Kind {
	case KindAPIKey, KindSecurityToken:
		err = p.fromProfile()
	case KindOKEWorkloadIdentity:
		err = p.fromWorkload(ctx)
	case KindInstancePrincipal:
		err = p.fromInstance(ctx)
	case KindResourcePrincipal:
		err = p.fromResource()
	default:
		err = fmt.Errorf("no such kind of principal: %.40q (want %s, %s, %s, %s or %s)", cfg.Kind, KindAPIKey, KindSecurityToken, KindOKEWorkloadIdentity, KindInstancePrincipal, KindResourcePrincipal)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
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

func (p *Principal) fromProfile() error {
	name := p.cfg.Profile
	if name == "" {
		name = "DEFAULT"
	}
	prof, err := readProfile(p.cfg.ConfigFile, name)
	if err != nil {
		return err
	}
	p.name = prof.String()
	tenancy, err := prof.need("tenancy")
	if err != nil {
		return fmt.Errorf("%s: %w", prof, err)
	}
	region := p.cfg.Region
	if region == "" {
		if region, err = prof.need("region"); err != nil {
			return fmt.Errorf("%s: %w", prof, err)
		}
	}
	if err := p.locate(tenancy, region); err != nil {
		return fmt.Errorf("%s: %w", prof, err)
	}
	identify, err := prof.identify(p.cfg)
	if err == nil {
		_, err = identify() // a token that is no good now will not get better
	}
	if err != nil {
		return fmt.Errorf("%s: %w", prof, err)
	}
	p.identify = func(context.Context) (credential, error) { return identify() }
	return nil
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
	return p.locate(t.tenancy, p.cfg.Region)
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
