package principal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/cache"
)

// ServiceAccount is the directory where Kubernetes mounts a Pod's token and its
// cluster's ca.crt.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

const (
	workloadPort = "12250"
	// tokenMargin is how long before its end a token is no longer used, and
	// refusedAfter how old one must be for a 401 to be its fault.
	tokenMargin  = time.Minute
	refusedAfter = 30 * time.Second
)

// workload is a Pod of an enhanced OKE cluster. The cluster's own endpoint
// vouches for its service account with a token that OCI takes, bound to a key
// that never leaves this process.
type workload struct {
	endpoint string
	dir      string // with the service account's token and the cluster's CA, both of which rotate
	tokens   *cache.Cache[struct{}, workloadToken]
}

// workloadToken is a token, whose it is, and the key it is bound to.
type workloadToken struct {
	credential
	tenancy      string
	began, until time.Time
}

func newWorkload(cfg Config) (*workload, error) {
	if cfg.KubernetesHost == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST is not set: workload identity is for Pods of OKE clusters")
	}
	w := &workload{
		endpoint: "https://" + net.JoinHostPort(cfg.KubernetesHost, workloadPort) + "/resourcePrincipalSessionTokens",
		dir:      cfg.ServiceAccount,
	}
	if w.dir == "" {
		w.dir = ServiceAccount
	}
	w.tokens = tokens(w.fetch, cfg.Attempt)
	return w, nil
}

// tokens remembers the one that holds.
func tokens(fetch func(context.Context) (workloadToken, error), timeout time.Duration) *cache.Cache[struct{}, workloadToken] {
	return cache.New(cache.Config[struct{}, workloadToken]{
		Load:    func(ctx context.Context, _ struct{}) (workloadToken, error) { return fetch(ctx) },
		Keep:    func(t workloadToken) time.Duration { return t.until.Sub(t.began) },
		Max:     1,
		Timeout: timeout,
	})
}

func (w *workload) String() string { return "workload identity from " + w.endpoint }

// identify returns the token that holds now. It is renewed ahead of its end.
func (w *workload) identify(ctx context.Context) (credential, error) {
	t, err := w.tokens.Get(ctx, struct{}{})
	return t.credential, err
}

// refused drops the token that OCI no longer takes, unless it is a new one.
func (w *workload) refused() {
	w.tokens.Discard(struct{}{}, func(t workloadToken) bool { return time.Since(t.began) > refusedAfter })
}

// fetch asks the cluster for a token for a new key.
func (w *workload) fetch(ctx context.Context) (workloadToken, error) {
	t, err := w.exchange(ctx)
	if err != nil {
		return workloadToken{}, fmt.Errorf("asking %s for a workload's token: %w", w.endpoint, err)
	}
	return t, nil
}

func (w *workload) exchange(ctx context.Context) (workloadToken, error) {
	account, err := readFile(filepath.Join(w.dir, "token"), maxTokenFile)
	if err != nil {
		return workloadToken{}, fmt.Errorf("reading the service account's token: %w", err)
	}
	roots, err := readRoots(filepath.Join(w.dir, "ca.crt"))
	if err != nil {
		return workloadToken{}, err
	}
	t := workloadToken{began: time.Now()}
	if t.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return workloadToken{}, fmt.Errorf("making a key: %w", err)
	}
	answer, err := post(ctx, roots, w.endpoint, strings.TrimSpace(string(account)), &t.key.PublicKey)
	if err != nil {
		return workloadToken{}, err
	}
	return t, t.read(answer)
}

// post sends the public key. It goes to the cluster directly, past any proxy.
func post(ctx context.Context, roots *x509.CertPool, endpoint, account string, public *rsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	body, err := json.Marshal(map[string]string{"podKey": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+account)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", userAgent)
	direct := &http.Transport{
		DisableKeepAlives: true, // it is asked twice an hour, and its CA may change
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}
	res, err := direct.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	answer, err := readBody(res.Body, maxTokenFile)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("403 Forbidden: only enhanced clusters have workload identity: %s", printable(string(answer), 200))
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%d %s: %s", res.StatusCode, http.StatusText(res.StatusCode), printable(string(answer), 200))
	}
	return answer, nil
}

// read takes a token out of an answer: JSON in base64 in a JSON string. Whose it
// is and how long it holds it says itself; OCI will check both.
func (t *workloadToken) read(answer []byte) error {
	var text string
	if err := json.Unmarshal(answer, &text); err != nil {
		return fmt.Errorf("%w: no JSON string", errMalformed)
	}
	inner, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("%w: no base64", errMalformed)
	}
	var wrapped struct{ Token string }
	if err := json.Unmarshal(inner, &wrapped); err != nil {
		return fmt.Errorf("%w: no JSON in base64", errMalformed)
	}
	token, ok := strings.CutPrefix(wrapped.Token, "ST$")
	if !ok {
		return fmt.Errorf("%w: no session token", errMalformed)
	}
	if checkToken(token, t.began) != nil {
		return fmt.Errorf("%w: not a token that holds now", errMalformed)
	}
	var claims struct {
		Tenancy string  `json:"res_tenant"`
		Expires float64 `json:"exp"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%w: the token is no JWT", errMalformed)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return fmt.Errorf("%w: the token's claims cannot be read", errMalformed)
	}
	if !isOCID(claims.Tenancy, "tenancy") {
		return fmt.Errorf("%w: the token names no tenancy: %.80q", errMalformed, claims.Tenancy)
	}
	if claims.Expires <= 0 || claims.Expires > 1e11 {
		return fmt.Errorf("%w: the token does not say when it ends", errMalformed)
	}
	t.keyID, t.tenancy = "ST$"+token, claims.Tenancy
	t.until = time.Unix(int64(claims.Expires), 0).Add(-tokenMargin)
	return nil
}
