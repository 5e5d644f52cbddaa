package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/frameworks/constraint/pkg/apis/externaldata/unversioned"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
	"github.com/oke-sign/oke-sign/test/pki"
)

var cloud *ocitest.Cloud

// asProgram makes the test's binary run the program, in a separate process.
const asProgram = "OKE_SIGN_TEST_IS_THE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(ocitest.Main(m, &cloud)) //nolint:forbidigo // the main function of this test
}

const gatekeeper = "gatekeeper-webhook-service.gatekeeper-system.svc"

// running is the whole program with its files and its log.
type running struct {
	t       *testing.T
	addr    string
	health  string
	dir     string
	ca      *pki.Authority
	caller  tls.Certificate
	stop    context.CancelFunc
	stopped chan error

	mu  sync.Mutex
	log []map[string]any
}

// start runs the program for a user of OCI until the test ends.
func start(t *testing.T, who *ocitest.User, flags ...string) *running {
	t.Helper()
	return startIn(t, os.Getenv, append([]string{"--config-file", who.ConfigFile()}, flags...)...)
}

// startIn runs the program in the given environment.
func startIn(t *testing.T, getenv func(string) string, flags ...string) *running {
	t.Helper()
	r, own := prepare(t)
	r.launch(getenv, append(own, flags...))
	return r
}

