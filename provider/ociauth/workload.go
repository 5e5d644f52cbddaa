package ociauth

import (
	"bytes"
	"cmp"
	"context"
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

	"github.com/oke-sign/oke-sign/provider/oci"
)

const workloadPort = "12250"

// workload is a Pod of an enhanced OKE cluster. An endpoint of the cluster issues a
// token for the Pod's service account. OCI accepts the token, which is bound to a key
// that never leaves this process.
type workload struct {
	endpoint string
	from     Workload // the service account's token and the cluster's CA; both rotate
	tokens
}

func newWorkload(cfg Config) (*workload, error) {
	from := cfg.Workload
	if from.KubernetesHost == "" {
		return nil, errors.New("KUBERNETES_SERVICE_HOST is not set: workload identity is for Pods of OKE clusters")
	}
	dir := cmp.Or(from.Dir, ServiceAccount)
	from.CAFile = cmp.Or(from.CAFile, filepath.Join(dir, "ca.crt"))
	from.TokenFile = cmp.Or(from.TokenFile, filepath.Join(dir, "token"))
	w := &workload{
		endpoint: "https://" + net.JoinHostPort(from.KubernetesHost, workloadPort) + "/resourcePrincipalSessionTokens",
		from:     from,
	}
	w.tokens = newTokens(w.fetch, cfg.Client.AttemptTimeout)
	return w, nil
}

// fromWorkload signs in as the service account of this Pod.
func fromWorkload(ctx context.Context, cfg Config) (oci.Identity, error) {
	w, err := newWorkload(cfg)
	if err != nil {
		return oci.Identity{}, err
	}
	t, err := w.get(ctx)
	if err != nil {
		return oci.Identity{}, err
	}
	return locate(oci.Identity{Name: w.String(), Sign: signer(w.identify), Refused: w.refused},
		t.tenancy, cmp.Or(cfg.Region, cfg.Resource.Region))
}

func (w *workload) String() string { return "workload identity from " + w.endpoint }

// fetch asks the cluster for a token with a new key.
func (w *workload) fetch(ctx context.Context) (token, error) {
	t, err := w.exchange(ctx)
	if err != nil {
		return token{}, &unvouchedError{fmt.Errorf("asking %s for a workload's token: %w", w.endpoint, err)}
	}
	return t, nil
}

func (w *workload) exchange(ctx context.Context) (token, error) {
	account := w.from.Token
	if account == "" {
		content, err := oci.ReadFile(w.from.TokenFile, maxTokenFile)
		if err != nil {
			return token{}, fmt.Errorf("reading the service account's token: %w", err)
		}
		account = string(content)
	}
	account = strings.TrimSpace(account)
	if err := checkToken(account, time.Now()); err != nil {
		return token{}, fmt.Errorf("the service account's token: %w", err)
	}
	roots, err := oci.ReadRoots(w.from.CAFile)
	if err != nil {
		return token{}, err
	}
	t, err := newToken()
	if err != nil {
		return token{}, err
	}
	answer, err := post(ctx, roots, w.endpoint, account, &t.key.PublicKey)
	if err != nil {
		return token{}, err
	}
	text, err := unwrap(answer)
	if err != nil {
		return token{}, err
	}
	return t, t.hold(text, "")
}

// post sends the public key to the cluster, without any proxy.
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
	req.Header.Set("User-Agent", oci.UserAgent)
	direct := &http.Transport{
		DisableKeepAlives: true, // it is used twice an hour, and the CA may change
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots},
	}
	res, err := direct.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	answer, err := oci.ReadBody(res.Body, maxTokenFile)
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("403 Forbidden: only enhanced clusters have workload identity: %s", told(answer, account))
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%d %s: %s", res.StatusCode, http.StatusText(res.StatusCode), told(answer, account))
	}
	return answer, nil
}

// unwrap returns the token of an answer, which is JSON in base64 in a JSON string.
func unwrap(answer []byte) (string, error) {
	var text string
	if err := json.Unmarshal(answer, &text); err != nil {
		return "", fmt.Errorf("%w: not a JSON string", oci.ErrMalformed)
	}
	inner, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("%w: not base64", oci.ErrMalformed)
	}
	wrapped, err := parseAnswer(inner)
	if err != nil {
		return "", fmt.Errorf("%w: not JSON in base64", oci.ErrMalformed)
	}
	text, ok := strings.CutPrefix(wrapped.text("token"), "ST$")
	if !ok {
		return "", fmt.Errorf("%w: no session token", oci.ErrMalformed)
	}
	return text, nil
}
