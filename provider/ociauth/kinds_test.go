package ociauth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// kinds returns the auth kinds of a tenancy. The returned function counts the requests
// for a new token.
func kinds() map[string]func(*ocitest.Tenancy) (ociauth.Config, func() int) {
	never := func() int { return 0 }
	return map[string]func(*ocitest.Tenancy) (ociauth.Config, func() int){
		ociauth.KindAPIKey: func(of *ocitest.Tenancy) (ociauth.Config, func() int) {
			return ociauth.Config{ConfigFile: of.Admin().ConfigFile()}, never
		},
		ociauth.KindSecurityToken: func(of *ocitest.Tenancy) (ociauth.Config, func() int) {
			return ociauth.Config{ConfigFile: of.Admin().ConfigFile(), Profile: ocitest.ProfileSession}, never
		},
		ociauth.KindOKEWorkloadIdentity: func(of *ocitest.Tenancy) (ociauth.Config, func() int) {
			w := of.NewCluster("prod", "").NewWorkload("oke-sign", "oke-sign")
			return ociauth.Config{Region: "us-ashburn-1", Workload: ociauth.Workload{KubernetesHost: w.Host, Dir: w.Dir}}, w.Asked
		},
		ociauth.KindInstancePrincipal: func(of *ocitest.Tenancy) (ociauth.Config, func() int) {
			i := of.Admin().NewInstance()
			return ociauth.Config{Metadata: i.MetadataURL}, i.Asked
		},
		ociauth.KindResourcePrincipal: func(of *ocitest.Tenancy) (ociauth.Config, func() int) {
			r := of.Admin().NewResource(time.Hour)
			return ociauth.Config{Region: r.Region, Resource: ociauth.Resource{Version: "2.2", Token: r.Token, Key: r.Key}}, never
		},
	}
}

// Each auth kind knows its tenancy from the start. A 401 is returned at once, and it
// causes at most one request for a new token.
func TestKinds(t *testing.T) {
	for kind, prepare := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			cfg, asked := prepare(tenancy)
			cfg.Kind = kind
			who, err := ociauth.SignIn(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if who.Tenancy() != tenancy.ID || who.Region().ID() != "us-ashburn-1" || who.String() == "" {
				t.Errorf("it is %q of %s in %s", who, who.Tenancy(), who.Region())
			}
			for range 3 {
				if got, err := who.Namespace(t.Context()); err != nil || got != tenancy.Namespace {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			before := asked()
			if before > 1 {
				t.Errorf("asked for %d tokens", before)
			}

			tenancy.Fault(ocitest.Fault{Operation: "objectstorage.*", Kind: ocitest.Status, Status: http.StatusUnauthorized, Code: "NotAuthenticated"})
			calls := tenancy.Calls()["objectstorage.GetNamespace"]
			const storm = 100
			var asking sync.WaitGroup
			for range storm {
				asking.Go(func() {
					if _, err := who.Namespace(t.Context()); err == nil || !strings.Contains(err.Error(), "401 NotAuthenticated") {
						t.Errorf("got %v", err)
					}
				})
			}
			asking.Wait()
			if n := tenancy.Calls()["objectstorage.GetNamespace"] - calls; n != storm {
				t.Errorf("%d calls were sent for %d", n, storm)
			}
			if n := asked() - before; n > 1 {
				t.Errorf("asked for %d more tokens", n)
			}
		})
	}
}

func TestInstanceTokensAreRenewed(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	i := tenancy.Admin().NewInstance()
	i.Rotate(time.Minute + 2*time.Second) // the last minute is not used
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{Kind: ociauth.KindInstancePrincipal, Metadata: i.MetadataURL})
	if err != nil {
		t.Fatal(err)
	}
	for i.Asked() < 3 {
		if got, err := who.Namespace(t.Context()); err != nil || got != tenancy.Namespace {
			t.Fatalf("got %q, %v", got, err)
		}
		i.Rotate(time.Minute + 2*time.Second) // each certificate is new, too
	}
	// While no new token is available, the last one serves until its expiry. After
	// that nothing is sent unsigned.
	fault := ocitest.Fault{Operation: "auth.*", Kind: ocitest.Status, Status: http.StatusServiceUnavailable, Code: "ServiceUnavailable"}
	tenancy.Fault(fault)
	for {
		_, err := who.Namespace(t.Context())
		if err == nil {
			continue
		}
		if want := "asking for an instance's token: auth.us-ashburn-1.oraclecloud.com FederateX509: 503 ServiceUnavailable"; !strings.Contains(err.Error(), want) {
			t.Errorf("got %v; want %q", err, want)
		}
		break
	}
}

