package ociauth_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// home has the configuration of a user of the emulator. A test damages it.
type home struct {
	t      *testing.T
	dir    string
	config string
}

func newHome(t *testing.T) *home {
	t.Helper()
	config := cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin().ConfigFile()
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	return &home{t, filepath.Dir(config), string(text)}
}

// section returns the text of one profile, without its heading.
func (h *home) section(name string) string {
	_, after, _ := strings.Cut(h.config, "["+name+"]\n")
	section, _, _ := strings.Cut(after, "\n[")
	return section
}

func (h *home) write(name, content string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func shortKey(t *testing.T) string {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func jwt(expires time.Time) string {
	claims := fmt.Sprintf(`{"sub":"somebody","exp":%d}`, expires.Unix())
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
}

func TestBadProfiles(t *testing.T) {
	without := func(key string) func(string) string {
		return func(s string) string {
			var kept []string
			for line := range strings.Lines(s) {
				if !strings.HasPrefix(line, key+"=") {
					kept = append(kept, line)
				}
			}
			return strings.Join(kept, "")
		}
	}
	with := func(key, value string) func(string) string {
		return func(s string) string { return without(key)(s) + "\n" + key + "=" + value + "\n" }
	}
	tests := map[string]struct {
		profile string // DEFAULT if empty
		change  func(string) string
		config  ociauth.Config
		want    []string
	}{
		"tenancy is missing":             {change: without("tenancy"), want: []string{"profile CHANGED of ", "/config: tenancy is missing"}},
		"tenancy is another OCID":        {change: with("tenancy", "ocid1.user.oc1..aaaa"), want: []string{"tenancy is not the OCID of a tenancy"}},
		"tenancy has quotes":             {change: with("tenancy", `ocid1.tenancy.oc1..a",x="`), want: []string{"tenancy is not the OCID of a tenancy"}},
		"region is missing":              {change: without("region"), want: []string{"region is missing"}},
		"region is unknown":              {change: with("region", "us-evil-1"), want: []string{"us-evil-1"}},
		"region is a domain":             {change: with("region", "evil.example.com"), want: []string{"evil.example.com"}},
		"region of another realm":        {change: with("region", "us-luke-1"), want: []string{"the tenancy is in realm oc1 and region us-luke-1 in realm oc2"}},
		"region by flag, another realm":  {config: ociauth.Config{Region: "us-luke-1"}, change: with("x", "y"), want: []string{"realm oc2"}},
		"user is missing":                {change: without("user"), want: []string{"user is missing"}},
		"user is not an OCID":            {change: with("user", "me"), want: []string{`user is not the OCID of a user: "me"`}},
		"fingerprint is missing":         {change: without("fingerprint"), want: []string{"fingerprint is missing"}},
		"fingerprint of another key":     {change: with("fingerprint", "00:11"), want: []string{`fingerprint is "00:11", but that of key_file `}},
		"key_file is missing":            {change: without("key_file"), want: []string{"key_file is missing"}},
		"key_file is missing on disk":    {change: with("key_file", "/nowhere/key.pem"), want: []string{"reading key_file: open /nowhere/key.pem"}},
		"key_file is empty":              {change: with("key_file", "/dev/null"), want: []string{"key_file /dev/null holds no RSA private key"}},
		"key_file is endless":            {change: with("key_file", "/dev/zero"), want: []string{"/dev/zero is larger than"}},
		"key_file is short":              {change: with("key_file", "short.pem"), want: []string{"an RSA key of 1024 bits"}},
		"no pass phrase":                 {profile: "PASSPHRASE", change: without("pass_phrase"), want: []string{"is encrypted and there is no pass_phrase"}},
		"wrong pass phrase":              {profile: "PASSPHRASE", change: with("pass_phrase", "swordfish"), want: []string{"cannot be opened with the pass phrase"}},
		"wrong pass phrase, overridden":  {profile: "PASSPHRASE", config: ociauth.Config{Override: ociauth.Override{Passphrase: "swordfish"}}, change: with("x", "y"), want: []string{"cannot be opened with the pass phrase"}},
		"an unknown authentication type": {change: with("authentication_type", "x509"), want: []string{`authentication_type is "x509" (want one of api_key, `}},
		"a key twice":                    {change: func(s string) string { return s + "\nuser=again\n" }, want: []string{`profile CHANGED has "user" twice`}},
		"a line without a key":           {change: func(s string) string { return s + "\nhunter2\n" }, want: []string{`is not "key = value"`}},
		"the profile twice":              {change: func(s string) string { return s + "\n[CHANGED]\n" }, want: []string{`profile "CHANGED" occurs twice`}},
		"a heading without its end":      {change: func(s string) string { return s + "\n[OTHER\n" }, want: []string{"starts a profile without a ]"}},
		"no such profile":                {config: ociauth.Config{Profile: "PROD"}, change: with("x", "y"), want: []string{`no profile "PROD"; it has: DEFAULT, PASSPHRASE, SESSION, CHANGED`}},
		"no such file":                   {config: ociauth.Config{ConfigFile: "/nowhere/config"}, change: with("x", "y"), want: []string{"reading the OCI configuration file: open /nowhere/config"}},
		"no such kind":                   {config: ociauth.Config{Kind: "delegation"}, change: with("x", "y"), want: []string{`no such auth kind: "delegation"`}},
		"a session without a token":      {config: ociauth.Config{Kind: ociauth.KindSecurityToken}, change: with("x", "y"), want: []string{"security_token_file is missing"}},
		"a missing token file":           {profile: "SESSION", change: with("security_token_file", "/nowhere/token"), want: []string{"security_token_file /nowhere/token: open /nowhere/token"}},
		"a token with a line break":      {profile: "SESSION", change: with("security_token_file", "bad_token"), want: []string{"bad_token: it holds no token"}},
		"an expired token":               {profile: "SESSION", change: with("security_token_file", "old_token"), want: []string{"the token expired at 20"}},
		"a missing file of authorities":  {config: ociauth.Config{Client: oci.Config{CAFile: "/nowhere/ca.pem"}}, change: with("x", "y"), want: []string{"reading certificate authorities: open /nowhere/ca.pem"}},
		"authorities that are not PEM":   {config: ociauth.Config{Client: oci.Config{CAFile: "/dev/null"}}, change: with("x", "y"), want: []string{"/dev/null holds no certificate in PEM"}},
		"the environment fills no gap":   {change: func(string) string { return "region=us-ashburn-1\n" }, want: []string{"tenancy is missing"}},
	}
	h := newHome(t)
	t.Chdir(h.dir)
	h.write("short.pem", shortKey(t))
	h.write("bad_token", "abc\",headers=\"\nX: y")
	h.write("old_token", jwt(time.Now().Add(-time.Minute)))
	// The SDK fills gaps from these variables.
	for _, key := range []string{"tenancy_ocid", "user_ocid", "fingerprint", "region", "private_key_path"} {
		t.Setenv("TF_VAR_"+key, "from the environment")
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if test.profile == "" {
				test.profile = "DEFAULT"
			}
			file := h.write("config", h.config+"\n[CHANGED]\n"+test.change(h.section(test.profile)))
			cfg := test.config
			if cfg.ConfigFile == "" {
				cfg.ConfigFile = file
			}
			if cfg.Profile == "" {
				cfg.Profile = "CHANGED"
			}
			p, err := ociauth.SignIn(t.Context(), cfg)
			if err == nil {
				t.Fatalf("got %v and no error", p)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nshould say %s", err, want)
				}
			}
			for _, secret := range []string{"hunter2", "swordfish", ocitest.Passphrase, "BEGIN", "headers="} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%v\nshows %q", err, secret)
				}
			}
		})
	}
}

