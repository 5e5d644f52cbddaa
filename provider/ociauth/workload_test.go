package ociauth_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// pod returns a workload without rights. It may read the namespace of its tenancy,
// as every caller may.
func pod(t *testing.T) (*ocitest.Tenancy, *ocitest.Workload, ociauth.Config) {
	t.Helper()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	w := tenancy.NewCluster("prod", "").NewWorkload("oke-sign", "oke-sign")
	return tenancy, w, ociauth.Config{
		Kind: ociauth.KindOKEWorkloadIdentity, Region: "us-ashburn-1", Workload: ociauth.Workload{KubernetesHost: w.Host, Dir: w.Dir},
	}
}

func TestWorkload(t *testing.T) {
	tenancy, w, cfg := pod(t)
	who, err := ociauth.SignIn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if who.Tenancy() != tenancy.ID || who.Region().ID() != "us-ashburn-1" || !strings.Contains(who.String(), w.Host) {
		t.Errorf("it is %s of %s in %s", who, who.Tenancy(), who.Region())
	}
	for range 3 {
		if got, err := who.Namespace(t.Context()); err != nil || got != tenancy.Namespace {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if n := w.Asked(); n != 1 {
		t.Errorf("asked for %d tokens", n)
	}
}

// A new token is requested in time, with the service account's token of that moment.
func TestWorkloadTokensAreRenewed(t *testing.T) {
	tenancy, w, cfg := pod(t)
	w.SetLife(time.Minute + 2*time.Second) // the last minute is not used
	who, err := ociauth.SignIn(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Rotate()
	for w.Asked() < 3 {
		if got, err := who.Namespace(t.Context()); err != nil || got != tenancy.Namespace {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	// While the endpoint is down, the last token serves until its expiry. After that
	// nothing is sent unsigned.
	w.Answer(http.StatusServiceUnavailable, "down")
	for {
		_, err := who.Namespace(t.Context())
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), "asking https://"+w.Host+":12250/resourcePrincipalSessionTokens for a workload's token: 503 Service Unavailable: down") {
			t.Errorf("got %v", err)
		}
		break
	}
	w.Answer(0, "")
	if _, err := who.Namespace(t.Context()); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// A token that OCI rejects is replaced. A new token stays, however often OCI rejects
// it.
func TestRejectedWorkloadTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := 0
		identify, refused := ociauth.Tokens(func() (string, error) { made++; return fmt.Sprint("token ", made), nil })
		expect := func(want string) {
			t.Helper()
			if got, err := identify(t.Context()); got != want || err != nil {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
			synctest.Wait()
		}
		expect("token 1")
		refused()
		expect("token 1")
		time.Sleep(31 * time.Second)
		for range 100 {
			refused()
			expect("token 2")
		}
		time.Sleep(29 * time.Minute)
		expect("token 2")
		time.Sleep(2 * time.Minute) // half of its hour is over
		expect("token 2")
		expect("token 3")
	})
}

// OCI rejects a good token if the tenancy is not subscribed to the region of an
// image. The client uses the token until it has another one.
func TestGoodTokensThatOCIRejects(t *testing.T) {
	down := errors.New("down")
	for name, fail := range map[string]func() error{
		"the endpoint is down": func() error { return down },
		"the endpoint hangs":   func() error { time.Sleep(time.Minute); return down },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var made atomic.Int32
				var failing atomic.Bool
				identify, refused := ociauth.Tokens(func() (string, error) {
					if failing.Load() {
						return "", fail()
					}
					return fmt.Sprint("token ", made.Add(1)), nil
				})
				expect := func(want string) {
					t.Helper()
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					defer cancel()
					if got, err := identify(ctx); got != want || (err == nil) != (want != "") {
						t.Errorf("got %q, %v; want %q", got, err, want)
					}
				}
				expect("token 1")
				time.Sleep(40 * time.Minute)
				failing.Store(true)
				for range 10 {
					refused()
					expect("token 1")
					time.Sleep(time.Minute)
				}
				failing.Store(false)
				if _, err := identify(t.Context()); err != nil { // with the old or the new token: a request for another runs in the background
					t.Error(err)
				}
				synctest.Wait()
				expect("token 2")
				time.Sleep(40 * time.Minute)
				failing.Store(true)
				refused()
				expect("token 2")
				time.Sleep(21 * time.Minute)
				expect("") // its time is over
				synctest.Wait()
				time.Sleep(2 * time.Minute) // until no request is in flight
			})
		})
	}
}