// prepare makes the files for the program, and returns its flags.
func prepare(t *testing.T) (r *running, flags []string) {
	t.Helper()
	r = &running{t: t, dir: t.TempDir(), stopped: make(chan error, 1)}
	var err error
	if r.ca, err = pki.NewAuthority("test-ca"); err != nil {
		t.Fatal(err)
	}
	own, err := r.ca.Issue(pki.Leaf{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := r.ca.Issue(pki.Leaf{Names: []string{gatekeeper}})
	if err != nil {
		t.Fatal(err)
	}
	if r.caller, err = caller.TLS(); err != nil {
		t.Fatal(err)
	}
	r.write("tls.crt", own.Cert)
	r.write("tls.key", own.Key)
	r.write("ca.crt", r.ca.PEM())

	return r, []string{
		"--tls-cert", r.file("tls.crt"), "--tls-key", r.file("tls.key"),
		"--client-ca", r.file("ca.crt"), "--client-name", gatekeeper,
		"--timeout", "15s", // for machines that do other things as well
	}
}

// launch runs the program until the test ends, and waits until it serves.
func (r *running) launch(getenv func(string) string, flags []string) {
	t := r.t
	t.Helper()
	args := append([]string{"--addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0", "--drain", "0s"}, flags...)
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	reader, writer := io.Pipe()
	var wait sync.WaitGroup
	wait.Go(func() {
		err := run(ctx, process{args: args, getenv: getenv, stdout: io.Discard, stderr: writer})
		_ = writer.Close()
		r.stopped <- err
	})
	serving := make(chan struct{})
	wait.Go(func() { r.read(reader, serving) })
	t.Cleanup(func() {
		cancel()
		wait.Wait()
		if t.Failed() {
			for _, line := range r.lines("") {
				t.Log(line)
			}
		}
	})
	select {
	case <-serving:
	case err := <-r.stopped:
		t.Fatalf("ended at once: %v", err)
	}
}

func (r *running) file(name string) string { return filepath.Join(r.dir, name) }

func (r *running) write(name string, content []byte) {
	r.t.Helper()
	if err := os.WriteFile(r.file(name), content, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// read collects the log, and takes the program's addresses from it.
func (r *running) read(log io.Reader, serving chan<- struct{}) {
	for s := bufio.NewScanner(log); s.Scan(); {
		var line map[string]any
		if err := json.Unmarshal(s.Bytes(), &line); err != nil {
			r.t.Errorf("not a line of JSON: %s", s.Text())
			continue
		}
		r.mu.Lock()
		r.log = append(r.log, line)
		r.mu.Unlock()
		if line["msg"] == "serving" {
			r.addr, _ = line["addr"].(string)
			r.health, _ = line["healthAddr"].(string)
			close(serving)
		}
	}
}

// lines returns the lines of the log with this message, or all lines.
func (r *running) lines(message string) []map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []map[string]any
	for _, line := range r.log {
		if message == "" || line["msg"] == message {
			found = append(found, line)
		}
	}
	return found
}

// ask sends questions with Gatekeeper's own client.
func (r *running) ask(keys ...string) externaldata.ProviderResponse {
	r.t.Helper()
	answer, err := r.try(keys...)
	if err != nil {
		r.t.Fatal(err)
	}
	return *answer
}

func (r *running) try(keys ...string) (*externaldata.ProviderResponse, error) {
	return r.send("/v1/signatures", keys...)
}

func (r *running) send(path string, keys ...string) (*externaldata.ProviderResponse, error) {
	provider := &unversioned.Provider{
		ObjectMeta: metav1.ObjectMeta{Name: r.t.Name() + path},
		Spec: unversioned.ProviderSpec{
			URL: "https://" + r.addr + path, Timeout: 30,
			CABundle: base64.StdEncoding.EncodeToString(r.ca.PEM()),
		},
	}
	r.t.Cleanup(func() { externaldata.DefaultClientCache().Invalidate(provider.Name) })
	answer, _, err := externaldata.DefaultSendRequestToProvider(r.t.Context(), provider, keys, &r.caller)
	return answer, err
}

// get reads a page of the health address.
func (r *running) get(path string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.health+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// until repeats a check, because the other side takes time.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func question(image string, keys ...string) string {
	slices.Sort(keys) // as the policy does
	b, err := json.Marshal(map[string]any{"image": image, "keys": keys})
	if err != nil {
		panic(err)
	}
	return string(b)
}

// values returns the verdicts of an answer by key, without the parts that differ
// each time.
func values(answer externaldata.ProviderResponse) map[string]string {
	got := make(map[string]string)
	for _, item := range answer.Response.Items {
		v, _ := item.Value.(map[string]any)
		got[item.Key] = fmt.Sprintf("%v %v %v", v["signed"], v["reason"], item.Error)
	}
	return got
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	vault := tenancy.NewVault("v", "")
	mine, other := vault.NewKey("mine", ocitest.RSA2048), vault.NewKey("other", ocitest.RSA2048)
	good, bad := tenancy.NewImage("app", "v1"), tenancy.NewImage("app", "v2")
	tenancy.Add(good.Sign(mine, "SHA_256_RSA_PKCS_PSS"))
	moved := good.Sign(mine, "SHA_256_RSA_PKCS_PSS") // a genuine signature, attached to another image
	third := tenancy.NewImage("app", "v3")
	moved.ImageID = third.ID
	tenancy.Add(moved)
	gone, off := vault.NewKey("gone", ocitest.RSA2048), vault.NewKey("off", ocitest.RSA2048)
	tenancy.Add(good.Sign(gone, "SHA_256_RSA_PKCS_PSS"), good.Sign(off, "SHA_512_RSA_PKCS_PSS"))
	gone.Delete()
	off.SetState("DISABLED")

	r := start(t, tenancy.Admin())
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	asked := map[string]string{
		question(good.Ref(), mine.ID):                              "true signed ",
		question(good.Ref(), gone.ID):                              "false key-unusable ",
		question(good.Ref(), off.ID):                               "false key-unusable ",
		question(good.Ref(), other.ID):                             "false key-not-allowed ",
		question(bad.Ref(), mine.ID):                               "false unsigned ",
		question(third.Ref(), mine.ID):                             "false wrong-image ",
		question("iad.ocir.io/nobody/app@"+good.Digest, mine.ID):   "false not-covered ",
		question(strings.Split(good.Ref(), "@")[0]+":v1", mine.ID): "false no-digest ",
		question("docker.io/library/nginx:latest", mine.ID):        "false not-oci-registry ",
	}
	var keys []string
	for key := range asked {
		keys = append(keys, key)
	}
	answer := r.ask(keys...)
	if diff := cmp.Diff(asked, values(answer)); diff != "" || answer.Response.SystemError != "" {
		t.Errorf("systemError %q, verdicts (-want +got):\n%s", answer.Response.SystemError, diff)
	}
	until(t, "a line for each decision", func() bool { return len(r.lines("decision")) >= len(asked) })
	if got := len(r.lines("decision")); got != len(asked) {
		t.Errorf("%d lines of decisions, want %d", got, len(asked))
	}
	lines := make(map[string]map[string]any)
	for _, line := range r.lines("decision") {
		lines[fmt.Sprint(line["image"], line["allowed"])] = line
	}
	if l := lines[good.Ref()+mine.ID]; l["ociRequests"] == nil || l["age"] == nil || l["key"] != mine.ID {
		t.Errorf("the line of a decision that OCI was asked for: %v", l)
	}
	if l := lines["docker.io/library/nginx:latest"+mine.ID]; l == nil || l["ociRequests"] != nil {
		t.Errorf("the line of a decision that OCI was not asked for: %v", l)
	}
	_, metrics := r.get("/metrics")
	for _, want := range []string{
		`oke_sign_answers_total{endpoint="signatures",reason="signed"} 1`,
		`oke_sign_oci_requests_total{operation="ListContainerImageSignatures",outcome="ok",service="artifacts"} `,
		`oke_sign_request_duration_seconds_count{endpoint="signatures",outcome="answered"} 1`,
		`oke_sign_cache_entries{cache="evidence"} 6`,
		`oke_sign_cache_misses_total{cache="public-keys"} `,
		`oke_sign_cache_hits_total{cache="keys"} `,
		`oke_sign_cache_loads_in_flight{cache="evidence"} 0`,
		`oke_sign_keys{state="ENABLED"} 1`,
		`oke_sign_keys{state="DISABLED"} 1`,
		`oke_sign_keys{state="NOT_FOUND"} 1`,
		`oke_sign_keys{state="OTHER"} 0`,
		"oke_sign_certificate_expiry_timestamp_seconds 1.",
		`oke_sign_deadline_exceeded_total{endpoint="signatures"} 0`,
		`oke_sign_evidence_age_seconds_bucket{endpoint="signatures",le="+Inf"} 9`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if strings.Contains(metrics, good.Digest) || strings.Contains(metrics, mine.ID) {
		t.Error("/metrics names an image or a key")
	}
}

// A question with atLeast gets a yes only from as many different keys, and its verdict names
// them. The question without atLeast about the same image keeps its own verdict.
func TestSeveralKeys(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	vault := tenancy.NewVault("v", "")
	build, review := vault.NewKey("build", ocitest.RSA2048), vault.NewKey("review", ocitest.RSA2048)
	both, one := tenancy.NewImage("app", "v1"), tenancy.NewImage("app", "v2")
	const algorithm = "SHA_256_RSA_PKCS_PSS"
	tenancy.Add(both.Sign(build, algorithm), both.Sign(review, algorithm), one.Sign(build, algorithm), one.Sign(build, algorithm))
	r := start(t, tenancy.Admin())
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })

	byTwo := func(image string) string {
		return `{"atLeast":2,` + question(image, build.ID, review.ID)[1:]
	}
	answer := r.ask(byTwo(both.Ref()), byTwo(one.Ref()), question(one.Ref(), build.ID, review.ID))
	want := map[string]string{
		byTwo(both.Ref()):                        "true signed ",
		byTwo(one.Ref()):                         "false too-few-keys ",
		question(one.Ref(), build.ID, review.ID): "true signed ",
	}
	if diff := cmp.Diff(want, values(answer)); diff != "" || answer.Response.SystemError != "" {
		t.Errorf("systemError %q, verdicts (-want +got):\n%s", answer.Response.SystemError, diff)
	}
	for _, item := range answer.Response.Items {
		verdict, _ := item.Value.(map[string]any)
		by, _ := verdict["by"].([]any)
		named := make(map[any]bool)
		for _, proof := range by {
			named[proof.(map[string]any)["key"]] = true
		}
		n := map[string]int{byTwo(both.Ref()): 2, byTwo(one.Ref()): 1}[item.Key]
		if len(by) != n || len(named) != n || n > 0 && !named[build.ID] || n == 2 && (!named[review.ID] || verdict["key"] != by[0].(map[string]any)["key"]) {
			t.Errorf("%s: named by %v", item.Key, by)
		}
	}
}

// The uploader of a record chooses its key version. If OCI normalises paths, a
// version with a path would fetch another public key: the attacker's key in place of
// the policy's key.
func TestClimbingKeyVersion(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"normalised", "refused"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			switches := tenancy.Switches()
			switches.DotDot = setting
			tenancy = cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: &switches})
			vault := tenancy.NewVault("v", "")
			mine, evil := vault.NewKey("mine", ocitest.RSA2048), vault.NewKey("evil", ocitest.RSA2048)
			img := tenancy.NewImage("app")
			for _, climb := range []string{"/../../../keys/", "%2F..%2F..%2F..%2Fkeys%2F", "/../../"} {
				version := "ocid1.keyversion.x" + climb + evil.ID + "/keyVersions/" + evil.Version()
				message := signature.Message{
					ImageDigest: img.Digest, RepositoryName: "app", KeyID: mine.ID, KeyVersionID: version, Algorithm: string(signature.SHA256),
				}
				text, sig := evil.SignMessage(message.Algorithm, message.Encode())
				tenancy.Add(ocitest.Record{
					ImageID: img.ID, KeyID: mine.ID, KeyVersionID: version, Algorithm: message.Algorithm, Message: text, Signature: sig,
				})
			}
			r := start(t, tenancy.Admin())
			asked := question(img.Ref(), mine.ID)
			answer := r.ask(asked)
			if got := values(answer)[asked]; got != "false key-unusable " {
				t.Errorf("got %+v", answer.Response)
			}
			asked = question(img.Ref(), evil.ID, mine.ID) // a policy lists this key for its honest signatures
			if got := values(r.ask(asked))[asked]; got != "false key-unusable " {
				t.Errorf("with the other key allowed too: %s", got)
			}
			for _, req := range tenancy.Requests() {
				if strings.Contains(req.Target, "..") && !strings.Contains(req.Target, "ocid1.tenancy.oc1..") || strings.Contains(req.Target, evil.Version()) {
					t.Errorf("sent %s %s", req.Method, req.Target)
				}
			}
			if len(tenancy.Requests()) == 0 {
				t.Error("no request was recorded")
			}
		})
	}
}

