package ocitest_test

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/common/auth"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// namespaceAs signs in with an SDK's provider, reads the namespace, and uses a right
// in the tenancy.
func namespaceAs(t *testing.T, tenancy *ocitest.Tenancy, config common.ConfigurationProvider) {
	t.Helper()
	got, err := clientsOf(t, config).storage.GetNamespace(t.Context(), objectstorage.GetNamespaceRequest{})
	if err != nil || *got.Value != tenancy.Namespace {
		t.Errorf("namespace %v, %v", got.Value, err)
	}
}

// The SDK for Go signs in as in Cloud Shell: an instance that acts for a user.
func TestDelegationWithTheSDK(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	shell := tenancy.NewActor("instance", "")
	t.Setenv("OCI_METADATA_BASE_URL", shell.NewInstance().MetadataURL)
	user := tenancy.NewUser("shell", "Administrators")
	token := user.Delegate(shell, time.Hour)
	config, err := auth.InstancePrincipalDelegationTokenConfigurationProvider(&token)
	if err != nil {
		t.Fatal(err)
	}
	namespaceAs(t, tenancy, config)
	requests := tenancy.Requests()
	if last := requests[len(requests)-1]; last.User != user.ID || last.Via != shell.ID {
		t.Errorf("the request is of %s via %s, want %s via %s", last.User, last.Via, user.ID, shell.ID)
	}
}

// Only a delegation token gives an instance the rights of its user.
func TestDelegation(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	shell, other := tenancy.NewActor("instance", ""), tenancy.NewActor("instance", "")
	user, nobody := tenancy.NewUser("shell", "Administrators"), tenancy.NewUser("nobody")
	as := federateAs(t, shell.NewInstance().MetadataURL, tenancy.ID)
	api := common.CustomProfileConfigProvider(user.ConfigFile(), ocitest.ProfileDefault)
	bound := map[string]int{"bound": 401, "any": 200}[tenancy.Switches().Delegation]
	with := []string{"date", "(request-target)", "host", "opc-obo-token"}
	for name, tt := range map[string]struct {
		token   string
		by      common.KeyProvider
		headers []string
		twice   bool
		want    int
		why     string
	}{
		"as the SDKs send it":       {user.Delegate(shell, time.Hour), as, with, false, 200, ""},
		"no token":                  {"", as, with[:3], false, 404, "has no REPOSITORY_INSPECT"},
		"not in the signed headers": {user.Delegate(shell, time.Hour), as, with[:3], false, 401, "not among the signed"},
		"twice":                     {user.Delegate(shell, time.Hour), as, with[:3], true, 401, "stands twice"},
		"run out":                   {user.Delegate(shell, -time.Second), as, with, false, 401, "ran out"},
		"a user without rights":     {nobody.Delegate(shell, time.Hour), as, with, false, 404, "nobody has no"},
		"of another instance":       {user.Delegate(other, time.Hour), as, with, false, bound, ""},
		"changed":                   {user.Delegate(shell, time.Hour) + "A", as, with, false, 401, "malformed"},
		"a session token":           {strings.TrimPrefix(as.id, "ST$"), as, with, false, 401, "for something else"},
		"by a user":                 {user.Delegate(shell, time.Hour), api, with, false, 401, "cannot act for another"},
		"of another tenancy's user": {cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin().Delegate(shell, time.Hour), as, with, false, 404, "has no"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req := newRequest(t, "GET", configuration+tenancy.ID, "")
			if tt.token != "" {
				req.Header.Add("Opc-Obo-Token", tt.token)
			}
			if tt.twice {
				req.Header.Add("Opc-Obo-Token", tt.token)
			}
			if err := common.RequestSigner(tt.by, tt.headers, nil).Sign(req); err != nil {
				t.Fatal(err)
			}
			if status, code, why := send(t, req); status != tt.want || !strings.Contains(why, tt.why) {
				t.Errorf("%d %s (%s), want %d (…%s…)", status, code, why, tt.want, tt.why)
			}
		})
	}
}

