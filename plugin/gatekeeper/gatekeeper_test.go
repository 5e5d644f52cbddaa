package gatekeeper_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// asking is a template that shows a provider's answers.
const asking = `
apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: asking}
spec:
  crd:
    spec:
      names: {kind: Asking}
      validation:
        legacySchema: false
        openAPIV3Schema:
          type: object
          properties: {key: {type: string}}
  targets:
    - target: admission.k8s.gatekeeper.sh
      code:
        - engine: Rego
          source:
            version: v1
            rego: |
              package asking
              violation contains {"msg": json.marshal(answer), "details": {"user": object.get(input.review.userInfo, "username", "nobody")}} if {
                answer := external_data({"provider": "p", "keys": [input.parameters.key]})
              }
              violation contains {"msg": "nobody answered"} if not external_data({"provider": "p", "keys": [input.parameters.key]})
`

func constraint(name, action, spec string) []byte {
	return []byte(`{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "Asking", "metadata": {"name": "` + name +
		`"}, "spec": {"enforcementAction": "` + action + `", "parameters": {"key": "k"}` + spec + `}}`)
}

func pod(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	object, err := manifest.Object([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: default}\nspec: {containers: [{name: web, image: nginx}]}"))
	if err != nil {
		t.Fatal(err)
	}
	return object
}

func engine(t *testing.T, p *gatekeepertest.Provider, cfg gatekeeper.Config) *gatekeeper.Engine {
	t.Helper()
	e, err := gatekeeper.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	must(t, e.AddTemplate(t.Context(), []byte(asking)))
	if p != nil {
		must(t, e.AddProvider(gatekeeper.Provider{Name: "p", URL: p.URL, CABundle: p.CA, Timeout: 2 * time.Second}))
	}
	return e
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func review(t *testing.T, e *gatekeeper.Engine, r gatekeeper.Request) gatekeeper.Decision {
	t.Helper()
	d, err := e.Review(t.Context(), r)
	must(t, err)
	return d
}

func value(v string) gatekeepertest.Answer {
	return gatekeepertest.Each(func(string) any { return v })
}

// answered returns the provider's answer in Rego, from the only violation.
func answered(t *testing.T, d gatekeeper.Decision) (got struct {
	Responses   [][2]string
	SystemError string `json:"system_error"`
}) {
	t.Helper()
	if len(d.Denied) != 1 {
		t.Fatalf("got %d violations, want 1: %v", len(d.Denied), d.Denied)
	}
	if err := json.Unmarshal([]byte(d.Denied[0].Message), &got); err != nil {
		t.Fatalf("%v: %s", err, d.Denied[0].Message)
	}
	return got
}

func TestReviewSortsViolationsByAction(t *testing.T) {
	p := gatekeepertest.Start(t, value("yes"))
	e := engine(t, p, gatekeeper.Config{Certificate: p.Certificate, Key: p.Key})
	ctx := t.Context()
	scoped := `, "scopedEnforcementActions": [
		{"action": "warn", "enforcementPoints": [{"name": "validation.gatekeeper.sh"}]},
		{"action": "deny", "enforcementPoints": [{"name": "audit.gatekeeper.sh"}]}]`
	must(t, e.AddConstraint(ctx, constraint("c-deny", "deny", "")))
	must(t, e.AddConstraint(ctx, constraint("a-deny", "", "")))
	must(t, e.AddConstraint(ctx, constraint("warn", "warn", "")))
	must(t, e.AddConstraint(ctx, constraint("dryrun", "dryrun", "")))
	must(t, e.AddConstraint(ctx, constraint("scoped", "scoped", scoped)))
	must(t, e.AddConstraint(ctx, constraint("elsewhere", "deny", `, "match": {"namespaces": ["prod"]}`)))
	must(t, e.AddConstraint(ctx, constraint("gone", "deny", "")))
	must(t, e.RemoveConstraint(ctx, "Asking", "gone"))

	names := func(violations []gatekeeper.Violation) (names []string) {
		for _, v := range violations {
			names = append(names, v.Constraint)
		}
		return names
	}
	for name, tc := range map[string]struct {
		operation             admissionv1.Operation
		denied, warned, quiet []string
	}{
		"at the webhook": {admissionv1.Create, []string{"a-deny", "c-deny"}, []string{"scoped", "warn"}, []string{"dryrun"}},
		"in the audit":   {"", []string{"a-deny", "c-deny", "scoped"}, []string{"warn"}, []string{"dryrun"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := review(t, e, gatekeeper.Request{Operation: tc.operation, Object: pod(t)})
			if diff := cmp.Diff([][]string{tc.denied, tc.warned, tc.quiet}, [][]string{names(got.Denied), names(got.Warnings), names(got.DryRun)}); diff != "" {
				t.Error(diff)
			}
			if got.Allowed() {
				t.Error("allowed in spite of denials")
			}
		})
	}
}

func TestReviewTellsTheUserAndTheNamespace(t *testing.T) {
	p := gatekeepertest.Start(t, value("yes"))
	e := engine(t, p, gatekeeper.Config{Certificate: p.Certificate, Key: p.Key})
	must(t, e.AddConstraint(t.Context(), constraint("c", "deny", `, "match": {"namespaceSelector": {"matchLabels": {"env": "prod"}}}`)))
	request := gatekeeper.Request{
		Operation: admissionv1.Create,
		Object:    pod(t),
		User:      authenticationv1.UserInfo{Username: "alice"},
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default", Labels: map[string]string{"env": "prod"}}},
	}
	d := review(t, e, request)
	if len(d.Denied) != 1 || d.Denied[0].Details["user"] != "alice" {
		t.Errorf("got %v, want one denial of alice", d.Denied)
	}
	if got, want := d.Denied[0].String(), "[c] "; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want it to begin with %q", got, want)
	}
	request.Namespace.Labels["env"] = "test"
	if d := review(t, e, request); !d.Allowed() {
		t.Errorf("got %v for a namespace that does not match", d.Denied)
	}
}

func TestAnswersAreCachedForTheirTTL(t *testing.T) {
	for name, tc := range map[string]struct {
		memory time.Duration
		want   string
		asked  int
	}{
		"for three minutes by default": {0, "first", 1},
		"not at all":                   {-1, "second", 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := gatekeepertest.Start(t, value("first"))
			e := engine(t, p, gatekeeper.Config{Certificate: p.Certificate, Key: p.Key, Memory: tc.memory})
			must(t, e.AddConstraint(t.Context(), constraint("c", "deny", "")))
			review(t, e, gatekeeper.Request{Object: pod(t)})
			p.Answer(value("second"))
			got := answered(t, review(t, e, gatekeeper.Request{Object: pod(t)}))
			if diff := cmp.Diff([][2]string{{"k", tc.want}}, got.Responses); diff != "" {
				t.Error(diff)
			}
			if got := len(p.Requests()); got != tc.asked {
				t.Errorf("%d requests, want %d", got, tc.asked)
			}
			answer, ok := e.Cached("p", "k")
			if want := tc.asked == 1; ok != want || ok && answer.Value != "first" {
				t.Errorf("Cached = %v, %v", answer, ok)
			}
		})
	}
}