// While OCI fails, no answer is a yes, and the denial has OCI's error. The error is
// not cached, so the next request after the outage is answered.
func TestOutage(t *testing.T) {
	t.Parallel()
	const lists = "artifacts.ListContainerImageSignatures"
	for name, test := range map[string]struct {
		fault ocitest.Fault
		says  string
	}{
		"failing":                {ocitest.Fault{Kind: ocitest.Status, Status: 503}, "503 ServiceUnavailable"},
		"throttled":              {ocitest.Fault{Kind: ocitest.Status, Status: 429}, "429 TooManyRequests"},
		"throttled for a second": {ocitest.Fault{Kind: ocitest.Status, Status: 429, RetryAfter: "1"}, "429 TooManyRequests"},
		"throttled for a minute": {ocitest.Fault{Kind: ocitest.Status, Status: 429, RetryAfter: "60"}, "429 TooManyRequests"},
		"no answer":              {ocitest.Fault{Kind: ocitest.Hang}, "ListContainerImageSignatures: no answer "},
		"connections that break": {ocitest.Fault{Kind: ocitest.Reset}, "ListContainerImageSignatures: "},
		"endless answers":        {ocitest.Fault{Kind: ocitest.Trickle, Delay: ocitest.Duration(time.Second)}, "ListContainerImageSignatures: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
			img := tenancy.NewImage("app")
			tenancy.Add(img.Sign(key, "SHA_256_RSA_PKCS_PSS"))
			r := start(t, tenancy.Admin(), "--timeout", "8s")
			until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
			asked := question(img.Ref(), key.ID)

			test.fault.Operation = lists
			fault := tenancy.Fault(test.fault)
			// Other callers ask about unknown images all the time.
			ctx, stop := context.WithCancel(t.Context())
			var others sync.WaitGroup
			for n := range 3 {
				others.Go(func() {
					for i := 0; ctx.Err() == nil; i++ {
						digest := fmt.Sprintf("sha256:%032x%032x", n, i)
						answer, err := r.try(question("iad.ocir.io/"+tenancy.Namespace+"/app@"+digest, key.ID))
						if ctx.Err() == nil && (err != nil || len(answer.Response.Items) != 0) {
							t.Errorf("while OCI fails: %+v, %v", answer, err)
						}
					}
				})
			}
			during := r.ask(asked).Response
			if len(during.Items) != 0 || !strings.Contains(during.SystemError, img.Ref()) || !strings.Contains(during.SystemError, test.says) {
				t.Errorf("while OCI fails: %+v", during)
			}
			if test.fault.Kind == ocitest.Status && !strings.Contains(during.SystemError, "(opc-request-id ") {
				t.Errorf("it does not name the request: %s", during.SystemError)
			}
			stop()
			cloud.ClearFault(fault)
			answer := r.ask(asked)
			if got := values(answer)[asked]; got != "true signed " {
				t.Errorf("the next answer: %+v", answer.Response)
			}
			others.Wait()
		})
	}
}

