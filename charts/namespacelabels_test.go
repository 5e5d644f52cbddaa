package charts_test

import (
	"context"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/openapi/openapitest"
)

const ignoreLabel = "admission.gatekeeper.sh/ignore"

var namespaceKind = corev1.SchemeGroupVersion.WithKind("Namespace")

// The API server's own admission plugin decides these requests with the rendered policy, its
// match rules and its binding.
func TestNamespaceLabels(t *testing.T) {
	labeled := map[string]string{ignoreLabel: "x"}
	plain := map[string]string{"team": "web"}
	const byLabel, bySubresource = "takes a namespace out of the image policy", "cannot change through its subresources"
	plugin := labelGuard(t, "testdata/oke-sign/everything.yaml") // Gatekeeper in namespace policy; policy-tools and legacy are exempt
	for name, tc := range map[string]struct {
		namespace, subresource string
		before, after          map[string]string
		created                bool
		want                   string // part of the message; empty: the request is admitted
	}{
		"a namespace":                                  {namespace: "shop", after: plain, created: true},
		"a namespace without labels":                   {namespace: "shop", created: true},
		"a namespace that Gatekeeper ignores":          {namespace: "shop", after: labeled, created: true, want: byLabel},
		"Gatekeeper's own namespace":                   {namespace: "policy", after: labeled, created: true},
		"an exempt namespace":                          {namespace: "legacy", after: labeled, created: true},
		"a namespace that is exempt by default only":   {namespace: "gatekeeper-system", after: labeled, created: true, want: byLabel},
		"a name with the prefix of an exempt one":      {namespace: "legacy-2", after: labeled, created: true, want: byLabel},
		"another label":                                {namespace: "shop", before: plain, after: map[string]string{"team": "shop"}},
		"the first label":                              {namespace: "shop", after: plain},
		"the last label removed":                       {namespace: "shop", before: plain},
		"the label set":                                {namespace: "shop", after: labeled, want: byLabel},
		"the label set without a value":                {namespace: "shop", before: plain, after: map[string]string{"team": "web", ignoreLabel: ""}, want: byLabel},
		"the label changed":                            {namespace: "shop", before: labeled, after: map[string]string{ignoreLabel: "y"}, want: byLabel},
		"the label unchanged":                          {namespace: "shop", before: labeled, after: map[string]string{ignoreLabel: "x", "team": "web"}},
		"the label removed":                            {namespace: "shop", before: labeled, after: plain},
		"the label set on an exempt namespace":         {namespace: "policy-tools", after: labeled},
		"the label through status":                     {namespace: "shop", subresource: "status", before: plain, after: labeled, want: bySubresource},
		"the label through finalize":                   {namespace: "shop", subresource: "finalize", before: plain, after: labeled, want: bySubresource},
		"the label through a future subresource":       {namespace: "shop", subresource: "new", before: plain, after: labeled, want: bySubresource},
		"the label with the others through status":     {namespace: "shop", subresource: "status", before: plain, after: map[string]string{"team": "web", ignoreLabel: "x"}, want: bySubresource},
		"any label through status":                     {namespace: "shop", subresource: "status", before: plain, after: map[string]string{"team": "shop"}, want: bySubresource},
		"a label removed through status":               {namespace: "shop", subresource: "status", before: plain, want: bySubresource},
		"the first label through finalize":             {namespace: "shop", subresource: "finalize", after: plain, want: bySubresource},
		"an exempt namespace's label through finalize": {namespace: "legacy", subresource: "finalize", after: labeled, want: bySubresource},
		"a phase":                                   {namespace: "shop", subresource: "status", before: plain, after: plain},
		"a phase of a namespace without labels":     {namespace: "shop", subresource: "status"},
		"the end of a namespace":                    {namespace: "shop", subresource: "finalize", before: plain, after: plain},
		"the end of a namespace without labels":     {namespace: "shop", subresource: "finalize"},
		"the end of a namespace that has the label": {namespace: "shop", subresource: "finalize", before: labeled, after: labeled},
	} {
		after := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tc.namespace, Labels: tc.after}}
		operation, options := admission.Create, runtime.Object(&metav1.CreateOptions{})
		var before runtime.Object
		if !tc.created {
			operation, options = admission.Update, &metav1.UpdateOptions{}
			before = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: tc.namespace, Labels: tc.before}}
		}
		request := admission.NewAttributesRecord(after, before, namespaceKind, tc.namespace, tc.namespace,
			corev1.SchemeGroupVersion.WithResource("namespaces"), tc.subresource, operation, options, false, nil)
		err := plugin.Validate(t.Context(), request, admission.NewObjectInterfacesFromScheme(scheme.Scheme))
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: denied: %v", name, err)
		case tc.want != "" && (!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: got %v, want a denial that says: %s", name, err, tc.want)
		}
	}
}

// labelGuard returns the API server's admission plugin with the rendered policy and binding.
func labelGuard(t *testing.T, values string) *validating.Plugin {
	t.Helper()
	list := objects(t, render(t, "oke-sign", values))
	policy := find[admissionregistrationv1.ValidatingAdmissionPolicy](t, list, "ValidatingAdmissionPolicy")
	binding := find[admissionregistrationv1.ValidatingAdmissionPolicyBinding](t, list, "ValidatingAdmissionPolicyBinding")
	client := fake.NewClientset(&policy, &binding)
	informers := informers.NewSharedInformerFactory(client, 0)
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	mapper := meta.NewDefaultRESTMapper(nil)
	initializer.New(client, dynamicfake.NewSimpleDynamicClient(runtime.NewScheme()), informers, authorizer.AuthorizerFunc(
		func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionNoOpinion, "", nil
		}), utilfeature.DefaultFeatureGate, compatibility.DefaultBuildEffectiveVersion(), ctx.Done(), mapper).Initialize(plugin)
	plugin.SetRESTMapper(mapper)
	if err := plugin.ValidateInitialization(); err != nil {
		t.Fatal(err)
	}
	informers.Start(ctx.Done())
	t.Cleanup(func() {
		cancel()
		informers.Shutdown()
	})
	if !plugin.WaitForReady() {
		t.Fatal("the API server's plugin has not read the policy")
	}
	return plugin
}

// The API server checks a policy's expressions against the schema of the objects that it
// matches, and reports errors in the policy's status.
func TestNamespaceLabelsTypeCheck(t *testing.T) {
	list := objects(t, render(t, "oke-sign", "testdata/oke-sign/default.yaml"))
	policy := find[admissionregistrationv1.ValidatingAdmissionPolicy](t, list, "ValidatingAdmissionPolicy")
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	mapper.Add(namespaceKind, meta.RESTScopeRoot)
	checker := validating.TypeChecker{SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: published{}}, RestMapper: mapper}
	if warnings := checker.Check(&policy); len(warnings) > 0 {
		t.Errorf("%+v", warnings)
	}
	policy.Spec.Validations[0].Expression = "object.metadata.label == {}"
	if warnings := checker.Check(&policy); len(warnings) == 0 {
		t.Error("an unknown field has no warning: the checker checks nothing")
	}
}

// published has the schemas of Kubernetes, as an API server publishes them.
type published struct{ discovery.DiscoveryInterface }

func (published) OpenAPIV3() openapi.Client { return openapitest.NewEmbeddedFileClient() }
