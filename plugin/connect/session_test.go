package connect_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

const (
	aKey     = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
	aCluster = "ocid1.cluster.oc1.iad.aaaaaaaaaf"
)

// session returns a session with flags, and without a kubeconfig or an OCI configuration
// unless the flags name them.
func session(t *testing.T, args ...string) (*connect.Session, error) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "nowhere"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	var errOut bytes.Buffer
	s := &connect.Session{
		Terminal:  cli.Terminal{Streams: genericiooptions.IOStreams{In: strings.NewReader(""), Out: &errOut, ErrOut: &errOut}},
		Kube:      connect.NewKube(&errOut),
		ConfigDir: t.TempDir(), Words: []string{"keys", "list"},
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	s.Bind(flags, func(name string) string {
		return map[string]string{"OCI_METADATA_BASE_URL": "http://127.0.0.1:9/", "OCI_CLI_CONFIG_FILE": filepath.Join(s.ConfigDir, "nowhere")}[name]
	})
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return s, s.ValidateFlags()
}

// hint returns the hints that the command would print for an error.
func hint(err error) string {
	if hinted, ok := errors.AsType[*cli.HintedError](connect.Advised(err)); ok {
		return hinted.Hint
	}
	return ""
}

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // in the error, or "" for none
	}{
		"none":                     {nil, ""},
		"all":                      {[]string{"--auth", "api_key", "--tenancy", "ns=ocid1.tenancy.oc1..aaaa", "--compartment", "ocid1.compartment.oc1..aaaa", "--timeout", "0"}, ""},
		"an unknown auth kind":     {[]string{"--auth", "magic"}, `unknown sign-in --auth "magic"`},
		"a negative time":          {[]string{"--timeout", "-1s"}, "--timeout -1s is negative"},
		"a tenancy without OCID":   {[]string{"--tenancy", "ns"}, "is not NAMESPACE=OCID"},
		"a tenancy with a slash":   {[]string{"--tenancy", "ns=ocid1.tenancy.oc1../x"}, "is not NAMESPACE=OCID"},
		"a namespace twice":        {[]string{"--tenancy", "ns=ocid1.tenancy.oc1..a", "--tenancy", "ns=ocid1.tenancy.oc1..b"}, `gives namespace "ns" twice`},
		"a compartment by name":    {[]string{"--compartment", "containers"}, "is not the OCID of a compartment"},
		"a compartment with slash": {[]string{"--compartment", "ocid1.compartment.oc1../x"}, "is not the OCID of a compartment"},
	} {
		s, err := session(t, tc.args...)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v", name, err)
		}
		if name == "none" && s.Timeout != 2*time.Minute {
			t.Errorf("--timeout is %s by default", s.Timeout)
		}
	}
}

