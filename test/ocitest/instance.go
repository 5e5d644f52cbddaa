package ocitest

import (
	"cmp"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // of fingerprints
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	// metadataPath follows the address in OCI_METADATA_BASE_URL.
	metadataPath = "/opc/v2"
	// federated and federatedSHA1 replace the user in a keyId. Oracle's SDK for Go
	// writes the first, and the SDK for Python the second.
	federated     = "fed-x509-sha256"
	federatedSHA1 = "fed-x509"
	federatedLife = 20 * time.Minute // the lifetime of an instance's tokens
)

// instance is a compute instance during the lifetime of its certificate. IAM sees it
// as the resource or user that it was made from.
type instance struct {
	u    *user
	leaf []byte
	key  *rsa.PrivateKey
	life time.Duration // the lifetime of its tokens
}

// newInstance issues a certificate with which a user acts as an instance.
func (c *Cloud) newInstance(u *user, life time.Duration) (*instance, error) {
	key, _, err := c.credentialKeys()
	if err != nil {
		return nil, err
	}
	now := c.cfg.Now()
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject: pkix.Name{CommonName: instanceName(u), OrganizationalUnit: []string{
			"opc-certtype:instance", "opc-compartment:" + cmp.Or(u.Principal["request.principal.compartment.id"], u.Tenancy), "opc-tenant:" + u.Tenancy,
		}},
		NotBefore: now.Add(-5 * time.Minute),
		NotAfter:  now.Add(2 * time.Hour),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.ca.cert, key.Public(), c.ca.key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of an instance: %w", err)
	}
	i := &instance{u: u, leaf: der, key: key, life: life}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, form := range []string{federated, federatedSHA1} {
		c.instances[certificateName(form, i.leaf)] = i
	}
	return i, nil
}

// certificateName returns the part of a keyId that names a certificate: form and
// fingerprint. Some clients write the fingerprint in lower case, others in upper
// case.
func certificateName(form string, leaf []byte) string {
	sum := sha256.Sum256(leaf)
	digest := sum[:]
	if form == federatedSHA1 {
		short := sha1.Sum(leaf)
		digest = short[:]
	}
	return form + "/" + strings.ReplaceAll(fmt.Sprintf("% x", digest), " ", ":")
}

// instanceName returns the OCID of an instance. For a user, it makes one up.
func instanceName(u *user) string {
	if u.Principal["request.principal.type"] == instanceType {
		return u.ID
	}
	return "ocid1.instance.oc1.iad." + strings.ToLower(rand.Text())
}

// page returns a page of the metadata service.
func (c *Cloud) page(i *instance, name string) (string, bool) {
	switch name {
	case "/instance/id":
		cert, err := x509.ParseCertificate(i.leaf)
		if err != nil {
			return "", false
		}
		return cert.Subject.CommonName, true
	case "/instance/region":
		c.mu.Lock()
		r := parseRegion(c.world.Tenancies[i.u.Tenancy].HomeRegion)
		c.mu.Unlock()
		if r.Key() == "iad" || r.Key() == "phx" { // these two by their keys, as ever
			return r.Key(), true
		}
		return r.ID(), true
	case "/identity/cert.pem":
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.leaf})), true
	case "/identity/intermediate.pem":
		return string(c.ca.pem()), true
	case "/identity/key.pem":
		return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(i.key)})), true
	}
	return "", false
}

// answerMetadata answers a request to an instance's metadata service.
func (c *Cloud) answerMetadata(w http.ResponseWriter, r *http.Request, i *instance) {
	_, name, _ := strings.Cut(r.URL.Path, metadataPath)
	c.serveLocal(w, r, Request{Operation: "metadata" + strings.ReplaceAll(name, "/", "."), Tenancy: i.u.Tenancy, User: i.u.ID}, func(a *answer) {
		text, ok := c.page(i, name)
		switch {
		case r.Header.Get("Authorization") != "Bearer Oracle":
			a.say(http.StatusForbidden, "the Authorization header is not what keeps browsers and forwarders out")
		case r.Method != http.MethodGet || !ok:
			a.say(http.StatusNotFound, "no such page")
		default:
			a.say(http.StatusOK, text)
		}
	})
}