func TestBadWorkloads(t *testing.T) {
	jwt := func(claims map[string]any) string {
		body, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		return "e30." + base64.RawURLEncoding.EncodeToString(body) + ".e30"
	}
	answer := func(token string) string {
		inner, err := json.Marshal(map[string]string{"token": token})
		if err != nil {
			t.Fatal(err)
		}
		return `"` + base64.StdEncoding.EncodeToString(inner) + `"`
	}
	later := float64(time.Now().Add(time.Hour).Unix())
	tenancy := "ocid1.tenancy.oc1..aaaa"
	for name, test := range map[string]struct {
		change func(*ociauth.Config, *ocitest.Workload)
		says   string
	}{
		"not in a cluster": {func(c *ociauth.Config, _ *ocitest.Workload) { c.Workload.KubernetesHost = "" }, "KUBERNETES_SERVICE_HOST is not set"},
		"no region":        {func(c *ociauth.Config, _ *ocitest.Workload) { c.Region = "" }, "region"},
		"another realm":    {func(c *ociauth.Config, _ *ocitest.Workload) { c.Region = "us-gov-ashburn-1" }, "the tenancy is in realm oc1"},
		"no token":         {func(c *ociauth.Config, _ *ocitest.Workload) { c.Workload.Dir = t.TempDir() }, "reading the service account's token"},
		"another's token": {func(_ *ociauth.Config, w *ocitest.Workload) {
			if err := os.WriteFile(filepath.Join(w.Dir, "token"), []byte("another"), 0o600); err != nil {
				t.Error(err)
			}
		}, "401 Unauthorized: the service account's token does not hold"},
		"another's CA": {func(_ *ociauth.Config, w *ocitest.Workload) {
			other := ocitest.Start(t, ocitest.Config{})
			ca, err := os.ReadFile(other.CAFile())
			if err == nil {
				err = os.WriteFile(filepath.Join(w.Dir, "ca.crt"), ca, 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		}, "certificate"},
		"a basic cluster":  {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(403, "Forbidden") }, "only enhanced clusters have workload identity"},
		"nothing":          {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, "") }, "not a JSON string"},
		"one byte":         {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, `"`) }, "not a JSON string"},
		"not base64":       {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, `"!"`) }, "not base64"},
		"no JSON in it":    {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, `"aGVsbG8="`) }, "not JSON in base64"},
		"no session token": {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, answer("x")) }, "no session token"},
		"a line break":     {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, answer("ST$a\r\nb")) }, "not a valid token"},
		"no JWT":           {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, answer("ST$abc")) }, "the token is not a JWT"},
		"no claims":        {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, answer("ST$e30.e30.e30")) }, "names no tenancy"},
		"no tenancy": {func(_ *ociauth.Config, w *ocitest.Workload) {
			w.Answer(200, answer("ST$"+jwt(map[string]any{"exp": later, "res_tenant": "../x"})))
		}, "names no tenancy"},
		"no expiry": {func(_ *ociauth.Config, w *ocitest.Workload) {
			w.Answer(200, answer("ST$"+jwt(map[string]any{"res_tenant": tenancy})))
		}, "the token has no expiry"},
		"an expired token": {func(_ *ociauth.Config, w *ocitest.Workload) {
			w.Answer(200, answer("ST$"+jwt(map[string]any{"res_tenant": tenancy, "exp": 1})))
		}, "not a valid token"},
		"far too much": {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(200, `"`+strings.Repeat("A", 1<<20)+`"`) }, "more than 65536 bytes"},
		"a redirect":   {func(_ *ociauth.Config, w *ocitest.Workload) { w.Answer(307, "elsewhere") }, "307 Temporary Redirect"},
	} {
		t.Run(name, func(t *testing.T) {
			_, w, cfg := pod(t)
			test.change(&cfg, w)
			who, err := ociauth.SignIn(t.Context(), cfg)
			if err == nil || who != nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, %v; want %q", who, err, test.says)
			}
			// The cluster's answer may change soon. A wrong configuration does not
			// change.
			told := name == "not in a cluster" || name == "no region" || name == "another realm"
			if ociauth.IsUnvouched(err) == told {
				t.Errorf("temporary: %t, of %v", !told, err)
			}
		})
	}
}
