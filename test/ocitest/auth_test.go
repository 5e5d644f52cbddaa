package ocitest_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

const (
	artifactsHost = "https://artifacts.us-ashburn-1.oci.oraclecloud.com"
	configuration = artifactsHost + "/20160918/container/configuration?compartmentId="
	lookup        = artifactsHost + "/20160918/container/images/actions/lookupImageByUri"
)

// send sends a request unchanged. It returns the status, the error code, and the
// emulator's reason.
func send(tb testing.TB, req *http.Request) (status int, code, why string) {
	tb.Helper()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	if res.Header.Get("Opc-Request-Id") == "" || res.Header.Get("X-Oci-Emulator") == "" {
		tb.Errorf("%s %s: no opc-request-id, or no header that names the emulator: %v", req.Method, req.URL, res.Header)
	}
	var failure struct{ Code string }
	json.Unmarshal(body, &failure) //nolint:errcheck // successes have no code
	return res.StatusCode, failure.Code, res.Header.Get("X-Oci-Emulator-Why")
}

func newRequest(tb testing.TB, method, url, body string) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

func signed(tb testing.TB, config common.KeyProvider, req *http.Request) *http.Request {
	tb.Helper()
	if err := common.DefaultRequestSigner(config).Sign(req); err != nil {
		tb.Fatal(err)
	}
	return req
}

