package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ociclient"
	"github.com/oke-sign/oke-sign/test/ocitest"
	"github.com/oke-sign/oke-sign/test/pki"
)

// pod creates a Pod with one image and returns the outcome.
func (s *story) pod(ctx context.Context, image, annotation string) (string, error) {
	pod := map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "attack"},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "main", "image": image}}},
	}
	if annotation != "" {
		pod["metadata"].(map[string]any)["annotations"] = map[string]any{"oracle.image-policy.k8s.io/break-glass": annotation}
	}
	return s.object(ctx, pod)
}

func (s *story) object(ctx context.Context, object map[string]any) (string, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return "", err
	}
	o, err := s.cluster.apply(ctx, string(text))
	return o.summary(), err
}

// chapterRecords attaches forged signature records, which anybody with the right to
// push could attach. They look more and more like genuine ones.
func (s *story) chapterRecords(ctx context.Context) error {
	s.chapter("10", "Signature records that anybody with the right to push can attach")
	retired, err := s.cloud.NewKey(ctx, s.vault, "retired-key")
	if err != nil {
		return err
	}
	if err := s.allow(ctx, s.imageKey, retired); err != nil {
		return err
	}
	const pss = "SHA_256_RSA_PKCS_PSS"
	otherVersion := s.imageKey.Version[:len(s.imageKey.Version)-1] + "0"
	type forgery struct {
		message   signature.Message
		text      func(string) string // changes the message before it is signed
		signer    ociclient.Key
		algorithm string
		change    func(*ociclient.Record)
	}
	for i, test := range []struct {
		what, want string
		forge      func(*forgery)
	}{
		{"an honest record", "admitted", func(*forgery) {}},
		{"the message is about another digest", "denied: wrong-image", func(f *forgery) { f.message.ImageDigest = "sha256:" + strings.Repeat("0", 64) }},
		{"the message is about another repository", "denied: wrong-image", func(f *forgery) { f.message.RepositoryName = "scan-test" }},
		{"the message is not JSON", "denied: wrong-image", func(f *forgery) { f.text = func(string) string { return "trust me" } }},
		{"the message names two digests", "denied: wrong-image", func(f *forgery) {
			f.text = func(t string) string {
				return strings.Replace(t, `{`, `{"imageDigest":"sha256:`+strings.Repeat("0", 64)+`",`, 1)
			}
		}},
		{"the message names a second digest in another case", "denied: wrong-image", func(f *forgery) {
			f.text = func(t string) string {
				return strings.Replace(t, `{`, `{"ImageDigest":"sha256:`+strings.Repeat("0", 64)+`",`, 1)
			}
		}},
		{"text follows the message", "denied: wrong-image", func(f *forgery) { f.text = func(t string) string { return t + "{}" } }},
		{"the message names another key", "denied: wrong-key", func(f *forgery) { f.message.KeyID = s.releaseKey.ID }},
		{"the message names another version of the key", "denied: wrong-key", func(f *forgery) { f.message.KeyVersionID = otherVersion }},
		{"the message names another algorithm", "denied: bad-signature", func(f *forgery) { f.message.Algorithm = "SHA_512_RSA_PKCS_PSS" }},
		{"signed by another key than the record says", "denied: bad-signature", func(f *forgery) { f.signer = s.releaseKey }},
		{"signed by another algorithm than the record says", "denied: bad-signature", func(f *forgery) { f.algorithm = "SHA_256_RSA_PKCS1_V1_5" }},
		{"an algorithm that OCI Registry does not know", "denied: bad-signature", func(f *forgery) {
			f.algorithm, f.message.Algorithm = "SHA_256_RSA_PKCS1_V1_5", "SHA_256_RSA_PKCS1_V1_5"
			f.change = func(r *ociclient.Record) { r.Algorithm = f.algorithm }
		}},
		{"a signature of nothing", "denied: bad-signature", func(f *forgery) { f.change = func(r *ociclient.Record) { r.Signature = "" } }},
		{"a message with one byte changed", "denied: bad-signature", func(f *forgery) {
			f.change = func(r *ociclient.Record) {
				text, _ := base64.StdEncoding.DecodeString(r.Message) // it was encoded here
				r.Message = base64.StdEncoding.EncodeToString(bytes.Replace(text, []byte("us-ashburn-1"), []byte("us-ashburn-2"), 1))
			}
		}},
		{"base64 with a line break", "denied: bad-signature", func(f *forgery) {
			f.change = func(r *ociclient.Record) { r.Message = r.Message[:76] + "\n" + r.Message[76:] }
		}},
		{"a key version with a path", "denied: key-unusable", func(f *forgery) {
			f.change = func(r *ociclient.Record) { r.KeyVersionID = "ocid1.keyversion.oc1/../../../" + s.releaseKey.ID }
		}},
		{"a key version that Vault does not list", "denied: key-unusable", func(f *forgery) {
			f.message.KeyVersionID = otherVersion
			f.change = func(r *ociclient.Record) { r.KeyVersionID = otherVersion }
		}},
		{"a key that the policy does not allow", "denied: key-not-allowed", func(f *forgery) {
			f.signer, f.message.KeyID, f.message.KeyVersionID = s.releaseKey, s.releaseKey.ID, s.releaseKey.Version
			f.change = func(r *ociclient.Record) { r.KeyID, r.KeyVersionID = s.releaseKey.ID, s.releaseKey.Version }
		}},
		{"a deleted record", "denied: unsigned", func(f *forgery) { f.change = func(r *ociclient.Record) { r.State = "DELETED" } }},
		{"an allowed key that is disabled", "denied: key-unusable", func(f *forgery) {
			f.signer, f.message.KeyID, f.message.KeyVersionID = retired, retired.ID, retired.Version
			f.change = func(r *ociclient.Record) { r.KeyID, r.KeyVersionID = retired.ID, retired.Version }
		}},
	} {
		repository := fmt.Sprintf("attack/record-%d", i)
		digest, err := s.cloud.Push(ctx, s.vault, repository)
		if err != nil {
			return err
		}
		f := forgery{
			message: signature.Message{
				ImageDigest: digest, RepositoryName: repository, Region: "us-ashburn-1",
				KeyID: s.imageKey.ID, KeyVersionID: s.imageKey.Version, Algorithm: pss,
			},
			text: func(t string) string { return t }, signer: s.imageKey, algorithm: pss, change: func(*ociclient.Record) {},
		}
		test.forge(&f)
		text := f.text(string(f.message.Encode()))
		sig, err := s.cloud.Sign(ctx, s.vault, f.signer, f.algorithm, text)
		if err != nil {
			return err
		}
		if strings.HasSuffix(test.what, "disabled") {
			if err := s.cloud.DisableKey(ctx, s.vault, retired); err != nil {
				return err
			}
		}
		r := ociclient.Record{
			Image: ociclient.Registry + repository + "@" + digest, KeyID: s.imageKey.ID, KeyVersionID: s.imageKey.Version, Algorithm: pss,
			Message: base64.StdEncoding.EncodeToString([]byte(text)), Signature: sig,
		}
		f.change(&r)
		if err := s.cloud.Attach(ctx, r); err != nil {
			return err
		}
		got, err := s.pod(ctx, r.Image, "")
		if err != nil {
			return err
		}
		s.expect(test.what, test.want, got)
	}
	if err := s.allow(ctx, s.imageKey); err != nil {
		return err
	}
	return s.flood(ctx)
}

