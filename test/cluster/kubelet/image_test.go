package kubelet_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// loopback is a transport that reaches only registries of this machine.
type loopback struct{}

func (loopback) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Hostname() != "127.0.0.1" {
		return nil, fmt.Errorf("no way to %s", r.URL.Host)
	}
	return http.DefaultTransport.RoundTrip(r)
}

const password = "p4ss"

// registryOf starts a registry that requires a password.
func registryOf(t *testing.T) (host string) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, given, _ := r.BasicAuth(); given != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

type entry struct {
	tar.Header
	content []byte
}

// push stores an image of these files and returns its digest reference.
func push(t *testing.T, repository string, config v1.Config, entries ...entry) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.content))
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err == nil {
		image, err = mutate.Config(image, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref := repository + "@" + digest.String()
	at, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(at, image, remote.WithAuth(&authn.Basic{Username: "somebody", Password: password})); err != nil {
		t.Fatal(err)
	}
	return ref
}

// login creates a Secret to pull with.
func (m *machine) login(t *testing.T, host string) {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte("somebody:" + password))
	text, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
	if err == nil {
		_, err = m.client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "registry"}, Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: text},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *machine) pulls(t *testing.T) {
	host := registryOf(t)
	m.login(t, host)
	program, err := os.ReadFile(m.program)
	if err != nil {
		t.Fatal(err)
	}
	ref := push(t, host+"/team/packed", v1.Config{Entrypoint: []string{"/bin/packed", "--listen=:8080"}, User: "1001:1002", Env: []string{"FROM=image", "BOTH=image"}},
		entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: "bin/", Mode: 0o755}},
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "bin/packed", Mode: 0o555}, program},
		entry{tar.Header{Typeflag: tar.TypeReg, Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o444}, []byte("as packed")})
	pod := `
metadata: {name: %s}
spec:
  imagePullSecrets: [%s]
  containers:
  - image: %s
    args: [--listen=$(POD_IP):8080]
    env:
    - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: BOTH, value: pod}
    securityContext: {runAsNonRoot: true, readOnlyRootFilesystem: true}
`
	for _, name := range []string{"pulled", "pulled-again"} {
		m.create(t, fmt.Sprintf(pod, name, "{name: registry}", ref))
		got := m.await(t, name, ready)
		if text := read(t, got, "/etc/ssl/certs/ca-certificates.crt"); text != "as packed" {
			t.Errorf("the image's authorities are %q", text)
		}
		var found struct {
			Argv, Env []string
			UID, GID  int
		}
		if err := json.Unmarshal([]byte(mustCall(t, http.MethodGet, got, "/found", nil)), &found); err != nil {
			t.Fatal(err)
		}
		if want := []string{"/bin/packed", "--listen=:8080", "--listen=" + got.Status.PodIP + ":8080"}; !slices.Equal(found.Argv, want) {
			t.Errorf("run as %q, want %q", found.Argv, want)
		}
		if !slices.Contains(found.Env, "FROM=image") || !slices.Contains(found.Env, "BOTH=pod") {
			t.Errorf("environment %q", found.Env)
		}
		if wholeMachine(t) && (found.UID != 1001 || found.GID != 1002) {
			t.Errorf("it runs as %d:%d", found.UID, found.GID)
		}
		if _, err := call(t, http.MethodGet, got, "/read", url.Values{"path": {"/etc/passwd"}}); err == nil {
			t.Error("the container sees the machine's files")
		}
	}

	// Without the Secret the image cannot be used, even though it is cached here.
	m.create(t, fmt.Sprintf(pod, "pulled-by-nobody", "", ref))
	m.await(t, "pulled-by-nobody", waits("ErrImagePull", "401"))

	link := push(t, host+"/team/link", v1.Config{Entrypoint: []string{"/a"}}, entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "a", Linkname: "/etc/passwd"}})
	m.create(t, fmt.Sprintf(pod, "link", "{name: registry}", link))
	m.await(t, "link", waits("ErrImagePull", "links and devices"))
}

// waits reports whether a container of the Pod waits for that reason.
func waits(reason, message string) func(*corev1.Pod) bool {
	return func(p *corev1.Pod) bool {
		return slices.ContainsFunc(p.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
			w := s.State.Waiting
			return w != nil && w.Reason == reason && strings.Contains(w.Message, message)
		})
	}
}
