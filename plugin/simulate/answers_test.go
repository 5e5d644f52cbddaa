package simulate_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

// session returns the session of a user who signs in with a configuration file.
func session(t *testing.T, configFile string) (*connect.Session, *bytes.Buffer) {
	t.Helper()
	streams, _, _, errOut := genericiooptions.NewTestIOStreams()
	s := &connect.Session{Terminal: cli.Terminal{Streams: streams}, Kube: connect.NewKube(errOut)}
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	s.Bind(set, func(string) string { return "" })
	if err := set.Parse([]string{"--config-file", configFile}); err != nil {
		t.Fatal(err)
	}
	return s, errOut
}

// Each question has its own answer or error. A missing answer of OCI is never a yes.
func TestOCI(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("image-key", ocitest.RSA2048)
	tenancy.AllowScanning()
	tenancy.NewRepository("web", "")
	tenancy.NewScanTarget("", "web")
	signed, unsigned := tenancy.NewImage("web", "v1"), tenancy.NewImage("web", "v2")
	tenancy.Add(signed.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	unsigned.Publish(ocitest.Problem{Name: "CVE-2021-44228", Severity: "CRITICAL"})
	about := func(image string, keys ...string) string {
		return fmt.Sprintf(`{"image":"%s","keys":["%s"]}`, image, strings.Join(keys, `","`))
	}
	config := tenancy.Admin().ConfigFile()
	stranger := tenancy.NewUser("stranger").ConfigFile()
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx      context.Context
		config   string
		fault    *ocitest.Fault
		question string
		want     string
		err      string
	}{
		"signed":   {t.Context(), config, nil, about(signed.Ref(), key.ID), "signed", ""},
		"unsigned": {t.Context(), config, nil, about(unsigned.Ref(), key.ID), "unsigned", ""},
		"no keys":  {t.Context(), config, nil, fmt.Sprintf(`{"image":%q,"keys":[]}`, signed.Ref()), "key-not-allowed", ""},
		"a tag":    {t.Context(), config, nil, about("iad.ocir.io/"+tenancy.Namespace+"/web:v1", key.ID), "no-digest", ""},
		"an image of another tenancy": {
			t.Context(), config, nil, about(strings.Replace(signed.Ref(), tenancy.Namespace, "othertenancy", 1), key.ID), "not-covered", "",
		},
		"what scans found":            {t.Context(), config, nil, fmt.Sprintf(`{"image":%q}`, unsigned.Ref()), "1 CRITICAL", ""},
		"a name that is not an image": {t.Context(), config, nil, about(`web\u001b[2J`, key.ID), "", "not well formed"},
		"a key that is not an OCID":   {t.Context(), config, nil, about(signed.Ref(), "image-key"), "", "--key"},
		"a question that is not JSON": {t.Context(), config, nil, `{"image":`, "", "unexpected end"},
		"a user without rights":       {t.Context(), stranger, nil, about(signed.Ref(), key.ID), "image-not-found", ""},
		"an expired session": {
			t.Context(), config, &ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 401, Code: "NotAuthenticated"}, about(signed.Ref(), key.ID), "", "NotAuthenticated",
		},
		"OCI Registry throttles": {
			t.Context(), config, &ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 429}, about(signed.Ref(), key.ID), "", "429",
		},
		"OCI Registry fails": {
			t.Context(), config, &ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 500}, about(signed.Ref(), key.ID), "", "500",
		},
		"a scan that cannot be read": {
			t.Context(), config, &ocitest.Fault{Operation: "artifacts.*", Kind: ocitest.Status, Status: 500}, fmt.Sprintf(`{"image":%q}`, unsigned.Ref()), "", "500",
		},
		"a command that is stopped": {cancelled, config, nil, about(signed.Ref(), key.ID), "", "interrupted"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := session(t, tc.config)
			ask := simulate.OCI(s)
			if tc.fault != nil {
				tc.fault.Tenancy = tenancy.ID
				id, err := cloud.SetFault(*tc.fault)
				if err != nil {
					t.Fatal(err)
				}
				defer cloud.ClearFault(id)
			}
			answers, err := ask(tc.ctx, []string{tc.question})
			if tc.ctx.Err() != nil && err != nil { // sign-in may be the first step that fails
				return
			}
			if err != nil || len(answers) != 1 {
				t.Fatalf("%d answers, %v", len(answers), err)
			}
			got := ""
			switch v := answers[0].Value.(type) {
			case verdict.Verdict:
				got = string(v.Reason)
			case vulnreport.Report:
				got = simulate.SeverityCounts(v.Counts)
			}
			if tc.err != "" {
				if answers[0].Err == nil || !strings.Contains(answers[0].Err.Error(), tc.err) || got == "signed" {
					t.Errorf("got %s, %v, want an error with %q", got, answers[0].Err, tc.err)
				}
				return
			}
			if answers[0].Err != nil || got != tc.want {
				t.Errorf("got %s, %v, want %s", got, answers[0].Err, tc.want)
			}
		})
	}
}

// Without a question, a user need not sign in. With a question, a failed sign-in is
// an error.
func TestOCIWithoutSignIn(t *testing.T) {
	s, _ := session(t, t.TempDir()+"/none")
	if answers, err := simulate.OCI(s)(t.Context(), nil); len(answers) != 0 || err != nil {
		t.Errorf("no question: %v, %v", answers, err)
	}
	if answers, err := simulate.OCI(s)(t.Context(), []string{`{"image":"x","keys":[]}`}); answers != nil || err == nil {
		t.Errorf("a question: %v, %v", answers, err)
	}
}