func TestBadInstances(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*ocitest.Tenancy, *ocitest.Instance)
		url    string
		says   string
	}{
		"another machine":   {url: "http://192.0.2.1/opc/v2", says: "neither this machine nor its link"},
		"a name":            {url: "http://localhost/opc/v2", says: "neither this machine nor its link"},
		"not HTTP":          {url: "ftp://127.0.0.1/opc/v2", says: "not the URL of a metadata service"},
		"a password":        {url: "http://a:b@127.0.0.1/opc/v2", says: "not the URL of a metadata service"},
		"nobody there":      {url: "http://127.0.0.1:1/opc/v2", says: "is this machine a compute instance of OCI?"},
		"not an instance":   {change: answers("/instance/region", 404, "nothing"), says: "404 Not Found: nothing: is this machine a compute instance of OCI?"},
		"an unknown region": {change: answers("/instance/region", 200, "xx-nowhere-1"), says: `unknown OCI region "xx-nowhere-1"`},
		"a redirect":        {change: answers("/instance/region", 302, "http://127.0.0.1/"), says: "302 Found"},
		"no certificate":    {change: answers("/identity/cert.pem", 200, "hello"), says: "no certificate in PEM"},
		"half of one":       {change: answers("/identity/cert.pem", 200, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n"), says: "malformed certificate"},
		"far too much":      {change: answers("/identity/intermediate.pem", 200, strings.Repeat("x", 1<<17)), says: "more than 65536 bytes"},
		"of no tenancy": {change: func(_ *ocitest.Tenancy, i *ocitest.Instance) {
			ca, err := os.ReadFile(cloud.CAFile())
			if err != nil {
				t.Error(err)
			}
			i.Answer("/identity/cert.pem", 200, string(ca))
		}, says: "names no tenancy"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			i := tenancy.Admin().NewInstance()
			url := i.MetadataURL
			if test.url != "" {
				url = test.url
			}
			if test.change != nil {
				test.change(tenancy, i)
			}
			who, err := ociauth.SignIn(t.Context(), ociauth.Config{Kind: ociauth.KindInstancePrincipal, Metadata: url})
			if err == nil || who != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, %v; want %q", who, err, test.says)
			}
			told := test.change == nil && name != "nobody there" || name == "an unknown region"
			if ociauth.IsUnvouched(err) == told {
				t.Errorf("temporary: %t, of %v", !told, err)
			}
		})
	}
}

func answers(page string, status int, body string) func(*ocitest.Tenancy, *ocitest.Instance) {
	return func(_ *ocitest.Tenancy, i *ocitest.Instance) { i.Answer(page, status, body) }
}

// The caller that needs an instance's token gets the error of its request.
func TestInstancesWithoutAToken(t *testing.T) {
	auth := func(f ocitest.Fault) func(*ocitest.Tenancy, *ocitest.Instance) {
		f.Operation = "auth.*"
		return func(tenancy *ocitest.Tenancy, _ *ocitest.Instance) { tenancy.Fault(f) }
	}
	for name, test := range map[string]struct {
		change func(*ocitest.Tenancy, *ocitest.Instance)
		says   string
	}{
		"no key":               {answers("/identity/key.pem", 200, "hello"), "holds no RSA private key in PEM"},
		"another's key":        {answers("/identity/key.pem", 200, strangersKey(t)), "is not that of the instance's certificate"},
		"the metadata is gone": {answers("/identity/cert.pem", 500, "down"), "500 Internal Server Error: down"},
		"another chain":        {answers("/identity/intermediate.pem", 200, strangersCA(t)), "401 NotAuthenticated"},
		"no JSON":              {auth(ocitest.Fault{Kind: ocitest.Body, Body: "hello"}), "not a JSON object"},
		"no token":             {auth(ocitest.Fault{Kind: ocitest.Body, Body: "{}"}), "not a valid token"},
		"a header's end":       {auth(ocitest.Fault{Kind: ocitest.Body, Body: `{"token":"a\r\nb"}`}), "not a valid token"},
		"no JWT":               {auth(ocitest.Fault{Kind: ocitest.Body, Body: `{"token":"abc"}`}), "the token is not a JWT"},
		"without end":          {auth(ocitest.Fault{Kind: ocitest.Body, Body: `{"token":"e30.e30.e30"}`}), "the token has no expiry"},
		"an endless answer":    {auth(ocitest.Fault{Kind: ocitest.Endless}), "more than 65536 bytes"},
		"a redirect":           {auth(ocitest.Fault{Kind: ocitest.Status, Status: 307}), "redirects are not followed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			i := tenancy.Admin().NewInstance()
			who, err := ociauth.SignIn(t.Context(), ociauth.Config{Kind: ociauth.KindInstancePrincipal, Metadata: i.MetadataURL})
			if err != nil {
				t.Fatal(err)
			}
			test.change(tenancy, i)
			if got, err := who.Namespace(t.Context()); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %q, %v; want %q", got, err, test.says)
			}
			if n := tenancy.Calls()["objectstorage.GetNamespace"]; n > 0 {
				t.Errorf("%d calls without a token", n)
			}
		})
	}
}