// An OCI that does not answer takes the budget and no more. The work continues, so
// the next request finds its result.
func TestBudget(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	slow, quick := tenancy.NewImage("slow"), tenancy.NewImage("quick")
	tenancy.Add(slow.Sign(key, "SHA_256_RSA_PKCS_PSS"), quick.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	r := start(t, tenancy.Admin(), "--timeout", "500ms")
	until(t, "a warm answer", func() bool {
		return values(r.ask(question(quick.Ref(), key.ID)))[question(quick.Ref(), key.ID)] == "true signed "
	})

	tenancy.Fault(ocitest.Fault{Operation: "artifacts.ListContainerImageSignatures", Kind: ocitest.Latency, Delay: ocitest.Duration(3 * time.Second), Count: 1})
	began := time.Now()
	answer := r.ask(question(slow.Ref(), key.ID), question(quick.Ref(), key.ID))
	if took := time.Since(began); took > 2500*time.Millisecond {
		t.Errorf("answered after %v, want about 500ms", took)
	}
	if diff := cmp.Diff(map[string]string{question(quick.Ref(), key.ID): "true signed "}, values(answer)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
	if !strings.Contains(answer.Response.SystemError, slow.Ref()) {
		t.Errorf("systemError %q does not name %s", answer.Response.SystemError, slow.Ref())
	}
	until(t, "a cached result of the work", func() bool {
		_, metrics := r.get("/metrics")
		return strings.Contains(metrics, `oke_sign_cache_entries{cache="evidence"} 2`)
	})
	lists := tenancy.Calls()["artifacts.ListContainerImageSignatures"]
	if got := values(r.ask(question(slow.Ref(), key.ID)))[question(slow.Ref(), key.ID)]; got != "true signed " {
		t.Errorf("the next answer: %s", got)
	}
	if n := tenancy.Calls()["artifacts.ListContainerImageSignatures"]; n != lists {
		t.Errorf("%d more lists for a cached answer", n-lists)
	}
}

// Anybody who may create a Pod can invent any number of tags. If OCI throttles the
// calls for tags, no signature is delayed.
func TestThrottledTagsDelayNoSignature(t *testing.T) {
	t.Parallel()
	const lookups = "artifacts.LookupContainerImageByUri"
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	img := tenancy.NewImage("app", "v1")
	tenancy.Add(img.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	r := start(t, tenancy.Admin())
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	tenancy.Fault(ocitest.Fault{Operation: lookups, Kind: ocitest.Status, Status: 429, RetryAfter: "1"})

	var stop atomic.Bool
	var tags atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for !stop.Load() {
				var made []string
				for range 16 {
					made = append(made, fmt.Sprintf("iad.ocir.io/%s/app:made-up-%d", tenancy.Namespace, tags.Add(1)))
				}
				_, _ = r.send("/v1/digests", made...) // the answers do not matter
			}
		})
	}
	until(t, "calls for tags", func() bool { return tenancy.Calls()[lookups] > 5 })
	q := question(img.Ref(), key.ID)
	answer, err := r.try(q)
	stop.Store(true)
	wait.Wait()
	if err != nil || values(*answer)[q] != "true signed " {
		t.Errorf("a signature during throttled calls for tags: %+v, %v", answer, err)
	}
}