// flood adds more bad signature records to an image than the provider reads, before
// or after an honest one. It also copies a signed image to another repository.
func (s *story) flood(ctx context.Context) error {
	genuine, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	bad, err := s.recordOf(ctx, genuine)
	if err != nil {
		return err
	}
	for _, test := range []struct {
		what          string
		before, after int
	}{
		{"an honest record after 3 bad ones", 3, 0},
		{"an honest record before 300 bad ones", 0, 300},
	} {
		repository := fmt.Sprintf("attack/flood-%d", test.after)
		digest, err := s.cloud.Push(ctx, s.vault, repository)
		if err != nil {
			return err
		}
		image := ociclient.Registry + repository + "@" + digest
		attach := func(n int) error {
			for range n {
				r := bad
				// The algorithm differs, so that the registry accepts the honest
				// record too: it allows one record of a key, version and algorithm.
				r.Image, r.Algorithm = image, "SHA_512_RSA_PKCS_PSS"
				if err := s.cloud.Attach(ctx, r); err != nil {
					return err
				}
			}
			return nil
		}
		if err := attach(test.before); err != nil {
			return err
		}
		r, err := s.quietly(ctx, "sign", image, "--key", s.imageKey.ID)
		if err != nil {
			return err
		}
		if r.code != 0 {
			return fmt.Errorf("signing %s: %s", image, r.stderr)
		}
		if err := attach(test.after); err != nil {
			return err
		}
		got, err := s.pod(ctx, image, "")
		if err != nil {
			return err
		}
		s.expect(test.what, "admitted", got)
	}

	copied, err := s.cloud.Copy(ctx, s.vault, genuine, "attack/copy")
	if err != nil {
		return err
	}
	moved := bad
	moved.Image = ociclient.Registry + "attack/copy@" + copied
	if err := s.cloud.Attach(ctx, moved); err != nil {
		return err
	}
	got, err := s.pod(ctx, moved.Image, "")
	if err != nil {
		return err
	}
	s.expect("the same image and signature in another repository", "denied: wrong-image", got)
	return nil
}

