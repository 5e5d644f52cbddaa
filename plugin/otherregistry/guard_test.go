package otherregistry_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/otherregistry"
)

func TestOwn(t *testing.T) {
	for _, tc := range []struct {
		registry, host string
		want           bool
	}{
		{"index.docker.io", "auth.docker.io", true},
		{"registry.gitlab.com", "gitlab.com", true},
		{"ghcr.io", "GHCR.io", true},
		{"registry.example.com:5000", "auth.example.com", true},
		{"ghcr.io", "quay.io", false},
		{"ann.github.io", "bob.github.io", false},
		{"docker.io", "docker.io.example.com", false},
		{"registry.co.uk", "thief.co.uk", false},
		{"10.0.0.1:5000", "10.0.0.1:5001", false},
		{"10.0.0.1", "10.0.0.2", false},
		{"localhost:5000", "localhost:5001", false},
		{"io", "docker.io", false},
	} {
		if got := otherregistry.Own(tc.registry, tc.host); got != tc.want {
			t.Errorf("%s, %s: got %t", tc.registry, tc.host, got)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestGuard(t *testing.T) {
	for name, tc := range map[string]struct {
		registry, url, body, authorization string
		sent                               bool
	}{
		"the registry":                           {"ghcr.io", "https://ghcr.io/v2/", "", "Basic x", true},
		"its token service":                      {"index.docker.io", "https://auth.docker.io/token", "", "Basic x", true},
		"a redirect to elsewhere":                {"registry.k8s.io", "https://us-central1-docker.pkg.dev/v2/x", "", "", true},
		"a redirect to elsewhere, with a secret": {"registry.k8s.io", "https://us-central1-docker.pkg.dev/v2/x", "", "Bearer x", false},
		"a refresh token to elsewhere":           {"ghcr.io", "https://example.com/token", "refresh_token=x", "", false},
		"a user in the address":                  {"ghcr.io", "https://a:b@example.com/token", "", "", false},
		"plain HTTP":                             {"ghcr.io", "http://ghcr.io/v2/", "", "", false},
		"plain HTTP in a private network":        {"10.0.0.1:5000", "http://10.0.0.1:5000/v2/", "", "", false},
		"plain HTTP on loopback":                 {"127.0.0.1:5000", "http://127.0.0.1:5000/v2/", "", "Basic x", true},
		"plain HTTP, by name":                    {"localhost:5000", "http://localhost:5000/v2/", "", "", true},
		"a redirect to loopback":                 {"ghcr.io", "http://127.0.0.1/latest/meta-data", "", "", false},
		"a redirect from loopback":               {"127.0.0.1:5000", "http://169.254.169.254/latest/meta-data", "", "", false},
	} {
		sent := false
		g := otherregistry.Guard(tc.registry, roundTripper(func(*http.Request) (*http.Response, error) {
			sent = true
			return httptest.NewRecorder().Result(), nil
		}))
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, tc.url, strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		if tc.body == "" {
			r.Body = http.NoBody
		}
		if tc.authorization != "" {
			r.Header.Set("Authorization", tc.authorization)
		}
		res, err := g.RoundTrip(r)
		if err == nil {
			res.Body.Close() //nolint:errcheck // a recorder's
		}
		if sent != tc.sent || sent != (err == nil) {
			t.Errorf("%s: sent %t, %v", name, sent, err)
		}
	}
}
