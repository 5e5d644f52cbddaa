package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/test/ociclient"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// story is the running demo.
type story struct {
	printer
	bin      string
	env      []string
	cluster  *cluster
	cloud    *ociclient.Cloud
	provider *providerProcess

	vault      ociclient.Vault
	imageKey   ociclient.Key
	releaseKey ociclient.Key
	aesKey     ociclient.Key
	ecKey      ociclient.Key

	step string
	rows []row
}

// row is one line of the table at the end.
type row struct{ step, what, want, got string }

func (r row) ok() bool { return r.want == r.got }

// The images of the story, in OCI Registry.
const (
	scanTest = ociclient.Registry + "scan-test"
	nginxLB  = ociclient.Registry + "project01/ngnix-lb"
)

func (s *story) tell(ctx context.Context) error {
	for _, chapter := range []func(context.Context) error{
		s.chapterKeys, s.chapterSign, s.chapterUnsigned, s.chapterSigned, s.chapterKeysOfPolicy,
		s.chapterBreakGlass, s.chapterTransplant, s.chapterOutage,
		s.chapterRecords, s.chapterPods, s.chapterReferences, s.chapterCallers, s.chapterSigning,
		s.chapterScan, s.chapterScanned, s.chapterProviderGone,
	} {
		if err := chapter(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.step, err)
		}
	}
	return nil
}

// chapter starts a step.
func (s *story) chapter(number, title string) {
	s.step = number
	s.say("\n%s", s.paint("1", number+". "+title))
}

// expect records a result. An unexpected result fails the demo at its end.
func (s *story) expect(what, want, got string) {
	r := row{s.step, what, want, got}
	s.rows = append(s.rows, r)
	if r.ok() {
		s.say("  %s %s: %s", s.paint("32", "✔"), what, got)
	} else {
		s.say("  %s %s: got %s, want %s", s.paint("31", "✘"), what, got, want)
	}
}

// table prints every result, and fails if one is unexpected.
func (s *story) table(took time.Duration) error {
	s.say("\n%s", s.paint("1", fmt.Sprintf("%-4s %-62s %-44s %s", "STEP", "WHAT", "EXPECTED", "GOT")))
	var differ []string
	for _, r := range s.rows {
		got := "the same"
		if !r.ok() {
			differ = append(differ, fmt.Sprintf("  %s. %s: got %s, want %s", r.step, r.what, r.got, r.want))
			got = s.paint("31", r.got)
		}
		s.say("%-4s %-62s %-44s %s", r.step, r.what, r.want, got)
	}
	if len(differ) > 0 {
		return fmt.Errorf("%d of %d results are unexpected:\n%s", len(differ), len(s.rows), strings.Join(differ, "\n"))
	}
	s.say("\nAll %d results are as expected, in %s.", len(s.rows), took.Round(100*time.Millisecond))
	return nil
}

// kubectl runs the plugin as kubectl would, and shows the output.
func (s *story) kubectl(ctx context.Context, args ...string) (result, error) {
	s.say("  %s", s.paint("36", "$ kubectl oke-sign "+strings.Join(quoted(args), " ")))
	r, err := s.quietly(ctx, args...)
	if err != nil {
		return r, err
	}
	s.indent(r.stdout)
	s.indent(r.stderr)
	if r.code != 0 {
		s.say("    %s", s.paint("2", fmt.Sprintf("exit code %d", r.code)))
	}
	return r, nil
}

func (s *story) quietly(ctx context.Context, args ...string) (result, error) {
	return run(ctx, s.env, filepath.Join(s.bin, "kubectl-oke_sign"), args...)
}

func quoted(args []string) []string {
	plain := regexp.MustCompile(`^[A-Za-z0-9@%+=:,./_-]+$`)
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; !plain.MatchString(a) {
			out[i] = "'" + a + "'"
		}
	}
	return out
}

func (s *story) indent(text string) {
	for line := range strings.Lines(text) {
		s.say("    %s", strings.TrimRight(line, "\n"))
	}
}

