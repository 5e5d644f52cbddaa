// Package identity serves the endpoint by which an enhanced OKE cluster vouches for its
// Pods to OCI. A Pod shows the token of its service account and a public key. It gets
// an OCI token that is bound to the key.
//
// The cluster's API server says who owns a token. OCI's policies say what the account
// may do. The emulator is trusted to issue what this package requests.
package identity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Config configures the endpoint. Every field is required.
type Config struct {
	Client   kubernetes.Interface // may create TokenReviews
	Emulator string               // URL of the emulated OCI
	Cluster  string               // OCID by which OCI knows the cluster
	Log      *slog.Logger
}

const maxBody = 64 << 10

// Handler returns the handler for requests of Pods.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /resourcePrincipalSessionTokens", http.MaxBytesHandler(endpoint{cfg, &http.Client{Timeout: 10 * time.Second}}, maxBody))
	return mux
}

type endpoint struct {
	Config
	oci *http.Client
}

// workload describes a Pod to OCI.
type workload struct {
	Cluster        string `json:"cluster"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	PodKey         string `json:"podKey"`
}

// statusError is an answer to a Pod that gets no token.
type statusError struct {
	status int
	why    error
}

func (r statusError) Error() string { return r.why.Error() }

func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, err := e.exchange(r)
	var refused statusError
	if errors.As(err, &refused) {
		e.Log.Warn("refused", "status", refused.status, "err", err)
		http.Error(w, err.Error(), refused.status)
		return
	}
	if err != nil {
		e.Log.Error("no token", "err", err)
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(token) // fails only if the Pod has gone
}

func (e endpoint) exchange(r *http.Request) (token []byte, err error) {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, statusError{http.StatusUnauthorized, errors.New("no service account's token")}
	}
	namespace, account, err := e.reviewToken(r.Context(), bearer)
	if err != nil {
		return nil, err
	}
	var in struct{ PodKey string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, statusError{http.StatusBadRequest, fmt.Errorf("reading the request: %w", err)}
	}
	e.Log.Info("vouching", "namespace", namespace, "serviceAccount", account)
	return e.issue(r.Context(), workload{e.Cluster, namespace, account, in.PodKey})
}

// reviewToken asks the API server who owns the token. The API server rejects a token
// that has expired, or whose account or Pod is gone.
func (e endpoint) reviewToken(ctx context.Context, token string) (namespace, account string, err error) {
	review, err := e.Client.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return "", "", fmt.Errorf("reviewing a token: %w", err)
	}
	if !review.Status.Authenticated {
		return "", "", statusError{http.StatusUnauthorized, fmt.Errorf("the token is not valid: %s", review.Status.Error)}
	}
	name, ok := strings.CutPrefix(review.Status.User.Username, "system:serviceaccount:")
	namespace, account, both := strings.Cut(name, ":")
	if !ok || !both {
		return "", "", statusError{http.StatusUnauthorized, fmt.Errorf("the token of %s does not belong to a service account", review.Status.User.Username)}
	}
	return namespace, account, nil
}

// issue asks OCI for the token.
func (e endpoint) issue(ctx context.Context, in workload) ([]byte, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.Emulator+"/_emulator/workloads", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := e.oci.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	switch {
	case err != nil:
		return nil, err
	case answer.StatusCode == http.StatusBadRequest:
		return nil, statusError{http.StatusBadRequest, fmt.Errorf("OCI rejected the request: %s", text)}
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("OCI: %s: %s", answer.Status, text)
	}
	return text, nil
}