func TestFailuresAreNotCached(t *testing.T) {
	p := gatekeepertest.Start(t, func([]string) (int, string) {
		return http.StatusOK, gatekeepertest.Response("OCI is unreachable")
	})
	e := engine(t, p, gatekeeper.Config{Certificate: p.Certificate, Key: p.Key})
	must(t, e.AddConstraint(t.Context(), constraint("c", "deny", "")))
	if got := answered(t, review(t, e, gatekeeper.Request{Object: pod(t)})); got.SystemError != "OCI is unreachable" {
		t.Errorf("got %q", got.SystemError)
	}
	if answer, ok := e.Cached("p", "k"); ok {
		t.Errorf("remembers %v", answer)
	}
	p.Answer(value("yes"))
	if got := answered(t, review(t, e, gatekeeper.Request{Object: pod(t)})); len(got.Responses) != 1 {
		t.Errorf("got %v after recovery", got)
	}
}

func TestTheProviderSeesTheClientCertificateOnly(t *testing.T) {
	p, other := gatekeepertest.Start(t, value("yes")), gatekeepertest.Start(t, value("yes"))
	for name, tc := range map[string]struct {
		cfg    gatekeeper.Config
		refuse bool
	}{
		"its own":               {gatekeeper.Config{Certificate: p.Certificate, Key: p.Key}, false},
		"none":                  {gatekeeper.Config{}, true},
		"one of another issuer": {gatekeeper.Config{Certificate: other.Certificate, Key: other.Key}, true},
	} {
		t.Run(name, func(t *testing.T) {
			e := engine(t, p, tc.cfg)
			must(t, e.AddConstraint(t.Context(), constraint("c", "deny", "")))
			got := answered(t, review(t, e, gatekeeper.Request{Object: pod(t)}))
			if refused := got.SystemError != ""; refused != tc.refuse {
				t.Errorf("refused: %v (%s), want %v", refused, got.SystemError, tc.refuse)
			}
		})
	}
}

