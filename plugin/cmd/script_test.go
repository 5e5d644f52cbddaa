package cmd_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/cmd"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
	"github.com/oke-sign/oke-sign/test/ocitest"
	"github.com/oke-sign/oke-sign/test/soundcluster"
)

var update = flag.Bool("update", false, "write what commands print into the scripts' golden files")

// TestMain makes the test binary the command as well: scripts run it as a
// separate process, which reads proxy and certificates from its environment exactly as the
// real one does.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kubectl-oke_sign": func() {
		var interrupts cli.Interrupts
		ctx, stop := interrupts.Context(context.Background())
		defer stop()
		os.Exit(cmd.Run(ctx, cmd.Config{
			Args:       os.Args[1:],
			Streams:    genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
			Getenv:     os.Getenv,
			ConfigDir:  os.Getenv("XDG_CONFIG_HOME"),
			Version:    "v1.2.3-test",
			Interrupts: &interrupts,
		}))
	}})
}

// TestScripts runs each script against a new tenancy. It has a vault of four keys and two
// repositories of two images each, without signatures.
func TestScripts(t *testing.T) {
	material, err := newMaterial()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               func(env *testscript.Env) error { return setup(env, material) },
		Condition: func(name string) (bool, error) {
			s, err := ocitest.FromEnvironment()
			switch name {
			case "upload-twice":
				return s.UploadTwice, err
			case "deleted-are-listed":
				return s.DeletedRecords == "listed", err
			case "denied-lists-are-empty":
				return s.ListDenied == "empty", err
			}
			return false, fmt.Errorf("no condition is called %q", name)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   exits,
			"key":     keyState,
			"rotate":  rotate,
			"version": versionState,
			"become":  become,
			"fault":   fault,
			"calls":   calls,
			"attach":  attach,
			"scrub":   scrub,
			"blur":    blur,
			"message": message,
			"second":  second,
			"stored":  stored,
			"long":    long,
			"images":  images,
			"flood":   flood,
			"fill":    fill,
			"cluster": cluster,
			"mode":    mode,
			"settle":  settle,
			"install": install,
			"oke":     oke,
			"iam":     iam,
			"groups":  groups,

			"allow":   allow,
			"publish": publish,
			"push":    push,
			"pods":    pods,
			"asked":   asked,
			"crowd":   crowd,
			"stumble": stumble,
			"audited": audited,
			"typed":   typed,
			"seen":    seen,
			"sound":   sound,
			"answers": answers,

			"registry":    otherRegistry,
			"ago":         ago,
			"answering":   answering,
			"recommended": recommended,
		},
	})
}

// material is private keys, made once because making them takes long.
type material struct {
	small, large, curve crypto.Signer
}

func newMaterial() (m material, err error) {
	var errs [3]error
	m.small, errs[0] = rsa.GenerateKey(rand.Reader, 2048)
	m.large, errs[1] = rsa.GenerateKey(rand.Reader, 3072)
	m.curve, errs[2] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return m, errors.Join(errs[:]...)
}

// world is what the commands of a script work on.
type world struct {
	cloud   *ocitest.Cloud
	tenancy *ocitest.Tenancy
	vault   *ocitest.Vault
	keys    map[string]*ocitest.Key
	cluster *fakeapiserver.Server
	oke     *ocitest.Cluster
}

type worldKey struct{}

type testKey struct{}