// chapterPods hides one bad image among good ones, in each place where a Pod has
// images.
func (s *story) chapterPods(ctx context.Context) error {
	s.chapter("11", "One bad image among good ones")
	good, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	bad, err := s.cloud.Push(ctx, s.vault, "attack/hidden")
	if err != nil {
		return err
	}
	bad = ociclient.Registry + "attack/hidden@" + bad
	type list = []any
	container := func(image string) any { return map[string]any{"name": "c", "image": image} }
	volume := func(image string) any {
		return map[string]any{"name": "v", "image": map[string]any{"reference": image}}
	}
	full := func() map[string]any {
		return map[string]any{
			"containers":     list{container(good), container(good)},
			"initContainers": list{container(good)}, "ephemeralContainers": list{container(good)},
			"volumes": list{map[string]any{"name": "e", "emptyDir": map[string]any{}}, volume(good)},
		}
	}
	nameless := map[string]any{"name": "c"}
	for _, test := range []struct {
		what, want string
		field      string
		value      any
	}{
		{"good images everywhere", "admitted", "", nil},
		{"the first container", "denied: unsigned", "containers", list{container(bad), container(good)}},
		{"the last container", "denied: unsigned", "containers", list{container(good), container(bad)}},
		{"an init container", "denied: unsigned", "initContainers", list{container(bad)}},
		{"an ephemeral container", "denied: unsigned", "ephemeralContainers", list{container(bad)}},
		{"an image volume", "denied: unsigned", "volumes", list{volume(bad)}},
		{"a container without an image", "denied: no-image by 2", "containers", list{container(good), nameless}},
		{"a container with an empty image", "denied: no-image by 2", "containers", list{container("")}},
		{"a container with a number as its image", "denied: ambiguous by 2", "containers", list{map[string]any{"name": "c", "image": 1}}},
		{"containers that are not a list", "denied: unreadable by 3, unsigned", "initContainers", map[string]any{"a": container(bad)}},
	} {
		spec := full()
		if test.field != "" {
			spec[test.field] = test.value
		}
		got, err := s.object(ctx, map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "hide"}, "spec": spec,
		})
		if err != nil {
			return err
		}
		s.expect(test.what, test.want, got)
	}
	return s.updates(ctx, bad)
}

