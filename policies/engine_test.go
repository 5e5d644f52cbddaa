package policies_test

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

const (
	digest    = "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	goodImage = "iad.ocir.io/ns/good" + digest
	badImage  = "iad.ocir.io/ns/bad" + digest
)

var (
	keyA = "ocid1.key.oc1.iad.b5q4c5lnaahik." + strings.Repeat("a", 60)
	keyB = "ocid1.key.oc1.iad.b5q4c5lnaahik." + strings.Repeat("b", 60)

	// Each value is both a verdict and a scan.
	signed = map[string]any{
		"signed": true, "reason": "signed",
		"known": true, "scannedAt": time.Now().UTC().Format(time.RFC3339),
		"counts": map[string]any{"CRITICAL": 0, "HIGH": 0, "MEDIUM": 0, "LOW": 0}, "problems": []any{},
	}
	unsigned = map[string]any{
		"signed": false, "reason": "unsigned", "detail": "the image has no signature",
		"known": true, "scannedAt": time.Now().UTC().Format(time.RFC3339),
		"counts":   map[string]any{"CRITICAL": 1, "HIGH": 0, "MEDIUM": 0, "LOW": 0},
		"problems": []any{map[string]any{"id": "CVE-2021-44228", "severity": "CRITICAL"}},
	}

	kinds = policies.Kinds()

	// folder has the templates of this folder, so that the tests also run on a changed copy.
	// TestEmbeddedTemplates compares them with the embedded ones.
	folder = os.DirFS(".")

	breakGlass = map[string]string{"oracle.image-policy.k8s.io/break-glass": "true"}
)

// signedIfGood answers that an image is signed if its name has "good".
func signedIfGood(key string) any {
	if strings.Contains(key, "/good") {
		return signed
	}
	return unsigned
}

