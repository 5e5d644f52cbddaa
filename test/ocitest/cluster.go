package ocitest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	workloadPort = "12250" // where an enhanced OKE cluster vouches for its Pods
	workloadLife = time.Hour
)

// serviceAccount is a service account of an OKE cluster, as the admin page reads it.
type serviceAccount struct {
	Cluster   string `json:"cluster"` // OCID
	Namespace string `json:"namespace"`
	Name      string `json:"serviceAccount"`
}

// variables returns the variables that conditions on workloads compare.
func (a serviceAccount) variables() map[string]string {
	return map[string]string{
		"request.principal.type": "workload", "request.principal.cluster_id": a.Cluster,
		"request.principal.namespace": a.Namespace, "request.principal.service_account": a.Name,
	}
}

// workload returns a service account as IAM sees it, or nil if there is no such
// cluster. It is no user and in no group. It has the rights of statements about
// workloads.
func (w *world) workload(a serviceAccount) *user {
	cl := w.Clusters[a.Cluster]
	if cl == nil {
		return nil
	}
	return &user{
		born: born{ID: a.Cluster + "/" + a.Namespace + "/" + a.Name}, Tenancy: w.tenancyOf(cl.Compartment).ID,
		Name: "workload " + a.Namespace + "/" + a.Name, Principal: a.variables(),
	}
}

// vouch returns the answer to a Pod that has sent a public key and runs as the
// service account. The answer is a JSON string with base64 of JSON, which contains a
// session token.
func (c *Cloud) vouch(a serviceAccount, podKey string, life time.Duration) ([]byte, error) {
	public, err := parsePodKey(podKey)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	u := c.world.workload(a)
	c.mu.Unlock()
	if u == nil || a.Namespace == "" || a.Name == "" {
		return nil, fmt.Errorf("no service account %.80q of namespace %.80q in a cluster %.120q", a.Name, a.Namespace, a.Cluster)
	}
	token, err := c.issueFor(claims{Subject: u.ID, Tenant: u.Tenancy, Resource: u.Tenancy, Workload: &a}, public, life)
	if err != nil {
		return nil, err
	}
	inner, _ := json.Marshal(map[string]string{"token": "ST$" + token}) // a string always encodes
	return json.Marshal(base64.StdEncoding.EncodeToString(inner))
}

// parsePodKey reads a public key. Oracle's SDK for Go sends it in PEM, and the SDK
// for Python sends only the content of the PEM block.
func parsePodKey(text string) (*rsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if block, _ := pem.Decode([]byte(text)); block != nil {
		der, err = block.Bytes, nil
	}
	if err != nil || len(der) == 0 {
		return nil, fmt.Errorf("podKey is no PEM, nor the content of one")
	}
	public, err := parsePublic(der)
	if err != nil {
		return nil, fmt.Errorf("podKey: %w", err)
	}
	return public, nil
}

func parsePublic(der []byte) (*rsa.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("reading a public key: %w", err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the public key is no RSA key")
	}
	return public, nil
}

// postWorkload issues a token for the named service account. The caller is a cluster
// that has checked the Pod's own token.
func (c *Cloud) postWorkload(w http.ResponseWriter, r *http.Request) {
	var in struct {
		serviceAccount
		PodKey string `json:"podKey"`
	}
	if err := strictly(r.Body, &in); err != nil {
		done(w, err)
		return
	}
	answer, err := c.vouch(in.serviceAccount, in.PodKey, workloadLife)
	if err != nil {
		done(w, err)
		return
	}
	sendJSON(w, answer)
}

func sendJSON(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(text) //nolint:errcheck // the client may have left
}

// proxymux is the endpoint of an enhanced OKE cluster that exchanges the token of
// one service account for a token of OCI.
type proxymux struct {
	cloud   *Cloud
	account serviceAccount
	dir     string // has token and ca.crt, as Kubernetes mounts them
	host    string // a loopback address that no other cluster has
	server  *http.Server
	wait    sync.WaitGroup

	mu     sync.Mutex
	token  string
	life   time.Duration
	status int
	body   string
	asked  int
}

func (c *Cloud) newProxymux(account serviceAccount, dir string) (*proxymux, error) {
	p := &proxymux{cloud: c, account: account, dir: dir, life: workloadLife}
	ln, err := p.listen()
	if err != nil {
		return nil, fmt.Errorf("starting a cluster's endpoint: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /resourcePrincipalSessionTokens", p.serve)
	p.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 30 * time.Second, ErrorLog: c.errorLog(),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // faults break connections, and HTTP/2 shares them
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.ca.leaf(p.host)
		}},
	}
	p.wait.Go(func() { c.report(p.server.ServeTLS(ln, "", "")) })
	if err := os.WriteFile(filepath.Join(dir, "ca.crt"), c.ca.pem(), 0o600); err != nil {
		p.close()
		return nil, fmt.Errorf("writing the cluster's CA: %w", err)
	}
	return p, nil
}