func TestRequestSignatures(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
	other := common.CustomProfileConfigProvider(tenancy.NewUser("other", "Administrators").ConfigFile(), ocitest.ProfileDefault)
	stranger := common.CustomProfileConfigProvider(cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin().ConfigFile(), ocitest.ProfileDefault)
	image := tenancy.NewImage("web", "v1")
	get := func() *http.Request { return newRequest(t, "GET", configuration+tenancy.ID, "") }
	post := func() *http.Request {
		return newRequest(t, "POST", lookup, `{"imageUri":"`+tenancy.Namespace+"/web@"+image.Digest+`"}`)
	}
	for name, tt := range map[string]struct {
		req  func() *http.Request
		want int
		why  string // a part of the emulator's reason
	}{
		"a GET signed by the SDK": {
			req: func() *http.Request { return signed(t, config, get()) }, want: 200,
		},
		"a POST signed by the SDK": {
			req: func() *http.Request { return signed(t, config, post()) }, want: 200,
		},
		"parameters in another order": {
			req: func() *http.Request {
				r := signed(t, config, get())
				a := r.Header.Get("Authorization")
				p := func(name string) string { return regexp.MustCompile(name + `="[^"]*"`).FindString(a) }
				r.Header.Set("Authorization", "Signature "+strings.Join([]string{p("algorithm"), p("headers"), p("signature"), p("keyId"), p("version")}, ", "))
				return r
			}, want: 200,
		},
		"x-date instead of date": {
			req: func() *http.Request {
				r := get()
				r.Header.Set("X-Date", r.Header.Get("Date"))
				r.Header.Set("Date", "yesterday")
				s := common.RequestSigner(config, []string{"x-date", "(request-target)", "host"}, nil)
				if err := s.Sign(r); err != nil {
					t.Fatal(err)
				}
				return r
			}, want: 200,
		},
		"no Authorization": {
			req: get, want: 401, why: "scheme Signature",
		},
		"another scheme": {
			req: func() *http.Request { r := get(); r.SetBasicAuth("a", "b"); return r }, want: 401, why: "scheme Signature",
		},
		"a parameter twice": {
			req: func() *http.Request {
				r := signed(t, config, get())
				r.Header.Set("Authorization", r.Header.Get("Authorization")+`,keyId="x"`)
				return r
			}, want: 401, why: "stands twice",
		},
		"another algorithm": {
			req: func() *http.Request {
				r := signed(t, config, get())
				r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "rsa-sha256", "hmac-sha256", 1))
				return r
			}, want: 401, why: "algorithm",
		},
		"a date six minutes ago": {
			req: func() *http.Request {
				r := get()
				r.Header.Set("Date", time.Now().Add(-6*time.Minute).UTC().Format(http.TimeFormat))
				return signed(t, config, r)
			}, want: 401, why: "away from OCI's clock",
		},
		"a date six minutes ahead": {
			req: func() *http.Request {
				r := get()
				r.Header.Set("Date", time.Now().Add(6*time.Minute).UTC().Format(http.TimeFormat))
				return signed(t, config, r)
			}, want: 401, why: "away from OCI's clock",
		},
		"a date changed after signing": {
			req: func() *http.Request {
				r := signed(t, config, get())
				r.Header.Set("Date", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
				return r
			}, want: 401, why: "does not fit",
		},
		"an unsigned host": {
			req: func() *http.Request {
				r := get()
				if err := common.RequestSigner(config, []string{"date", "(request-target)"}, nil).Sign(r); err != nil {
					t.Fatal(err)
				}
				return r
			}, want: 401, why: "host is not among",
		},
		"an unsigned body hash": {
			req: func() *http.Request {
				r := post()
				if err := common.RequestSignerExcludeBody(config).Sign(r); err != nil {
					t.Fatal(err)
				}
				return r
			}, want: 401, why: "x-content-sha256",
		},
		"another body": {
			req: func() *http.Request {
				r := signed(t, config, post())
				b := strings.Replace(`{"imageUri":"`+tenancy.Namespace+"/web@"+image.Digest+`"}`, "web", "wob", 1)
				r.Body = io.NopCloser(strings.NewReader(b))
				return r
			}, want: 401, why: "x-content-sha256",
		},
		"a body of unknown length": {
			req: func() *http.Request {
				r := signed(t, config, post())
				r.ContentLength = -1
				return r
			}, want: 401, why: "does not fit",
		},
		"signed for another path": {
			req: func() *http.Request {
				r := signed(t, config, get())
				r.URL.RawQuery += "&x=y"
				return r
			}, want: 401, why: "does not fit",
		},
		"another user's key": {
			req: func() *http.Request {
				r := signed(t, other, get())
				own := signed(t, config, get()).Header.Get("Authorization")
				id := regexp.MustCompile(`keyId="[^"]*"`)
				r.Header.Set("Authorization", id.ReplaceAllString(r.Header.Get("Authorization"), id.FindString(own)))
				return r
			}, want: 401, why: "does not fit",
		},
		"an unknown key": {
			req: func() *http.Request {
				r := signed(t, config, get())
				r.Header.Set("Authorization", regexp.MustCompile(`/[0-9a-f:]{47}"`).ReplaceAllString(r.Header.Get("Authorization"), `/00:11"`))
				return r
			}, want: 401, why: "no API key",
		},
		"a session of another issuer": {
			req: func() *http.Request {
				r := signed(t, config, get())
				r.Header.Set("Authorization", regexp.MustCompile(`keyId="[^"]*"`).ReplaceAllString(r.Header.Get("Authorization"), `keyId="ST$$a.b.c"`))
				return r
			}, want: 401, why: "malformed",
		},
		"a user of another tenancy": {
			req: func() *http.Request { return signed(t, stranger, get()) }, want: 404, why: "has no REPOSITORY_INSPECT",
		},
		"a region without a subscription": {
			req: func() *http.Request {
				return signed(t, config, newRequest(t, "GET", strings.Replace(configuration, "us-ashburn-1", "us-phoenix-1", 1)+tenancy.ID, ""))
			}, want: 401, why: "not subscribed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, code, why := send(t, tt.req())
			if status != tt.want || !strings.Contains(why, tt.why) {
				t.Errorf("%d %s (%s), want %d (…%s…)", status, code, why, tt.want, tt.why)
			}
			if want := map[int]string{401: "NotAuthenticated", 404: "NotAuthorizedOrNotFound"}[tt.want]; code != want {
				t.Errorf("code %q, want %q", code, want)
			}
		})
	}
}

