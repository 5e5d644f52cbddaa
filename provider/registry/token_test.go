package registry_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// A container tool signs in with the token and has the rights of its owner.
func TestAccessToken(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	ref := parse(t, tenancy.NewImage("web", "v1").Ref())
	tenancy.Allow("Allow user puller to read repos in tenancy")
	for name, want := range map[string]int{"puller": http.StatusOK, "stranger": http.StatusNotFound} {
		token, err := client(t, tenancy.NewUser(name), registry.Config{}).AccessToken(t.Context(), ref.Region())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, user := range []string{"BEARER_TOKEN", "somebody"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+ref.Host()+"/20180419/docker/token?scope=repository:x:pull", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.SetBasicAuth(user, token)
			res, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close() //nolint:errcheck // nothing in it
			if got := res.StatusCode == http.StatusOK; got != (user == "BEARER_TOKEN") {
				t.Errorf("%s as %s: %s", name, user, res.Status)
			}
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+ref.Host()+"/v2/"+ref.Namespace()+"/web/manifests/v1", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close() //nolint:errcheck // nothing in it
		if (res.StatusCode == http.StatusOK) != (want == http.StatusOK) {
			t.Errorf("%s pulls: %s, want %d", name, res.Status, want)
		}
	}
}

// An invalid token is an error, and the error does not show it.
func TestInvalidAccessTokens(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	ref := parse(t, tenancy.NewImage("web", "v1").Ref())
	c := client(t, tenancy.Admin(), registry.Config{})
	for _, body := range []string{`{}`, `{"token":""}`, `{"token":"sec ret"}`, `{"token":"sec\nret"}`, `{"token":"secr\u00e9t"}`, `{"token":"` + strings.Repeat("secret", 5000) + `"}`, `null`, `{"token":7}`} {
		tenancy.Fault(ocitest.Fault{Operation: "containerregistry.GetAccessToken", Kind: ocitest.Body, Status: 200, Body: body, Count: 1})
		if token, err := c.AccessToken(t.Context(), ref.Region()); err == nil || token != "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40s: got %.20q, %v", body, token, err)
		}
	}
}

// A token is printable and has a bounded length. The test uses both bounds.
func TestAccessTokensAtTheBounds(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	ref := parse(t, tenancy.NewImage("web", "v1").Ref())
	c := client(t, tenancy.Admin(), registry.Config{})
	for token, ok := range map[string]bool{
		"!~":                              true,
		"a\x7f":                           false,
		" ":                               false,
		strings.Repeat("a", 16<<10):       true,
		strings.Repeat("a", 16<<10) + "a": false,
	} {
		tenancy.Fault(ocitest.Fault{Operation: "containerregistry.GetAccessToken", Kind: ocitest.Set, Set: map[string]any{"token": token}, Count: 1})
		if got, err := c.AccessToken(t.Context(), ref.Region()); (err == nil) != ok || ok && got != token {
			t.Errorf("%.20q, %d bytes: %v", token, len(token), err)
		}
	}
}

// While OCI fails, the error is OCI's.
func TestAccessTokenWhileOCIFails(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	ref := parse(t, tenancy.NewImage("web", "v1").Ref())
	tenancy.Fault(ocitest.Fault{Operation: "containerregistry.GetAccessToken", Kind: ocitest.Status, Status: 501, Code: "MethodNotImplemented"})
	token, err := client(t, tenancy.Admin(), registry.Config{}).AccessToken(t.Context(), ref.Region())
	if token != "" || err == nil || oci.IsMalformed(err) || !strings.Contains(err.Error(), "501 MethodNotImplemented") {
		t.Errorf("got %d bytes, %v", len(token), err)
	}
}