func TestNotReadyWithoutOCI(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	fault := tenancy.Fault(ocitest.Fault{Operation: "objectstorage.GetNamespace", Kind: ocitest.Status, Status: 503})
	r := start(t, tenancy.Admin())
	until(t, "an attempt", func() bool { return len(r.lines("not ready")) > 0 })
	if status, body := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("/healthz: %d %s", status, body)
	}
	if status, body := r.get("/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "finding the namespace of the tenancy") {
		t.Errorf("/readyz: %d %s", status, body)
	}
	asked := question("iad.ocir.io/"+tenancy.Namespace+"/app@sha256:"+strings.Repeat("0", 64), "ocid1.key.oc1.iad.b5r7bu4kaaeug."+strings.Repeat("a", 60))
	if answer := r.ask(asked); len(answer.Response.Items) != 0 || answer.Response.SystemError == "" {
		t.Errorf("an answer before it knows its tenancy: %+v", answer.Response)
	}
	cloud.ClearFault(fault)
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
}

// The parts of the program share one call for the namespace.
func TestReadyByOneCall(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := start(t, tenancy.Admin())
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	if calls := tenancy.Calls(); len(calls) != 1 || calls["objectstorage.GetNamespace"] != 1 {
		t.Errorf("calls until it is ready: %v", calls)
	}
}

// A namespace in a flag does not prove that OCI accepts this identity.
func TestNotReadyByAFlag(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refused bool
		before  string // the namespace
		want    string
	}{
		"OCI rejects the identity":    {refused: true, want: "401"},
		"OCI knows another namespace": {before: "not", want: "its namespace is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
			if tt.refused {
				tenancy.Fault(ocitest.Fault{Operation: "*", Kind: ocitest.Status, Status: 401})
			}
			r := start(t, tenancy.Admin(), "--tenancy", tt.before+tenancy.Namespace+"="+tenancy.ID)
			until(t, "it says why it is not ready", func() bool {
				status, why := r.get("/readyz")
				return status == http.StatusServiceUnavailable && strings.Contains(why, tt.want)
			})
		})
	}
}