// The SDK signs in as a resource in the two versions that request their tokens.
func TestResourcePrincipalsWithTheSDK(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	runner, pipeline, project := tenancy.NewActor("instance", ""), tenancy.NewActor("devopsbuildpipeline", ""), tenancy.NewActor("devopsproject", "")
	endpoint := pipeline.KeepBy(runner)
	project.KeepBy(pipeline)
	t.Setenv("OCI_METADATA_BASE_URL", runner.NewInstance().MetadataURL)
	last := func() string {
		r := tenancy.Requests()
		return r[len(r)-1].User
	}

	t.Setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "1.1")
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPT_ENDPOINT", endpoint)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT", authService)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPT_ID", pipeline.ID)
	first, err := auth.ResourcePrincipalConfigurationProvider()
	if err != nil {
		t.Fatal(err)
	}
	namespaceAs(t, tenancy, first)
	if got := last(); got != pipeline.ID {
		t.Errorf("version 1.1 is %s, want %s", got, pipeline.ID)
	}

	r := pipeline.NewResource(time.Hour)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "3.0")
	t.Setenv("OCI_RESOURCE_PRINCIPAL_VERSION_FOR_LEAF_RESOURCE", "2.2")
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPST_FOR_LEAF_RESOURCE", r.Token)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM_FOR_LEAF_RESOURCE", r.Key)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_REGION_FOR_LEAF_RESOURCE", r.Region)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPT_URL_FOR_PARENT_RESOURCE", endpoint+"/20180711/resourcePrincipalToken/"+project.ID)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPST_ENDPOINT_FOR_PARENT_RESOURCE", authService)
	third, err := auth.ResourcePrincipalConfigurationProvider()
	if err != nil {
		t.Fatal(err)
	}
	namespaceAs(t, tenancy, third)
	if got := last(); got != project.ID {
		t.Errorf("version 3.0 is %s, want %s", got, project.ID)
	}
}

// Only its keeper gets a resource's tokens, and only the keeper can use them.
func TestResourceTokens(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	runner, other, pipeline := tenancy.NewActor("instance", ""), tenancy.NewActor("instance", ""), tenancy.NewActor("devopsbuildpipeline", "")
	endpoint := pipeline.KeepBy(runner) + "/20180711/resourcePrincipalToken/"
	as, stranger := federateAs(t, runner.NewInstance().MetadataURL, tenancy.ID), federateAs(t, other.NewInstance().MetadataURL, tenancy.ID)
	if status, _, _ := send(t, signed(t, stranger, newRequest(t, "GET", endpoint+pipeline.ID, ""))); status != 404 {
		t.Errorf("another instance: %d", status)
	}
	if status, _, _ := send(t, signed(t, as, newRequest(t, "GET", endpoint+other.ID, ""))); status != 404 {
		t.Errorf("another resource: %d", status)
	}
	var tokens struct{ ResourcePrincipalToken, ServicePrincipalSessionToken string }
	receive(t, signed(t, as, newRequest(t, "GET", endpoint+pipeline.ID, "")), &tokens)
	public, err := x509.MarshalPKIXPublicKey(&as.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	post := func(by bearer, resource, service string, key []byte) int {
		body, err := json.Marshal(map[string]string{
			"resourcePrincipalToken": resource, "servicePrincipalSessionToken": service, "sessionPublicKey": base64.StdEncoding.EncodeToString(key),
		})
		if err != nil {
			t.Fatal(err)
		}
		status, _, _ := send(t, signed(t, by, newRequest(t, "POST", authService+"/v1/resourcePrincipalSessionToken", string(body))))
		return status
	}
	a, b := tokens.ResourcePrincipalToken, tokens.ServicePrincipalSessionToken
	for name, got := range map[string][2]int{
		"both tokens":          {post(as, a, b, public), 200},
		"sent by another":      {post(stranger, a, b, public), 401},
		"the same token twice": {post(as, a, a, public), 401},
		"in reverse order":     {post(as, b, a, public), 401},
		"a changed token":      {post(as, a+"A", b, public), 401},
		"an invalid key":       {post(as, a, b, []byte("key")), 400},
		"a session token":      {post(as, strings.TrimPrefix(as.id, "ST$"), b, public), 401},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %d, want %d", name, got[0], got[1])
		}
	}
}