// updates changes a running Pod, first during an outage of OCI and then without one.
func (s *story) updates(ctx context.Context, bad string) error {
	running, err := s.cloud.Push(ctx, s.vault, "attack/running")
	if err != nil {
		return err
	}
	pod := func(image, label string) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{"name": "running", "namespace": "default", "labels": map[string]any{"app": label}},
			"spec":     map[string]any{"containers": []any{map[string]any{"name": "c", "image": image}}},
		}}
	}
	update := func(old, new *unstructured.Unstructured) (string, error) {
		d, err := s.cluster.engine.Review(ctx, gatekeeper.Request{Operation: admissionv1.Update, Object: new, OldObject: old, User: alice})
		o := outcome{denied: lines(d.Denied), replicas: 1}
		if d.Allowed() {
			o.ready = 1
		}
		return o.summary(), err
	}
	old := ociclient.Registry + "attack/running@" + running
	if err := s.cloud.SetFault(ctx, ocitest.Fault{Kind: ocitest.Unreachable, Host: "*"}); err != nil {
		return err
	}
	got, err := update(pod(old, "a"), pod(old, "b"))
	if err != nil {
		return err
	}
	s.expect("OCI is down: a label of a running Pod changes", "admitted", got)
	if err := s.cloud.ClearFaults(ctx); err != nil {
		return err
	}
	if got, err = update(pod(old, "a"), pod(bad, "a")); err != nil {
		return err
	}
	s.expect("the image of a running Pod changes to an unsigned one", "denied: unsigned", got)
	return nil
}

// chapterReferences writes references to OCI Registry that a policy could mistake
// for another registry. The policy admits other registries.
func (s *story) chapterReferences(ctx context.Context) error {
	s.chapter("12", "Misleading image references (otherRegistries: Allow)")
	digest, err := s.cloud.Push(ctx, s.vault, "attack/alias")
	if err != nil {
		return err
	}
	err = s.cluster.enforce(ctx, "{keys: ["+s.imageKey.ID+"], otherRegistries: Allow, exemptImages: [iad.ocir.io/idwpqivumvev/exempt/**]}")
	if err != nil {
		return err
	}
	name := "idwpqivumvev/attack/alias@" + digest
	for _, test := range []struct{ what, image, want string }{
		{"the canonical host", "iad.ocir.io/" + name, "denied: unsigned"},
		{"upper case", "IAD.ocir.io/" + name, "denied: ambiguous by 2"},
		{"a port", "iad.ocir.io:443/" + name, "denied: ambiguous by 2"},
		{"a final dot", "iad.ocir.io./" + name, "denied: ambiguous by 2"},
		{"user information", "user@iad.ocir.io/" + name, "denied: ambiguous by 2"},
		{"a scheme", "https://iad.ocir.io/" + name, "denied: ambiguous by 2"},
		{"an unknown region", "xyz.ocir.io/" + name, "denied: ambiguous by 2"},
		{"a letter from another alphabet", "iad.оcir.io/" + name, "denied: ambiguous by 2"},
		{"the domain of another realm", "ocir.us-ashburn-1.oci.oraclecloud8.com/" + name, "denied: ambiguous by 2"},
		{"two digests", "iad.ocir.io/" + name + "@" + digest, "denied: ambiguous by 2"},
		{"a digest by another algorithm", "iad.ocir.io/idwpqivumvev/attack/alias@sha512:" + strings.Repeat(digest[7:], 2), "denied: ambiguous by 2"},
		{"a digest in upper case", "iad.ocir.io/idwpqivumvev/attack/alias@sha256:" + strings.ToUpper(digest[7:]), "denied: ambiguous by 2"},
		{"the ID of an image on the node", digest, "denied: ambiguous by 2"},
		{"a prefix of such an ID", digest[7:19], "denied: ambiguous by 2"},
		{"a namespace of another tenancy", "iad.ocir.io/elsewhere/alias@" + digest, "denied: not-covered"},
		{"a missing image", "iad.ocir.io/idwpqivumvev/attack/none@" + digest, "denied: image-not-found"},
		{"a name next to an exemption", "iad.ocir.io/idwpqivumvev/exempt-not/a@" + digest, "denied: image-not-found"},
		{"a look-alike host is another registry", "phx.ocir.io.example.com/" + name, "admitted"},
	} {
		for _, annotation := range []string{"", "true"} {
			if annotation != "" && test.want != "denied: ambiguous by 2" {
				continue // break-glass admits the others, as it should
			}
			got, err := s.pod(ctx, test.image, annotation)
			if err != nil {
				return err
			}
			what, want := test.what, test.want
			if annotation != "" {
				what, got = what+", under break-glass", strings.TrimSuffix(got, "; warned: in-use")
			}
			s.expect(what, want, got)
		}
	}
	return s.allow(ctx, s.imageKey)
}