// engine returns an engine with p as both providers. It has the templates of the constraints,
// or all templates without constraints.
func engine(t *testing.T, p *gatekeepertest.Provider, constraints ...string) *gatekeeper.Engine {
	t.Helper()
	e, err := gatekeeper.New(gatekeeper.Config{Certificate: p.Certificate, Key: p.Key})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, kind := range kinds {
		if all := strings.Join(constraints, ""); all != "" && !strings.Contains(all, kind) {
			continue
		}
		text, err := fs.ReadFile(folder, strings.ToLower(kind)+"/template.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := e.AddTemplate(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"oke-sign", "oke-sign-scans"} {
		if err := e.AddProvider(gatekeeper.Provider{Name: name, URL: p.URL, CABundle: p.CA, Timeout: time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range constraints {
		if err := e.AddConstraint(t.Context(), []byte(c)); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

func constraint(kind, name, action, parameters string) string {
	return fmt.Sprintf(`{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": %q, "metadata": {"name": %q},
		"spec": {"enforcementAction": %q, "parameters": %s}}`, kind, name, action, parameters)
}

func signedBy(keys ...string) string {
	return constraint(policies.SignedImages, "signed", "deny", `{"keys": ["`+strings.Join(keys, `", "`)+`"]}`)
}

var scanned = constraint(policies.ScannedImages, "scanned", "deny", `{"unknown": "Allow"}`)

func pod(annotations map[string]string, images ...string) *unstructured.Unstructured {
	containers := []any{}
	for i, image := range images {
		containers = append(containers, map[string]any{"name": fmt.Sprintf("c%d", i), "image": image})
	}
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   map[string]any{"name": "web", "namespace": "default"},
		"spec":       map[string]any{"containers": containers},
	}}
	object.SetAnnotations(annotations)
	return object
}

func create(object *unstructured.Unstructured) gatekeeper.Request {
	return gatekeeper.Request{
		Operation: admissionv1.Create,
		Object:    object,
		User:      authenticationv1.UserInfo{Username: "alice"},
	}
}

func review(t *testing.T, e *gatekeeper.Engine, r gatekeeper.Request) gatekeeper.Decision {
	t.Helper()
	d, err := e.Review(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// reasons returns the place and the reason of each violation.
func reasons(violations []gatekeeper.Violation) []string {
	got := []string{}
	for _, v := range violations {
		parts := strings.SplitN(v.Message, ": ", 3)
		got = append(got, strings.Join(parts[:min(2, len(parts))], ": "))
	}
	slices.Sort(got)
	return got
}

// Every answer except one valid yes denies the Pod. The next Pod is admitted if its answer is
// valid.
func TestOnlyAYesAdmits(t *testing.T) {
	yes := gatekeepertest.Each(signedIfGood)
	item := func(key string, fields gatekeepertest.Item) gatekeepertest.Item {
		fields["key"] = key
		return fields
	}
	one := func(make func(key string) gatekeepertest.Item) gatekeepertest.Answer {
		return func(keys []string) (int, string) {
			items := []gatekeepertest.Item{}
			for _, key := range keys {
				items = append(items, make(key))
			}
			return http.StatusOK, gatekeepertest.Response("", items...)
		}
	}
	body := func(status int, body string) gatekeepertest.Answer {
		return func([]string) (int, string) { return status, body }
	}
	for name, tc := range map[string]struct {
		answer gatekeepertest.Answer
		want   string
	}{
		"unsigned":        {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{"value": unsigned}) }), "unsigned"},
		"no items":        {body(200, gatekeepertest.Response("")), "no-answer"},
		"items are null":  {body(200, `{"response": {"items": null}}`), "no-answer"},
		"a system error":  {body(200, gatekeepertest.Response("OCI is unreachable")), "no-answer"},
		"an empty object": {body(200, `{}`), "no-answer"},
		"a list":          {body(200, `[]`), "no-answer"},
		"null":            {body(200, `null`), "no-answer"},
		"nothing":         {body(200, ``), "no-answer"},
		"half of it":      {body(200, `{"response": {"items": [{"key":`), "no-answer"},
		"HTML":            {body(502, `<html>Bad Gateway</html>`), "no-answer"},
		"503 with JSON":   {body(503, `{"error": "overloaded"}`), "no-answer"},
		"401 with JSON":   {body(401, `{}`), "no-answer"},
		"an item error":   {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{"error": "no"}) }), "no-answer"},
		"a yes with an error": {one(func(k string) gatekeepertest.Item {
			return item(k, gatekeepertest.Item{"value": signed, "error": "no"})
		}), "no-answer"},
		"no value":     {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{}) }), "no-answer"},
		"a null value": {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{"value": nil}) }), "no-answer"},
		"true as text": {one(func(k string) gatekeepertest.Item {
			return item(k, gatekeepertest.Item{"value": map[string]any{"signed": "true"}})
		}), "no-answer"},
		"one for true": {one(func(k string) gatekeepertest.Item {
			return item(k, gatekeepertest.Item{"value": map[string]any{"signed": 1}})
		}), "no-answer"},
		"plain true":          {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{"value": true}) }), "no-answer"},
		"JSON as text":        {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{"value": `{"signed": true}`}) }), "no-answer"},
		"a verdict in a list": {one(func(k string) gatekeepertest.Item { return item(k, gatekeepertest.Item{"value": []any{signed}}) }), "no-answer"},
		"the reason only": {one(func(k string) gatekeepertest.Item {
			return item(k, gatekeepertest.Item{"value": map[string]any{"reason": "signed"}})
		}), "no-answer"},
		"another image": {one(func(k string) gatekeepertest.Item {
			return item(strings.Replace(k, "/good", "/other", 1), gatekeepertest.Item{"value": signed})
		}), "no-answer"},
		"other keys": {one(func(string) gatekeepertest.Item {
			return item(gatekeeper.Question(goodImage, []string{keyB}), gatekeepertest.Item{"value": signed})
		}), "no-answer"},
		"the image alone": {one(func(string) gatekeepertest.Item { return item(goodImage, gatekeepertest.Item{"value": signed}) }), "no-answer"},
		"the question respelled": {one(func(k string) gatekeepertest.Item {
			return item(strings.Replace(k, ":", ": ", 1), gatekeepertest.Item{"value": signed})
		}), "no-answer"},
		"a missing key": {one(func(string) gatekeepertest.Item { return gatekeepertest.Item{"value": signed} }), "no-answer"},
		"an empty key":  {one(func(string) gatekeepertest.Item { return gatekeepertest.Item{"key": "", "value": signed} }), "no-answer"},
		"two answers that differ": {func(k []string) (int, string) {
			return 200, gatekeepertest.Response("", item(k[0], gatekeepertest.Item{"value": signed}), item(k[0], gatekeepertest.Item{"value": unsigned}))
		}, "no-answer"},
		"a yes, then an error": {func(k []string) (int, string) {
			return 200, gatekeepertest.Response("", item(k[0], gatekeepertest.Item{"value": signed}), item(k[0], gatekeepertest.Item{"error": "no"}))
		}, "no-answer"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, constraint := range []string{signedBy(keyA), scanned} {
				want := []string{"containers/c0: " + tc.want}
				if constraint == scanned && tc.want == "unsigned" {
					want = []string{"containers/c0: problems"}
				}
				p := gatekeepertest.Start(t, tc.answer)
				e := engine(t, p, constraint)
				d := review(t, e, create(pod(nil, goodImage)))
				if diff := cmp.Diff(want, reasons(d.Denied)); diff != "" {
					t.Error(diff)
				}
				// With the same engine and provider, a valid answer admits another Pod.
				p.Answer(yes)
				if d := review(t, e, create(pod(nil, "iad.ocir.io/ns/good-too"+digest))); !d.Allowed() {
					t.Errorf("a signed image is denied: %v", d.Denied)
				}
			}
		})
	}
}

