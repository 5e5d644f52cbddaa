package ociauth_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// shell imitates Cloud Shell on this machine: a configuration file with a profile
// for each region, and an instance of another owner than the user.
func shell(t *testing.T, config, token string) (cfg ociauth.Config, tokenFile string, p *played) {
	t.Helper()
	dir := t.TempDir()
	file, tokenFile := filepath.Join(dir, "config"), filepath.Join(dir, "delegation_token")
	config = strings.ReplaceAll(config, "TOKEN", tokenFile)
	for name, content := range map[string]string{file: config, tokenFile: token} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	i := tenancy.Admin().NewInstance()
	p = play(t, map[string]http.HandlerFunc{
		"POST auth.us-ashburn-1.oraclecloud.com":         says(200, `{"token":"`+session(t)+`"}`),
		"GET objectstorage.us-ashburn-1.oraclecloud.com": says(200, `"ns"`),
	})
	return ociauth.Config{ConfigFile: file, Profile: "us-ashburn-1", Metadata: i.MetadataURL}, tokenFile, p
}

const shellConfig = "[us-ashburn-1]\nauthentication_type=instance_principal\ndelegation_token_file=TOKEN\ntenancy=" + someTenancy + "\nregion=us-ashburn-1\n"

// Each request has the delegation token that is on disk at the time, and signs it.
// The tenancy is the user's.
func TestDelegation(t *testing.T) {
	first := said(t, map[string]any{"n": 1, "exp": inAnHour()})
	cfg, file, p := shell(t, shellConfig, first+"\n")
	cfg.Kind = ociauth.KindInstanceOBOUser
	who, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
	if err != nil {
		t.Fatal(err)
	}
	if who.Tenancy() != someTenancy {
		t.Errorf("it is of %s", who.Tenancy())
	}
	second := said(t, map[string]any{"n": 2, "exp": inAnHour()})
	ask := func(want string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		before := len(p.requests())
		if _, err := who.Namespace(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, r := range p.requests()[before:] {
			if !strings.HasPrefix(r.Host, "objectstorage.") {
				continue
			}
			if got := r.Header.Get("opc-obo-token"); got != want {
				t.Errorf("the request is by %q, want %q", got, want)
			}
			if a := r.Header.Get("Authorization"); !strings.Contains(a, `headers="date (request-target) host opc-obo-token"`) {
				t.Errorf("signed are %s", a)
			}
		}
		if len(p.requests()) == before {
			t.Error("nothing was asked")
		}
	}
	ask(first)
	ask(second)
	old := said(t, map[string]any{"exp": time.Now().Add(-time.Minute).Unix()})
	if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := who.Namespace(t.Context()); err == nil || !strings.Contains(err.Error(), "the token expired at 20") || strings.Contains(err.Error(), "eyJ") {
		t.Errorf("got %v", err)
	}
}

func TestBadDelegations(t *testing.T) {
	token := said(t, map[string]any{"exp": inAnHour()})
	for name, test := range map[string]struct{ config, token, says string }{
		"no tenancy":             {strings.Replace(shellConfig, "tenancy=", "x=", 1), token, "tenancy is missing; set OCI_CLI_TENANCY"},
		"no token file":          {strings.Replace(shellConfig, "delegation_token_file=", "x=", 1), token, "delegation_token_file is missing"},
		"no token":               {shellConfig, "\n", "it holds no token"},
		"a token of two lines":   {shellConfig, "a\nb", "it holds no token"},
		"far too much":           {shellConfig, strings.Repeat("x", 1<<17), "is larger than 65536 bytes"},
		"another realm":          {strings.Replace(shellConfig, "oc1..", "oc2..", 1), token, "the tenancy is in realm oc2"},
		"no profile of a region": {"[DEFAULT]\n" + strings.SplitN(shellConfig, "\n", 2)[1], token, `no profile "us-ashburn-1"; it has: DEFAULT`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, _, p := shell(t, test.config, test.token)
			cfg.Kind = ociauth.KindInstanceOBOUser
			who, err := ociauth.SignInOver(t.Context(), cfg, p.Transport)
			if err == nil || who != nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "eyJ") {
				t.Errorf("got %v, %v; want %q", who, err, test.says)
			}
		})
	}
}