// The program answers a request in flight when it is told to stop.
func TestShutdown(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	img := tenancy.NewImage("app")
	tenancy.Add(img.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	r := start(t, tenancy.Admin())
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })

	tenancy.Fault(ocitest.Fault{Operation: "artifacts.ListContainerImageSignatures", Kind: ocitest.Latency, Delay: ocitest.Duration(400 * time.Millisecond)})
	asked := question(img.Ref(), key.ID)
	var wait sync.WaitGroup
	var answer externaldata.ProviderResponse
	wait.Go(func() { answer = r.ask(asked) })
	until(t, "the call to OCI", func() bool { return tenancy.Calls()["artifacts.ListContainerImageSignatures"] > 0 })
	r.stop()
	until(t, "shutting down", func() bool { return len(r.lines("shutting down")) > 0 })
	wait.Wait()
	if got := values(answer)[asked]; got != "true signed " {
		t.Errorf("answer to the request in flight: %+v", answer.Response)
	}
	if err := <-r.stopped; err != nil {
		t.Errorf("ended with %v", err)
	}
	if _, err := net.DialTimeout("tcp", r.addr, time.Second); err == nil {
		t.Error("still listening after the end")
	}
}

// Probes learn first that the program stops. It still answers every caller, and
// tells each to use another replica next time.
func TestDrain(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	img := tenancy.NewImage("app")
	tenancy.Add(img.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	r := start(t, tenancy.Admin(), "--drain", "5s") // of which callers on a busy machine need the first
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	asked := question(img.Ref(), key.ID)

	// Callers send requests as long as the Service leads them here, until the probe
	// has failed for a while.
	ctx, elsewhere := context.WithCancel(t.Context())
	var answered, after atomic.Int64
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for ctx.Err() == nil {
				stopping := len(r.lines("shutting down")) > 0
				answer, err := r.try(asked)
				if err != nil || values(*answer)[asked] != "true signed " {
					t.Errorf("got %+v, %v", answer, err)
				}
				answered.Add(1)
				if stopping {
					after.Add(1)
				}
			}
		})
	}
	until(t, "many answers", func() bool { return answered.Load() > 50 })
	r.stop()
	until(t, "not ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusServiceUnavailable })
	until(t, "answers during the stop", func() bool { return after.Load() > 10 })
	elsewhere()
	wait.Wait()
	if err := <-r.stopped; err != nil {
		t.Errorf("ended with %v", err)
	}
}

// Callers that connect at the very end, each on a new connection, are answered or
// rejected at once. No caller with a connection is left without an answer.
func TestNoCallerIsLostAtTheEnd(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := start(t, tenancy.Admin(), "--drain", "500ms")
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	body := `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderRequest","request":{"keys":["x"]}}`
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: r.ca.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{r.caller}}
	var answered atomic.Int64
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for {
				c, err := net.DialTimeout("tcp", r.addr, 10*time.Second)
				if err != nil {
					return // the listener is closed
				}
				_ = c.SetDeadline(time.Now().Add(30 * time.Second))
				conn := tls.Client(c, config)
				_, err = fmt.Fprintf(conn, "POST /v1/signatures HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
				line := ""
				if err == nil {
					line, err = bufio.NewReader(conn).ReadString('\n')
				}
				if err != nil || !strings.Contains(line, "200") {
					t.Errorf("after %d answers: %q, %v", answered.Load(), line, err)
				}
				answered.Add(1)
				_ = conn.Close()
			}
		})
	}
	until(t, "some answers", func() bool { return answered.Load() > 20 })
	r.stop()
	wait.Wait()
	if err := <-r.stopped; err != nil {
		t.Errorf("ended with %v", err)
	}
}