func TestAMissingProvider(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	stuck := make(chan struct{})
	defer close(stuck)
	hanging := gatekeepertest.Start(t, func([]string) (int, string) { <-stuck; return 200, "{}" })
	other := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	for name, provider := range map[string]gatekeeper.Provider{
		"another name": {Name: "other", URL: p.URL, CABundle: p.CA, Timeout: time.Second},
		"closed port":  {Name: "oke-sign", URL: "https://127.0.0.1:1/", CABundle: p.CA, Timeout: time.Second},
		"hanging":      {Name: "oke-sign", URL: hanging.URL, CABundle: hanging.CA, Timeout: time.Second},
		"another CA":   {Name: "oke-sign", URL: p.URL, CABundle: other.CA, Timeout: time.Second},
		"no such host": {Name: "oke-sign", URL: "https://oke-sign.invalid/", CABundle: p.CA, Timeout: time.Second},
		"no such path": {Name: "oke-sign", URL: p.URL + "\x7f", CABundle: p.CA, Timeout: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := gatekeeper.Config{Certificate: p.Certificate, Key: p.Key}
			if name == "hanging" {
				cfg = gatekeeper.Config{Certificate: hanging.Certificate, Key: hanging.Key}
			}
			e, err := gatekeeper.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			text, err := fs.ReadFile(folder, "okesignedimages/template.yaml")
			if err != nil {
				t.Fatal(err)
			}
			if err := e.AddTemplate(t.Context(), text); err != nil {
				t.Fatal(err)
			}
			if err := e.AddConstraint(t.Context(), []byte(signedBy(keyA))); err != nil {
				t.Fatal(err)
			}
			// Gatekeeper's webhook rejects some of these Provider objects.
			_ = e.AddProvider(provider)
			d := review(t, e, create(pod(nil, goodImage)))
			if diff := cmp.Diff([]string{"containers/c0: no-answer"}, reasons(d.Denied)); diff != "" {
				t.Error(diff)
			}
			if _, ok := e.Cached("oke-sign", gatekeeper.Question(goodImage, []string{keyA})); ok {
				t.Error("a missing answer is cached")
			}
		})
	}
}

// The template of artifact-attestations-opa-provider admits a Pod if any one image is good.
// CVE-2023-2727: ephemeral containers were not checked.
func TestOneBadImageInEveryPosition(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	for reason, e := range map[string]*gatekeeper.Engine{"unsigned": engine(t, p, signedBy(keyA)), "problems": engine(t, p, scanned)} {
		for i := range 9 {
			object, place := pod(nil), ""
			spec := object.Object["spec"].(map[string]any)
			for n, field := range []string{"containers", "initContainers", "ephemeralContainers"} {
				list := []any{}
				for m := range 3 {
					image := fmt.Sprintf("iad.ocir.io/ns/good-%d:v%d%s", n, m, digest)
					if n*3+m == i {
						image, place = badImage, fmt.Sprintf("%s/c%d", field, m)
					}
					list = append(list, map[string]any{"name": fmt.Sprintf("c%d", m), "image": image})
				}
				spec[field] = list
			}
			d := review(t, e, create(object))
			if diff := cmp.Diff([]string{place + ": " + reason}, reasons(d.Denied)); diff != "" {
				t.Error(diff)
			}
		}
	}
}

// An answer to one question does not answer another question of the same request.
func TestOneAnswerForTwoImages(t *testing.T) {
	p := gatekeepertest.Start(t, func(keys []string) (int, string) {
		return http.StatusOK, gatekeepertest.Response("OCI is slow today", gatekeepertest.Item{"key": keys[0], "value": signed})
	})
	for _, constraint := range []string{signedBy(keyA), scanned} {
		e := engine(t, p, constraint)
		d := review(t, e, create(pod(nil, "iad.ocir.io/ns/b"+digest, "iad.ocir.io/ns/a"+digest)))
		if diff := cmp.Diff([]string{"containers/c0: no-answer"}, reasons(d.Denied)); diff != "" {
			t.Error(diff)
		}
	}
}

