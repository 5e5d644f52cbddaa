package ociauth_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

const devops = "devops.us-ashburn-1.oci.oraclecloud.com"

// keyed is a resource that signs with its own key.
func keyed(t *testing.T) (ociauth.Config, map[string]http.HandlerFunc) {
	t.Helper()
	token := said(t, map[string]any{"res_tenant": someTenancy, "exp": inAnHour()})
	return ociauth.Config{Kind: ociauth.KindResourcePrincipal, Resource: ociauth.Resource{
			Version: "2.1.1", Region: "us-ashburn-1", Tenancy: someTenancy, ID: "ocid1.thing.oc1.iad.a", Key: strangersKey(t),
			TokenEndpoint: "https://" + devops,
		}}, map[string]http.HandlerFunc{
			"GET " + devops:                                  says(200, `{"resourcePrincipalToken":"rpt","servicePrincipalSessionToken":"spst"}`),
			"POST auth.us-ashburn-1.oraclecloud.com":         says(200, `{"token":"`+token+`"}`),
			"GET objectstorage.us-ashburn-1.oraclecloud.com": says(200, `"ns"`),
		}
}

// In each version a resource with its own key requests tokens under the name of that
// key.
func TestResourceKeys(t *testing.T) {
	for version, want := range map[string][2]string{
		"2.1":   {"resource/v2.1/ocid1.thing.oc1.iad.a", "/20180711/resourcePrincipalTokenV2/ocid1.thing.oc1.iad.a"},
		"2.1.1": {"resource/v2.1.1/" + someTenancy + "/ocid1.thing.oc1.iad.a", "/20180711/resourcePrincipalTokenV2/ocid1.thing.oc1.iad.a"},
		"2.1.2": {"resource/v2.1.2/" + someTenancy + "/ocid1.thing.oc1.iad.a", "/20180711/resourcePrincipalTokenV212/ocid1.thing.oc1.iad.a"},
	} {
		t.Run(version, func(t *testing.T) {
			cfg, hosts := keyed(t)
			cfg.Resource.Version = version
			p := play(t, hosts)
			who, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := who.Namespace(t.Context()); err != nil || got != "ns" || who.Tenancy() != someTenancy {
				t.Errorf("got %q, %v of %s", got, err, who.Tenancy())
			}
			asked := p.requests()
			for _, r := range asked[:2] {
				if a := r.Header.Get("Authorization"); !strings.Contains(a, `keyId="`+want[0]+`"`) {
					t.Errorf("%s is signed by %s", r.URL, a)
				}
			}
			if asked[0].URL.Path != want[1] || asked[1].URL.Path != "/v1/resourcePrincipalSessionToken" {
				t.Errorf("asked %s and %s", asked[0].URL, asked[1].URL)
			}
		})
	}
}

func TestBadResourceKeys(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*ociauth.Config, map[string]http.HandlerFunc)
		says   string
		asks   int
	}{
		"no endpoint": {func(c *ociauth.Config, _ map[string]http.HandlerFunc) { c.Resource.TokenEndpoint = "" }, "OCI_RESOURCE_PRINCIPAL_RPT_ENDPOINT is not set", 0},
		"an endpoint over http": {func(c *ociauth.Config, _ map[string]http.HandlerFunc) {
			c.Resource.TokenEndpoint = "http://" + devops
		}, "is not the https URL of a service", 0},
		"another domain's endpoint": {func(c *ociauth.Config, _ map[string]http.HandlerFunc) { c.Resource.TokenEndpoint += ".evil.example" }, "which is not under oraclecloud.com", 0},
		"another realm's": {func(c *ociauth.Config, _ map[string]http.HandlerFunc) {
			c.Resource.TokenEndpoint = "https://a.oraclegovcloud.com"
		}, "which is not under oraclecloud.com", 0},
		"a session elsewhere": {func(c *ociauth.Config, _ map[string]http.HandlerFunc) {
			c.Resource.SessionEndpoint = "https://a.oraclecloud.com"
		}, "not OCI's auth service", 0},
		"an id with a path": {func(c *ociauth.Config, _ map[string]http.HandlerFunc) { c.Resource.ID = "../x" }, "cannot be part of a path", 0},
		"no tenancy":        {func(c *ociauth.Config, _ map[string]http.HandlerFunc) { c.Resource.Tenancy = "" }, "OCI_RESOURCE_PRINCIPAL_TENANCY_ID is not the OCID", 0},
		"no region":         {func(c *ociauth.Config, _ map[string]http.HandlerFunc) { c.Resource.Region = "" }, "set OCI_RESOURCE_PRINCIPAL_REGION or --region", 0},
		"no leaf":           {func(c *ociauth.Config, _ map[string]http.HandlerFunc) { c.Resource.Version = "3.0" }, "OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE is not set", 0},
		"a redirect":        {func(_ *ociauth.Config, h map[string]http.HandlerFunc) { h["GET "+devops] = says(307, "") }, "redirects are not followed", 1},
		"no JSON":           {func(_ *ociauth.Config, h map[string]http.HandlerFunc) { h["GET "+devops] = says(200, "x") }, "not a JSON object", 1},
		"an endless answer": {func(_ *ociauth.Config, h map[string]http.HandlerFunc) {
			h["GET "+devops] = says(200, strings.Repeat("x", 1<<17))
		}, "more than 65536 bytes", 1},
		"no session": {func(_ *ociauth.Config, h map[string]http.HandlerFunc) {
			h["POST auth.us-ashburn-1.oraclecloud.com"] = says(401, `{"code":"NotAuthenticated","message":"no"}`)
		}, "401 NotAuthenticated", 2},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, hosts := keyed(t)
			test.change(&cfg, hosts)
			p := play(t, hosts)
			who, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
			if err == nil || who != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, %v; want %q", who, err, test.says)
			}
			if n := len(p.requests()); n != test.asks {
				t.Errorf("%d requests were sent; want %d", n, test.asks)
			}
		})
	}
}

// A nested resource follows the URL of the resource that contains it, within its
// realm only.
func TestParentsOfResources(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := tenancy.Admin().NewResource(1 << 40)
	for parent, want := range map[string]string{
		"":                           "",
		"https://" + devops + "/own": "", // the same again
		"https://" + devops + "/x":   "more than 10 resources",
		"https://evil.example/x":     "which is not under oraclecloud.com",
		"http://" + devops + "/x":    "is not the https URL of a service",
	} {
		_, hosts := keyed(t)
		n := 0
		hosts["GET "+devops] = func(w http.ResponseWriter, req *http.Request) {
			if n++; parent != "" && want == "more than 10 resources" && n%2 == 0 {
				w.Header().Set("opc-parent-rpt-url", "https://"+devops+"/own")
			} else if parent != "" {
				w.Header().Set("opc-parent-rpt-url", parent)
			}
			says(200, `{"resourcePrincipalToken":"rpt","servicePrincipalSessionToken":"spst"}`)(w, req)
		}
		leaf := ociauth.Resource{Version: "2.2", Region: "us-ashburn-1", Token: r.Token, Key: r.Key}
		p := play(t, hosts)
		_, err := ociauth.SignInOver(t.Context(), ociauth.Config{Kind: ociauth.KindResourcePrincipal, Resource: ociauth.Resource{
			Version: "3.0", Leaf: &leaf, TokenEndpoint: "https://" + devops + "/own",
		}, Region: "us-ashburn-1"}, p.Transport)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v; want %q", parent, err, want)
		}
	}
}