// A log without a reader blocks nothing. Questions are answered, lines are dropped
// and counted, /readyz reports it, and the process ends on request.
func TestLogWithoutAReader(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r, flags := prepare(t)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(flags, "--addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0",
		"--drain", "0s", "--config-file", tenancy.Admin().ConfigFile())...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stderr = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	log := bufio.NewReaderSize(out, 1<<10)
	for ready := false; !ready; {
		text, err := log.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var line struct{ Msg, Addr, HealthAddr string }
		if err := json.Unmarshal(text, &line); err != nil {
			t.Fatal(err)
		}
		if line.Msg == "serving" {
			r.addr, r.health = line.Addr, line.HealthAddr
		}
		ready = line.Msg == "ready"
	}

	keys := make([]string, 250)
	for i := range keys {
		keys[i] = fmt.Sprintf("no question %d", i)
	}
	dropped := func() bool {
		_, metrics := r.get("/metrics")
		return !strings.Contains(metrics, "oke_sign_log_lines_dropped_total 0\n") && strings.Contains(metrics, "oke_sign_log_lines_dropped_total ")
	}
	until(t, "lines are dropped", func() bool {
		if answer := r.ask(keys...); len(answer.Response.Items) != len(keys) {
			t.Fatalf("%d of %d keys are answered", len(answer.Response.Items), len(keys))
		}
		return dropped()
	})
	until(t, "/readyz reports it", func() bool {
		status, text := r.get("/readyz")
		return status == http.StatusOK && strings.HasPrefix(text, "ready, but nobody has read standard error for ")
	})
	if answer := r.ask(keys...); len(answer.Response.Items) != len(keys) {
		t.Errorf("%d of %d keys are answered", len(answer.Response.Items), len(keys))
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	killed := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	if err := cmd.Wait(); err != nil || !killed.Stop() {
		t.Errorf("10 seconds after SIGTERM: %v", err)
	}
}

// startWorkload runs the program as a Pod of the workload, until the test ends.
func startWorkload(t *testing.T, pod *ocitest.Workload, region string) *running {
	t.Helper()
	getenv := func(name string) string {
		if name == "KUBERNETES_SERVICE_HOST" {
			return pod.Host
		}
		return os.Getenv(name)
	}
	return startIn(t, getenv, "--auth", "oke_workload_identity", "--region", region, "--service-account", pod.Dir)
}

// In a cluster the provider needs no key. Its service account is enough, with the
// statements that name it.
func TestWorkload(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("v", "").NewKey("k", ocitest.RSA2048)
	img := tenancy.NewImage("app")
	tenancy.Add(img.Sign(key, "SHA_256_RSA_PKCS_PSS"))
	oke := tenancy.NewCluster("prod", "")
	for _, may := range []string{"read repos", "read keys"} {
		tenancy.Allow("Allow any-user to " + may + " in tenancy where all {request.principal.type = 'workload', request.principal.namespace = 'oke-sign', " +
			"request.principal.service_account = 'oke-sign', request.principal.cluster_id = '" + oke.ID + "'}")
	}
	pod := oke.NewWorkload("oke-sign", "oke-sign")
	r := startWorkload(t, pod, "us-ashburn-1")
	asked := question(img.Ref(), key.ID)
	if got := values(r.ask(asked))[asked]; got != "true signed " {
		t.Errorf("got %q", got)
	}
	if n := pod.Asked(); n != 1 {
		t.Errorf("%d requests for a token", n)
	}
}

// A cluster that rejects the provider's token now may accept it soon. The provider
// waits, says why, and need not restart.
func TestWorkloadThatWaits(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	pod := tenancy.NewCluster("prod", "").NewWorkload("oke-sign", "oke-sign")
	pod.Answer(http.StatusServiceUnavailable, "coming up")
	r := startWorkload(t, pod, "us-ashburn-1")
	until(t, "it says why it is not ready", func() bool {
		status, why := r.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(why, "for a workload's token: 503 Service Unavailable: coming up")
	})
	if status, why := r.get("/healthz"); status != http.StatusOK {
		t.Errorf("the probe restarts it: %d %s", status, why)
	}
	// Alerts distinguish it from a replica that answers, although Prometheus reaches
	// both.
	readiness := func() string {
		status, metrics := r.get("/metrics")
		if status != http.StatusOK {
			t.Errorf("/metrics: %d", status)
		}
		return regexp.MustCompile(`(?m)^oke_sign_ready .*$`).FindString(metrics)
	}
	if got := readiness(); got != "oke_sign_ready 0" {
		t.Errorf("while it waits, its metrics have %q", got)
	}
	pod.Answer(0, "")
	until(t, "it is ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	if got := readiness(); got != "oke_sign_ready 1" {
		t.Errorf("when it is ready, its metrics have %q", got)
	}
	asked := question("nginx", "ocid1.key.oc1.iad.b5r7bu4kaaeug."+strings.Repeat("a", 60))
	if got := values(r.ask(asked))[asked]; got != "false not-oci-registry " {
		t.Errorf("got %q", got)
	}
}

// An error that waiting cannot fix ends the program, also during the wait. A signal
// ends the wait.
func TestWorkloadThatWaitsInVain(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	for name, test := range map[string]struct {
		region string
		then   func(*running, *ocitest.Workload)
		says   string
	}{
		"of another realm": {"us-gov-ashburn-1", func(_ *running, pod *ocitest.Workload) { pod.Answer(0, "") }, "the tenancy is in realm oc1"},
		"stopped":          {"us-ashburn-1", func(r *running, _ *ocitest.Workload) { r.stop() }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pod := tenancy.NewCluster(name, "").NewWorkload("oke-sign", "oke-sign")
			pod.Answer(http.StatusForbidden, "not here")
			r := startWorkload(t, pod, test.region)
			until(t, "it waits", func() bool {
				_, why := r.get("/readyz")
				return strings.Contains(why, "only enhanced clusters have workload identity")
			})
			test.then(r, pod)
			err := <-r.stopped
			if test.says == "" && err != nil || test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)) {
				t.Errorf("ended with %v, want %q", err, test.says)
			}
		})
	}
}