func setup(env *testscript.Env, m material) error {
	tb, ok := env.T().(testing.TB)
	if !ok {
		return fmt.Errorf("%T is no test", env.T())
	}
	cloud := ocitest.Start(tb, ocitest.Config{})
	tenancy := cloud.NewTenancy(tb, ocitest.TenancyConfig{Namespace: "idwpqivumvev"})
	compartment := tenancy.NewCompartment("containers", "")
	vault := tenancy.NewVault("image-vault", compartment)
	w := &world{cloud: cloud, tenancy: tenancy, vault: vault, keys: map[string]*ocitest.Key{
		"image-key":   vault.ImportKey("image-key", ocitest.RSA2048, m.small),
		"release-key": vault.ImportKey("release-key", ocitest.RSA3072, m.large),
		"etcd-key":    vault.NewKey("etcd-key", ocitest.AES256),
		"ec-key":      vault.ImportKey("ec-key", ocitest.P256, m.curve),
	}, cluster: fakeapiserver.Start(tb), oke: tenancy.NewCluster("prod", compartment)}
	kubeconfig, err := w.cluster.Kubeconfig(env.WorkDir, "test", "prod")
	if err != nil {
		return err
	}
	env.Values[worldKey{}] = w
	env.Values[testKey{}] = tb

	project, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	env.Vars = append(env.Vars, "PROJECT="+project)
	env.Vars = append(env.Vars, cloud.Env()...)
	env.Vars = append(env.Vars, "OCI_METADATA_BASE_URL=http://127.0.0.1:1/opc/v2") // where nobody is
	env.Vars = append(env.Vars, "OCI_CLI_CONFIG_FILE=", "OCI_CONFIG_FILE="+tenancy.Admin().ConfigFile(), "HOME="+env.WorkDir, "KUBECONFIG="+kubeconfig, "XDG_CONFIG_HOME="+env.WorkDir+"/.config",
		"CLUSTER="+w.oke.ID, "OTHER="+tenancy.NewCluster("other", compartment).ID,
		"TENANCY="+tenancy.ID, "COMPARTMENT="+compartment, "VAULT="+vault.ID)
	for name, k := range w.keys {
		name = variable(name)
		env.Vars = append(env.Vars, name+"="+k.ID, name+"_SHORT="+short(k.ID), name+"_VERSION="+k.Version())
	}
	for _, repository := range []string{"scan-test", "project01/ngnix-lb"} {
		tenancy.NewRepository(repository, compartment)
		for _, tag := range []string{"v1", "latest"} {
			img := tenancy.NewImage(repository, tag)
			name := variable(repository + "_" + tag) // SCAN_TEST_LATEST
			env.Vars = append(env.Vars, name+"="+img.Ref(), name+"_DIGEST="+img.Digest, name+"_ID="+img.ID)
		}
	}
	return nil
}

func variable(name string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", "/", "_", ":", "_").Replace(name))
}

func short(ocid string) string { return "…" + ocid[len(ocid)-10:] }

func of(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

func (w *world) key(ts *testscript.TestScript, name string) *ocitest.Key {
	k := w.keys[name]
	if k == nil {
		ts.Fatalf("no key is called %q", name)
	}
	return k
}

// exits CODE COMMAND...: the command ends with exactly this exit code. @FILE
// stands for the words in a file.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	var words []string
	for _, arg := range args[2:] {
		if file, ok := strings.CutPrefix(arg, "@"); ok {
			words = append(words, strings.Fields(ts.ReadFile(file))...)
		} else {
			words = append(words, arg)
		}
	}
	got := 0
	if err := ts.Exec(args[1], words...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// key NAME STATE: the key is in this lifecycle state from now on.
func keyState(ts *testscript.TestScript, _ bool, args []string) {
	of(ts).key(ts, args[0]).SetState(args[1])
}

// rotate NAME VARIABLE: the key has a new version, whose OCID is in the variable.
func rotate(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[1], of(ts).key(ts, args[0]).Rotate())
}

// version NAME OCID STATE: the version of the key is in this lifecycle state.
func versionState(ts *testscript.TestScript, _ bool, args []string) {
	of(ts).key(ts, args[0]).SetVersionState(args[1], args[2])
}

// become NAME [STATEMENT...]: commands run as a user who may do what the policy
// statements say and nothing else.
func become(ts *testscript.TestScript, _ bool, args []string) {
	w := of(ts)
	w.tenancy.Allow(args[1:]...)
	ts.Setenv("OCI_CONFIG_FILE", w.tenancy.NewUser(args[0]).ConfigFile())
}

// allow STATEMENT...: the tenancy has these policy statements as well.
func allow(ts *testscript.TestScript, _ bool, args []string) { of(ts).tenancy.Allow(args...) }

// publish IMAGE JSON: scans find these problems in the image from now on.
func publish(ts *testscript.TestScript, _ bool, args []string) {
	p := ocitest.Problems{Image: args[0]}
	if err := json.Unmarshal([]byte(args[1]), &p.Problems); err != nil {
		ts.Fatalf("reading problems: %v", err)
	}
	if err := of(ts).cloud.Publish(p); err != nil {
		ts.Fatalf("%v", err)
	}
}

// push REPOSITORY TAG VARIABLE: another image is there under the tag, its
// reference in the variable.
func push(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[2], of(ts).tenancy.NewImage(args[0], args[1]).Ref())
}

