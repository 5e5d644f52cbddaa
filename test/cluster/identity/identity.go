// Package identity is the endpoint by which an enhanced OKE cluster vouches for its
// Pods to OCI: a Pod shows its service account's token and a public key, and gets a
// token of OCI's that is bound to the key.
//
// Whose token it is the cluster's API server says. What the account may do in OCI is
// for the policies there; the emulator is trusted to issue what it is asked for.
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

// Config is what the endpoint works with. Every field is needed.
type Config struct {
	Client   kubernetes.Interface // who may make TokenReviews
	Emulator string               // URL of the emulated OCI
	Cluster  string               // OCID by which OCI knows the cluster
	Log      *slog.Logger
}

const maxBody = 64 << 10

// Handler answers Pods.
func Handler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("POST /resourcePrincipalSessionTokens", http.MaxBytesHandler(endpoint{cfg, &http.Client{Timeout: 10 * time.Second}}, maxBody))
	return mux
}

type endpoint struct {
	Config
	oci *http.Client
}

// workload is what OCI is told of a Pod.
type workload struct {
	Cluster        string `json:"cluster"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	PodKey         string `json:"podKey"`
}

// refusal is an answer to a Pod that gets no token.
type refusal struct {
	status int
	why    error
}

func (r refusal) Error() string { return r.why.Error() }

func (e endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, err := e.exchange(r)
	var refused refusal
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
	_, _ = w.Write(token) // a Pod that went away
}

func (e endpoint) exchange(r *http.Request) (token []byte, err error) {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return nil, refusal{http.StatusUnauthorized, errors.New("no service account's token")}
	}
	namespace, account, err := e.whose(r.Context(), bearer)
	if err != nil {
		return nil, err
	}
	var in struct{ PodKey string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, refusal{http.StatusBadRequest, fmt.Errorf("reading the request: %w", err)}
	}
	e.Log.Info("vouching", "namespace", namespace, "serviceAccount", account)
	return e.issue(r.Context(), workload{e.Cluster, namespace, account, in.PodKey})
}

// whose asks the API server whose the token is. It is not for the API server any
// more if its time is over, or its account or Pod is gone.
func (e endpoint) whose(ctx context.Context, token string) (namespace, account string, err error) {
	review, err := e.Client.AuthenticationV1().TokenReviews().Create(ctx,
		&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}, metav1.CreateOptions{})
	if err != nil {
		return "", "", fmt.Errorf("reviewing a token: %w", err)
	}
	if !review.Status.Authenticated {
		return "", "", refusal{http.StatusUnauthorized, fmt.Errorf("the token does not hold: %s", review.Status.Error)}
	}
	name, ok := strings.CutPrefix(review.Status.User.Username, "system:serviceaccount:")
	namespace, account, both := strings.Cut(name, ":")
	if !ok || !both {
		return "", "", refusal{http.StatusUnauthorized, fmt.Errorf("the token of %s is no service account's", review.Status.User.Username)}
	}
	return namespace, account, nil
}

// issue has OCI answer the Pod.
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
		return nil, refusal{http.StatusBadRequest, fmt.Errorf("OCI vouches for nobody: %s", text)}
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("OCI: %s: %s", answer.Status, text)
	}
	return text, nil
}