func TestProfiles(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	for flag, want := range map[string]int{"--pprof=false": http.StatusNotFound, "--pprof": http.StatusOK} {
		r := start(t, tenancy.Admin(), flag)
		for _, page := range []string{"/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/profile?seconds=1"} {
			if status, body := r.get(page); status != want {
				t.Errorf("%s: %s: %d %.80s, want %d", flag, page, status, body, want)
			}
		}
		if status, _ := r.get("/healthz"); status != http.StatusOK {
			t.Errorf("%s: /healthz: %d", flag, status)
		}
	}
}

// A running program loads new certificates, and a new CA of its callers.
func TestRenewal(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	r := start(t, tenancy.Admin())
	next, err := pki.NewAuthority("next-ca")
	if err != nil {
		t.Fatal(err)
	}
	own, err := next.Issue(pki.Leaf{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	caller, err := next.Issue(pki.Leaf{Names: []string{gatekeeper}})
	if err != nil {
		t.Fatal(err)
	}
	r.write("tls.key", own.Key) // for a moment the two do not match
	r.write("tls.crt", own.Cert)
	r.write("ca.crt", next.PEM())
	until(t, "two files read again", func() bool { return len(r.lines("certificates reloaded")) >= 2 })

	r.ca = next
	asked := question("nginx", "ocid1.key.oc1.iad.b5r7bu4kaaeug."+strings.Repeat("a", 60))
	if answer := r.ask(asked); !strings.Contains(answer.Response.SystemError, "not accepted") {
		t.Errorf("by the old client certificate: %+v", answer.Response)
	}
	if r.caller, err = caller.TLS(); err != nil {
		t.Fatal(err)
	}
	externaldata.DefaultClientCache().Invalidate(t.Name())
	if got := values(r.ask(asked))[asked]; got != "false not-oci-registry " {
		t.Errorf("by the new client certificate: %q", got)
	}
}

// A wrong flag or file ends the program before it serves, with an error that names the
// flag or the file.
func TestStartRefused(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	config := tenancy.Admin().ConfigFile()
	ca, err := pki.NewAuthority("ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Leaf{Names: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string][]byte{"crt": pair.Cert, "key": pair.Key, "ca": ca.PEM(), "junk": []byte("junk")} {
		if err := os.WriteFile(path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()

	for name, tt := range map[string]struct {
		flags []string // appended to the flags that work
		says  []string
	}{
		"no certificate file":        {[]string{"--tls-cert", path("none")}, []string{"reading the serving certificate", path("none"), "no such file"}},
		"no certificate in it":       {[]string{"--tls-cert", path("junk")}, []string{path("junk"), "failed to find any PEM data"}},
		"an empty CA file":           {[]string{"--client-ca", path("junk")}, []string{"CA of clients", path("junk"), "holds no certificate"}},
		"no configuration file":      {[]string{"--config-file", path("none")}, []string{path("none")}},
		"no such profile":            {[]string{"--profile", "NOBODY"}, []string{"NOBODY", config}},
		"no session in a profile":    {[]string{"--auth", "security_token"}, []string{"DEFAULT", "security_token_file"}},
		"an endpoint elsewhere":      {[]string{"--vault-endpoint", "https://evil.example"}, []string{"--vault-endpoint", "evil.example"}},
		"a tenancy of another realm": {[]string{"--tenancy", "ns=ocid1.tenancy.oc2..x"}, []string{"realm oc2"}},
		"an address in use":          {[]string{"--addr", taken.Addr().String()}, []string{"listening for Gatekeeper", "address already in use"}},
		"a port out of range":        {[]string{"--health-addr", "127.0.0.1:99999"}, []string{"listening for probes and metrics", "99999"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{
				"--addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0", "--config-file", config,
				"--tls-cert", path("crt"), "--tls-key", path("key"), "--client-ca", path("ca"),
			}, tt.flags...)
			err := run(t.Context(), process{args: args, getenv: os.Getenv, stdout: io.Discard, stderr: io.Discard})
			if err == nil {
				t.Fatal("it ran")
			}
			for _, want := range tt.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := run(t.Context(), process{args: []string{"--version"}, getenv: os.Getenv, stdout: &out, stderr: io.Discard}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "oke-sign-provider ") || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("printed %q", out.String())
	}
}
