package ociauth_test

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/ociauth"
)

const (
	domainHost   = "idcs-0123.identity.oraclecloud.com"
	someTenancy  = "ocid1.tenancy.oc1..aaaaaaaatenancy"
	clientSecret = "idcscs-0c0ffee0-secret"
	requestToken = "eyJhbGciOiJub25lIn0.runner.secret"
	askingHost   = "pipelines.actions.githubusercontent.com"
)

// said returns a JWT with these claims.
func said(t *testing.T, claims map[string]any) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(body) + ".c2lnbmF0dXJl"
}

func inAnHour() int64 { return time.Now().Add(time.Hour).Unix() }

func session(t *testing.T) string {
	return said(t, map[string]any{"tenant": someTenancy, "sub": "ocid1.user.oc1..a", "exp": inAnHour()})
}

// job returns the configuration of a job that an identity domain trusts.
func job(t *testing.T) ociauth.Config {
	return ociauth.Config{Kind: ociauth.KindOIDC, Region: "us-ashburn-1", OIDC: ociauth.OIDC{
		Domain: "https://" + domainHost + ":443/", Client: "client", Secret: clientSecret,
		Token: said(t, map[string]any{"iss": "https://gitlab.example.com", "exp": inAnHour()}),
	}}
}

// The request has the form of Oracle's SDKs. The key that was sent in it signs later
// requests.
func TestOIDC(t *testing.T) {
	cfg, token := job(t), session(t)
	var public any
	p := play(t, map[string]http.HandlerFunc{
		"POST " + domainHost: func(w http.ResponseWriter, r *http.Request) {
			der, err := base64.StdEncoding.DecodeString(r.PostForm.Get("public_key"))
			if err == nil {
				public, err = x509.ParsePKIXPublicKey(der)
			}
			if err != nil {
				t.Error(err)
			}
			says(200, `{"token":"`+token+`"}`)(w, r)
		},
		"GET objectstorage.us-ashburn-1.oraclecloud.com": says(200, `"ns"`),
	})
	who, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
	if err != nil {
		t.Fatal(err)
	}
	if who.Tenancy() != someTenancy || who.Region().ID() != "us-ashburn-1" || who.String() != "OIDC token by way of "+domainHost {
		t.Errorf("it is %q of %s in %s", who, who.Tenancy(), who.Region())
	}
	for range 2 {
		if got, err := who.Namespace(t.Context()); err != nil || got != "ns" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	asked := p.requests()
	exchange := asked[0]
	want := map[string][]string{
		"grant_type":           {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"requested_token_type": {"urn:oci:token-type:oci-upst"},
		"subject_token_type":   {"jwt"}, "subject_token": {cfg.OIDC.Token}, "public_key": exchange.PostForm["public_key"],
	}
	if diff := cmp.Diff(want, map[string][]string(exchange.PostForm)); diff != "" {
		t.Error(diff)
	}
	if user, password, _ := exchange.BasicAuth(); user != "client" || password != clientSecret || exchange.URL.Path != "/oauth2/v1/token" {
		t.Errorf("%s of %q with %q", exchange.URL, user, password)
	}
	for _, r := range asked[1:] {
		if _, ok := public.(*rsa.PublicKey); !ok || !strings.Contains(r.Header.Get("Authorization"), `keyId="ST$`+token+`"`) {
			t.Errorf("%s is signed by %.80s…", r.URL, r.Header.Get("Authorization"))
		}
	}
}

// GitHub issues a job's token on request, for the domain.
func TestOIDCOfGitHub(t *testing.T) {
	for audience, want := range map[string]string{"": "https://" + domainHost, "them": "them"} {
		cfg := job(t)
		subject := cfg.OIDC.Token
		cfg.OIDC.Token, cfg.OIDC.Audience = "", audience
		cfg.OIDC.RequestURL, cfg.OIDC.RequestToken = "https://"+askingHost+"/abc/idtoken?api-version=2.0", requestToken
		p := play(t, map[string]http.HandlerFunc{
			"GET " + askingHost:  says(200, `{"count":1,"value":"`+subject+`"}`),
			"POST " + domainHost: says(200, `{"token":"`+session(t)+`"}`),
		})
		if _, err := ociauth.SignInOver(t.Context(), cfg, p.Transport); err != nil {
			t.Fatal(err)
		}
		asked := p.requests()
		if q := asked[0].URL.Query(); q.Get("audience") != want || q.Get("api-version") != "2.0" || asked[0].Header.Get("Authorization") != "Bearer "+requestToken {
			t.Errorf("GitHub was asked %s", asked[0].URL)
		}
		if got := asked[1].PostForm.Get("subject_token"); got != subject {
			t.Errorf("the domain got %q", got)
		}
	}
}

func TestOIDCFromFiles(t *testing.T) {
	cfg := job(t)
	dir := t.TempDir()
	write := func(name, content string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	subject := cfg.OIDC.Token
	cfg.OIDC.TokenFile, cfg.OIDC.Token = write("token", subject+"\n"), "not this one"
	cfg.OIDC.SecretFile, cfg.OIDC.Secret = write("secret", "from a file\n"), "nor this"
	p := play(t, map[string]http.HandlerFunc{"POST " + domainHost: says(200, `{"token":"`+session(t)+`"}`)})
	_, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
	if err == nil || !strings.Contains(err.Error(), "not one line of ASCII") { // it has spaces
		t.Errorf("got %v", err)
	}
	write("secret", "from-a-file\n")
	if _, err := ociauth.SignInOver(t.Context(), cfg, p.Transport); err != nil {
		t.Fatal(err)
	}
	got := p.requests()[0]
	if _, password, _ := got.BasicAuth(); password != "from-a-file" || got.PostForm.Get("subject_token") != subject {
		t.Errorf("sent %q with %q", got.PostForm.Get("subject_token"), password)
	}
}

// Each error says what is wrong, for any answer of the domain. No error contains a
// secret.
func TestOIDCErrors(t *testing.T) {
	good := says(200, `{"token":"`+session(t)+`"}`)
	answers := func(status int, text string) map[string]http.HandlerFunc {
		return map[string]http.HandlerFunc{"POST " + domainHost: says(status, text)}
	}
	subject := job(t).OIDC.Token
	var github ociauth.OIDC
	github.RequestURL, github.RequestToken = "https://"+askingHost+"/idtoken?v=1", requestToken
	tests := map[string]struct {
		change func(*ociauth.Config)
		hosts  map[string]http.HandlerFunc
		says   string
		asks   int // number of requests that may be sent
	}{
		"no domain":             {change: func(c *ociauth.Config) { c.OIDC.Domain = "" }, says: "the URL of the identity domain is missing"},
		"not https":             {change: func(c *ociauth.Config) { c.OIDC.Domain = "http://" + domainHost }, says: "is malformed: it must look like https://"},
		"another path":          {change: func(c *ociauth.Config) { c.OIDC.Domain = "https://" + domainHost + "/ui" }, says: "is malformed: it must look like https://"},
		"a password":            {change: func(c *ociauth.Config) { c.OIDC.Domain = "https://a:hunter2@" + domainHost }, says: "is malformed: it must look like https://"},
		"another domain":        {change: func(c *ociauth.Config) { c.OIDC.Domain = "https://identity.oraclecloud.com.evil.example" }, says: "not under identity.oraclecloud.com"},
		"a look-alike domain":   {change: func(c *ociauth.Config) { c.OIDC.Domain = "https://evilidentity.oraclecloud.com" }, says: "not under identity.oraclecloud.com"},
		"another port":          {change: func(c *ociauth.Config) { c.OIDC.Domain = "https://" + domainHost + ":8443" }, says: "not under identity.oraclecloud.com"},
		"another realm":         {change: func(c *ociauth.Config) { c.OIDC.Domain = "https://idcs-0.identity.oraclegovcloud.com" }, hosts: map[string]http.HandlerFunc{"POST idcs-0.identity.oraclegovcloud.com": good}, asks: 1, says: "the identity domain is in the realm of oraclegovcloud.com"},
		"no region":             {change: func(c *ociauth.Config) { c.Region = "" }, says: "the region is missing"},
		"no client":             {change: func(c *ociauth.Config) { c.OIDC.Client = "" }, says: "id of the identity domain's application is missing"},
		"a client with a colon": {change: func(c *ociauth.Config) { c.OIDC.Client = "a:b" }, says: "id of the identity domain's application is missing or malformed"},
		"no secret":             {change: func(c *ociauth.Config) { c.OIDC.Secret = "" }, says: "secret of the identity domain's application is missing"},
		"a secret of two lines": {change: func(c *ociauth.Config) { c.OIDC.Secret = clientSecret + "\nx" }, says: "not one line of ASCII"},
		"no secret in the file": {change: func(c *ociauth.Config) { c.OIDC.SecretFile = "/dev/null" }, says: "is empty"},
		"an endless secret":     {change: func(c *ociauth.Config) { c.OIDC.SecretFile = "/dev/zero" }, says: "/dev/zero is larger than"},
		"no token":              {change: func(c *ociauth.Config) { c.OIDC.Token = "" }, says: "the OIDC token is missing"},
		"a token of two lines":  {change: func(c *ociauth.Config) { c.OIDC.Token += "\r\nX: y" }, says: "the OIDC token: it holds no token"},
		"an old token": {change: func(c *ociauth.Config) {
			c.OIDC.Token = said(t, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})
		}, says: "the OIDC token: the token expired at 20"},
		"another tenancy": {change: func(c *ociauth.Config) { c.Override.Tenancy = someTenancy + "x" }, hosts: answers(200, `{"token":"`+session(t)+`"}`), asks: 1, says: "the token is of tenancy"},
		"a wrong secret":  {hosts: answers(401, `{"error":"invalid_client","error_description":"Client authentication failed."}`), asks: 1, says: "401 Unauthorized: invalid_client: Client authentication failed."},
		"no trust":        {hosts: answers(400, `{"error":"invalid_grant","error_description":"No trust for the issuer"}`), asks: 1, says: "400 Bad Request: invalid_grant: No trust for the issuer"},
		"an answer with the token": {hosts: answers(400, `{"error":"invalid_grant","error_description":"bad: `+subject+`"}`), asks: 1,
			says: "its text repeats a secret"},
		"an answer with a part of the token": {hosts: answers(400, "bad: "+subject[:100]), asks: 1, says: "bad: …"},
		"an answer with the secret":          {hosts: answers(500, clientSecret), asks: 1, says: "its text repeats a secret"},
		"a redirect":                         {hosts: answers(307, ""), asks: 1, says: "redirects are not followed"},
		"no JSON":                            {hosts: answers(200, "<html>"), asks: 1, says: "not a JSON object"},
		"a token twice":                      {hosts: answers(200, `{"token":"a","Token":"b"}`), asks: 1, says: "occurs twice"},
		"more than an object":                {hosts: answers(200, `{"token":"a"}{}`), asks: 1, says: "text follows the object"},
		"no session":                         {hosts: answers(200, `{"access_token":"a.b.c"}`), asks: 1, says: "not a valid token"},
		"a session in another case": {hosts: answers(200, `{"TOKEN":"`+session(t)+`"}`), asks: 1,
			says: "not a valid token"},
		"a session without a tenancy": {hosts: answers(200, `{"token":"`+said(t, map[string]any{"exp": inAnHour()})+`"}`), asks: 1, says: "names no tenancy"},
		"a session without an expiry": {hosts: answers(200, `{"token":"`+said(t, map[string]any{"tenant": someTenancy})+`"}`), asks: 1,
			says: "the token has no expiry"},
		"a line break":      {hosts: answers(200, `{"token":"a\r\nb"}`), asks: 1, says: "not a valid token"},
		"an endless answer": {hosts: answers(200, strings.Repeat("x", 1<<17)), asks: 1, says: "more than 65536 bytes"},

		"a request over http": {change: func(c *ociauth.Config) {
			c.OIDC.Token, c.OIDC.RequestURL, c.OIDC.RequestToken = "", "http://"+askingHost, requestToken
		}, says: "is not an https URL"},
		"a request elsewhere": {change: func(c *ociauth.Config) {
			c.OIDC.Token, c.OIDC.RequestURL, c.OIDC.RequestToken = "", "https://actions.githubusercontent.com.evil.example/", requestToken
		}, says: "which is not GitHub"},
		"a request to a link-local address": {change: func(c *ociauth.Config) {
			c.OIDC.Token, c.OIDC.RequestURL, c.OIDC.RequestToken = "", "https://169.254.169.254/", requestToken
		}, says: "which is not GitHub"},
		"an error of GitHub": {change: func(c *ociauth.Config) {
			c.OIDC.Token, c.OIDC.RequestURL, c.OIDC.RequestToken = "", github.RequestURL, github.RequestToken
		}, hosts: map[string]http.HandlerFunc{"GET " + askingHost: says(403, "not with "+requestToken)}, asks: 1,
			says: "asking GitHub for the OIDC token of this job: 403 Forbidden: its text repeats a secret"},
		"a redirect of GitHub": {change: func(c *ociauth.Config) {
			c.OIDC.Token, c.OIDC.RequestURL, c.OIDC.RequestToken = "", github.RequestURL, github.RequestToken
		}, hosts: map[string]http.HandlerFunc{"GET " + askingHost: says(302, "")}, asks: 1, says: "redirects are not followed"},
		"an answer of GitHub without a token": {change: func(c *ociauth.Config) {
			c.OIDC.Token, c.OIDC.RequestURL, c.OIDC.RequestToken = "", github.RequestURL, github.RequestToken
		}, hosts: map[string]http.HandlerFunc{"GET " + askingHost: says(200, `{}`)}, asks: 1, says: "it holds no token"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := job(t)
			cfg.OIDC.Token = subject
			if test.change != nil {
				test.change(&cfg)
			}
			p := play(t, test.hosts)
			who, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
			if err == nil || who != nil || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("got %v, %v; want %q", who, err, test.says)
			}
			for _, secret := range []string{clientSecret, requestToken, subject[:60], cfg.OIDC.Token, "hunter2", "eyJ"} {
				if secret != "" && strings.Contains(err.Error(), secret) {
					t.Errorf("%v\nshows %q", err, secret)
				}
			}
			if n := len(p.requests()); n != test.asks {
				t.Errorf("%d requests were sent; want %d", n, test.asks)
			}
		})
	}
}

