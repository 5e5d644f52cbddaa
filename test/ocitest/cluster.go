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
	"io"
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

// serviceAccount is one of an OKE cluster, as the admin page takes it.
type serviceAccount struct {
	Cluster   string `json:"cluster"` // OCID
	Namespace string `json:"namespace"`
	Name      string `json:"serviceAccount"`
}

// variables are what conditions on workloads compare.
func (a serviceAccount) variables() map[string]string {
	return map[string]string{
		"request.principal.type": "workload", "request.principal.cluster_id": a.Cluster,
		"request.principal.namespace": a.Namespace, "request.principal.service_account": a.Name,
	}
}

// workload is whom IAM sees in a service account: nobody's user, in no group, who may
// do what statements about workloads say. It is nil if there is no such cluster.
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

// vouch is the answer to a Pod that has sent a public key and was found to be of the
// service account: JSON in base64 in a JSON string, with a session token in it.
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

func parsePodKey(text string) (*rsa.PublicKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, fmt.Errorf("podKey is no PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("podKey: %w", err)
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("podKey is no RSA key")
	}
	return public, nil
}

// postWorkload vouches for whatever service account is named: a cluster calls it that
// has checked whose token a Pod shows.
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
	w.Write(text) //nolint:errcheck // a client that went away
}

// Workload is a Pod's service account in an enhanced OKE cluster, and the
// endpoint of that cluster which exchanges the account's token for one of OCI's.
type Workload struct {
	Host string // KUBERNETES_SERVICE_HOST, a loopback address of its own
	Dir  string // with token and ca.crt, as Kubernetes mounts them

	cluster *Cluster
	account serviceAccount

	mu     sync.Mutex
	token  string
	life   time.Duration
	status int
	body   string
	asked  int
}

// ActAs makes IAM see a service account of a cluster in the user, for a client that
// cannot sign in as a workload.
func (u *User) ActAs(cluster, namespace, account string) {
	c := u.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	u.u.Principal = serviceAccount{cluster, namespace, account}.variables()
}

// NewWorkload starts the cluster's endpoint, for one service account, until the test
// ends. The account may do what statements allow it, which name it by conditions, as
// in "Allow any-user to read repos in tenancy where request.principal.type = 'workload'".
// Its tokens live an hour.
func (c *Cluster) NewWorkload(namespace, account string) *Workload {
	t := c.tenancy
	t.tb.Helper()
	w := &Workload{cluster: c, account: serviceAccount{c.ID, namespace, account}, Dir: t.tb.TempDir(), life: workloadLife}
	ln, err := w.listen()
	if err != nil {
		t.tb.Fatalf("starting a cluster's endpoint: %v", err)
	}
	w.Rotate()
	if err := os.WriteFile(filepath.Join(w.Dir, "ca.crt"), t.cloud.ca.pem(), 0o600); err != nil {
		t.tb.Fatalf("writing the cluster's CA: %v", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /resourcePrincipalSessionTokens", w.serve)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 30 * time.Second, ErrorLog: t.cloud.errorLog(),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return t.cloud.ca.leaf(w.Host)
		}},
	}
	var wait sync.WaitGroup
	wait.Go(func() { t.cloud.report(server.ServeTLS(ln, "", "")) })
	t.tb.Cleanup(func() {
		server.Close() //nolint:errcheck // nothing is lost with it
		wait.Wait()
	})
	return w
}

// listen finds a loopback address whose port is free: the port is fixed, and
// clusters of several tests live side by side.
func (w *Workload) listen() (net.Listener, error) {
	var failed error
	for range 20 {
		var b [3]byte
		rand.Read(b[:]) // never fails
		w.Host = fmt.Sprintf("127.%d.%d.%d", b[0], b[1], 1+b[2]%254)
		ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(w.Host, workloadPort))
		if err == nil {
			return ln, nil
		}
		failed = err
	}
	return nil, failed
}

// Rotate replaces the service account's token, as the kubelet does.
func (w *Workload) Rotate() {
	t := w.cluster.tenancy
	t.tb.Helper()
	now := t.cloud.cfg.Now()
	token, err := t.cloud.issue(claims{
		Issuer: "oci-emulator", Kind: "service-account", Subject: rand.Text(), IssuedAt: now.Unix(), Expires: now.Add(time.Hour).Unix(),
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(w.Dir, "token"), []byte(token), 0o600)
	}
	if err != nil {
		t.tb.Fatalf("rotating a service account's token: %v", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = token
}

// SetLife sets how long tokens hold that are issued from now on.
func (w *Workload) SetLife(life time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.life = life
}

// Answer makes the endpoint say this and nothing else, until the status is 0.
func (w *Workload) Answer(status int, body string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status, w.body = status, body
}

// Asked is how often a token was asked for.
func (w *Workload) Asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked
}

func (w *Workload) serve(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.asked++
	shown, life, status, body := w.token, w.life, w.status, w.body
	w.mu.Unlock()
	if status != 0 {
		rw.WriteHeader(status)
		io.WriteString(rw, body) //nolint:errcheck // a client that went away
		return
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || subtle.ConstantTimeCompare([]byte(bearer), []byte(shown)) != 1 {
		http.Error(rw, "the service account's token does not hold", http.StatusUnauthorized)
		return
	}
	var in struct {
		PodKey string `json:"podKey"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(rw, r.Body, maxBody)).Decode(&in); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	answer, err := w.cluster.tenancy.cloud.vouch(w.account, in.PodKey, life)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	sendJSON(rw, answer)
}