// serveMetadata serves the metadata of the instances of a seeded cloud.
func (c *Cloud) serveMetadata(w http.ResponseWriter, r *http.Request) {
	base, _, _ := strings.Cut(r.URL.Path, metadataPath)
	c.mu.Lock()
	u := c.world.actor(c.world.Surroundings.metadata(base))
	var i *instance
	if u != nil {
		i = c.running[u.ID]
	}
	c.mu.Unlock()
	if u == nil {
		http.NotFound(w, r)
		return
	}
	if i == nil || i.old(c.cfg.Now()) {
		var err error
		if i, err = c.newInstance(u, federatedLife); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		c.mu.Lock()
		c.running[u.ID] = i
		c.mu.Unlock()
	}
	c.answerMetadata(w, r, i)
}

// old reports whether half of the certificate's lifetime is over.
func (i *instance) old(now time.Time) bool {
	cert, err := x509.ParseCertificate(i.leaf)
	return err != nil || now.After(cert.NotAfter.Add(-time.Hour))
}

// readInstance returns the instance that requests a token. Cloud.mu is held.
func (c *Cloud) readInstance(tenancy, form, fingerprint string, body []byte) (*user, *rsa.PublicKey, error) {
	i := c.instances[form+"/"+strings.ToLower(fingerprint)]
	if i == nil || i.u.Tenancy != tenancy {
		return nil, nil, fmt.Errorf("no instance of tenancy %s has a certificate %s", tenancy, fingerprint)
	}
	var in federation
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, nil, fmt.Errorf("the request is no JSON: %w", err)
	}
	if in.Certificate != base64.StdEncoding.EncodeToString(i.leaf) {
		return nil, nil, fmt.Errorf("the certificate is not the one that the keyId names")
	}
	if want := map[string]string{federated: "SHA256"}[form]; in.Algorithm != want {
		return nil, nil, fmt.Errorf("fingerprintAlgorithm is %.40q, and a keyId with %s needs %q", in.Algorithm, form, want)
	}
	cert, err := x509.ParseCertificate(i.leaf)
	if err != nil || c.cfg.Now().After(cert.NotAfter) {
		return nil, nil, fmt.Errorf("the certificate's time is over")
	}
	return i.u, &i.key.PublicKey, nil
}

func federationRoutes() []route {
	return []route{to("auth", "POST", "/v1/x509", "auth.FederateX509", (*call).federate)}
}

type federation struct {
	Certificate   string   `json:"certificate"`
	PublicKey     string   `json:"publicKey"`
	Intermediates []string `json:"intermediateCertificates"`
	Algorithm     string   `json:"fingerprintAlgorithm"`
}

// federate exchanges an instance's certificate for a token that is bound to another
// key.
func (c *call) federate() (any, error) {
	var in federation
	if err := json.Unmarshal(c.body, &in); err != nil {
		return nil, invalid("the request is no JSON")
	}
	leaf, err := base64.StdEncoding.DecodeString(in.Certificate)
	i := c.cloud.instances[certificateName(federated, leaf)]
	switch {
	case err != nil || i == nil || i.u != c.who:
		return nil, unauthenticated("only an instance gets a token here, for its own certificate")
	case len(in.Intermediates) != 1 || in.Intermediates[0] != base64.StdEncoding.EncodeToString(c.cloud.ca.cert.Raw):
		return nil, unauthenticated("the certificate's chain is not complete")
	}
	der, err := base64.StdEncoding.DecodeString(in.PublicKey)
	if err != nil {
		return nil, invalid("publicKey is no base64")
	}
	public, err := parsePublic(der)
	if err != nil {
		return nil, invalid("publicKey is no RSA key")
	}
	token, err := c.cloud.issueSession(i.u, public, i.life)
	return map[string]string{"token": token}, err
}

