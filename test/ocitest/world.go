package ocitest

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// world is the state of the cloud, as Save writes it. Hold Cloud.mu to read or write
// it.
type world struct {
	Tenancies    map[string]*tenancy         `json:"tenancies"`
	Compartments map[string]*compartment     `json:"compartments"`
	Users        map[string]*user            `json:"users"`
	Resources    map[string]*resource        `json:"resources"` // that act for themselves
	Groups       map[string]*dynamicGroup    `json:"dynamicGroups"`
	Domains      map[string]*identityDomain  `json:"domains"` // by host
	Issuers      map[string]*issuer          `json:"issuers"` // by URL
	Jobs         map[string]*githubJob       `json:"jobs"`
	Clusters     map[string]*okeCluster      `json:"clusters"`
	ClusterWork  map[string]*clusterWork     `json:"clusterWork"`
	Vaults       map[string]*vault           `json:"vaults"`
	Keys         map[string]*key             `json:"keys"`
	Repositories map[string]*repository      `json:"repositories"`
	Images       map[string]*containerImage  `json:"images"`
	Signatures   map[string]*signatureRecord `json:"signatures"`
	Policies     map[string]*policy          `json:"policies"` // beside those of the tenancies
	ScanRecipes  map[string]*scanRecipe      `json:"scanRecipes"`
	ScanTargets  map[string]*scanTarget      `json:"scanTargets"`
	ScanResults  map[string]*scanResult      `json:"scanResults"`
	WorkRequests map[string]*workRequest     `json:"workRequests"`
	Scans        []*scan                     `json:"scans"`    // that are not over
	Problems     map[string][]Problem        `json:"problems"` // that scans find, by digest
	Operator     string                      `json:"operator"` // user of the profiles in the home, if any
	Surroundings surroundings                `json:"surroundings"`
	Last         int64                       `json:"last"` // sequence number of the newest resource

	entropy io.Reader        // makes OCIDs; fixed during a seed, so that every demo has the same
	now     func() time.Time // the time of new resources

	scanAfter, scanTakes time.Duration // as in Config

	newest time.Time // moment
}

func newWorld(now func() time.Time) *world {
	return &world{
		Tenancies:    map[string]*tenancy{},
		Compartments: map[string]*compartment{},
		Users:        map[string]*user{},
		Resources:    map[string]*resource{},
		Groups:       map[string]*dynamicGroup{},
		Domains:      map[string]*identityDomain{},
		Issuers:      map[string]*issuer{},
		Jobs:         map[string]*githubJob{},
		Clusters:     map[string]*okeCluster{},
		ClusterWork:  map[string]*clusterWork{},
		Vaults:       map[string]*vault{},
		Keys:         map[string]*key{},
		Repositories: map[string]*repository{},
		Images:       map[string]*containerImage{},
		Signatures:   map[string]*signatureRecord{},
		Policies:     map[string]*policy{},
		ScanRecipes:  map[string]*scanRecipe{},
		ScanTargets:  map[string]*scanTarget{},
		ScanResults:  map[string]*scanResult{},
		WorkRequests: map[string]*workRequest{},
		Problems:     map[string][]Problem{},
		entropy:      rand.Reader,
		now:          now,
	}
}

// clone returns a separate copy of the world, for stale reads.
func (w *world) clone() (*world, error) {
	b, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("copying the state: %w", err)
	}
	c := newWorld(w.now)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("copying the state: %w", err)
	}
	return c, nil
}

// born has a resource's OCID, and the order and time of its creation.
type born struct {
	ID      string    `json:"id"`
	Seq     int64     `json:"seq"`
	Created time.Time `json:"created"`
}

// moment returns the current time, but always a later time than the call before.
// Pushes of a tag and its scans therefore have an order within a millisecond, which
// is OCI's resolution.
func (w *world) moment() time.Time {
	at := w.now().UTC().Truncate(time.Millisecond)
	if !at.After(w.newest) {
		at = w.newest.Add(time.Millisecond)
	}
	w.newest = at
	return at
}

func (w *world) birth(id string) born {
	w.Last++
	return born{ID: id, Seq: w.Last, Created: w.now().UTC().Truncate(time.Millisecond)}
}

type tenancy struct {
	born
	Name              string    `json:"name"`
	Namespace         string    `json:"namespace"`
	HomeRegion        string    `json:"homeRegion"`
	Regions           []string  `json:"regions"`
	CreateOnFirstPush bool      `json:"createOnFirstPush"`
	Policies          []string  `json:"policies"`
	Switches          *Switches `json:"switches,omitempty"` // nil: the cloud's
}

func (t *tenancy) realm() string {
	r, err := image.ParseRegion(t.HomeRegion)
	if err != nil {
		return "oc1"
	}
	return r.Realm()
}

type compartment struct {
	born
	Tenancy     string `json:"tenancy"`
	Parent      string `json:"parent"` // empty for the root, whose id is the tenancy's
	Name        string `json:"name"`
	Description string `json:"description"`
	State       string `json:"state"`
}