// fault JSON: requests fail; "fault clear" ends that.
func fault(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "clear" {
		of(ts).cloud.ClearFaults()
		return
	}
	var f ocitest.Fault
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		ts.Fatalf("reading a fault: %v", err)
	}
	if _, err := of(ts).cloud.SetFault(f); err != nil {
		ts.Fatalf("%v", err)
	}
}

// calls OPERATION N, calls OPERATION FROM-TO: OCI has been asked for it so many
// times, by all commands since the last "calls reset".
func calls(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "reset" {
		of(ts).cloud.ResetCalls()
		return
	}
	from, to, ranged := strings.Cut(args[1], "-")
	if !ranged {
		to = from
	}
	least, err := strconv.Atoi(from)
	most, err2 := strconv.Atoi(to)
	if err := errors.Join(err, err2); err != nil {
		ts.Fatalf("usage: calls OPERATION N: %v", err)
	}
	if got := of(ts).cloud.Calls()[args[0]]; got < least || got > most {
		ts.Fatalf("%s was called %d times, want %s; all calls: %v", args[0], got, args[1], of(ts).cloud.Calls())
	}
}

// attach JSON: a signature record is there, past every check that OCI makes.
func attach(ts *testscript.TestScript, _ bool, args []string) {
	var r ocitest.Record
	if err := json.Unmarshal([]byte(args[0]), &r); err != nil {
		ts.Fatalf("reading a record: %v", err)
	}
	of(ts).tenancy.Add(r)
}

// message KEY TEXT M S: the text signed by the key, as a record carries both, in
// the variables M and S.
func message(ts *testscript.TestScript, _ bool, args []string) {
	m, s := of(ts).key(ts, args[0]).SignMessage("SHA_256_RSA_PKCS_PSS", []byte(args[1]))
	ts.Setenv(args[2], m)
	ts.Setenv(args[3], s)
}

// second NAME: another key of the name is there, in the same vault.
func second(ts *testscript.TestScript, _ bool, args []string) {
	of(ts).vault.NewKey(args[0], ocitest.AES256)
}

// stored FILE: the message of the newest signature record, as OCI keeps it, and
// its OCID in the variable SIGNATURE.
func stored(ts *testscript.TestScript, _ bool, args []string) {
	resp, err := http.Get(of(ts).cloud.URL() + "/_emulator/state")
	if err != nil {
		ts.Fatalf("%v", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	var state struct {
		Signatures map[string]struct {
			Seq     int64
			Message []byte
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil {
		ts.Fatalf("reading the state: %v", err)
	}
	newest := ""
	for id, s := range state.Signatures {
		if newest == "" || s.Seq > state.Signatures[newest].Seq {
			newest = id
		}
	}
	if newest == "" {
		ts.Fatalf("no signature is there")
	}
	ts.Setenv("SIGNATURE", newest)
	if err := os.WriteFile(ts.MkAbs(args[0]), append(state.Signatures[newest].Message, '\n'), 0o600); err != nil {
		ts.Fatalf("%v", err)
	}
}

// long VARIABLE N: a text of so many bytes.
func long(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	if err != nil {
		ts.Fatalf("usage: long VARIABLE N")
	}
	ts.Setenv(args[0], strings.Repeat("x", n))
}

// images N FILE: so many more images are in the registry, their references in
// the file.
func images(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("usage: images N FILE")
	}
	var refs []string
	for range n {
		refs = append(refs, of(ts).tenancy.NewImage("scan-test").Ref())
	}
	if err := os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(refs, "\n")+"\n"), 0o600); err != nil {
		ts.Fatalf("%v", err)
	}
}

// flood RECORD IMAGE N: so many copies of a record are attached to the image,
// each naming another key of the vault.
func flood(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	if err != nil {
		ts.Fatalf("usage: flood RECORD IMAGE N")
	}
	id := of(ts).key(ts, "image-key").ID
	for i := range n {
		of(ts).tenancy.Add(ocitest.Record{CopyOf: args[0], Image: args[1], KeyID: id[:len(id)-4] + fmt.Sprintf("%04d", i)})
	}
}

// cluster FILE...: the objects in the files are in the cluster, their text with the
// script's variables filled in.
func cluster(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		objects, err := manifest.Objects([]byte(text))
		if err != nil {
			ts.Fatalf("%s: %v", file, err)
		}
		if err := of(ts).cluster.Add(objects...); err != nil {
			ts.Fatalf("%s: %v", file, err)
		}
	}
}