// Instance is a compute instance with its metadata service.
type Instance struct {
	MetadataURL string // OCI_METADATA_BASE_URL

	user *User

	mu    sync.Mutex
	now   *instance
	says  map[string]says
	asked int
}

type says struct {
	status int
	body   string
}

// NewInstance starts the metadata service until the test ends. Its tokens are valid
// for 20 minutes. An actor of type "instance" is that instance. Another user is the
// identity of the instance in IAM.
func (u *User) NewInstance() *Instance {
	t := u.tenancy
	t.tb.Helper()
	i := &Instance{user: u, says: map[string]says{}}
	i.Rotate(federatedLife)
	ln, err := listen("127.0.0.1:0")
	if err != nil {
		t.tb.Fatalf("starting a metadata service: %v", err)
	}
	i.MetadataURL = "http://" + ln.Addr().String() + metadataPath
	server := &http.Server{Handler: http.HandlerFunc(i.serve), ReadHeaderTimeout: 30 * time.Second, ErrorLog: t.cloud.errorLog()}
	var wait sync.WaitGroup
	wait.Go(func() { t.cloud.report(server.Serve(ln)) })
	t.tb.Cleanup(func() {
		server.Close() //nolint:errcheck // nothing is lost with it
		wait.Wait()
	})
	return i
}

// Rotate replaces the instance's certificate. life is the lifetime of the tokens
// that the instance gets after the call.
func (i *Instance) Rotate(life time.Duration) {
	t := i.user.tenancy
	t.tb.Helper()
	now, err := t.cloud.newInstance(i.user.u, life)
	if err != nil {
		t.tb.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now = now
}

// Answer replaces the answer of a page of the service, such as "/identity/cert.pem".
// Status 0 restores the true answer.
func (i *Instance) Answer(page string, status int, body string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.says[page] = says{status, body}
}

// Asked returns the number of requests for the private key.
func (i *Instance) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

func (i *Instance) serve(w http.ResponseWriter, r *http.Request) {
	page := strings.TrimPrefix(r.URL.Path, metadataPath)
	i.mu.Lock()
	if page == "/identity/key.pem" {
		i.asked++
	}
	now, instead := i.now, i.says[page]
	i.mu.Unlock()
	if instead.status != 0 {
		if instead.status/100 == 3 {
			w.Header().Set("Location", instead.body)
		}
		w.WriteHeader(instead.status)
		_, _ = io.WriteString(w, instead.body)
		return
	}
	i.user.tenancy.cloud.answerMetadata(w, r, now)
}

// Resource has the files that OCI gives to a resource with code: a token and its
// key. OCI replaces both before they expire.
type Resource struct {
	Token, Key string // OCI_RESOURCE_PRINCIPAL_RPST and _PRIVATE_PEM
	Region     string // OCI_RESOURCE_PRINCIPAL_REGION

	user *User
}

// NewResource writes the files, with a token of this lifetime.
func (u *User) NewResource(life time.Duration) *Resource {
	t := u.tenancy
	t.tb.Helper()
	dir := t.tb.TempDir()
	t.cloud.mu.Lock()
	region := t.cloud.world.Tenancies[t.ID].HomeRegion
	t.cloud.mu.Unlock()
	r := &Resource{Token: filepath.Join(dir, "rpst"), Key: filepath.Join(dir, "private.pem"), Region: region, user: u}
	r.Renew(life)
	return r
}

// Renew replaces the token and its key.
func (r *Resource) Renew(life time.Duration) {
	t := r.user.tenancy
	t.tb.Helper()
	key, _, err := t.cloud.credentialKeys()
	if err != nil {
		t.tb.Fatal(err)
	}
	token, err := t.cloud.issueResource(r.user.u, &key.PublicKey, life)
	if err != nil {
		t.tb.Fatal(err)
	}
	content, err := pemKey(key, "")
	if err != nil {
		t.tb.Fatal(err)
	}
	for name, content := range map[string][]byte{r.Token: []byte(token), r.Key: content} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.tb.Fatal(err)
		}
	}
}
