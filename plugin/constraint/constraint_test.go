package constraint_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	diffcmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

func key(n int) string {
	return "ocid1.key.oc1.iad.bbqehaq3aadfa." + strings.Repeat("a", 59) + fmt.Sprint(n)
}

// cluster keeps constraints as an API server does, as far as this package cares.
type cluster map[string]*unstructured.Unstructured

func (c cluster) do(t *testing.T, s constraint.Step) {
	t.Helper()
	name := constraint.Name(s.Object())
	before := c[name]
	switch {
	case s.Old == nil && before != nil:
		t.Fatalf("%s: it is there", s)
	case s.Old != nil && (before == nil || !constraint.Same(constraint.Manifest(before), constraint.Manifest(s.Old))):
		t.Fatalf("%s: it is not what was read:\n%s", s, diffcmp.Diff(before, s.Old))
	case s.New == nil:
		delete(c, name)
	default:
		o := s.New.DeepCopy()
		o.SetUID(types.UID("uid of " + name))
		c[name] = o
	}
}

func (c cluster) list() []*unstructured.Unstructured {
	return slices.Collect(maps.Values(c))
}

func clusterOf(t *testing.T, p *constraint.Policy) cluster {
	t.Helper()
	c := cluster{}
	for _, s := range (constraint.Current{}).Plan(p) {
		c.do(t, s)
	}
	return c
}

// random is a policy that somebody may have.
func random(r *rand.Rand) constraint.Policy {
	some := func(list ...string) []string {
		var chosen []string
		for _, s := range list {
			if r.IntN(3) == 0 {
				chosen = append(chosen, s)
			}
		}
		return chosen
	}
	one := func(list ...string) string { return list[r.IntN(len(list))] }
	p := constraint.Policy{
		Mode:            one("deny", "deny", "deny", "deny", "warn", "dryrun"),
		Keys:            some(key(1), key(2), key(3)),
		OtherRegistries: one("Deny", "Allow"),
		ExemptImages:    some("docker.io/library/**", "iad.ocir.io/ns/exempt"),
		Digests:         one("All", "OCIRegistry", "None"),
		WarnWorkloads:   r.IntN(2) == 0,
		BreakGlass:      one("Honor", "Honor", "Ignore"),
		Scope: constraint.Scope{
			Namespaces: some("a", "b"), ExcludedNamespaces: some("b", "c"),
			NamespaceSelector: one("", "", "", "env=prod"), PodSelector: one("", "", "", "app=web"),
		},
		Provider: "oke-sign",
	}
	for _, until := range some("2099-12-31T00:00:00Z", "2025-12-31T00:00:00Z") {
		p.Exemptions = append(p.Exemptions, constraint.Exemption{Images: []string{one("iad.ocir.io/ns/**", "docker.io/library/nginx")}, Until: until, Reason: "INC-7"})
	}
	for _, reason := range some("CVE-2026-0001", "CVE-2026-0002") {
		p.Revoked = append(p.Revoked, []constraint.Revocation{{Digest: "sha256:" + strings.Repeat("0", 64), Reason: reason},
			{Image: "phx.ocir.io/ns/signed@sha256:" + strings.Repeat("0", 64), Reason: reason}}[r.IntN(2)])
	}
	if p.BreakGlass == "Honor" && r.IntN(3) > 0 {
		p.BreakGlassRules = &constraint.BreakGlassRules{
			Users: some("alice", "bob"), Groups: some("sre"), RequireReason: r.IntN(3) == 0, RequireDigest: r.IntN(3) == 0,
			MaxDuration: one("", "", "8h"), Report: r.IntN(2) == 0,
		}
	}
	return p
}

var sameLists = []diffcmp.Option{cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)}

func TestWhatIsWrittenIsRead(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		p := random(r)
		got := constraint.Read(clusterOf(t, &p).list())
		if got.Policy == nil || !diffcmp.Equal(*got.Policy, p, sameLists...) || len(got.Drift)+len(got.Others)+len(got.Unclear) > 0 {
			t.Fatalf("drift %q, unclear %q, difference:\n%s", got.Drift, got.Unclear, diffcmp.Diff(&p, got.Policy, sameLists...))
		}
		if again := got.Plan(got.Policy); len(again) > 0 {
			t.Fatalf("%s, and it is so already", again[0])
		}
		text, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := constraint.Parse(text)
		if err != nil || !diffcmp.Equal(parsed, p, sameLists...) {
			t.Fatalf("error %v, difference:\n%s", err, diffcmp.Diff(p, parsed, sameLists...))
		}
	}
}