// pods N FILE: so many Pods run, of each image in the file as many, ten Pods to a
// workload.
func pods(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("usage: pods N FILE")
	}
	refs := strings.Fields(ts.ReadFile(args[1]))
	for i := range n {
		pod := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"spec": map[string]any{"containers": []any{map[string]any{"name": "c", "image": refs[i/10%len(refs)]}}},
		}}
		pod.SetName(fmt.Sprintf("pod-%05d", i))
		pod.SetLabels(map[string]string{"app": strconv.Itoa(i / 10), "apps.kubernetes.io/pod-index": strconv.Itoa(i % 10)})
		if err := of(ts).cluster.Add(pod); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

// asked N: the API server has been asked at most so often, discovery aside.
func asked(ts *testscript.TestScript, _ bool, args []string) {
	most, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("usage: asked N")
	}
	if got := of(ts).cluster.Requests(); len(got) > most {
		ts.Fatalf("the API server was asked %d times, want %d at most: %v", len(got), most, got)
	}
}

// sound: the cluster is one in which the policy holds.
func sound(ts *testscript.TestScript, _ bool, _ []string) {
	objects, err := soundcluster.Objects(of(ts).key(ts, "image-key").ID, "oke-sign.oke-sign.svc")
	if err == nil {
		err = of(ts).cluster.Add(objects...)
	}
	if err != nil {
		ts.Fatalf("%v", err)
	}
}

// answers PATH CODE TEXT: the API server, or whom it asks for it, answers so to every
// request for the path: with JSON, or as a Pod's probes do.
func answers(ts *testscript.TestScript, _ bool, args []string) {
	code, err := strconv.Atoi(args[1])
	if err != nil {
		ts.Fatalf("usage: answers PATH CODE TEXT")
	}
	of(ts).cluster.Handle(args[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if json.Valid([]byte(args[2])) {
			w.Header().Set("Content-Type", "application/json")
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, args[2])
	}))
}

// mode FILE MODE: the file has this mode.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if got := strconv.FormatUint(uint64(info.Mode().Perm()), 8); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// iam FILE workload|signer|KIND COMMAND...: the statements in the file suffice for
// the command, run as a workload of the cluster, as somebody of the group signers, or
// as a resource of a kind, such as instance, in the dynamic groups that there are; and
// without any one of them it fails.
func iam(ts *testscript.TestScript, _ bool, args []string) {
	statements := strings.Split(strings.TrimSpace(ts.ReadFile(args[0])), "\n")
	w := of(ts)
	admin := ts.Getenv("OCI_CONFIG_FILE")
	defer ts.Setenv("OCI_CONFIG_FILE", admin)
	// It is unknown which permission OCI wants for looking up an image, and where it says
	// which registry was scanned. The statements work in each case.
	lookup, url := w.tenancy.Switches().LookupPermission, w.tenancy.Switches().ResultURL
	for left := range len(statements) + 1 {
		if left > 0 && strings.Contains(statements[left-1], "{REPOSITORY_READ}") && lookup != "REPOSITORY_READ" {
			continue
		}
		if left > 0 && strings.Contains(statements[left-1], "container-scan-targets") && url == "given" {
			continue
		}
		restore := w.appear(ts, args[1], fmt.Sprintf("%s-%d", args[1], left))
		allowed := slices.Clone(statements)
		if left > 0 {
			allowed = slices.Delete(allowed, left-1, left)
		}
		withdraw := w.tenancy.AllowOnly(allowed...)
		err := ts.Exec(args[2], args[3:]...)
		withdraw()
		restore()
		switch {
		case left == 0 && err != nil:
			ts.Fatalf("the statements do not suffice: %v", err)
		case left > 0 && err == nil:
			ts.Fatalf("not needed: %s", statements[left-1])
		}
	}
}