// An invalid image and an image that only resembles an exempt one are denied under every
// policy.
func TestTheseAreAlwaysDenied(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(func(string) any { return signed }))
	exempt := `"exemptImages": ["quay.io/a/**", "quay.io/b/c@sha256:` + strings.Repeat("0", 64) + `", "registry:5000/a/b"]`
	engines := map[string]*gatekeeper.Engine{}
	for name, c := range map[string]string{
		"keys":    constraint(policies.SignedImages, "c", "deny", `{"keys": ["`+keyA+`"], `+exempt+`}`),
		"any key": constraint(policies.SignedImages, "c", "deny", `{"keys": [], `+exempt+`}`),
		"digests": constraint(policies.ImageDigests, "c", "deny", `{`+exempt+`}`),
		"scans":   constraint(policies.ScannedImages, "c", "deny", `{"unknown": "Allow", `+exempt+`}`),
	} {
		engines[name] = engine(t, p, c)
	}
	for name, container := range map[string]any{
		"no image":                    map[string]any{"name": "c0"},
		"null":                        map[string]any{"name": "c0", "image": nil},
		"empty":                       map[string]any{"name": "c0", "image": ""},
		"a number":                    map[string]any{"name": "c0", "image": 1},
		"a list":                      map[string]any{"name": "c0", "image": []any{goodImage}},
		"an object":                   map[string]any{"name": "c0", "image": map[string]any{"ref": goodImage}},
		"no container":                "nginx",
		"a null container":            nil,
		"a longer path":               map[string]any{"image": "quay.io/ab/c:1"},
		"the pattern's path itself":   map[string]any{"image": "quay.io/a"},
		"another host with that path": map[string]any{"image": "evil.com/quay.io/a/b"},
		"a longer host":               map[string]any{"image": "quay.io.evil.com/a/b"},
		"another port":                map[string]any{"image": "quay.io:443/a/b"},
		"a host in upper case":        map[string]any{"image": "QUAY.io/a/b"},
		"no host":                     map[string]any{"image": "a/b"},
		"another digest":              map[string]any{"image": "quay.io/b/c:1"},
		"below an exact pattern":      map[string]any{"image": "registry:5000/a/b/c"},
	} {
		for setting, e := range engines {
			object := pod(nil, goodImage)
			list := object.Object["spec"].(map[string]any)
			list["containers"] = append(list["containers"].([]any), container)
			if d := review(t, e, create(object)); len(d.Denied) != 1 {
				t.Errorf("%s, %s: %v", name, setting, d.Denied)
			}
		}
	}
}

// A cached answer belongs to a question with its keys, so policies with other keys do not share
// it. One request has all questions that are not cached.
func TestQuestions(t *testing.T) {
	p := gatekeepertest.Start(t, func(keys []string) (int, string) {
		items := []gatekeepertest.Item{}
		for _, key := range keys {
			verdict := unsigned
			if strings.Contains(key, keyA) {
				verdict = signed
			}
			items = append(items, gatekeepertest.Item{"key": key, "value": verdict})
		}
		return http.StatusOK, gatekeepertest.Response("", items...)
	})
	e := engine(t, p, signedBy(keyB, keyA, keyB))
	if d := review(t, e, create(pod(nil, goodImage, badImage, goodImage))); !d.Allowed() {
		t.Fatal(d.Denied)
	}
	if err := e.AddConstraint(t.Context(), []byte(signedBy(keyB))); err != nil {
		t.Fatal(err)
	}
	if d := review(t, e, create(pod(nil, goodImage))); d.Allowed() {
		t.Error("the verdict for two keys was used for one of them")
	}
	want := [][]string{
		{gatekeeper.Question(badImage, []string{keyA, keyB}), gatekeeper.Question(goodImage, []string{keyA, keyB})},
		{gatekeeper.Question(goodImage, []string{keyB})},
	}
	if diff := cmp.Diff(want, p.Requests()); diff != "" {
		t.Error(diff)
	}
}