// deploy applies a Deployment of three Pods with one image.
func (s *story) deploy(ctx context.Context, name, image, annotation string) (outcome, error) {
	what := image
	annotations := ""
	if annotation != "" {
		what += ", break-glass " + annotation
		annotations = fmt.Sprintf("\n        oracle.image-policy.k8s.io/break-glass: %q", annotation)
	}
	s.say("  %s", s.paint("36", fmt.Sprintf("$ kubectl apply -f %s.yaml    # %s", name, what)))
	o, err := s.cluster.apply(ctx, deployment(name, image, annotations))
	if err != nil {
		return o, err
	}
	for _, w := range o.warnings {
		s.say("    %s %s", s.paint("33", "Warning:"), w)
	}
	if len(o.denied) > 0 {
		for _, r := range o.denied {
			s.say("    Error: admission webhook \"validation.gatekeeper.sh\" denied the request: %s", r)
		}
		return o, nil
	}
	s.say("    deployment.apps/%s created, %d of %d Pods running", name, o.ready, o.replicas)
	told := make(map[string]bool)
	for _, e := range o.events { // each Pod's denial has another request ID of OCI: one denial is enough
		if short := violation.FindString(e); !told[short] {
			told[short] = true
			s.say("    FailedCreate: %s", e)
		}
	}
	return o, nil
}

// deployment returns a Deployment of three Pods with one image. The annotations are
// those of the Pods, one a line, with indentation.
func deployment(name, image, annotations string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: 3
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s}
      annotations:%[3]s
    spec:
      containers:
      - {name: nginx, image: %[2]q}
`, name, image, annotations)
}

func podManifest(image string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": {"containers": [{"name": "main", "image": %q}]}}`, image)
}

// violation matches the start of an engine's message: constraint, place, reason.
var violation = regexp.MustCompile(`^\[([^\]]+)\] [^:]+: ([a-z-]+): `)

// reasons returns the reasons in an engine's messages. If several constraints give a
// reason, their number follows: the demo fails if one of two defences is missing.
func reasons(messages []string) string {
	said := make(map[string]map[string]bool) // constraints by reason
	for _, m := range messages {
		word, constraint := m, "" // a message of another form is shown whole, and fails the step
		if found := violation.FindStringSubmatch(m); found != nil {
			constraint, word = found[1], found[2]
		}
		if said[word] == nil {
			said[word] = make(map[string]bool)
		}
		said[word][constraint] = true
	}
	words := slices.Sorted(maps.Keys(said))
	for i, word := range words {
		if n := len(said[word]); n > 1 {
			words[i] = fmt.Sprintf("%s by %d", word, n)
		}
	}
	return strings.Join(words, ", ")
}

// summary describes the outcome in a few words.
func (o outcome) summary() string {
	var parts []string
	switch {
	case len(o.denied) > 0:
		return "denied: " + reasons(o.denied)
	case o.replicas == 1 && o.ready == 1:
		parts = append(parts, "admitted")
	default:
		parts = append(parts, fmt.Sprintf("%d/%d", o.ready, o.replicas))
	}
	if len(o.events) > 0 {
		parts = append(parts, "denied: "+reasons(o.events))
	}
	if len(o.warnings) > 0 {
		parts = append(parts, "warned: "+reasons(o.warnings))
	}
	return strings.Join(parts, "; ")
}

func (s *story) allow(ctx context.Context, keys ...ociclient.Key) error {
	var ids, names []string
	for _, k := range keys {
		ids, names = append(ids, k.ID), append(names, k.Name)
	}
	s.say("  %s", s.paint("36", fmt.Sprintf("$ kubectl apply -f policy.yaml    # OKESignedImages, keys: [%s]", strings.Join(names, ", "))))
	return s.cluster.enforce(ctx, "{keys: ["+strings.Join(ids, ", ")+"]}")
}

// digestOf returns the digest of a tag, as a user would find it.
func (s *story) digestOf(ctx context.Context, reference string) (string, error) {
	r, err := s.quietly(ctx, "signatures", reference, "-o", "json")
	if err != nil {
		return "", err
	}
	var images []struct{ Digest string }
	if err := json.Unmarshal([]byte(r.stdout), &images); err != nil || len(images) != 1 || images[0].Digest == "" {
		return "", fmt.Errorf("signatures %s: no digest in %s%s", reference, r.stdout, r.stderr)
	}
	return images[0].Digest, nil
}

func (s *story) pinned(ctx context.Context, repository, tag string) (string, error) {
	digest, err := s.digestOf(ctx, repository+":"+tag)
	return repository + "@" + digest, err
}