// chapterCallers sends questions to the provider, as Gatekeeper and as others.
func (s *story) chapterCallers(ctx context.Context) error {
	s.chapter("13", "Requests to the provider")
	image, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	stranger, err := pki.NewAuthority("a stranger")
	if err != nil {
		return err
	}
	certificate := func(a *pki.Authority, name string) []tls.Certificate {
		pair, issueErr := a.Issue(pki.Leaf{Names: []string{name}})
		c, pairErr := pair.TLS()
		if issueErr != nil || pairErr != nil {
			err = fmt.Errorf("making a certificate: %w", fmt.Errorf("%w, %w", issueErr, pairErr))
		}
		return []tls.Certificate{c}
	}
	caller := certificate(s.provider.authority, gatekeeperName)
	nobody := certificate(s.provider.authority, "somebody-else.default.svc")
	forged := certificate(stranger, gatekeeperName)
	if err != nil {
		return err
	}
	request := func(keys ...string) string {
		text, _ := json.Marshal(map[string]any{ // strings always encode
			"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderRequest", "request": map[string]any{"keys": keys},
		})
		return string(text)
	}
	question := gatekeeper.Question(image, []string{s.imageKey.ID})
	for _, test := range []struct {
		what, want string
		as         []tls.Certificate
		method     string
		body       string
	}{
		{"Gatekeeper, with a valid question", "200, signed", caller, "POST", request(question)},
		{"without a certificate", "403, no answer", nil, "POST", request(question)},
		{"with a certificate for another name", "403, no answer", nobody, "POST", request(question)},
		{"with a certificate from another authority", "403, no answer", forged, "POST", request(question)},
		{"another method", "405, no answer", caller, "GET", ""},
		{"not JSON", "400, no answer", caller, "POST", "signed: true"},
		{"another version of the protocol", "400, no answer", caller, "POST", strings.Replace(request(question), "v1beta1", "v9", 1)},
		{"10 000 questions", "413, no answer", caller, "POST", request(strings.Split(strings.Repeat(question+"|", 9_999)+question, "|")...)},
		{"a question of 1 MB", "413, no answer", caller, "POST", request(strings.Repeat("x", 1<<20))},
		{"a question without keys", "200, no answer", caller, "POST", request(gatekeeper.Question(image, nil))},
		{"a key that is not a question", "200, no answer", caller, "POST", request("is this signed?")},
	} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
			RootCAs: s.provider.authority.Pool(), Certificates: test.as, MinVersion: tls.VersionTLS13,
		}}}
		got := ask(ctx, client, test.method, "https://"+s.provider.addr+"/v1/signatures", test.body)
		s.expect(test.what, test.want, got)
	}
	return nil
}

func ask(ctx context.Context, client *http.Client, method, url, body string) string {
	request, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return "no connection"
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return "no connection"
	}
	var answer struct {
		Kind     string
		Response struct {
			Items []struct {
				Value struct{ Signed bool }
				Error string
			}
			SystemError string
		}
	}
	said := "no answer"
	if err := json.Unmarshal(text, &answer); err != nil || answer.Kind != "ProviderResponse" {
		said = "not in the protocol's form: " + string(text[:min(len(text), 200)])
	}
	told := answer.Response.SystemError != ""
	for _, item := range answer.Response.Items {
		told = told || item.Error != ""
		if item.Value.Signed {
			said = "signed"
		}
	}
	if said == "no answer" && !told {
		said = "silence"
	}
	return fmt.Sprintf("%d, %s", response.StatusCode, said)
}

