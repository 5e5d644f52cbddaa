package identity_test

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/oke-sign/oke-sign/test/cluster"
	"github.com/oke-sign/oke-sign/test/cluster/identity"
	"github.com/oke-sign/oke-sign/test/cluster/kubelet/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// emulator starts the emulated OCI. It returns its address and the cluster of its seed.
func emulator(t *testing.T) (url, clusterID string) {
	t.Helper()
	project, err := cluster.FindProject(".")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(project, "bin", "oci-emulator"), "--home", t.TempDir(), "--seed", "demo")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: make build", err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url = regexp.MustCompile(`http://[0-9.:]+`).FindString(said)
	var state struct{ Clusters map[string]any }
	if err := json.Unmarshal(fetch(t, http.MethodGet, url+"/_emulator/state", "", "").body, &state); err != nil {
		t.Fatal(err)
	}
	for id := range state.Clusters {
		return url, id
	}
	t.Fatal("the emulator has no cluster")
	return "", ""
}

type answer struct {
	status int
	body   []byte
}

func fetch(t *testing.T, method, url, authorization, body string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	got, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{got.StatusCode, text}
}

// podKey is the request body of a Pod.
func podKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"podKey": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// A service account gets a token in its own name. Any other caller gets none.
func TestHandler(t *testing.T) {
	client, err := kubernetes.NewForConfig(kubetest.API(t))
	if err != nil {
		t.Fatal(err)
	}
	url, id := emulator(t)
	const namespace = "default"
	// account creates a service account and a token for it.
	account := func(name string, audiences ...string) string {
		t.Helper()
		if _, err := client.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		token, err := client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), name,
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return token.Status.Token
	}
	good, gone, elsewhere := account("pod"), account("gone"), account("elsewhere", "vault")
	if err := client.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "gone", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	person := bootstrapToken(t, client)

	serve := func(emulator, cluster string) string {
		at := httptest.NewServer(identity.Handler(identity.Config{Client: client, Emulator: emulator, Cluster: cluster, Log: slog.New(slog.DiscardHandler)}))
		t.Cleanup(at.Close)
		return at.URL + "/resourcePrincipalSessionTokens"
	}
	at, down, strange := serve(url, id), serve("http://127.0.0.1:1", id), serve(url, "ocid1.cluster.oc1.iad.none")
	key := podKey(t)
	for name, test := range map[string]struct {
		at, authorization, body string
		status                  int
		says                    string
	}{
		"a service account's token":   {at, "Bearer " + good, key, 200, `"`},
		"no token":                    {at, "", key, 401, "no service account's token"},
		"a password":                  {at, "Basic " + good, key, 401, "no service account's token"},
		"an empty token":              {at, "Bearer ", key, 401, "no service account's token"},
		"a token of nobody":           {at, "Bearer nobody", key, 401, "is not valid"},
		"a changed token":             {at, "Bearer " + good[:len(good)-4] + "AAAA", key, 401, "is not valid"},
		"a token for somebody else":   {at, "Bearer " + elsewhere, key, 401, "is not valid"},
		"an account that is gone":     {at, "Bearer " + gone, key, 401, "is not valid"},
		"no service account's token":  {at, "Bearer " + person, key, 401, "the token of system:bootstrap:abcdef does not belong to a service account"},
		"no key":                      {at, "Bearer " + good, "{}", 400, "podKey is no PEM"},
		"no request":                  {at, "Bearer " + good, "", 400, "reading the request"},
		"too much":                    {at, "Bearer " + good, `{"podKey":"` + strings.Repeat("x", 1<<17) + `"}`, 400, "too large"},
		"OCI is down":                 {down, "Bearer " + good, key, 503, "connection refused"},
		"OCI does not know a cluster": {strange, "Bearer " + good, key, 400, "OCI rejected the request"},
	} {
		if got := fetch(t, http.MethodPost, test.at, test.authorization, test.body); got.status != test.status || !strings.Contains(string(got.body), test.says) {
			t.Errorf("%s: %d %s, want %d and %q", name, got.status, got.body, test.status, test.says)
		}
	}

	var text string
	if err := json.Unmarshal(fetch(t, http.MethodPost, at, "Bearer "+good, key).body, &text); err != nil {
		t.Fatal(err)
	}
	inner, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(inner), ".")
	if len(parts) != 3 || !strings.HasPrefix(parts[0], `{"token":"ST$`) {
		t.Fatalf("no session token: %s", inner)
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Workload struct{ Cluster, Namespace, ServiceAccount string }
	}
	if err := json.Unmarshal(claims, &got); err != nil {
		t.Fatal(err)
	}
	if w := got.Workload; w.Cluster != id || w.Namespace != namespace || w.ServiceAccount != "pod" {
		t.Errorf("OCI vouches for %+v, want %s/pod of %s", w, namespace, id)
	}
}

// bootstrapToken creates a token that the API server accepts and that belongs to no
// service account.
func bootstrapToken(t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	_, err := client.CoreV1().Secrets("kube-system").Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "bootstrap-token-abcdef"},
		Type:       corev1.SecretTypeBootstrapToken,
		StringData: map[string]string{"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return "abcdef.0123456789abcdef"
}
