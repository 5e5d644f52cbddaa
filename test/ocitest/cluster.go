package ocitest

import (
	"bytes"
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

// workloadPort is where an enhanced OKE cluster vouches for its Pods.
const workloadPort = "12250"

// Workload is a Pod's service account in an enhanced OKE cluster, and the
// endpoint of that cluster which exchanges the account's token for one of OCI's.
// To IAM it is the user it was made of; [User.ActAs] says of which service account.
type Workload struct {
	Host string // KUBERNETES_SERVICE_HOST, a loopback address of its own
	Dir  string // with token and ca.crt, as Kubernetes mounts them

	user *User

	mu      sync.Mutex
	account string
	life    time.Duration
	status  int
	body    string
	asked   int
}

// ActAs makes IAM see a service account of a cluster in the user, by the variables
// that conditions on workloads compare.
func (u *User) ActAs(cluster, namespace, account string) {
	c := u.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	u.u.Principal = map[string]string{
		"request.principal.type": "workload", "request.principal.cluster_id": cluster,
		"request.principal.namespace": namespace, "request.principal.service_account": account,
	}
}

// NewWorkload starts the endpoint until the test ends. Its tokens live an hour.
func (u *User) NewWorkload() *Workload {
	t := u.tenancy
	t.tb.Helper()
	w := &Workload{user: u, Dir: t.tb.TempDir(), life: time.Hour}
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
	t := w.user.tenancy
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
	w.account = token
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
	account, life, status, body := w.account, w.life, w.status, w.body
	w.mu.Unlock()
	if status != 0 {
		rw.WriteHeader(status)
		io.WriteString(rw, body) //nolint:errcheck // a client that went away
		return
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || subtle.ConstantTimeCompare([]byte(bearer), []byte(account)) != 1 {
		http.Error(rw, "the service account's token does not hold", http.StatusUnauthorized)
		return
	}
	public, err := podKey(http.MaxBytesReader(rw, r.Body, maxBody))
	if err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	token, err := w.user.tenancy.cloud.issueWorkload(w.user.u, public, life)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	inner, _ := json.Marshal(map[string]string{"token": "ST$" + token}) // a string always encodes
	answer, _ := json.Marshal(base64.StdEncoding.EncodeToString(inner)) // as above
	rw.Header().Set("Content-Type", "application/json")
	io.Copy(rw, bytes.NewReader(answer)) //nolint:errcheck // a client that went away
}

func podKey(body io.Reader) (*rsa.PublicKey, error) {
	var in struct {
		PodKey string `json:"podKey"`
	}
	if err := json.NewDecoder(body).Decode(&in); err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	block, _ := pem.Decode([]byte(in.PodKey))
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