func (s *story) chapterKeys(ctx context.Context) error {
	s.chapter("1", "OCI Registry has images, OCI Vault has keys")
	for _, repository := range []string{scanTest, nginxLB} {
		if _, err := s.kubectl(ctx, "signatures", repository+":latest"); err != nil {
			return err
		}
	}

	s.chapter("2", "Which keys can sign images?")
	if _, err := s.kubectl(ctx, "keys", "list"); err != nil {
		return err
	}
	usable, err := s.findKeys(ctx)
	if err != nil {
		return err
	}
	s.expect("RSA 2048 key", "usable", usable["image-key"])
	s.expect("RSA 4096 key", "usable", usable["release-key"])
	s.expect("AES key, with the reason", "not usable", usable["etcd-key"])
	s.expect("ECDSA key, with the reason", "not usable", usable["ec-key"])
	return nil
}

// findKeys finds the demo's keys, and returns whether each is usable, by its name.
func (s *story) findKeys(ctx context.Context) (map[string]string, error) {
	r, err := s.quietly(ctx, "keys", "list", "-o", "json")
	if err != nil {
		return nil, err
	}
	var keys []struct {
		ID, Name, VaultID, Reason string
		Usable                    bool
	}
	if err := json.Unmarshal([]byte(r.stdout), &keys); err != nil {
		return nil, fmt.Errorf("%w: %s%s", err, r.stdout, r.stderr)
	}
	known := map[string]*ociclient.Key{"image-key": &s.imageKey, "release-key": &s.releaseKey, "etcd-key": &s.aesKey, "ec-key": &s.ecKey}
	usable := make(map[string]string)
	for _, k := range keys {
		usable[k.Name] = map[bool]string{true: "usable", false: "not usable"}[k.Usable]
		if k.Usable != (k.Reason == "") {
			usable[k.Name] += ", and the reason is " + k.Reason
		}
		if known[k.Name] == nil {
			return nil, fmt.Errorf("a key called %q", k.Name)
		}
		if s.vault, err = s.cloud.Vault(ctx, k.VaultID); err != nil {
			return nil, err
		}
		if *known[k.Name], err = s.cloud.Key(ctx, s.vault, k.ID); err != nil {
			return nil, err
		}
	}
	return usable, nil
}

func (s *story) chapterSign(ctx context.Context) error {
	s.chapter("3", "Sign an image")
	image, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	r, err := s.kubectl(ctx, "sign", image, "--key", s.imageKey.ID, "--description", "image-sign demo")
	if err != nil {
		return err
	}
	s.expect("sign", "exit code 0", code(r))
	r, err = s.kubectl(ctx, "signatures", image)
	if err != nil {
		return err
	}
	s.expect("signatures shows description and key", "exit code 0, yes", code(r)+", "+yes(strings.Contains(r.stdout, "image-sign demo") && strings.Contains(r.stdout, "image-key")))
	r, err = s.kubectl(ctx, "verify", image, "--key", s.imageKey.ID)
	if err != nil {
		return err
	}
	s.expect("verify with its key", "exit code 0, signed", code(r)+", "+word(r.stdout, "signed"))
	r, err = s.kubectl(ctx, "verify", image, "--key", s.releaseKey.ID)
	if err != nil {
		return err
	}
	s.expect("verify with another key", "exit code 3, key-not-allowed", code(r)+", "+word(r.stdout, "key-not-allowed"))
	r, err = s.kubectl(ctx, "sign", image, "--key", s.imageKey.ID)
	if err != nil {
		return err
	}
	again, err := s.cloud.Records(ctx, image)
	if err != nil {
		return err
	}
	s.expect("sign again: no second record", "exit code 0, 1 record", fmt.Sprintf("%s, %d record", code(r), len(again)))
	return nil
}

func (s *story) chapterUnsigned(ctx context.Context) error {
	s.chapter("4", "An unsigned image does not run")
	if err := s.allow(ctx, s.imageKey); err != nil {
		return err
	}
	o, err := s.deploy(ctx, "unsigned-nginx", "nginx:latest", "")
	if err != nil {
		return err
	}
	s.expect("nginx:latest from Docker Hub", "0/3; denied: no-digest, not-oci-registry; warned: not-oci-registry", o.summary())
	image, err := s.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	if o, err = s.deploy(ctx, "unsigned-scan-test", image, ""); err != nil {
		return err
	}
	s.expect("an unsigned image of OCI Registry", "0/3; denied: unsigned; warned: unsigned", o.summary())
	return nil
}