func TestParseDomain(t *testing.T) {
	for text, want := range map[string]string{
		"https://idcs-0a.identity.oraclecloud.com":           "idcs-0a.identity.oraclecloud.com oraclecloud.com",
		"https://IDCS-0A.identity.oraclecloud.com:443/":      "idcs-0a.identity.oraclecloud.com oraclecloud.com",
		"https://idcs-0a.identity.oraclegovcloud.uk":         "idcs-0a.identity.oraclegovcloud.uk oraclegovcloud.uk",
		"https://idcs-0a.identity.oraclecloud.eu":            "idcs-0a.identity.oraclecloud.eu oraclecloud.eu",
		"https://identity.oraclecloud.com":                   "",
		"https://.identity.oraclecloud.com":                  "",
		"https://a..identity.oraclecloud.com":                "",
		"https://-a.identity.oraclecloud.com":                "",
		"https://a.identity.oraclecloud.com.":                "",
		"https://a%2f.identity.oraclecloud.com":              "",
		"https://evil.example.com#.identity.oraclecloud.com": "",
		"https://evil.example.com?.identity.oraclecloud.com": "",
		"https://evil.example.com/.identity.oraclecloud.com": "",
		"//idcs-0a.identity.oraclecloud.com":                 "",
		"idcs-0a":                                            "",
	} {
		host, realm, err := ociauth.ParseDomain(text)
		if got := strings.TrimSpace(fmt.Sprint(host, " ", realm)); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", text, got, err, want)
		}
	}
}