// The SDK exchanges a token, and a job requests its token as GitHub documents it.
func TestTokenExchangeWithTheSDK(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	domain := tenancy.NewDomain()
	issuer := domain.Trust("https://github.test/"+tenancy.Namespace, domain.URL)
	user := tenancy.NewUser("github")
	issuer.Map("sub", "repo:a/b:ref:refs/heads/main", user)
	where, bearerToken := issuer.NewJob(map[string]any{"sub": "repo:a/b:ref:refs/heads/main"})
	ask := func(token string) *http.Request {
		req := newRequest(t, "GET", where+"&audience="+url.QueryEscape(domain.URL), "")
		req.Header.Set("Authorization", "bearer "+token)
		return req
	}
	var job struct{ Value string }
	receive(t, ask(bearerToken), &job)
	if status, _, _ := send(t, ask(bearerToken+"x")); status != 401 {
		t.Errorf("another job's token: %d", status)
	}
	config, err := auth.TokenExchangeConfigurationProviderFromToken(job.Value, auth.TokenExchangeBuilder{
		DomainUrl: domain.URL, ClientId: domain.ClientID, ClientSecret: domain.ClientSecret, Region: "us-ashburn-1",
		RequestedTokenType: "urn:oci:token-type:oci-upst", SubjectTokenType: "jwt",
	})
	if err != nil {
		t.Fatal(err)
	}
	namespaceAs(t, tenancy, config)
	if id, err := config.UserOCID(); err != nil || id != user.ID {
		t.Errorf("the session is of %s, %v; want %s", id, err, user.ID)
	}
	if n := tenancy.Calls()["identitydomains.ExchangeToken"]; n != 1 {
		t.Errorf("%d exchanges", n)
	}
}