func (s *story) chapterSigned(ctx context.Context) error {
	s.chapter("5", "A signed image runs, if it is pinned")
	image, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	o, err := s.deploy(ctx, "signed-nginx", image, "")
	if err != nil {
		return err
	}
	s.expect("the signed image by digest", "3/3", o.summary())
	alias := strings.Replace(image, "iad.ocir.io", "ocir.us-ashburn-1.oci.oraclecloud.com", 1)
	if o, err = s.deploy(ctx, "signed-alias", alias, ""); err != nil {
		return err
	}
	s.expect("the same image under the registry's other host", "3/3", o.summary())
	if o, err = s.deploy(ctx, "signed-by-tag", scanTest+":latest", ""); err != nil {
		return err
	}
	s.expect("by its tag", "0/3; denied: no-digest by 2; warned: no-digest", o.summary())
	s.expect("the message says how to pin", "yes", yes(strings.Contains(o.text(), "kubectl oke-sign pin") && strings.Contains(o.text(), "kubectl oke-sign signatures")))
	r, err := s.kubectl(ctx, "signatures", scanTest+":latest")
	if err != nil {
		return err
	}
	_, digest, _ := strings.Cut(image, "@")
	s.expect("signatures NAME:TAG shows the digest", "yes", yes(strings.Contains(r.stdout, digest)))
	return nil
}

func (s *story) chapterKeysOfPolicy(ctx context.Context) error {
	s.chapter("6", "The keys that the policy allows")
	image, err := s.pinned(ctx, nginxLB, "latest")
	if err != nil {
		return err
	}
	r, err := s.kubectl(ctx, "sign", image, "--key", s.releaseKey.ID)
	if err != nil {
		return err
	}
	s.expect("sign with the other key", "exit code 0", code(r))
	o, err := s.deploy(ctx, "released", image, "")
	if err != nil {
		return err
	}
	s.expect("signed by a key that is not allowed", "0/3; denied: key-not-allowed; warned: key-not-allowed", o.summary())
	s.expect("the message names both keys", "yes", yes(strings.Contains(o.text(), last(s.imageKey.ID)) && strings.Contains(o.text(), last(s.releaseKey.ID))))

	if err := s.allow(ctx, s.imageKey, s.releaseKey); err != nil {
		return err
	}
	if o, err = s.deploy(ctx, "released", image, ""); err != nil {
		return err
	}
	s.expect("two allowed keys, one signature", "3/3", o.summary())

	unsigned, err := s.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	if err := s.allow(ctx); err != nil {
		return err
	}
	if o, err = s.deploy(ctx, "anything", unsigned, ""); err != nil {
		return err
	}
	s.expect("no allowed key, an unsigned image: admitted, reported", "3/3; warned: no-key-listed", o.summary())

	s.say("  %s", s.paint("36", "$ kubectl apply -f policy.yaml    # OKESignedImages, kesy: [image-key]"))
	err = s.cluster.enforce(ctx, "{kesy: ["+s.imageKey.ID+"]}")
	s.expect("keys misspelt: the policy's schema", "rejected", rejected(err))
	if err != nil {
		s.indent(err.Error())
	}
	// An API server that does not validate drops the unknown field, and a constraint
	// without keys arrives. The engine checks the same schema. The template is
	// therefore loosened, to reach what the API server alone would do.
	if o, err = s.withoutSchema(ctx, unsigned); err != nil {
		return err
	}
	s.expect("keys misspelt, without a schema", "0/3; denied: no-keys; warned: no-keys", o.summary())
	six := strings.Repeat(s.imageKey.ID+", ", 5) + s.releaseKey.ID
	s.expect("a sixth key", "rejected", rejected(s.cluster.enforce(ctx, "{keys: ["+six+"]}")))
	return s.allow(ctx, s.imageKey)
}

func (s *story) chapterBreakGlass(ctx context.Context) error {
	s.chapter("7", "Break-glass")
	image, err := s.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	o, err := s.deploy(ctx, "emergency", image, "true")
	if err != nil {
		return err
	}
	s.expect(`"true" on an unsigned image: admitted, reported`, "3/3; warned: in-use", o.summary())
	if o, err = s.deploy(ctx, "emergency", image, "yes"); err != nil {
		return err
	}
	s.expect(`"yes" is denied`, "denied: no-effect", o.summary())
	pod, err := s.pod(ctx, image, "yes")
	if err != nil {
		return err
	}
	s.expect(`"yes" has no effect`, "denied: no-effect, unsigned", pod)
	if o, err = s.deploy(ctx, "emergency", "docker.io/library/nginx@sha256:"+strings.Repeat("0", 64), "true"); err != nil {
		return err
	}
	s.expect(`"true" on an image of another registry`, "0/3; denied: not-oci-registry; warned: in-use, not-oci-registry", o.summary())
	return nil
}