// CVE-2026-78427: only what a constraint exempts is exempt.
func TestNoQuestionWithoutNeed(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	exempt := constraint(policies.SignedImages, "signed", "deny",
		`{"keys": ["`+keyA+`"], "otherRegistries": "Allow", "exemptImages": ["iad.ocir.io/ns/tools/**"]}`)
	exemptOfScans := constraint(policies.ScannedImages, "scanned", "deny",
		`{"otherRegistries": "Allow", "exemptImages": ["iad.ocir.io/ns/tools/**"]}`)
	old := pod(nil, badImage, "nginx:latest")
	relabelled := old.DeepCopy()
	relabelled.SetLabels(map[string]string{"a": "b"})
	for name, request := range map[string]gatekeeper.Request{
		"an update of a label": {Operation: admissionv1.Update, Object: relabelled, OldObject: old},
		"a deletion":           {Operation: admissionv1.Delete, Object: old, OldObject: old},
		"exempt":               create(pod(nil, "iad.ocir.io/ns/tools/debug:v1")),
		"another registry":     create(pod(nil, "nginx:latest")),
		"break-glass":          create(pod(breakGlass, badImage)),
	} {
		for _, e := range []*gatekeeper.Engine{engine(t, p, exempt), engine(t, p, exemptOfScans)} {
			if d := review(t, e, request); !d.Allowed() {
				t.Errorf("%s: %v", name, d.Denied)
			}
		}
	}
	if got := p.Requests(); len(got) != 0 {
		t.Errorf("asked %v", got)
	}
	d := review(t, engine(t, p, exempt), gatekeeper.Request{Operation: admissionv1.Update, Object: pod(nil, badImage, goodImage), OldObject: pod(nil, goodImage)})
	if diff := cmp.Diff([]string{"containers/c0: unsigned"}, reasons(d.Denied)); diff != "" {
		t.Errorf("a new image on update: %s", diff)
	}
}

// CVE-2026-78427: NeuVector exempted side cars by their names. Here no image is exempt by its
// name alone, not even Gatekeeper or the provider.
func TestNoImageIsExemptByItsName(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	e := engine(t, p, signedBy(keyA), constraint(policies.ImageDigests, "digests", "deny", `{}`))
	for _, image := range []string{
		"docker.io/istio/proxyv2:1.27.0", "cr.l5d.io/linkerd/proxy:stable", "registry.k8s.io/pause:3.10", "envoyproxy/envoy:v1.35.0",
		"openpolicyagent/gatekeeper:v3.23.1", "ghcr.io/oke-sign/oke-sign-provider:v0.1.0", "iad.ocir.io/oke-sign/oke-sign-provider:v0.1.0",
		"container-registry.oracle.com/os/oraclelinux:9",
	} {
		if d := review(t, e, create(pod(nil, goodImage, image))); d.Allowed() {
			t.Errorf("admitted %s", image)
		}
	}
}

func TestAmbiguousReferencesUnderEverySetting(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(func(string) any { return signed }))
	var ambiguous []string
	for _, v := range readVectors(t) {
		if v := v.(map[string]any); v["class"] == "ambiguous" {
			ambiguous = append(ambiguous, v["ref"].(string))
		}
	}
	for name, constraint := range map[string]string{
		"keys":                constraint(policies.SignedImages, "c", "deny", `{"keys": ["`+keyA+`"], "otherRegistries": "Allow", "exemptImages": ["iad.ocir.io/ns/**", "quay.io/a/**", "iad.ocir.io:443/ns/repo"]}`),
		"any key":             constraint(policies.SignedImages, "c", "deny", `{"keys": [], "otherRegistries": "Allow", "exemptImages": ["iad.ocir.io/ns/**", "quay.io/a/**", "iad.ocir.io:443/ns/repo"]}`),
		"digests":             constraint(policies.ImageDigests, "c", "deny", `{"exemptImages": ["iad.ocir.io/ns/**", "quay.io/a/**", "iad.ocir.io:443/ns/repo"]}`),
		"scans":               constraint(policies.ScannedImages, "c", "deny", `{"unknown": "Allow", "otherRegistries": "Allow", "exemptImages": ["iad.ocir.io/ns/**", "quay.io/a/**"]}`),
		"digests of one kind": constraint(policies.ImageDigests, "c", "deny", `{"registries": "OCIRegistry", "exemptImages": ["iad.ocir.io/ns/**", "quay.io/a/**"]}`),
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, p, constraint)
			for _, ref := range ambiguous {
				d := review(t, e, create(pod(breakGlass, ref)))
				if got := reasons(d.Denied); len(got) != 1 || got[0] != "containers/c0: ambiguous" && got[0] != "containers/c0: no-image" {
					t.Errorf("%q: got %v", ref, got)
				}
			}
		})
	}
	if got := p.Requests(); len(got) != 0 {
		t.Errorf("asked %v", got)
	}
}