// An identity domain rejects every request with a mistake.
func TestTokenExchange(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	domain, foreign := tenancy.NewDomain(), tenancy.NewDomain()
	name := "https://issuer.test/" + tenancy.Namespace
	issuer := domain.Trust(name, domain.URL)
	stranger := foreign.Trust(name+"/other", domain.URL)
	user := tenancy.NewUser("github")
	issuer.Map("sub", "main", user)
	stranger.Map("sub", "main", user)
	session, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&session.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	good := func() url.Values {
		return url.Values{
			"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "requested_token_type": {"urn:oci:token-type:oci-upst"},
			"subject_token_type": {"jwt"}, "public_key": {base64.StdEncoding.EncodeToString(public)},
			"subject_token": {issuer.Token(map[string]any{"sub": "main", "aud": domain.URL})},
		}
	}
	set := func(field string, values ...string) func(*http.Request, url.Values) {
		return func(_ *http.Request, form url.Values) { form[field] = values }
	}
	token := func(claims map[string]any) func(*http.Request, url.Values) {
		all := map[string]any{"sub": "main", "aud": domain.URL}
		for name, value := range claims {
			all[name] = value
		}
		return set("subject_token", issuer.Token(all))
	}
	subject := map[string]int{"400": 400, "401": 401}[tenancy.Switches().OIDCRefusal]
	for name, tt := range map[string]struct {
		change func(*http.Request, url.Values)
		want   int
		code   string
	}{
		"as the SDKs send it":            {func(*http.Request, url.Values) {}, 200, ""},
		"several audiences":              {token(map[string]any{"aud": []string{"x", domain.URL}}), 200, ""},
		"another secret":                 {func(r *http.Request, _ url.Values) { r.SetBasicAuth(domain.ClientID, "x") }, 401, "invalid_client"},
		"no secret":                      {func(r *http.Request, _ url.Values) { r.SetBasicAuth(domain.ClientID, "") }, 401, "invalid_client"},
		"another client":                 {func(r *http.Request, _ url.Values) { r.SetBasicAuth(foreign.ClientID, foreign.ClientSecret) }, 401, "invalid_client"},
		"no client":                      {func(r *http.Request, _ url.Values) { r.Header.Del("Authorization") }, 401, "invalid_client"},
		"another content type":           {func(r *http.Request, _ url.Values) { r.Header.Set("Content-Type", "application/json") }, 400, "invalid_request"},
		"a field twice":                  {set("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange", "x"), 400, "invalid_request"},
		"another grant":                  {set("grant_type", "client_credentials"), 400, "unsupported_grant_type"},
		"another token":                  {set("requested_token_type", "urn:oci:token-type:oci-rpst"), 400, "invalid_request"},
		"no subject token type":          {set("subject_token_type"), 400, "invalid_request"},
		"no key":                         {set("public_key"), 400, "invalid_request"},
		"an invalid key":                 {set("public_key", "a2V5"), 400, "invalid_request"},
		"no subject":                     {set("subject_token"), subject, "invalid_grant"},
		"run out":                        {token(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), subject, "invalid_grant"},
		"without an expiry":              {token(map[string]any{"exp": nil}), subject, "invalid_grant"},
		"not yet":                        {token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), subject, "invalid_grant"},
		"for another audience":           {token(map[string]any{"aud": "https://github.com/octo-org"}), subject, "invalid_grant"},
		"without an audience":            {token(map[string]any{"aud": nil}), subject, "invalid_grant"},
		"a subject without a rule":       {token(map[string]any{"sub": "fork"}), subject, "invalid_grant"},
		"a subject with the same prefix": {token(map[string]any{"sub": "main2"}), subject, "invalid_grant"},
		"an issuer of another domain": {
			set("subject_token", stranger.Token(map[string]any{"sub": "main", "aud": domain.URL})), subject, "invalid_grant",
		},
		"another issuer's signature": {
			set("subject_token", stranger.Token(map[string]any{"sub": "main", "aud": domain.URL, "iss": name})), subject, "invalid_grant",
		},
		"no signature":                    {set("subject_token", unsigned(t, `{"alg":"none"}`, name, domain.URL, nil)), subject, "invalid_grant"},
		"signed with a secret":            {set("subject_token", unsigned(t, `{"alg":"HS256"}`, name, domain.URL, []byte("x"))), subject, "invalid_grant"},
		"RS256 without a valid signature": {set("subject_token", unsigned(t, `{"alg":"RS256"}`, name, domain.URL, []byte("x"))), subject, "invalid_grant"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			form := good()
			req := newRequest(t, "POST", domain.URL+"/oauth2/v1/token", "x")
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.SetBasicAuth(domain.ClientID, domain.ClientSecret)
			tt.change(req, form)
			text := form.Encode()
			req.Body, req.ContentLength, req.GetBody = io.NopCloser(strings.NewReader(text)), int64(len(text)), nil
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var answer struct {
				Token, Error string
				Description  string `json:"error_description"`
			}
			if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
				t.Fatal(err)
			}
			if res.StatusCode != tt.want || answer.Error != tt.code || (answer.Token != "") != (tt.want == 200) {
				t.Errorf("%d %+v, want %d %s", res.StatusCode, answer, tt.want, tt.code)
			}
		})
	}
}

// unsigned returns a token without an issuer's signature.
func unsigned(t *testing.T, head, issuer, audience string, secret []byte) string {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	text := b64([]byte(head)) + "." + b64(fmt.Appendf(nil, `{"iss":%q,"aud":%q,"sub":"main","exp":%d}`, issuer, audience, time.Now().Add(time.Hour).Unix()))
	if secret == nil {
		return text + "."
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text)) //nolint:errcheck // a hash never fails
	return text + "." + b64(mac.Sum(nil))
}