// appear makes the commands of a script run as somebody else, until restore.
func (w *world) appear(ts *testscript.TestScript, as, name string) (restore func()) {
	switch as {
	case "workload", "signer":
		user := w.tenancy.NewUser(name, "signers")
		if as == "workload" {
			user.ActAs(ts.Getenv("CLUSTER"), "oke-sign", "oke-sign-provider")
		}
		ts.Setenv("OCI_CONFIG_FILE", user.ConfigFile())
		return func() {}
	}
	given := w.tenancy.NewActor(as, ts.Getenv("COMPARTMENT")).NewResource(time.Hour)
	env := map[string]string{
		"OCI_CLI_AUTH": "resource_principal", "OCI_RESOURCE_PRINCIPAL_VERSION": "2.2", "OCI_RESOURCE_PRINCIPAL_RPST": given.Token,
		"OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM": given.Key, "OCI_RESOURCE_PRINCIPAL_REGION": given.Region,
	}
	for name, value := range env {
		ts.Setenv(name, value)
	}
	return func() {
		for name := range env {
			ts.Setenv(name, "")
		}
	}
}

// groups FILE: the dynamic groups are there that kubectl oke-sign iam has printed
// into the file, and no others.
func groups(ts *testscript.TestScript, _ bool, args []string) {
	w := of(ts)
	w.tenancy.RemoveDynamicGroups()
	name := ""
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		what, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch what {
		case "name":
			name = value
		case "matching rule":
			w.tenancy.NewDynamicGroup(name, value)
		}
	}
}

// oke on|off [KEY...]: the image policy that OKE itself has is this from now on;
// "oke is on|off [KEY...]": it must be this.
func oke(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] != "is" {
		of(ts).oke.SetImagePolicy(args[0] == "on", args[1:]...)
		return
	}
	on, keys := of(ts).oke.ImagePolicy()
	if want := args[2:]; on != (args[1] == "on") || !slices.Equal(keys, want) {
		ts.Fatalf("OKE's policy is on: %t, keys %v", on, keys)
	}
}

// install: the ConstraintTemplates of this build are in the cluster.
func install(ts *testscript.TestScript, _ bool, _ []string) {
	for _, kind := range policies.Kinds() {
		text, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
		if err != nil {
			ts.Fatalf("%v", err)
		}
		objects, err := manifest.Objects(text)
		if err != nil {
			ts.Fatalf("%v", err)
		}
		if err := of(ts).cluster.Add(objects...); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

// settle TIME: what is made in OCI from now on takes so long to be of use.
func settle(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		ts.Fatalf("usage: settle TIME: %v", err)
	}
	of(ts).cloud.SetSettle(d)
}

// scrub FILE NEW: what differs from run to run has a name in NEW instead.
func scrub(ts *testscript.TestScript, _ bool, args []string) {
	replace(ts, args, []named{
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "<time>"},
		{`ocid1\.containerimagesignature\.[a-z0-9.-]+`, "<signature>"},
		{`ocid1\.user\.[a-z0-9.-]+`, "<user>"},
		{`ocid1\.vsscontainerscan(\w+)\.[a-z0-9.-]+`, "<$1>"},
		{`ocid1\.containerrepo\.[a-z0-9.-]+`, "<repository>"},
		{`127\.0\.0\.1:\d+`, "<proxy>"},
		{`[0-9a-f]{12}…`, "<the digest>…"},
		{`[0-9A-Za-z/-]{20,}/[0-9A-Za-z]{20,}`, "<request>"},
	})
}