// The API server rejects parameters without keys, but not a constraint without parameters. An
// OKE image policy admits everything without keys.
// CVE-2025-29778: Kyverno ignored a parameter. Here unknown parameters are rejected.
func TestKeysMustBeGiven(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(func(string) any { return signed }))
	e := engine(t, p)
	for name, parameters := range map[string]string{
		"missing":   `{}`,
		"misspelt":  `{"key": ["` + keyA + `"]}`,
		"null":      `{"keys": null}`,
		"text":      `{"keys": "` + keyA + `"}`,
		"six":       `{"keys": ["` + strings.Repeat(keyA+`", "`, 5) + keyB + `"]}`,
		"no key":    `{"keys": ["ocid1.vault.oc1.iad.x.y"]}`,
		"two lines": `{"keys": ["` + keyA + `\n"]}`,
		"unknown":   `{"keys": [], "more": 1}`,
	} {
		if err := e.AddConstraint(t.Context(), []byte(constraint(policies.SignedImages, "c", "deny", parameters))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	bare := `{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "OKESignedImages", "metadata": {"name": "bare"}, "spec": {}}`
	if err := e.AddConstraint(t.Context(), []byte(bare)); err != nil {
		t.Fatal(err)
	}
	d := review(t, e, create(pod(nil, goodImage)))
	if diff := cmp.Diff([]string{"containers/c0: no-keys"}, reasons(d.Denied)); diff != "" {
		t.Error(diff)
	}
}

func TestImagesAdmittedWithoutAVerdictAreReported(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	e := engine(t, p,
		constraint(policies.SignedImages, "any", "deny", `{"keys": []}`),
		constraint(policies.SignedImages, "any-report", "warn", `{"keys": [], "report": true}`),
		constraint(policies.BreakGlass, "break-glass", "deny", `{"requireReason": false}`),
		constraint(policies.BreakGlass, "break-glass-report", "warn", `{"report": true}`),
	)
	for name, tc := range map[string]struct {
		object *unstructured.Unstructured
		want   []string
	}{
		"no key is listed": {pod(nil, badImage), []string{"containers/c0: no-key-listed"}},
		"break-glass":      {pod(breakGlass, badImage), []string{"break-glass: in-use"}},
	} {
		for point, request := range map[string]gatekeeper.Request{"webhook": create(tc.object), "audit": {Object: tc.object}} {
			d := review(t, e, request)
			if !d.Allowed() {
				t.Errorf("%s, %s: %v", name, point, d.Denied)
			}
			if diff := cmp.Diff(tc.want, reasons(d.Warnings)); diff != "" {
				t.Errorf("%s, %s: %s", name, point, diff)
			}
		}
	}
}

// A break-glass policy in the engine, with the real clock. CVE-2024-48921,
// CVE-2026-84200: only permitted users may make an exception.
func TestBreakGlass(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	e := engine(t, p, signedBy(keyA),
		constraint(policies.BreakGlass, "break-glass", "deny", `{"users": ["alice"], "maxDuration": "8h", "requireReason": true}`))
	annotations := func(until time.Duration) map[string]string {
		return map[string]string{
			"oracle.image-policy.k8s.io/break-glass": "true",
			"oke-sign.dev/break-glass-reason":        "INC-7",
			"oke-sign.dev/break-glass-until":         time.Now().Add(until).UTC().Format(time.RFC3339),
		}
	}
	for name, tc := range map[string]struct {
		annotations map[string]string
		user        string
		want        []string
	}{
		"as permitted": {annotations(time.Hour), "alice", []string{}},
		"another user": {annotations(time.Hour), "bob", []string{"break-glass: not-allowed"}},
		"a controller": {annotations(time.Hour), "system:serviceaccount:kube-system:replicaset-controller", []string{}},
		"too late":     {annotations(-time.Hour), "alice", []string{"break-glass: expired"}},
		"too long":     {annotations(9 * time.Hour), "alice", []string{"break-glass: too-long"}},
		"misspelt": {map[string]string{"oracle.image-policy.k8s.io/break-glass": "yes"}, "alice",
			[]string{"break-glass: no-effect", "containers/c0: unsigned"}},
	} {
		request := create(pod(tc.annotations, badImage))
		request.User.Username = tc.user
		if diff := cmp.Diff(tc.want, reasons(review(t, e, request).Denied)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A StatefulSet's controller creates the Pods below its partition from an old
// ControllerRevision, and that controller is a permitted user. So no other user may write
// break-glass into a ControllerRevision.
func TestBreakGlassThroughARevision(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	e := engine(t, p, signedBy(keyA), constraint(policies.BreakGlass, "break-glass", "deny", `{"users": ["oncall"]}`))
	const controller = "system:serviceaccount:kube-system:statefulset-controller"
	replacing := func(template string) string { return `{"spec": {"template": {"$patch": "replace", ` + template + `}}}` }
	underBreakGlass := `"metadata": {"annotations": {"oracle.image-policy.k8s.io/break-glass": "true"}}`
	containers := `"spec": {"containers": [{"name": "web", "image": "iad.ocir.io/ns/bad:1"}]}`
	for name, tc := range map[string]struct {
		data, user string
		want       []string
	}{
		"by a user":           {replacing(underBreakGlass + ", " + containers), "mallory", []string{"break-glass: not-allowed"}},
		"by the controller":   {replacing(underBreakGlass + ", " + containers), controller, []string{}},
		"by a permitted user": {replacing(underBreakGlass + ", " + containers), "oncall", []string{}},
		"annotations alone":   {`{"spec": {"template": {` + underBreakGlass + `}}}`, "mallory", []string{"break-glass: not-allowed"}},
		"images alone":        {`{"spec": {"template": {` + containers + `}}}`, "mallory", []string{"data: not-allowed"}},
		"another spelling":    {`{"spec": {"template": {"Metadata": {}, "$patch": "replace", ` + containers + `}}}`, "mallory", []string{"data: not-allowed"}},
		"without break-glass": {replacing(containers), "mallory", []string{}},
		"no Pod":              {`{"spec": {"running": true}}`, "mallory", []string{}},
	} {
		object, err := manifest.Object([]byte(`{"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": {"name": "web-1", "namespace": "default"}, "revision": 1, "data": ` + tc.data + `}`))
		if err != nil {
			t.Fatal(err)
		}
		request := create(object)
		request.User.Username = tc.user
		// Violations for the images themselves do not matter here; the Pods have those too.
		got := slices.DeleteFunc(reasons(review(t, e, request).Denied), func(r string) bool { return strings.HasPrefix(r, "containers/") })
		if diff := cmp.Diff(tc.want, slices.Compact(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		renumbered := object.DeepCopy()
		renumbered.Object["revision"] = int64(2)
		request = gatekeeper.Request{Operation: admissionv1.Update, Object: renumbered, OldObject: object}
		request.User.Username = tc.user
		if d := review(t, e, request); !d.Allowed() {
			t.Errorf("%s, on UPDATE: %v", name, d.Denied)
		}
	}
}

// A Pod from before the policy has an unsigned tag. The policy checks every image that comes
// later, also the same tag in another container, because it may have moved.
func TestAnOldTagInANewContainer(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	e := engine(t, p, signedBy(keyA), scanned, constraint(policies.ImageDigests, "digests", "deny", `{}`),
		constraint(policies.BreakGlass, "break-glass", "deny", `{"users": ["oncall"]}`))
	const tag = "iad.ocir.io/ns/bad:1"
	with := func(annotations map[string]string, field string, containers ...any) *unstructured.Unstructured {
		o := pod(annotations, tag, badImage)
		spec := o.Object["spec"].(map[string]any)
		list, _ := spec[field].([]any)
		spec[field] = append(list, containers...)
		return o
	}
	debug := func(image string) any { return map[string]any{"name": "debug", "image": image} }
	// CVE-2023-34091: an object with a deletion timestamp is checked like any other.
	terminating := func(o *unstructured.Unstructured) *unstructured.Unstructured {
		o.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
		o.SetFinalizers([]string{"example.com/x"})
		return o
	}
	no := []string{"ephemeralContainers/debug: no-digest"}
	for name, tc := range map[string]struct {
		old, new *unstructured.Unstructured
		want     []string
	}{
		"a finalizer":                  {pod(nil, tag, badImage), terminating(pod(nil, tag, badImage)), []string{}},
		"the tag again":                {pod(nil, tag, badImage), with(nil, "ephemeralContainers", debug(tag)), no},
		"the digest again":             {pod(nil, tag, badImage), with(nil, "ephemeralContainers", debug(badImage)), []string{}},
		"on a terminating Pod":         {terminating(pod(nil, tag, badImage)), terminating(with(nil, "ephemeralContainers", debug(tag))), no},
		"another on a terminating Pod": {terminating(pod(nil, goodImage)), terminating(pod(nil, badImage)), []string{"containers/c0: problems", "containers/c0: unsigned"}},
		"under break-glass":            {pod(breakGlass, tag, badImage), with(breakGlass, "ephemeralContainers", debug(tag)), []string{"break-glass: not-allowed"}},
	} {
		d := review(t, e, gatekeeper.Request{Operation: admissionv1.Update, Object: tc.new, OldObject: tc.old, User: authenticationv1.UserInfo{Username: "mallory"}})
		if diff := cmp.Diff(tc.want, slices.Compact(reasons(d.Denied))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// Recorded verdicts are for tests of manifests. They have no effect on a request
// with a user, because any user may have written them into the cluster.
func TestRecordedVerdictsAdmitNoUser(t *testing.T) {
	e, err := gatekeeper.New(gatekeeper.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	text, err := fs.ReadFile(folder, "okesignedimages/recorded/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	record := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "ConfigMap",
		"metadata":   map[string]any{"name": "oke-sign-verdicts", "namespace": "oke-sign"},
		"data": map[string]any{
			"verdicts.json": fmt.Sprintf(`[{"question": {"image": %q, "keys": [%q]}, "verdict": {"signed": true}}]`, goodImage, keyA),
		},
	}}
	for _, err := range []error{
		e.AddTemplate(t.Context(), text),
		e.AddConstraint(t.Context(), []byte(signedBy(keyA))),
		e.AddData(t.Context(), record),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if d := review(t, e, gatekeeper.Request{Object: pod(nil, goodImage)}); !d.Allowed() {
		t.Errorf("without a user: %v", d.Denied)
	}
	for _, image := range []string{badImage, "iad.ocir.io/ns/good:v1" + digest} {
		if d := review(t, e, gatekeeper.Request{Object: pod(nil, image)}); d.Allowed() {
			t.Errorf("admitted %s, which has no recorded verdict", image)
		}
	}
	d := review(t, e, create(pod(nil, goodImage)))
	if diff := cmp.Diff([]string{"containers/c0: no-answer"}, reasons(d.Denied)); diff != "" {
		t.Errorf("with a user: %s", diff)
	}
	// The author of the manifests may add a record to them.
	forged := record.DeepCopy()
	forged.SetNamespace("shop")
	forged.Object["data"] = map[string]any{
		"verdicts.json": fmt.Sprintf(`[{"question": {"image": %q, "keys": [%q]}, "verdict": {"signed": true}}]`, badImage, keyA),
	}
	if err := e.AddData(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	for _, image := range []string{goodImage, badImage} {
		d := review(t, e, gatekeeper.Request{Object: pod(nil, image)})
		if diff := cmp.Diff([]string{"containers/c0: no-answer"}, reasons(d.Denied)); diff != "" {
			t.Errorf("%s, with two records: %s", image, diff)
		}
	}
}

func TestWorkloadsAreReadByTheirShape(t *testing.T) {
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	e := engine(t, p, signedBy(keyA))
	podSpec := "{containers: [{name: a, image: '" + goodImage + "'}, {name: b, image: '" + badImage + "'}]}"
	for kind, text := range map[string]string{
		"Deployment": "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x, namespace: default}, spec: {template: {spec: " + podSpec + "}}}",
		"CronJob":    "{apiVersion: batch/v1, kind: CronJob, metadata: {name: x, namespace: default}, spec: {jobTemplate: {spec: {template: {spec: " + podSpec + "}}}}}",
		"Rollout":    "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, metadata: {name: x, namespace: default}, spec: {template: {spec: " + podSpec + "}}}",
		"Service":    "{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {name: x, namespace: default}, spec: {template: {spec: " + podSpec + "}}}",
	} {
		object, err := manifest.Object([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		d := review(t, e, create(object))
		if diff := cmp.Diff([]string{"containers/b: unsigned"}, reasons(d.Denied)); diff != "" {
			t.Errorf("%s: %s", kind, diff)
		}
	}
	ingress, err := manifest.Object([]byte("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: x, namespace: default}, spec: {}}"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"object: no-pod-spec"}, reasons(review(t, e, create(ingress)).Denied)); diff != "" {
		t.Errorf("Ingress: %s", diff)
	}
}