// TestProfiles signs in with every kind of profile, with the SDK's own providers.
func TestProfiles(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	file := tenancy.Admin().ConfigFile()
	session, err := common.ConfigurationProviderForSessionTokenWithProfile(file, ocitest.ProfileSession, "")
	if err != nil {
		t.Fatal(err)
	}
	protected, err := common.ConfigurationProviderFromFileWithProfile(file, ocitest.ProfilePassphrase, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]common.ConfigurationProvider{
		"API key":                    common.CustomProfileConfigProvider(file, ocitest.ProfileDefault),
		"API key with a pass phrase": protected,
		"session token":              session,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := clientsOf(t, config).storage.GetNamespace(context.Background(), objectstorage.GetNamespaceRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if *got.Value != tenancy.Namespace {
				t.Errorf("namespace %s, want %s", *got.Value, tenancy.Namespace)
			}
		})
	}
	t.Run("the protected key needs its pass phrase", func(t *testing.T) {
		t.Parallel()
		b, err := os.ReadFile(filepath.Join(filepath.Dir(file), "api_key_protected.pem"))
		if err != nil {
			t.Fatal(err)
		}
		for _, phrase := range []string{"", "wrong"} {
			if k, err := common.PrivateKeyFromBytes(b, &phrase); err == nil {
				t.Errorf("pass phrase %q opens the key: %v", phrase, k)
			}
		}
		phrase := ocitest.Passphrase
		if _, err := common.PrivateKeyFromBytes(b, &phrase); err != nil {
			t.Error(err)
		}
	})
}

// keyOf signs requests with a session's token and another key.
type keyOf struct {
	id  string
	key *rsa.PrivateKey
}

func (k keyOf) KeyID() (string, error)                  { return k.id, nil }
func (k keyOf) PrivateRSAKey() (*rsa.PrivateKey, error) { return k.key, nil }

func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	// A separate cloud, because its clock moves.
	now := time.Now()
	own := ocitest.Start(t, ocitest.Config{Now: func() time.Time { return now }, Seed: "bare"})
	client := clientFor(t, own)
	session, err := common.ConfigurationProviderForSessionTokenWithProfile(own.ConfigFile(), ocitest.ProfileSession, "")
	if err != nil {
		t.Fatal(err)
	}
	do := func(k common.KeyProvider) int {
		t.Helper()
		req := newRequest(t, "GET", "https://objectstorage.us-ashburn-1.oraclecloud.com/n", "")
		req.Header.Set("Date", now.UTC().Format(http.TimeFormat))
		res, err := client.Do(signed(t, k, req))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := do(session); got != 200 {
		t.Errorf("status %d with a fresh session, want 200", got)
	}
	id, err := session.KeyID()
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := common.CustomProfileConfigProvider(own.ConfigFile(), ocitest.ProfileDefault).PrivateRSAKey()
	if err != nil {
		t.Fatal(err)
	}
	if got := do(keyOf{id, wrong}); got != 401 {
		t.Errorf("status %d with a key that is not the session's, want 401", got)
	}
	key, err := session.PrivateRSAKey()
	if err != nil {
		t.Fatal(err)
	}
	forged := []byte(id)
	forged[len(forged)-5] ^= 1
	if got := do(keyOf{string(forged), key}); got != 401 {
		t.Errorf("status %d with a forged token, want 401", got)
	}
	now = now.Add(25 * time.Hour)
	if got := do(session); got != 401 {
		t.Errorf("status %d a day later, want 401", got)
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
	req := newRequest(t, "POST", lookup, string(bytes.Repeat([]byte(" "), 2<<20)))
	if status, code, _ := send(t, signed(t, config, req)); status != 413 {
		t.Errorf("%d %s, want 413", status, code)
	}
}