// Engines share OPA's table of built-in functions. Each engine must still ask its
// own provider, in any order of creation.
func TestEnginesDoNotMeet(t *testing.T) {
	ctx := t.Context()
	var all sync.WaitGroup
	for _, name := range []string{"one", "two", "three"} {
		p := gatekeepertest.Start(t, value(name))
		e := engine(t, p, gatekeeper.Config{Certificate: p.Certificate, Key: p.Key, Memory: -1})
		must(t, e.AddConstraint(ctx, constraint("c", "deny", "")))
		for range 4 {
			all.Go(func() {
				for range 5 {
					d, err := e.Review(ctx, gatekeeper.Request{Object: pod(t)})
					if err != nil || len(d.Denied) != 1 || !strings.Contains(d.Denied[0].Message, `[["k","`+name+`"]]`) {
						t.Errorf("engine %s: %v, %v", name, d.Denied, err)
					}
				}
			})
		}
	}
	all.Wait()
}

func TestBadInput(t *testing.T) {
	e := engine(t, nil, gatekeeper.Config{})
	ctx := context.Background()
	p := gatekeepertest.Start(t, value("yes"))
	for name, got := range map[string]error{
		"not a template":                   e.AddTemplate(ctx, []byte("kind: Pod\napiVersion: v1")),
		"a template that is not YAML":      e.AddTemplate(ctx, []byte("{")),
		"a template with an unknown field": e.AddTemplate(ctx, []byte(asking+"  more: {}")),
		"a template with broken Rego":      e.AddTemplate(ctx, []byte(strings.Replace(asking, "violation contains", "violation contain", 1))),
		"a constraint without a template":  e.AddConstraint(ctx, []byte(`{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "Other", "metadata": {"name": "x"}}`)),
		"a constraint of another schema":   e.AddConstraint(ctx, []byte(`{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "Asking", "metadata": {"name": "x"}, "spec": {"parameters": {"key": 1}}}`)),
		"an unknown field in a constraint": e.AddConstraint(ctx, []byte(`{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "Asking", "metadata": {"name": "x"}, "spec": {"parameters": {"keys": "k"}}}`)),
		"a misspelt action":                e.AddConstraint(ctx, constraint("x", "denny", "")),
		"a field that is there twice":      e.AddConstraint(ctx, []byte("kind: Asking\nkind: Asking\napiVersion: constraints.gatekeeper.sh/v1beta1\nmetadata: {name: x}")),
		"a provider without TLS":           e.AddProvider(gatekeeper.Provider{Name: "p", URL: "http://127.0.0.1:1", CABundle: p.CA, Timeout: time.Second}),
		"a provider without a CA":          e.AddProvider(gatekeeper.Provider{Name: "p", URL: p.URL, Timeout: time.Second}),
		"a provider without a timeout":     e.AddProvider(gatekeeper.Provider{Name: "p", URL: p.URL, CABundle: p.CA}),
		"a timeout of half seconds":        e.AddProvider(gatekeeper.Provider{Name: "p", URL: p.URL, CABundle: p.CA, Timeout: 1500 * time.Millisecond}),
	} {
		if got == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := e.Review(ctx, gatekeeper.Request{}); err == nil {
		t.Error("reviewed nothing")
	}
	if _, err := gatekeeper.New(gatekeeper.Config{Certificate: "/nonexistent", Key: "/nonexistent"}); err == nil {
		t.Error("made an engine with a missing certificate")
	}
}

func TestQuestion(t *testing.T) {
	for name, tc := range map[string]struct {
		keys []string
		want string
	}{
		"keys are sorted, each once": {[]string{"b", "a", "b"}, `{"image":"i","keys":["a","b"]}`},
		"no keys are an empty list":  {nil, `{"image":"i","keys":[]}`},
	} {
		if got := gatekeeper.Question("i", tc.keys); got != tc.want {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}