// During a change, Gatekeeper's engine never admits an object that it denies both
// before and after the change. A change that stops after any step can be repeated.
func TestChangesAreNeverLaxer(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	e := newEngine(t)
	guarded := 0
	for n := range 40 {
		before, after := random(r), random(r)
		world := clusterOf(t, &before)
		e.hold(t, world)
		was := e.denied(t)
		e.hold(t, clusterOf(t, &after))
		will := e.denied(t)
		e.hold(t, world)
		steps := constraint.Read(world.list()).Plan(&after)
		for i, s := range steps {
			if s.Guards() {
				guarded++
			}
			world.do(t, s)
			e.hold(t, world)
			for name, denied := range e.denied(t) {
				if !denied && was[name] && will[name] {
					t.Fatalf("change %d: after step %d of %d (%s) %s is let in", n, i+1, len(steps), s, name)
				}
			}
			again := maps.Clone(world)
			c := constraint.Read(again.list())
			if c.Unclear != "" {
				t.Fatalf("change %d, broken off after %s: %s", n, s, c.Unclear)
			}
			for _, s := range c.Plan(&after) {
				again.do(t, s)
			}
			if end := constraint.Read(again.list()); end.Policy == nil || !diffcmp.Equal(*end.Policy, after, sameLists...) || len(end.Drift)+len(end.Guards) > 0 {
				t.Fatalf("change %d, broken off after %s and tried again: drift %q, %d guards, difference:\n%s", n, s, end.Drift, len(end.Guards), diffcmp.Diff(&after, end.Policy, sameLists...))
			}
		}
		end := e.denied(t)
		if !maps.Equal(end, will) {
			t.Fatalf("change %d ended elsewhere than at the policy", n)
		}
		for name, denied := range end {
			if denied && !was[name] && !after.Denies(&before) {
				t.Fatalf("change %d refuses %s, and was said to refuse no more", n, name)
			}
		}
	}
	if guarded == 0 {
		t.Error("no change needed a guard")
	}
}

// engine is Gatekeeper's, with the objects that it is asked about.
type engine struct {
	*gatekeeper.Engine
	held     cluster
	requests map[string]gatekeeper.Request
}

