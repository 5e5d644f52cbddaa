package enforcement_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

func object(t *testing.T, text string) unstructured.Unstructured {
	t.Helper()
	o, err := manifest.Object([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return *o
}

func TestActsAt(t *testing.T) {
	const webhook = "validation.gatekeeper.sh"
	scoped := func(action, point string) string {
		return `enforcementAction: scoped, scopedEnforcementActions: [{action: ` + action + `, enforcementPoints: [{name: ` + point + `}]}]`
	}
	for name, tc := range map[string]struct {
		spec string
		want string // what it does at admission; "" is nothing
	}{
		"no action is deny":               {``, "deny"},
		"deny":                            {`enforcementAction: deny`, "deny"},
		"warn":                            {`enforcementAction: warn`, "warn"},
		"dryrun":                          {`enforcementAction: dryrun`, "dryrun"},
		"scoped to the webhook":           {scoped("deny", webhook), "deny"},
		"scoped to everything":            {scoped("warn", `"*"`), "warn"},
		"scoped to the audit alone":       {scoped("deny", "audit.gatekeeper.sh"), ""},
		"scoped to nothing":               {`enforcementAction: scoped`, ""},
		"scoped, and no list where it is": {`enforcementAction: scoped, scopedEnforcementActions: deny`, ""},
		"scoped, with a point of text":    {`enforcementAction: scoped, scopedEnforcementActions: [{action: deny, enforcementPoints: [x]}]`, ""},
	} {
		c := object(t, `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: x}, spec: {`+tc.spec+`}}`)
		for _, action := range []string{"deny", "warn", "dryrun"} {
			if got := enforcement.ActsAt(c, action); got != (action == tc.want) {
				t.Errorf("%s: %s is %v", name, action, got)
			}
		}
	}
}

func TestMatchesKind(t *testing.T) {
	for match, want := range map[string]bool{
		``:                           true,
		`kinds: []`:                  true,
		`kinds: [{}]`:                true,
		`kinds: [{kinds: [Pod]}]`:    true,
		`kinds: [{apiGroups: [""]}]`: true,
		`kinds: [{apiGroups: ["*"], kinds: ["*"]}]`:                                          true,
		`kinds: [{apiGroups: [""], kinds: [Pod]}]`:                                           true,
		`kinds: [{apiGroups: [apps], kinds: [Pod]}]`:                                         false,
		`kinds: [{apiGroups: [""], kinds: [Service]}]`:                                       false,
		`kinds: [{apiGroups: [apps], kinds: [Deployment]}, {apiGroups: [""], kinds: [Pod]}]`: true,
		`kinds: [{kinds: [pod]}]`:                                                            false, // Gatekeeper compares them as they are written
	} {
		c := object(t, `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: x}, spec: {match: {`+match+`}}}`)
		if got := enforcement.MatchesKind(c, "", "Pod"); got != want {
			t.Errorf("%s: got %v, want %v", match, got, want)
		}
	}
}

// Of Gatekeeper's Pods, the audit's denies nothing.
func TestEnforces(t *testing.T) {
	for name, tc := range map[string]struct {
		pod  any
		want bool
	}{
		"the webhook":            {map[string]any{"operations": []any{"webhook", "mutation-webhook"}}, true},
		"the audit":              {map[string]any{"operations": []any{"audit", "status"}}, false},
		"one that does not say":  {map[string]any{"id": "x"}, true},
		"one with no operations": {map[string]any{"operations": []any{}}, false},
		"no object":              {"webhook", true},
	} {
		if got := enforcement.Enforces(tc.pod); got != tc.want {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestWhyNotAsked(t *testing.T) {
	ignore := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: enforcement.IgnoreLabel, Operator: metav1.LabelSelectorOpDoesNotExist}}}
	namespaces := map[string]*corev1.Namespace{
		"shop":        {ObjectMeta: metav1.ObjectMeta{Name: "shop"}},
		"kube-system": {ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Labels: map[string]string{enforcement.IgnoreLabel: "true"}}},
	}
	for name, tc := range map[string]struct {
		state     enforcement.State
		namespace string
		want      string
	}{
		"a namespace as others":         {enforcement.State{Webhook: &admissionregistrationv1.ValidatingWebhook{NamespaceSelector: ignore}}, "shop", ""},
		"the label":                     {enforcement.State{Webhook: &admissionregistrationv1.ValidatingWebhook{NamespaceSelector: ignore}}, "kube-system", "the namespace has the label admission.gatekeeper.sh/ignore"},
		"a selector of somebody else":   {enforcement.State{Webhook: &admissionregistrationv1.ValidatingWebhook{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"policy": "on"}}}}, "shop", "Gatekeeper's webhook exempts the namespace"},
		"no selector":                   {enforcement.State{Webhook: &admissionregistrationv1.ValidatingWebhook{}}, "kube-system", ""},
		"no webhook to ask":             {enforcement.State{}, "kube-system", ""},
		"excluded by name":              {enforcement.State{Excluded: []string{"shop"}}, "shop", "Gatekeeper's Config excludes the namespace"},
		"excluded by a pattern":         {enforcement.State{Excluded: []string{"kube-*"}}, "kube-system", "Gatekeeper's Config excludes the namespace"},
		"a pattern for others":          {enforcement.State{Excluded: []string{"kube-*"}}, "shop", ""},
		"a namespace that is not known": {enforcement.State{Webhook: &admissionregistrationv1.ValidatingWebhook{NamespaceSelector: ignore}}, "new", ""},
	} {
		tc.state.Input = workload.Input{Namespaces: namespaces}
		if got := tc.state.WhyNotAsked(tc.namespace); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}