func (s *story) chapterTransplant(ctx context.Context) error {
	s.chapter("8", "A genuine signature, copied to another image")
	from, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	to, err := s.pinned(ctx, nginxLB, "v1")
	if err != nil {
		return err
	}
	moved, err := s.recordOf(ctx, from)
	if err != nil {
		return err
	}
	moved.Image = to
	s.say("  Anybody who may push to %s can attach scan-test's signature to it.", nginxLB)
	if err := s.cloud.Attach(ctx, moved); err != nil {
		return err
	}
	valid, err := s.cloud.Verify(ctx, s.vault, moved)
	if err != nil {
		return err
	}
	s.expect("Oracle's own verify, which does not read the message", "valid", map[bool]string{true: "valid", false: "not valid"}[valid])
	r, err := s.kubectl(ctx, "verify", to, "--key", s.imageKey.ID)
	if err != nil {
		return err
	}
	s.expect("kubectl oke-sign verify", "exit code 3, wrong-image", code(r)+", "+word(r.stdout, "wrong-image"))
	o, err := s.deploy(ctx, "transplant", to, "")
	if err != nil {
		return err
	}
	s.expect("admission", "0/3; denied: wrong-image; warned: wrong-image", o.summary())
	return nil
}

func (s *story) chapterOutage(ctx context.Context) error {
	s.chapter("9", "OCI is unreachable")
	image, err := s.pinned(ctx, scanTest, "v1")
	if err != nil {
		return err
	}
	if _, err := s.kubectl(ctx, "sign", image, "--key", s.releaseKey.ID); err != nil {
		return err
	}
	if err := s.allow(ctx, s.imageKey, s.releaseKey); err != nil {
		return err
	}
	for _, outage := range []struct {
		what  string
		fault ocitest.Fault
	}{
		{"unreachable", ocitest.Fault{Kind: ocitest.Unreachable, Host: "artifacts.*"}},
		{"429 Too Many Requests", ocitest.Fault{Kind: ocitest.Status, Operation: "artifacts.*", Status: http.StatusTooManyRequests, Code: "TooManyRequests"}},
		{"no answer at all", ocitest.Fault{Kind: ocitest.Hang, Operation: "artifacts.*"}},
	} {
		s.say("  The Artifacts API of OCI: %s.", outage.what)
		if err := s.cloud.SetFault(ctx, outage.fault); err != nil {
			return err
		}
		s.say("  %s", s.paint("36", "$ kubectl run during-an-outage --image="+image))
		o, err := s.cluster.apply(ctx, podManifest(image))
		if err != nil {
			return err
		}
		s.indent("Error: " + strings.Join(o.denied, "\n"))
		s.expect("OCI is down: "+outage.what, "denied: no-answer", o.summary())
		if err := s.cloud.ClearFaults(ctx); err != nil {
			return err
		}
		s.expect("the answer in Gatekeeper's cache", "none", s.cached(image, s.imageKey, s.releaseKey))
	}
	o, err := s.deploy(ctx, "after-outage", image, "")
	if err != nil {
		return err
	}
	s.expect("OCI is back: the next try", "3/3", o.summary())
	s.expect("the answer in Gatekeeper's cache", "one", s.cached(image, s.imageKey, s.releaseKey))
	return s.allow(ctx, s.imageKey)
}

// recordOf returns a signature record of an image in OCI Registry.
func (s *story) recordOf(ctx context.Context, image string) (ociclient.Record, error) {
	records, err := s.cloud.Records(ctx, image)
	if err == nil && len(records) == 0 {
		err = errors.New("no record of " + image)
	}
	if err != nil {
		return ociclient.Record{}, err
	}
	return records[0], nil
}

func code(r result) string { return fmt.Sprintf("exit code %d", r.code) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// word returns want if the text has it as a word.
func word(text, want string) string {
	if slices.Contains(strings.Fields(text), want) {
		return want
	}
	return "absent"
}

func rejected(err error) string {
	if err != nil {
		return "rejected"
	}
	return "accepted"
}

func last(ocid string) string { return ocid[len(ocid)-10:] }