func TestCompartment(t *testing.T) {
	const one = "ocid1.compartment.oc1..aaaa"
	for want, args := range map[string][]string{one: {"--compartment", one}, "": nil, " ": {"--compartment", one, "--compartment", one}} {
		s, err := session(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Compartment(); got != strings.TrimSpace(want) || (err == nil) != (got != "") {
			t.Errorf("%q: got %q, %v", args, got, err)
		}
	}
}

// kubeconfig writes a kubeconfig whose context "prod" gets tokens with these arguments.
func kubeconfig(t *testing.T, args string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config")
	text := `{apiVersion: v1, kind: Config, current-context: prod,
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}],
contexts: [{name: prod, context: {cluster: c, user: u, namespace: shop}}, {name: bare, context: {cluster: c}}],
users: [{name: u, user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: oci, interactiveMode: Never, args: [` + args + `]}}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestClusterOfTheKubeconfig(t *testing.T) {
	prod := kubeconfig(t, "ce, cluster, generate-token, --cluster-id, "+aCluster)
	for name, tc := range map[string]struct {
		args []string
		ocid string // of --cluster
		want string // the OCID, or in the error
	}{
		"--cluster":               {nil, aCluster, aCluster},
		"a wrong --cluster":       {nil, "prod", "--cluster: not the OCID of a cluster"},
		"two arguments":           {[]string{"--kubeconfig", prod}, "", aCluster},
		"one argument":            {[]string{"--kubeconfig", kubeconfig(t, "--cluster-id="+aCluster)}, "", aCluster},
		"an argument without end": {[]string{"--kubeconfig", kubeconfig(t, "--cluster-id")}, "", "in context prod does not say which OKE cluster"},
		"a wrong argument":        {[]string{"--kubeconfig", kubeconfig(t, "--cluster-id, prod")}, "", `context "prod": not the OCID of a cluster`},
		"another context":         {[]string{"--kubeconfig", prod, "--context", "bare"}, "", "in context bare does not say which OKE cluster"},
		"no kubeconfig":           {nil, "", "there is no kubeconfig"},
	} {
		s, err := session(t, tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		flag := connect.ClusterFlag{OCID: tc.ocid}
		id, err := flag.Find(s)
		if got := fmt.Sprint(id, " ", err); !strings.Contains(got, tc.want) || strings.HasPrefix(tc.want, "ocid1") != (err == nil) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

func TestKube(t *testing.T) {
	s, err := session(t, "--kubeconfig", kubeconfig(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	namespace, err := s.Kube.CurrentNamespace()
	if err != nil || namespace != "shop" || !s.Kube.Leads() {
		t.Errorf("namespace %q, %v; leads %t", namespace, err, s.Kube.Leads())
	}
	if s, _ = session(t); s.Kube.Leads() {
		t.Error("no kubeconfig leads to a cluster")
	}
	if name, err := s.Kube.ContextName(); name != "" || err != nil {
		t.Errorf("context %q, %v", name, err)
	}
	client, err := s.Kube.Typed()
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Discovery().ServerVersion()
	if got := connect.Advised(err); got == nil || got.Error() != "there is no kubeconfig, so there is no cluster to ask" || !strings.Contains(hint(err), ": oci ce cluster create-kubeconfig --cluster-id OCID") {
		t.Errorf("without a kubeconfig: %v, %q", got, hint(err))
	}
	if s, err = session(t, "--server", "http://127.0.0.1:1"); err != nil {
		t.Fatal(err)
	}
	if client, err = s.Kube.Typed(); err != nil {
		t.Fatal(err)
	}
	if _, err = client.Discovery().ServerVersion(); err == nil || !strings.Contains(hint(err), "check that the cluster runs, and that the kubeconfig has its address") {
		t.Errorf("a cluster that is gone: %v, %q", err, hint(err))
	}
	if s, err = session(t, "--kubeconfig", filepath.Join(t.TempDir(), "gone")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kube.ContextName(); err == nil || !strings.Contains(hint(err), "--kubeconfig or --context") {
		t.Errorf("a kubeconfig that is gone: %v, %q", err, hint(err))
	}
}

func TestFirstSteps(t *testing.T) {
	user := cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin()
	for name, tc := range map[string]struct {
		args []string
		want bool
	}{
		"nothing is set up":      {nil, true},
		"a kubeconfig":           {[]string{"--kubeconfig", kubeconfig(t, "")}, false},
		"an OCI configuration":   {[]string{"--config-file", user.ConfigFile()}, false},
		"another way to sign in": {[]string{"--auth", "instance_principal"}, false},
	} {
		s, err := session(t, tc.args...)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.FirstSteps(t.Context()); (got != "") != tc.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestSignInWithoutConfiguration(t *testing.T) {
	s, err := session(t)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.Connect(t.Context()); err == nil || !strings.HasSuffix(hint(err), ": oci setup config") {
		t.Errorf("got %v, %q", err, hint(err))
	}
}

// TestPinned says why an image cannot be found.
func TestPinned(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	there := tenancy.NewImage("team/web", "v1")
	s, err := session(t, "--config-file", tenancy.Admin().ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.ConnectImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := "iad.ocir.io/" + tenancy.Namespace + "/team/web"
	for text, want := range map[string]string{
		name + ":v1": "",
		name + ":v2": "no image with this tag",
		name + "@sha256:" + strings.Repeat("a", 64): "no image with this digest",
		"iad.ocir.io/another/team/web:v1":           "namespace another is not your tenancy's",
	} {
		ref, err := image.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		img, at, err := c.Pinned(t.Context(), ref)
		switch {
		case want == "" && (err != nil || img.Digest != there.Digest || at.Digest() != there.Digest):
			t.Errorf("%s: got %s, %v", text, at, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || hint(err) == ""):
			t.Errorf("%s: got %v, %q", text, err, hint(err))
		}
	}
}

func TestDefaults(t *testing.T) {
	s, err := session(t)
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := s.DefaultKey(); err != nil || !id.IsZero() {
		t.Errorf("before anything is chosen: %s, %v", id, err)
	}
	var group sync.WaitGroup
	for i := range 8 { // each change builds on the one before
		group.Go(func() {
			if err := s.ChangeDefaults(func(d *connect.Defaults) {
				if d.Contexts == nil {
					d.Contexts = make(map[string]connect.Choice)
				}
				d.Contexts[fmt.Sprint("c", i)] = connect.Choice{Key: aKey}
				d.Contexts[""] = connect.Choice{Key: aKey}
			}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	d, err := s.ReadDefaults()
	if err != nil || len(d.Contexts) != 9 {
		t.Errorf("got %v, %v", d, err)
	}
	want, err := signature.ParseKeyID(aKey)
	if err != nil {
		t.Fatal(err)
	}
	if id, in, err := s.DefaultKey(); err != nil || id != want || in != "" {
		t.Errorf("got %s in %q, %v", id, in, err)
	}
	info, err := os.Stat(filepath.Join(s.ConfigDir, "oke-sign", "config.yaml"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if s.ConfigDir = ""; s.ChangeDefaults(func(*connect.Defaults) {}) == nil {
		t.Error("without a directory, a choice was stored")
	}
}

func TestBadDefaults(t *testing.T) {
	for name, text := range map[string]string{
		"an unknown field":     "contexts: {a: {key: " + aKey + ", colour: red}}",
		"a key that is no key": "contexts: {a: {key: image-key}}",
		"a field twice":        "contexts: {}\ncontexts: {}",
		"not YAML":             "{",
		"too long":             "#" + strings.Repeat("x", 1<<20),
	} {
		s, err := session(t)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(s.ConfigDir, "oke-sign")
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, "config.yaml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if d, err := s.ReadDefaults(); err == nil || len(d.Contexts) > 0 || !strings.Contains(hint(err), "kubectl oke-sign keys use") {
			t.Errorf("%s: got %v, %v", name, d, err)
		}
		if s.ChangeDefaults(func(*connect.Defaults) {}) == nil {
			t.Errorf("%s: a change replaced the file", name)
		}
	}
}