func TestExcludedNamespaces(t *testing.T) {
	config := func(name, match string) unstructured.Unstructured {
		return object(t, `{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: `+name+`}, spec: {match: `+match+`}}`)
	}
	for name, tc := range map[string]struct {
		configs []unstructured.Unstructured
		want    []string
	}{
		"none":                        {nil, nil},
		"all of Gatekeeper":           {[]unstructured.Unstructured{config("config", `[{processes: ["*"], excludedNamespaces: [a, b]}]`)}, []string{"a", "b"}},
		"the webhook":                 {[]unstructured.Unstructured{config("config", `[{processes: [webhook], excludedNamespaces: [a]}]`)}, []string{"a"}},
		"the audit alone":             {[]unstructured.Unstructured{config("config", `[{processes: [audit], excludedNamespaces: [a]}]`)}, nil},
		"a Config that nobody reads":  {[]unstructured.Unstructured{config("other", `[{processes: ["*"], excludedNamespaces: [a]}]`)}, nil},
		"entries that are no objects": {[]unstructured.Unstructured{config("config", `[x, {processes: ["*"], excludedNamespaces: [a]}]`)}, []string{"a"}},
	} {
		if diff := cmp.Diff(tc.want, enforcement.ExcludedNamespaces(tc.configs)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestFindWebhook(t *testing.T) {
	notFound := apierrors.NewNotFound(schema.GroupResource{}, "x")
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "x", nil)
	ours := admissionregistrationv1.ValidatingWebhook{Name: enforcement.ValidationWebhook}
	configuration := func(webhooks ...admissionregistrationv1.ValidatingWebhook) *admissionregistrationv1.ValidatingWebhookConfiguration {
		return &admissionregistrationv1.ValidatingWebhookConfiguration{Webhooks: webhooks}
	}
	for name, tc := range map[string]struct {
		configuration *admissionregistrationv1.ValidatingWebhookConfiguration
		err           error
		found         bool
		wantErr       error
	}{
		"it is there":                  {configuration(admissionregistrationv1.ValidatingWebhook{Name: "check-ignore-label.gatekeeper.sh"}, ours), nil, true, nil},
		"the configuration is not":     {nil, notFound, false, nil},
		"it lacks the webhook":         {configuration(), nil, false, nil},
		"it may not be read":           {nil, forbidden, false, forbidden},
		"an error outweighs an answer": {configuration(ours), forbidden, false, forbidden},
	} {
		got, err := enforcement.FindWebhook(tc.configuration, tc.err)
		if (got != nil) != tc.found || err != tc.wantErr { //nolint:errorlint // the very one
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}