type user struct {
	born
	Tenancy   string   `json:"tenancy"`
	Name      string   `json:"name"`
	Groups    []string `json:"groups"`
	AuthToken string   `json:"authToken"` // password for docker login
	// Tokens are the auth tokens that were made through the API.
	Tokens []*authToken `json:"tokens,omitempty"`
	// Principal has IAM's variables of an identity that is no person, such as
	// request.principal.type.
	Principal map[string]string `json:"principal,omitempty"`
	// dynamic has the names of the dynamic groups whose rules match a resource.
	dynamic []string
	// via is the OCID of the instance or resource that sent this request for the
	// user, or "".
	via string
	// Keys maps fingerprints of API keys to public keys (PKIX, DER).
	Keys map[string][]byte `json:"keys"`
}

// unique returns n random characters, as in OCI's unique strings.
func (w *world) unique(n int) string {
	b := make([]byte, (n*5+7)/8)
	if _, err := io.ReadFull(w.entropy, b); err != nil {
		panic("ocitest: the source of identifiers ran dry: " + err.Error())
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))[:n]
}

// globalOCID makes an OCID for a resource without a region, such as a user.
func (w *world) globalOCID(kind, realm string) string {
	return fmt.Sprintf("ocid1.%s.%s..aaaaaaaa%s", kind, realm, w.unique(52))
}

// regionPart returns the region as OCIDs contain it.
func regionPart(r image.Region, sw Switches) string {
	if sw.OCIDRegion == "id" {
		return r.ID()
	}
	return r.Key()
}

// registryOCID makes an OCID for an image, a repository or a signature record.
func (w *world) registryOCID(kind string, r image.Region, t *tenancy, sw Switches) string {
	return fmt.Sprintf("ocid1.%s.%s.%s.0.%s.aaaaaaaa%s", kind, r.Realm(), regionPart(r, sw), t.Namespace, w.unique(52))
}

func (w *world) newTenancy(name, namespace string, home image.Region, sw *Switches) (*tenancy, error) {
	if namespace == "" {
		namespace = "id" + w.unique(10)
	}
	for _, t := range w.Tenancies {
		if t.Namespace == namespace && t.realm() == home.Realm() {
			return nil, fmt.Errorf("namespace %s is taken", namespace)
		}
	}
	t := &tenancy{
		born:              w.birth(w.globalOCID("tenancy", home.Realm())),
		Name:              name,
		Namespace:         namespace,
		HomeRegion:        home.ID(),
		Regions:           []string{home.ID()},
		CreateOnFirstPush: true,
		Policies:          []string{"Allow group Administrators to manage all-resources in tenancy"},
		Switches:          sw,
	}
	w.Tenancies[t.ID] = t
	w.Compartments[t.ID] = &compartment{
		born: t.born, Tenancy: t.ID, Name: name, Description: "root compartment of " + name, State: "ACTIVE",
	}
	return t, nil
}

func (w *world) newCompartment(parent, name string) (*compartment, error) {
	p, ok := w.Compartments[parent]
	if !ok {
		return nil, fmt.Errorf("no compartment %s", parent)
	}
	t := w.Tenancies[p.Tenancy]
	c := &compartment{
		born:        w.birth(w.globalOCID("compartment", t.realm())),
		Tenancy:     p.Tenancy,
		Parent:      parent,
		Name:        name,
		Description: name,
		State:       "ACTIVE",
	}
	w.Compartments[c.ID] = c
	return c, nil
}

func (w *world) newUser(tenancyID, name string, groups ...string) (*user, error) {
	t, ok := w.Tenancies[tenancyID]
	if !ok {
		return nil, fmt.Errorf("no tenancy %s", tenancyID)
	}
	u := &user{
		born:      w.birth(w.globalOCID("user", t.realm())),
		Tenancy:   tenancyID,
		Name:      name,
		Groups:    groups,
		AuthToken: w.unique(20),
		Keys:      map[string][]byte{},
	}
	w.Users[u.ID] = u
	return u, nil
}

func (w *world) userByName(tenancyID, name string) *user {
	for _, u := range w.Users {
		if u.Tenancy == tenancyID && u.Name == name {
			return u
		}
	}
	return nil
}

// within reports whether a compartment is another one or is below it.
func (w *world) within(id, ancestor string) bool {
	for id != "" {
		if id == ancestor {
			return true
		}
		c, ok := w.Compartments[id]
		if !ok {
			return false
		}
		id = c.Parent
	}
	return false
}

func (w *world) tenancyOf(compartmentID string) *tenancy {
	c, ok := w.Compartments[compartmentID]
	if !ok {
		return nil
	}
	return w.Tenancies[c.Tenancy]
}

func (w *world) tenancyByNamespace(namespace, realm string) *tenancy {
	for _, t := range w.Tenancies {
		if t.Namespace == namespace && t.realm() == realm {
			return t
		}
	}
	return nil
}

// oldestFirst returns the values of a table in the order of their creation.
func oldestFirst[T interface{ seq() int64 }](table map[string]T) []T {
	return slices.SortedFunc(maps.Values(table), func(a, b T) int { return int(a.seq() - b.seq()) })
}

func (b born) seq() int64 { return b.Seq }

// shortHash returns a hash of a resource, for etags and page tokens.
func shortHash(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("ocitest: hashing a resource: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func parseSigner(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading a private key: %w", err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", k)
	}
	return s, nil
}