func newEngine(t *testing.T) *engine {
	t.Helper()
	g, err := gatekeeper.New(gatekeeper.Config{Memory: -1, Ask: func(_ context.Context, _ string, questions []string) (map[string]any, error) {
		answers := make(map[string]any)
		for _, q := range questions {
			signed := strings.Contains(q, "/signed@") && strings.Contains(q, key(1)) || strings.Contains(q, "/other@") && strings.Contains(q, key(2))
			if signed {
				answers[q] = map[string]any{"signed": true, "reason": "signed"}
			} else {
				answers[q] = map[string]any{"signed": false, "reason": "unsigned", "detail": "no signature"}
			}
		}
		return answers, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	for _, kind := range constraint.Kinds() {
		template, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
		if err == nil {
			err = g.AddTemplate(t.Context(), template)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e := &engine{Engine: g, held: cluster{}, requests: make(map[string]gatekeeper.Request)}
	digest := "@sha256:" + strings.Repeat("0", 64)
	for _, image := range []string{"iad.ocir.io/ns/signed" + digest, "iad.ocir.io/ns/other" + digest, "iad.ocir.io/ns/exempt:v1", "iad.ocir.io/ns/unsigned:v1", "docker.io/library/nginx:1"} {
		for _, namespace := range []string{"a", "b"} {
			for _, glass := range []string{"", "alice", "bob"} {
				labels, annotations := map[string]any{}, map[string]any{}
				if namespace == "a" {
					labels["app"] = "web"
				}
				if glass != "" {
					annotations["oracle.image-policy.k8s.io/break-glass"] = "true"
				}
				if glass == "bob" {
					annotations["oke-sign.dev/break-glass-reason"] = "an outage"
				}
				pod := map[string]any{
					"apiVersion": "v1", "kind": "Pod",
					"metadata": map[string]any{"name": "web", "namespace": namespace, "labels": labels, "annotations": annotations},
					"spec":     map[string]any{"containers": []any{map[string]any{"name": "web", "image": image}}},
				}
				e.requests[image+" in "+namespace+" by "+glass] = gatekeeper.Request{
					Operation: admissionv1.Create, Object: &unstructured.Unstructured{Object: pod},
					User:      authenticationv1.UserInfo{Username: cmp.Or(glass, "carol")},
					Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"env": map[string]string{"a": "prod", "b": "test"}[namespace]}}},
				}
			}
		}
	}
	return e
}

// hold makes the engine enforce what is in a cluster.
func (e *engine) hold(t *testing.T, c cluster) {
	t.Helper()
	for name, o := range e.held {
		if c[name] == nil {
			if err := e.RemoveConstraint(t.Context(), o.GetKind(), o.GetName()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, o := range c {
		if e.held[name] != nil && constraint.Same(e.held[name], o) {
			continue
		}
		text, err := o.MarshalJSON()
		if err == nil {
			err = e.AddConstraint(t.Context(), text)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	e.held = maps.Clone(c)
}

func (e *engine) denied(t *testing.T) map[string]bool {
	t.Helper()
	denied := make(map[string]bool)
	for name, r := range e.requests {
		d, err := e.Review(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		denied[name] = !d.Allowed()
	}
	return denied
}

func parse(t *testing.T, text string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := manifest.Objects([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func sample(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile("../../policies/" + path + "/constraint.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + "\n---\n"
}

// Constraints that were written by hand are the policy as long as nobody could take
// them for anything else.
func TestByHand(t *testing.T) {
	const signed, digests, glass = "okesignedimages/samples/", "okeimagedigests/samples/", "okebreakglass/samples/"
	tests := map[string]struct {
		samples []string
		more    string
		want    *constraint.Policy // its keys are those of the sample
		unclear string
		others  int
	}{
		"one alone": {
			samples: []string{signed + "one-key"},
			want:    &constraint.Policy{Mode: "deny", OtherRegistries: "Deny", Digests: "None", BreakGlass: "Honor", Provider: "oke-sign"},
		},
		"all": {
			samples: []string{signed + "one-key", signed + "workloads", digests + "all", glass + "restricted", glass + "report"},
			unclear: "OKEImageDigests/image-digests differs from OKESignedImages/signed-images",
			others:  5,
		},
		"without digests": {
			samples: []string{signed + "one-key", signed + "workloads", glass + "restricted", glass + "report"},
			want: &constraint.Policy{
				Mode: "deny", OtherRegistries: "Deny", Digests: "None", BreakGlass: "Honor", Provider: "oke-sign", WarnWorkloads: true,
				BreakGlassRules: &constraint.BreakGlassRules{Users: []string{"alice"}, Groups: []string{"sre"}, ServiceAccounts: []string{"ops/deployer"}, RequireReason: true, RequireDigest: true, Report: true},
			},
		},
		"a warning of workloads' signatures, but not of their digests": {
			samples: []string{signed + "one-key", signed + "workloads"},
			more: `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEImageDigests
metadata: {name: image-digests}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}`,
			want: &constraint.Policy{Mode: "deny", OtherRegistries: "Deny", Digests: "All", BreakGlass: "Honor", Provider: "oke-sign", WarnWorkloads: true},
		},
		"two for Pods": {
			samples: []string{signed + "one-key", signed + "other-key"},
			unclear: "have the same role",
			others:  2,
		},
		"none on signatures": {samples: []string{digests + "workloads", glass + "restricted"}, others: 2},
		"scanned images are apart": {
			samples: []string{signed + "one-key", "okescannedimages/samples/high"},
			want:    &constraint.Policy{Mode: "deny", OtherRegistries: "Deny", Digests: "None", BreakGlass: "Honor", Provider: "oke-sign"},
			others:  1,
		},
		"break-glass leaves a kind out": {
			samples: []string{signed + "one-key"},
			more: `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEBreakGlass
metadata: {name: pods-only}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}, parameters: {groups: [sre]}}`,
			unclear: "OKEBreakGlass/pods-only differs",
			others:  2,
		},
		"a scoped action": {
			more: `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: scoped}
spec: {enforcementAction: scoped, parameters: {keys: []}}`,
			others: 1,
		},
		"no keys": {
			more: `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: broken}
spec: {match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}}`,
			unclear: "OKESignedImages/broken has no readable keys",
			others:  1,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text := ""
			for _, s := range test.samples {
				text += sample(t, s)
			}
			got := constraint.Read(parse(t, text+test.more))
			if !strings.Contains(got.Unclear, test.unclear) || test.unclear == "" && got.Unclear != "" {
				t.Errorf("unclear: %q, want %q", got.Unclear, test.unclear)
			}
			if len(got.Others) != test.others {
				t.Errorf("%d others, want %d", len(got.Others), test.others)
			}
			if got.Policy != nil && test.want != nil {
				test.want.Keys = got.Policy.Keys
			}
			if !diffcmp.Equal(got.Policy, test.want, sameLists...) {
				t.Errorf("difference:\n%s", diffcmp.Diff(test.want, got.Policy, sameLists...))
			}
		})
	}
}

// A change preserves fields that a policy cannot express, and names.
func TestByHandChanged(t *testing.T) {
	objects := parse(t, `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: mine, labels: {team: a}}
spec:
  match: {source: Original, kinds: [{apiGroups: [""], kinds: [Pod]}, {apiGroups: [apps], kinds: [Deployment]}], labelSelector: {matchExpressions: [{key: app, operator: Exists}]}}
  parameters: {keys: [`+key(1)+`], future: 1}`)
	c := constraint.Read(objects)
	p := c.Policy.Clone()
	p.Keys = append(p.Keys, key(2))
	steps := constraint.Merged(c.Plan(&p))
	if len(steps) != 1 {
		t.Fatalf("%d steps, want 1: %v", len(steps), steps)
	}
	want := objects[0].DeepCopy()
	want.SetLabels(map[string]string{"team": "a", constraint.Label: "pods"})
	if err := unstructured.SetNestedStringSlice(want.Object, []string{key(1), key(2)}, "spec", "parameters", "keys"); err != nil {
		t.Fatal(err)
	}
	if !diffcmp.Equal(steps[0].New, want) {
		t.Errorf("difference:\n%s", diffcmp.Diff(want, steps[0].New))
	}
	// Broken off after each step, it is still the policy.
	world := cluster{}
	for _, o := range objects {
		world[constraint.Name(o)] = o
	}
	p.Digests, p.WarnWorkloads = "All", true
	for _, s := range c.Plan(&p) {
		world.do(t, s)
		if c := constraint.Read(world.list()); c.Policy == nil {
			t.Errorf("after %s it is none: %s", s, c.Unclear)
		}
	}
}

func TestParse(t *testing.T) {
	valid := constraint.Default()
	valid.Keys = []string{key(1)}
	text, err := valid.YAML()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := constraint.Parse(text); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ old, new, want string }{
		"no keys":                    {"keys:\n  - " + key(1) + "\n", "", "keys are missing"},
		"null keys":                  {"keys:\n  - " + key(1) + "\n", "keys: null\n", "keys are missing"},
		"a key by name":              {key(1), "image-key", "not the OCID of a key"},
		"a key twice":                {"- " + key(1), "- " + key(1) + "\n  - " + key(1), "listed twice"},
		"six keys":                   {"- " + key(1), "- " + key(1) + "\n  - a\n  - b\n  - c\n  - d\n  - e", "6 keys are listed, and the most is 5"},
		"a field misspelt":           {"mode: deny", "moed: deny", `unknown field "moed"`},
		"a field twice":              {"mode: deny", "mode: deny\nmode: warn", `key "mode" already set`},
		"a mode misspelt":            {"mode: deny", "mode: denny", `mode is "denny", and must be deny or warn or dryrun`},
		"a selector":                 {"scope:", "scope:\n  podSelector: 'a in ('", "scope.podSelector: "},
		"rules for nobody":           {"breakGlass: Honor", "breakGlass: Ignore", "breakGlassRules have no effect"},
		"a duration":                 {"report: true", "report: true\n  maxDuration: 8 hours", `breakGlassRules.maxDuration is "8 hours"`},
		"no end":                     {"provider:", "exemptions:\n- images: [docker.io/library/redis]\n  reason: INC-7\nprovider:", `exemptions[0].until is ""`},
		"an end in local time":       {"provider:", "exemptions:\n- images: [docker.io/library/redis]\n  reason: INC-7\n  until: '2026-12-31T00:00:00+09:00'\nprovider:", "must be a time in UTC"},
		"an exemption of none":       {"provider:", "exemptions:\n- until: 2026-12-31T00:00:00Z\n  reason: INC-7\nprovider:", "exemptions[0] needs images and a reason"},
		"an exemption for no reason": {"provider:", "exemptions:\n- images: [docker.io/library/redis]\n  until: 2026-12-31T00:00:00Z\nprovider:", "exemptions[0] needs images and a reason"},
		"revoked for no reason":      {"provider:", "revoked:\n- digest: sha256:" + strings.Repeat("0", 64) + "\nprovider:", "revoked[0] needs a digest or an image, and a reason"},
		"revoked twice in one":       {"provider:", "revoked:\n- digest: sha256:0\n  image: a\n  reason: b\nprovider:", "revoked[0] needs a digest or an image, and a reason"},
		"no provider":                {"provider: oke-sign", "provider: ''", "provider is missing"},
		"other registries":           {"otherRegistries: Deny", "otherRegistries: No", "otherRegistries"},
		"nothing":                    {string(text), "", "keys are missing"},
		"a list":                     {string(text), "[]", "cannot unmarshal"},
		"no digests":                 {"digests: All", "digests: 'No'", `digests is "No", and must be All or OCIRegistry or None`},
		"break-glass misspelt":       {"breakGlass: Honor", "breakGlass: Honour", `breakGlass is "Honour", and must be Honor or Ignore`},
	} {
		changed := strings.Replace(string(text), test.old, test.new, 1)
		if changed == string(text) {
			t.Errorf("%s: the text has no %q:\n%s", name, test.old, text)
		}
		if p, err := constraint.Parse([]byte(changed)); err == nil || !strings.Contains(err.Error(), test.want) || !diffcmp.Equal(p, constraint.Policy{}) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func TestKeeperOf(t *testing.T) {
	for text, want := range map[string]string{
		`{labels: {app.kubernetes.io/managed-by: Helm}}`:                       "Helm",
		`{labels: {argocd.argoproj.io/instance: policy}}`:                      "Argo CD",
		`{annotations: {argocd.argoproj.io/tracking-id: "policy:x/y:z"}}`:      "Argo CD",
		`{labels: {kustomize.toolkit.fluxcd.io/name: policy}}`:                 "Flux",
		`{labels: {team: a}, annotations: {kubectl.kubernetes.io/x: applied}}`: "",
	} {
		o := parse(t, "apiVersion: v1\nkind: X\nmetadata: "+text)[0]
		if got := constraint.ManagerOf(o); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	p := constraint.Default()
	p.Keys = []string{key(1)}
	text, err := p.YAML()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("mode: deny\nkeys: []\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := constraint.Parse(text)
		if err != nil {
			if !diffcmp.Equal(p, constraint.Policy{}) {
				t.Error("what does not parse is not nothing")
			}
			return
		}
		again, err := p.YAML()
		if err != nil {
			t.Fatal(err)
		}
		if q, err := constraint.Parse(again); err != nil || !diffcmp.Equal(p, q, cmpopts.EquateEmpty()) {
			t.Error(errors.Join(err, fmt.Errorf("it reads back otherwise:\n%s", diffcmp.Diff(p, q))))
		}
		if c := constraint.Read(p.Constraints()); c.Policy == nil || c.Unclear != "" {
			t.Errorf("its constraints are no policy: %s", c.Unclear)
		}
	})
}