func TestParseProfile(t *testing.T) {
	tests := map[string]struct {
		text string
		want map[string]string
	}{
		"plain":                         {"[P]\nuser=a\nregion = b\n", map[string]string{"user": "a", "region": "b"}},
		"a value with equals signs":     {"[P]\npass_phrase=a=b==c\n", map[string]string{"pass_phrase": "a=b==c"}},
		"a colon in place of =":         {"[P]\nuser: a\n", map[string]string{"user": "a"}},
		"a fingerprint has colons":      {"[P]\nfingerprint=aa:bb\n", map[string]string{"fingerprint": "aa:bb"}},
		"Windows line ends and a BOM":   {"\xef\xbb\xbf[P]\r\nuser=a\r\n", map[string]string{"user": "a"}},
		"names in capitals":             {"[P]\nUser=A\n", map[string]string{"user": "A"}},
		"comments":                      {"# [P]\n[P]\n;user=b\n#x\nuser=a\n", map[string]string{"user": "a"}},
		"only the lines of the profile": {"user=x\n[O]\nuser=y\n[P]\nuser=a\n[Q]\nuser=z\n", map[string]string{"user": "a"}},
		"nonsense in other profiles":    {"[O]\nwhat\n[P]\nuser=a\n[Q]\nuser=1\nuser=2\n", map[string]string{"user": "a"}},
		"an empty profile":              {"[P]\n", map[string]string{}},
		"an empty value":                {"[P]\nuser=\n", map[string]string{"user": ""}},
		"a name with a prefix":          {"[PP]\nuser=x\n[P]\nuser=a\n", map[string]string{"user": "a"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ociauth.ParseProfile([]byte(test.text), "P")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseProfile(f *testing.F) {
	f.Add("[P]\nuser=a\npass_phrase=x=y\n")
	f.Add("[Q]\n[P]\nfingerprint: aa:bb\r\n;c\n")
	f.Add("\xef\xbb\xbf[P]\n=\n")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := ociauth.ParseProfile([]byte(text), "P")
		if err != nil {
			if values != nil {
				t.Errorf("values %q with the error %v", values, err)
			}
			return
		}
		// A parsed profile prints back the same.
		var again strings.Builder
		again.WriteString("[P]\n")
		for key, value := range values {
			fmt.Fprintf(&again, "%s=%s\n", key, value)
		}
		got, err := ociauth.ParseProfile([]byte(again.String()), "P")
		if err != nil {
			t.Fatalf("%q: %v", again.String(), err)
		}
		if diff := cmp.Diff(values, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAuthKinds(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	file := tenancy.Admin().ConfigFile()
	tests := map[string]ociauth.Config{
		"an API key":                         {},
		"an API key under a pass phrase":     {Profile: ocitest.ProfilePassphrase},
		"the same, overridden":               {Profile: ocitest.ProfilePassphrase, Override: ociauth.Override{Passphrase: ocitest.Passphrase}},
		"a session":                          {Kind: ociauth.KindSecurityToken, Profile: ocitest.ProfileSession},
		"a session, as the profile has it":   {Kind: ociauth.KindAPIKey, Profile: ocitest.ProfileSession},
		"own certificate authorities":        {Client: oci.Config{CAFile: cloud.CAFile()}},
		"the region by its key, in capitals": {Region: "IAD"},
	}
	for name, cfg := range tests {
		t.Run(name, func(t *testing.T) {
			cfg.ConfigFile = file
			p, err := ociauth.SignIn(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			namespace, err := p.Namespace(t.Context())
			if err != nil || namespace != tenancy.Namespace {
				t.Errorf("got %q, %v, want %q", namespace, err, tenancy.Namespace)
			}
			if p.Tenancy() != tenancy.ID || p.Region() != tenancy.Region || p.Realm() != "oc1" {
				t.Errorf("got %s, %s, %s", p.Tenancy(), p.Region(), p.Realm())
			}
		})
	}
}

func TestTheProfileOfTheHomeDirectory(t *testing.T) {
	h := newHome(t)
	t.Setenv("HOME", h.dir)
	if err := os.Mkdir(filepath.Join(h.dir, ".oci"), 0o700); err != nil {
		t.Fatal(err)
	}
	config := strings.ReplaceAll(h.config, h.dir, "~")
	h.write(".oci/config", config)
	p, err := ociauth.SignIn(t.Context(), ociauth.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(h.dir, ".oci", "config"); !strings.Contains(p.String(), want) {
		t.Errorf("got %s, want it to name %s", p, want)
	}
	if _, err := p.Namespace(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestARenewedSession renews the token and its key while a client uses them.
func TestARenewedSession(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	first, second := tenancy.NewUser("first", "Administrators"), tenancy.NewUser("second", "Administrators")
	p, err := ociauth.SignIn(t.Context(), ociauth.Config{Kind: ociauth.KindSecurityToken, ConfigFile: first.ConfigFile(), Profile: ocitest.ProfileSession})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Namespace(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"session_key.pem", "session_token"} {
		content, err := os.ReadFile(filepath.Join(filepath.Dir(second.ConfigFile()), name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(filepath.Dir(first.ConfigFile()), name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Namespace(t.Context()); err != nil {
		t.Fatal(err)
	}
	requests := tenancy.Requests()
	if got := requests[len(requests)-1].User; got != second.ID {
		t.Errorf("the last request was %s's, want %s's", got, second.ID)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(first.ConfigFile()), "session_token"), []byte(jwt(time.Now().Add(-time.Hour))), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Namespace(t.Context()); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("with an expired token: %v", err)
	}
}
