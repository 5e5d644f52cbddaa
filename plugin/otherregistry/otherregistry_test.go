package otherregistry_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/otherregistry"
)

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"nginx":                             "docker.io/library/nginx:latest",
		"nginx:1.27":                        "docker.io/library/nginx:1.27",
		"bitnami/redis":                     "docker.io/bitnami/redis:latest",
		"docker.io/nginx":                   "docker.io/library/nginx:latest",
		"index.docker.io/library/nginx:1":   "docker.io/library/nginx:1",
		"quay.io/prometheus/node:v1":        "quay.io/prometheus/node:v1",
		"registry.k8s.io/pause":             "registry.k8s.io/pause:latest",
		"localhost/web":                     "localhost/web:latest",
		"127.0.0.1:5000/web":                "127.0.0.1:5000/web:latest",
		"registry.example.com:5000/a/b/c:d": "registry.example.com:5000/a/b/c:d",
	} {
		got, err := otherregistry.Parse(s)
		if err != nil || got.String() != want {
			t.Errorf("%s: got %s, %v; want %s", s, got, err, want)
			continue
		}
		if again, err := otherregistry.Parse(got.String()); err != nil || again != got {
			t.Errorf("%s: %s parses to %s, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "iad.ocir.io/ns/web:v1", "Nginx", "nginx@sha256:" + strings.Repeat("a", 64), "a/../b", "nginx:", "IAD.ocir.io/ns/web"} {
		if got, err := otherregistry.Parse(s); err == nil || got != (otherregistry.Reference{}) {
			t.Errorf("%q: got %s, %v", s, got, err)
		}
	}
}

// serve starts a registry on loopback with the image web:v1, and returns its host and the
// digest. wrap answers in front of the registry, if it is not nil.
func serve(t *testing.T, wrap func(http.Handler) http.Handler) (host, digest string) {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("DOCKER_CONFIG", "")
	plain := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(plain.Close)
	img, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	host = strings.TrimPrefix(plain.URL, "http://")
	to, err := name.ParseReference(host + "/team/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img); err != nil {
		t.Fatal(err)
	}
	sum, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		inner := plain.Config.Handler
		front := httptest.NewServer(wrap(inner))
		t.Cleanup(front.Close)
		host = strings.TrimPrefix(front.URL, "http://")
	}
	return host, sum.String()
}

func digestOf(t *testing.T, s string) (string, error) {
	t.Helper()
	ref, err := otherregistry.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return otherregistry.New().Digest(t.Context(), ref)
}

// signIn writes Docker's configuration with a credential for a host.
func signIn(t *testing.T, host string) {
	t.Helper()
	dir := filepath.Join(os.Getenv("HOME"), ".docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	auth := base64.StdEncoding.EncodeToString([]byte("ann:secret"))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
}

func hint(err error) string {
	if hinted, ok := errors.AsType[*cli.HintedError](err); ok {
		return hinted.Hint
	}
	return ""
}

func TestDigest(t *testing.T) {
	host, want := serve(t, nil)
	if got, err := digestOf(t, host+"/team/web:v1"); err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if _, err := digestOf(t, host+"/team/web:v2"); err == nil || !strings.Contains(err.Error(), "has no image "+host+"/team/web:v2") || hint(err) != "check the name and the tag" {
		t.Errorf("a tag that does not exist: %v, %q", err, hint(err))
	}
}

// TestDigestWithoutHEAD asks with GET where HEAD does not tell.
func TestDigestWithoutHEAD(t *testing.T) {
	host, want := serve(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead {
				w.WriteHeader(http.StatusMethodNotAllowed)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	if got, err := digestOf(t, host+"/team/web:v1"); err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestDigestRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		status     int
		what, hint string
	}{
		"no right":  {http.StatusForbidden, "or you may not read it: 403", "docker login "},
		"no login":  {http.StatusUnauthorized, "or you may not read it: 401", "docker login "},
		"throttled": {http.StatusTooManyRequests, "limits your requests", "docker login "},
		"broken":    {http.StatusNotImplemented, "501", "--registries OCIRegistry"},
	} {
		host, _ := serve(t, func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v2/" {
					next.ServeHTTP(w, r)
					return
				}
				w.WriteHeader(tc.status)
			})
		})
		if _, err := digestOf(t, host+"/team/web:v1"); err == nil || !strings.Contains(err.Error(), tc.what) || !strings.Contains(hint(err), tc.hint) {
			t.Errorf("%s: %v, %q", name, err, hint(err))
		}
	}
}

// TestCredentialStays gives a credential to its registry, and to nobody whom the registry
// names.
func TestCredentialStays(t *testing.T) {
	var seen string
	challenge := func(realm string) func(http.Handler) http.Handler {
		return func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if _, password, _ := r.BasicAuth(); password == "secret" && realm == "" {
					next.ServeHTTP(w, r)
					return
				}
				if realm == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
				} else {
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`",service="x"`)
				}
				w.WriteHeader(http.StatusUnauthorized)
			})
		}
	}
	host, want := serve(t, challenge(""))
	if _, err := digestOf(t, host+"/team/web:v1"); err == nil {
		t.Error("the registry gave an answer without the credential")
	}
	signIn(t, host)
	if got, err := digestOf(t, host+"/team/web:v1"); err != nil || got != want {
		t.Errorf("with the credential: %s, %v", got, err)
	}

	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen += r.Header.Get("Authorization")
		fmt.Fprint(w, `{"token":"t"}`) //nolint:errcheck // a test's server
	}))
	t.Cleanup(thief.Close)
	host, _ = serve(t, challenge(thief.URL+"/token"))
	signIn(t, host)
	if _, err := digestOf(t, host+"/team/web:v1"); err == nil {
		t.Error("a token service of another host gave an answer")
	}
	if seen != "" {
		t.Error("another host saw the credential")
	}
}

// TestDigestHangs bounds a registry that never answers.
func TestDigestHangs(t *testing.T) {
	done := make(chan struct{})
	host, _ := serve(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-done:
			case <-r.Context().Done():
			}
		})
	})
	defer close(done)
	ref, err := otherregistry.Parse(host + "/team/web:v1")
	if err != nil {
		t.Fatal(err)
	}
	c := otherregistry.New()
	otherregistry.SetTimeout(c, 200*time.Millisecond)
	began := time.Now()
	if _, err := c.Digest(t.Context(), ref); err == nil || time.Since(began) > 5*time.Second || !strings.Contains(hint(err), "HTTPS_PROXY") {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}