func FuzzParseDomain(f *testing.F) {
	f.Add("https://idcs-0a.identity.oraclecloud.com:443/")
	f.Add("https://user@idcs-0a.identity.oraclecloud.com\\@evil.example.com")
	f.Fuzz(func(t *testing.T, text string) {
		host, realm, err := ociauth.ParseDomain(text)
		if err != nil {
			if host != "" || realm != "" {
				t.Errorf("%q, %q beside %v", host, realm, err)
			}
			return
		}
		if !strings.HasSuffix(host, ".identity."+realm) || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
			t.Errorf("%q leads to %q", text, host)
		}
		if again, _, err := ociauth.ParseDomain("https://" + host); again != host || err != nil {
			t.Errorf("%q, then %q, %v", host, again, err)
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte(`{"token":"a.b.c","n":1}`))
	f.Add([]byte(`{"token":"a","TOKEN":"b"}`))
	f.Add([]byte(`{"error":"x","error_description":null} `))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ociauth.ParseAnswer(data)
		if err != nil {
			if got != nil {
				t.Errorf("%v beside %v", got, err)
			}
			return
		}
		// A parsed answer prints back the same, so all readers understand it in the
		// same way.
		again, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		same, err := ociauth.ParseAnswer(again)
		if err != nil || len(same) != len(got) {
			t.Errorf("%s: %v", again, err)
		}
		var loose map[string]any
		if err := json.Unmarshal(data, &loose); err != nil || len(loose) != len(got) {
			t.Errorf("read loosely: %v, %v", loose, err)
		}
	})
}

func FuzzParseClaims(f *testing.F) {
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"res_tenant":"t","exp":1}`)))
	f.Add(base64.RawURLEncoding.EncodeToString([]byte(`{"tenant":1,"exp":"x"}`)))
	f.Fuzz(func(t *testing.T, payload string) {
		tenancy, expires, err := ociauth.ParseClaims("e30." + payload + ".e30")
		if err != nil && (tenancy != "" || expires != 0) {
			t.Errorf("%q, %v beside %v", tenancy, expires, err)
		}
	})
}