// strangersKey returns a certificate that has no relation to OCI.
func strangersKey(t *testing.T) string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func strangersCA(t *testing.T) string {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
}

// At each call a resource's token comes from the place where OCI puts it.
func TestResource(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := tenancy.Admin().NewResource(time.Hour)
	cfg := ociauth.Config{Kind: ociauth.KindResourcePrincipal, Region: r.Region, Resource: ociauth.Resource{Version: "2.2", Token: r.Token, Key: r.Key}}
	who, err := ociauth.SignIn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := who.Namespace(t.Context()); err != nil || got != tenancy.Namespace {
			t.Fatalf("got %q, %v", got, err)
		}
		r.Renew(time.Hour)
	}
	r.Renew(-time.Second)
	if _, err := who.Namespace(t.Context()); err == nil || !strings.Contains(err.Error(), "OCI_RESOURCE_PRINCIPAL_RPST: the token expired at ") {
		t.Errorf("got %v", err)
	}
	r.Renew(time.Hour)
	if _, err := who.Namespace(t.Context()); err != nil {
		t.Error(err)
	}

	// The variables can have the values themselves instead of files.
	for _, v := range []*string{&cfg.Resource.Token, &cfg.Resource.Key} {
		content, err := os.ReadFile(*v)
		if err != nil {
			t.Fatal(err)
		}
		*v = string(content)
	}
	if who, err = ociauth.SignIn(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if got, err := who.Namespace(t.Context()); err != nil || got != tenancy.Namespace {
		t.Errorf("got %q, %v", got, err)
	}
}

// OCI replaces the token shortly before its key. Requests that are signed with the
// old key in between are rejected. Later requests succeed.
func TestResourceBetweenTokenAndKey(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := tenancy.Admin().NewResource(time.Hour)
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{
		Kind: ociauth.KindResourcePrincipal, Region: r.Region, Resource: ociauth.Resource{Version: "2.2", Token: r.Token, Key: r.Key},
	})
	if err != nil {
		t.Fatal(err)
	}
	old, err := os.ReadFile(r.Key)
	if err != nil {
		t.Fatal(err)
	}
	r.Renew(time.Hour)
	fresh, err := os.ReadFile(r.Key)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		key   []byte
		works bool
	}{{old, false}, {fresh, true}} {
		if err := os.WriteFile(r.Key, step.key, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := who.Namespace(t.Context()); (err == nil) != step.works {
			t.Errorf("works %v: %v", step.works, err)
		}
	}
}

func TestBadResources(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := tenancy.Admin().NewResource(time.Hour)
	for name, test := range map[string]struct {
		change func(*ociauth.Config)
		says   string
	}{
		"not run by OCI":  {func(c *ociauth.Config) { c.Resource.Version = "" }, "OCI_RESOURCE_PRINCIPAL_VERSION is not set"},
		"another version": {func(c *ociauth.Config) { c.Resource.Version = "4.0" }, `OCI_RESOURCE_PRINCIPAL_VERSION is "4.0": only 1.1, 2.1, 2.1.1, 2.1.2, 2.2 and 3.0 are supported`},
		"no token":        {func(c *ociauth.Config) { c.Resource.Token = "" }, "are not both set"},
		"no file":         {func(c *ociauth.Config) { c.Resource.Token += "x" }, "OCI_RESOURCE_PRINCIPAL_RPST: open "},
		"no key":          {func(c *ociauth.Config) { c.Resource.Key = "key" }, "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM holds no RSA private key in PEM"},
		"a key's name":    {func(c *ociauth.Config) { c.Resource.Key = c.Resource.Token }, "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM holds no RSA private key in PEM"},
		"no JWT":          {func(c *ociauth.Config) { c.Resource.Token = "abc" }, "the token is not a JWT"},
		"of nobody":       {func(c *ociauth.Config) { c.Resource.Token = "e30.e30.e30" }, "tenancy is not the OCID of a tenancy"},
		"no region":       {func(c *ociauth.Config) { c.Region = "" }, "unknown OCI region"},
		"another realm":   {func(c *ociauth.Config) { c.Region = "us-gov-ashburn-1" }, "the tenancy is in realm oc1"},
		"a passphrase":    {func(c *ociauth.Config) { c.Resource.Passphrase = "/nowhere" }, "OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_PASSPHRASE: open /nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ociauth.Config{Kind: ociauth.KindResourcePrincipal, Region: r.Region, Resource: ociauth.Resource{Version: "2.2", Token: r.Token, Key: r.Key}}
			test.change(&cfg)
			who, err := ociauth.SignIn(t.Context(), cfg)
			if err == nil || who != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, %v; want %q", who, err, test.says)
			}
		})
	}
}
