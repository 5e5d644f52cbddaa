package charts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mutations "github.com/open-policy-agent/gatekeeper/v3/apis/mutations/unversioned"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/mutators/assign"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

const (
	digest = "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"
	ocir   = "iad.ocir.io/idwpqivumvev/"
)

// installed returns Gatekeeper's engine with the templates and the rendered constraints. An image
// with "signed" in its name is signed by every key. The provider has no answer about an image
// with "unknown" in its name.
func installed(t *testing.T, values string) *gatekeeper.Engine {
	t.Helper()
	e, err := gatekeeper.New(gatekeeper.Config{Ask: func(_ context.Context, provider string, questions []string) (map[string]any, error) {
		answers := make(map[string]any)
		for _, q := range questions {
			switch {
			case strings.Contains(q, "unknown"):
			case strings.HasSuffix(provider, "-scans"):
				problems := []any{}
				if strings.Contains(q, "broken") {
					problems = append(problems, map[string]any{"id": "CVE-2021-1", "severity": "CRITICAL"})
				}
				answers[q] = map[string]any{
					"known": true, "scannedAt": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339),
					"counts": map[string]any{"CRITICAL": len(problems), "HIGH": 0, "MEDIUM": 0, "LOW": 0}, "problems": problems,
				}
			case strings.Contains(q, "/signed"):
				answers[q] = map[string]any{"signed": true, "reason": "signed"}
			default:
				answers[q] = map[string]any{"signed": false, "reason": "unsigned", "detail": "no signature"}
			}
		}
		if len(answers) < len(questions) {
			return answers, errors.New("OCI does not answer")
		}
		return answers, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	for _, kind := range policies.Kinds() {
		text, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
		if err == nil {
			err = e.AddTemplate(t.Context(), text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range objects(t, render(t, "oke-sign-policy", "testdata/oke-sign-policy/"+values+".yaml")) {
		text, err := o.MarshalJSON()
		switch {
		case err != nil:
		case o.GetKind() == "Assign":
			var mutation mutations.Assign
			if err = json.Unmarshal(text, &mutation); err == nil {
				_, err = assign.MutatorForAssign(&mutation)
			}
		default:
			err = e.AddConstraint(t.Context(), text)
		}
		if err != nil {
			t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	return e
}

// created is a request to create a Pod with one image, or a Deployment of such a Pod.
type created struct {
	image      string
	namespace  string // "default" if empty
	labels     map[string]string
	user       string
	breakGlass string // value of the annotation; a reason and an end are added
	workload   bool
}

func (c created) request(t *testing.T) gatekeeper.Request {
	t.Helper()
	if c.namespace == "" {
		c.namespace = "default"
	}
	annotations := map[string]string{}
	if c.breakGlass != "" {
		annotations["oracle.image-policy.k8s.io/break-glass"] = c.breakGlass
		annotations["oke-sign.dev/break-glass-reason"] = "an outage"
		annotations["oke-sign.dev/break-glass-until"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	}
	encoded, err := json.Marshal(annotations)
	if err != nil {
		t.Fatal(err)
	}
	spec := fmt.Sprintf(`{"containers": [{"name": "c", "image": %q}]}`, c.image)
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": %q, "annotations": %s}, "spec": %s}`, c.namespace, encoded, spec)
	if c.workload {
		text = fmt.Sprintf(`{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "namespace": %q}, "spec": {"template": {"metadata": {"annotations": %s}, "spec": %s}}}`, c.namespace, encoded, spec)
	}
	object, err := manifest.Object([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return gatekeeper.Request{
		Operation: admissionv1.Create, Object: object, User: authenticationv1.UserInfo{Username: c.user},
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace, Labels: c.labels}},
	}
}

func TestPolicies(t *testing.T) {
	const admitted, warned, denied, listed, unchecked = "admitted", "warned", "denied", "listed in the audit", "not checked"
	prod := map[string]string{"env": "prod"}
	for values, table := range map[string]map[string]struct {
		created
		want string
	}{
		"default": {
			"signed":                             {created{image: ocir + "signed" + digest}, admitted},
			"unsigned":                           {created{image: ocir + "app" + digest}, denied},
			"without an answer":                  {created{image: ocir + "unknown" + digest}, denied},
			"signed, by tag":                     {created{image: ocir + "signed:v1"}, denied},
			"of another registry":                {created{image: "quay.io/org/app" + digest}, denied},
			"a look-alike":                       {created{image: "IAD.ocir.io/idwpqivumvev/signed" + digest}, denied},
			"a Deployment with denied Pods":      {created{image: ocir + "app" + digest, workload: true}, warned},
			"break-glass":                        {created{image: ocir + "app" + digest, breakGlass: "true", user: "anybody"}, warned},
			"break-glass, misspelt":              {created{image: ocir + "signed" + digest, breakGlass: "yes", user: "anybody"}, denied},
			"in kube-system":                     {created{image: "quay.io/org/cni:v1", namespace: "kube-system"}, unchecked},
			"in Gatekeeper's namespace":          {created{image: "quay.io/org/gatekeeper:v1", namespace: "gatekeeper-system"}, unchecked},
			"in the provider's namespace":        {created{image: "quay.io/org/provider:v1", namespace: "oke-sign"}, unchecked},
			"in a namespace with a similar name": {created{image: "quay.io/org/cni:v1", namespace: "kube-system-2"}, denied},
		},
		"any-image": {
			"unsigned":            {created{image: ocir + "app" + digest}, warned},
			"unsigned, by tag":    {created{image: ocir + "app:v1"}, denied},
			"of another registry": {created{image: "quay.io/org/app:v1"}, admitted},
			"a look-alike":        {created{image: "IAD.ocir.io/idwpqivumvev/app" + digest}, denied},
			"a Deployment":        {created{image: ocir + "app" + digest, workload: true}, admitted},
		},
		"everything": {
			"signed and scanned":               {created{image: ocir + "signed" + digest, namespace: "prod-a", labels: prod}, admitted},
			"signed, with a problem":           {created{image: ocir + "signed-broken" + digest, namespace: "prod-a", labels: prod}, denied},
			"unsigned":                         {created{image: ocir + "app" + digest, namespace: "prod-a", labels: prod}, denied},
			"exempt":                           {created{image: "registry.k8s.io/kube-state-metrics/kube-state-metrics:v2", namespace: "prod-a", labels: prod}, admitted},
			"exempt until a time":              {created{image: ocir + "legacy/app:v1", namespace: "prod-a", labels: prod}, admitted},
			"an exemption that has ended":      {created{image: ocir + "older/app:v1", namespace: "prod-a", labels: prod}, denied},
			"revoked":                          {created{image: "ocir.us-ashburn-1.oci.oraclecloud.com/idwpqivumvev/signed-revoked" + digest, namespace: "prod-a", labels: prod}, denied},
			"revoked, in another registry":     {created{image: "quay.io/org/app@sha256:" + strings.Repeat("0", 64), namespace: "prod-a", labels: prod}, denied},
			"revoked, under break-glass":       {created{image: ocir + "signed-revoked" + digest, namespace: "prod-a", labels: prod, breakGlass: "true", user: "oncall@example.com"}, denied},
			"of another registry":              {created{image: "quay.io/org/app:v1", namespace: "prod-a", labels: prod}, admitted},
			"in another namespace":             {created{image: ocir + "app" + digest, namespace: "dev", labels: prod}, unchecked},
			"in an excluded namespace":         {created{image: ocir + "app" + digest, namespace: "prod-lab", labels: prod}, unchecked},
			"in a namespace not selected":      {created{image: ocir + "app" + digest, namespace: "prod-a", labels: map[string]string{"env": "prod", "tier": "test"}}, unchecked},
			"break-glass by a permitted user":  {created{image: ocir + "app" + digest, namespace: "prod-a", labels: prod, breakGlass: "true", user: "oncall@example.com"}, admitted},
			"break-glass by another user":      {created{image: ocir + "app" + digest, namespace: "prod-a", labels: prod, breakGlass: "true", user: "dev@example.com"}, denied},
			"break-glass through a Deployment": {created{image: ocir + "app" + digest, namespace: "prod-a", labels: prod, breakGlass: "true", user: "dev@example.com", workload: true}, denied},
		},
		"warn": {
			"unsigned":    {created{image: ocir + "app" + digest}, warned},
			"break-glass": {created{image: ocir + "app" + digest, breakGlass: "true", user: "anybody"}, warned},
			"signed":      {created{image: ocir + "signed" + digest}, admitted},
		},
		"dryrun": {
			"unsigned":       {created{image: ocir + "app" + digest}, listed},
			"signed, by tag": {created{image: ocir + "signed:v1"}, listed},
		},
	} {
		t.Run(values, func(t *testing.T) {
			e := installed(t, values)
			for name, tc := range table {
				d, err := e.Review(t.Context(), tc.request(t))
				if err != nil {
					t.Fatal(err)
				}
				got := admitted
				switch {
				case d.Constraints == 0:
					got = unchecked
				case !d.Allowed():
					got = denied
				case len(d.Warnings) > 0:
					got = warned
				case len(d.DryRun) > 0:
					got = listed
				}
				if got != tc.want {
					t.Errorf("%s: %s, want %s: %v %v %v", name, got, tc.want, d.Denied, d.Warnings, d.DryRun)
				}
			}
		})
	}
}

// The plugin reads the rendered constraints as one image policy.
func TestPluginReadsThePolicy(t *testing.T) {
	key := func(last string) string {
		return "ocid1.key.oc1.iad.bbqqqqqqaaaaa.abuwcljr" + strings.Repeat(last, 52)
	}
	own := constraint.Scope{ExcludedNamespaces: []string{"kube-system", "gatekeeper-system", "oke-sign"}}
	for values, change := range map[string]func(*constraint.Policy){
		"default": func(p *constraint.Policy) { p.Keys, p.Scope = []string{key("a")}, own },
		"any-image": func(p *constraint.Policy) {
			p.OtherRegistries, p.Digests, p.Scope = constraint.Allow, constraint.OCIRegistry, own
		},
		"warn": func(p *constraint.Policy) {
			p.Mode, p.Keys, p.Scope, p.BreakGlass, p.BreakGlassRules = constraint.Warn, []string{key("a")}, own, constraint.Ignore, nil
		},
		"dryrun": func(p *constraint.Policy) {
			p.Mode, p.Keys, p.Scope, p.Digests = constraint.DryRun, []string{key("a")}, own, constraint.None
		},
		"everything": func(p *constraint.Policy) {
			p.Keys, p.OtherRegistries, p.Digests, p.WarnWorkloads, p.Provider = []string{key("a"), key("b")}, constraint.Allow, constraint.OCIRegistry, false, "other"
			p.ExemptImages = []string{"registry.k8s.io/kube-state-metrics/**"}
			p.Exemptions = []constraint.Exemption{
				{Images: []string{ocir + "legacy/**"}, Until: "2099-12-31T00:00:00Z", Reason: "INC-7"},
				{Images: []string{ocir + "older/**"}, Until: "2025-12-31T00:00:00Z", Reason: "INC-6"},
			}
			p.Revoked = []constraint.Revocation{
				{Image: ocir + "signed-revoked" + digest, Reason: "CVE-2026-0001"},
				{Digest: "sha256:" + strings.Repeat("0", 64), Reason: "CVE-2026-0002"},
			}
			p.BreakGlassRules = &constraint.BreakGlassRules{
				Users: []string{"oncall@example.com"}, Groups: []string{"oncall"}, ServiceAccounts: []string{"rescue/robot"},
				RequireReason: true, RequireDigest: true, MaxDuration: "8h",
			}
			p.Scope = constraint.Scope{Namespaces: []string{"prod-*"}, ExcludedNamespaces: []string{"prod-lab", "policy", "provider"}, NamespaceSelector: "env=prod,tier notin (test)"}
		},
	} {
		want := constraint.Default()
		change(&want)
		current := constraint.Read(objects(t, render(t, "oke-sign-policy", "testdata/oke-sign-policy/"+values+".yaml")))
		if current.Policy == nil || current.Unclear != "" || len(current.Drift) > 0 {
			t.Errorf("%s: not read as one policy: %s %q", values, current.Unclear, current.Drift)
			continue
		}
		if diff := cmp.Diff(want, *current.Policy); diff != "" {
			t.Errorf("%s:\n%s", values, diff)
		}
		for _, o := range current.Others {
			if o.GetKind() != policies.ScannedImages && o.GetKind() != "Assign" { // not part of the plugin's policy
				t.Errorf("%s: not part of the policy: %s", values, constraint.Name(o))
			}
		}
	}
}

// The policy, Gatekeeper's webhook and SECURITY.md name the same exempt namespaces. A namespace
// that only the webhook exempts would be exempt without notice.
// CVE-2025-46342: a selector exempted namespaces by accident.
func TestExemptNamespacesAgree(t *testing.T) {
	var gatekeeper struct {
		Exempt map[string][]string `yaml:"validatingWebhookExemptNamespacesLabels"`
	}
	read(t, "oke-sign/gatekeeper-values.yaml", &gatekeeper)
	signed := find[struct {
		Spec struct {
			Match struct{ ExcludedNamespaces []string }
		}
	}](t, objects(t, render(t, "oke-sign-policy", "testdata/oke-sign-policy/default.yaml", "--set", "warnWorkloads=false")), policies.SignedImages)
	excluded := signed.Spec.Match.ExcludedNamespaces
	got := gatekeeper.Exempt["kubernetes.io/metadata.name"]
	want := slices.DeleteFunc(slices.Clone(excluded), func(name string) bool {
		return name == "gatekeeper-system" // Gatekeeper's chart exempts it.
	})
	if len(gatekeeper.Exempt) != 1 || !cmp.Equal(got, want) {
		t.Errorf("Gatekeeper's webhook exempts %v, but the policy exempts %q", gatekeeper.Exempt, excluded)
	}
	text, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	if said := "exempt namespace (" + strings.Join(excluded, ", ") + " by default)"; !strings.Contains(string(text), said) {
		t.Errorf("SECURITY.md does not contain: %s", said)
	}
}