func (p *proxymux) close() {
	p.server.Close() //nolint:errcheck // nothing is lost with it
	p.wait.Wait()
}

// listen finds a loopback address whose port is free. The port is fixed, and several
// clusters may run at the same time. Some systems have only one loopback address.
func (p *proxymux) listen() (net.Listener, error) {
	var failed error
	for try := range 21 {
		var b [3]byte
		rand.Read(b[:]) // never fails
		p.host = fmt.Sprintf("127.%d.%d.%d", b[0], b[1], 1+b[2]%254)
		if try == 20 {
			p.host = "127.0.0.1"
		}
		ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(p.host, workloadPort))
		if err == nil {
			return ln, nil
		}
		failed = err
	}
	return nil, failed
}

// rotate replaces the service account's token, as the kubelet does.
func (p *proxymux) rotate() error {
	now := p.cloud.cfg.Now()
	token, err := p.cloud.issue(claims{
		Issuer: "oci-emulator", Kind: "service-account", Subject: rand.Text(), IssuedAt: now.Unix(), Expires: now.Add(homeLife).Unix(),
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
	return replace(filepath.Join(p.dir, "token"), []byte(token))
}

func (p *proxymux) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked++
	shown, life, status, body := p.token, p.life, p.status, p.body
	p.mu.Unlock()
	p.cloud.mu.Lock()
	entry := Request{Operation: "proxymux.IssueToken"}
	if u := p.cloud.world.workload(p.account); u != nil {
		entry.Tenancy, entry.User = u.Tenancy, u.ID
	}
	p.cloud.mu.Unlock()
	p.cloud.serveLocal(w, r, entry, func(a *answer) {
		if status != 0 {
			a.say(status, body)
			return
		}
		bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || subtle.ConstantTimeCompare([]byte(bearer), []byte(shown)) != 1 {
			a.say(http.StatusUnauthorized, "the service account's token does not hold")
			return
		}
		var in struct {
			PodKey string `json:"podKey"`
		}
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in)
		if err == nil {
			a.body, err = p.cloud.vouch(p.account, in.PodKey, life)
		}
		if err != nil {
			a.say(http.StatusBadRequest, err.Error())
			return
		}
		a.status = http.StatusOK
		a.header.Set("Content-Type", "application/json")
	})
}

// Workload is a Pod's service account in an enhanced OKE cluster, with the cluster's
// endpoint. The endpoint exchanges the account's token for a token of OCI.
type Workload struct {
	Host string // KUBERNETES_SERVICE_HOST, a loopback address that no other cluster has
	Dir  string // has token and ca.crt, as Kubernetes mounts them

	tenancy *Tenancy
	mux     *proxymux
}

// ActAs gives the user the identity of a cluster's service account in IAM. It is for
// clients that cannot sign in as a workload.
func (u *User) ActAs(cluster, namespace, account string) {
	c := u.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	u.u.Principal = serviceAccount{cluster, namespace, account}.variables()
}

// NewWorkload starts the cluster's endpoint for one service account, until the test
// ends. Statements with conditions give the account rights, as in "Allow any-user to
// read repos in tenancy where request.principal.type = 'workload'". Its tokens are
// valid for an hour.
func (c *Cluster) NewWorkload(namespace, account string) *Workload {
	t := c.tenancy
	t.tb.Helper()
	dir := t.tb.TempDir()
	mux, err := t.cloud.newProxymux(serviceAccount{c.ID, namespace, account}, dir)
	if err != nil {
		t.tb.Fatal(err)
	}
	t.tb.Cleanup(mux.close)
	w := &Workload{Host: mux.host, Dir: dir, tenancy: t, mux: mux}
	w.Rotate()
	return w
}

// Rotate replaces the service account's token, as the kubelet does.
func (w *Workload) Rotate() {
	w.tenancy.tb.Helper()
	if err := w.mux.rotate(); err != nil {
		w.tenancy.tb.Fatalf("rotating a service account's token: %v", err)
	}
}

// SetLife sets the lifetime of tokens that are issued after the call.
func (w *Workload) SetLife(life time.Duration) {
	w.mux.mu.Lock()
	defer w.mux.mu.Unlock()
	w.mux.life = life
}

// Answer replaces every answer of the endpoint. Status 0 restores the true answers.
func (w *Workload) Answer(status int, body string) {
	w.mux.mu.Lock()
	defer w.mux.mu.Unlock()
	w.mux.status, w.mux.body = status, body
}

// Asked returns the number of requests for a token.
func (w *Workload) Asked() int {
	w.mux.mu.Lock()
	defer w.mux.mu.Unlock()
	return w.mux.asked
}