// chapterSigning tells the plugin to sign what it must not sign.
func (s *story) chapterSigning(ctx context.Context) error {
	s.chapter("14", "What kubectl oke-sign does not sign")
	digest, err := s.cloud.Push(ctx, s.vault, "attack/sign")
	if err != nil {
		return err
	}
	image := ociclient.Registry + "attack/sign@" + digest
	long := strings.Repeat("x", 4096)
	for _, test := range []struct {
		what, says string
		args       []string
	}{
		{"with an AES key", "AES", []string{image, "--key", s.aesKey.ID}},
		{"with an ECDSA key", "ECDSA", []string{image, "--key", s.ecKey.ID}},
		{"a digest that OCI Registry does not have", "sha256:000", []string{ociclient.Registry + "attack/sign@sha256:" + strings.Repeat("0", 64), "--key", s.imageKey.ID}},
		{"a tag", "--resolve", []string{ociclient.Registry + "attack/sign:v1", "--key", s.imageKey.ID}},
		{"with metadata that is not JSON", "--metadata", []string{image, "--key", s.imageKey.ID, "--metadata", "{build: 1}"}},
		{"a message of more than 4096 bytes", "--description", []string{image, "--key", s.imageKey.ID, "--description", long}},
		{"an image of another registry", "OCI Registry", []string{"docker.io/library/nginx@" + digest, "--key", s.imageKey.ID}},
	} {
		shown := append([]string{"sign"}, test.args...)
		r, err := s.quietly(ctx, shown...)
		if err != nil {
			return err
		}
		got := "rejected with the cause"
		switch {
		case r.code == 0:
			got = "signed"
		case !strings.Contains(r.stderr+r.stdout, test.says):
			got = "rejected without the word " + test.says
		}
		s.expect(test.what, "rejected with the cause", got)
		s.indent(strings.Replace(r.stderr, long, "…", 1))
	}
	records, err := s.cloud.Records(ctx, image)
	if err != nil {
		return err
	}
	s.expect("signature records from these commands", "none", map[bool]string{true: "none", false: "some"}[len(records) == 0])
	return nil
}

func (s *story) chapterProviderGone(ctx context.Context) error {
	s.chapter("17", "The provider is gone")
	image, err := s.pinned(ctx, scanTest, "latest")
	if err != nil {
		return err
	}
	s.provider.stop()
	if err := s.allow(ctx, s.imageKey, s.releaseKey, s.aesKey); err != nil { // these keys make a new question, which Gatekeeper has not cached
		return err
	}
	o, err := s.deploy(ctx, "nobody-to-ask", image, "")
	if err != nil {
		return err
	}
	s.expect("a signed image, and no provider to verify it", "0/3; denied: no-answer; warned: no-answer", o.summary())
	s.expect("the answer in Gatekeeper's cache", "none", s.cached(image, s.imageKey, s.releaseKey, s.aesKey))
	return nil
}

// cached returns "one" if Gatekeeper's cache has an answer to the question, and "none" otherwise.
func (s *story) cached(image string, keys ...ociclient.Key) string {
	var ids []string
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	if _, ok := s.cluster.engine.Cached("oke-sign", gatekeeper.Question(image, ids)); ok {
		return "one"
	}
	return "none"
}

// withoutSchema deploys an image under a policy with misspelt keys. Its template
// accepts any constraint.
func (s *story) withoutSchema(ctx context.Context, image string) (outcome, error) {
	text, err := policies.Templates.ReadFile("okesignedimages/template.yaml")
	if err != nil {
		return outcome{}, err
	}
	defer func() { err = s.cluster.engine.AddTemplate(ctx, text) }()
	template, err := manifest.Object(text)
	if err != nil {
		return outcome{}, err
	}
	if err := unstructured.SetNestedMap(template.Object, map[string]any{
		"legacySchema":    false,
		"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true},
	}, "spec", "crd", "spec", "validation"); err != nil {
		return outcome{}, err
	}
	loose, err := template.MarshalJSON()
	if err != nil {
		return outcome{}, err
	}
	if err := s.cluster.engine.AddTemplate(ctx, loose); err != nil {
		return outcome{}, err
	}
	if err := s.cluster.enforce(ctx, "{kesy: ["+s.imageKey.ID+"]}"); err != nil {
		return outcome{}, err
	}
	return s.deploy(ctx, "misspelt", image, "")
}
