package cmd

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Gatekeeper's webhook that changes objects, and one kind of its rules for that.
const (
	mutationConfiguration = "gatekeeper-mutating-webhook-configuration"
	mutationWebhook       = "mutation.gatekeeper.sh"
)

var assignKind = schema.GroupVersionResource{Group: "mutations.gatekeeper.sh", Version: "v1", Resource: "assign"}

// digestAnswerer is how the provider is asked for the digests of tags.
var digestAnswerer = answerer{provider: "oke-sign-digests", path: "/v1/digests", timeout: 1}

// pins are the rules by which Gatekeeper puts digests in the place of tags, and the
// Provider that each asks, which is nil if it is not there.
func (f *facts) pins() (rules []unstructured.Unstructured, asked []*unstructured.Unstructured) {
	for _, rule := range f.assigns.is {
		name, _, _ := unstructured.NestedString(rule.Object, "spec", "parameters", "assign", "externalData", "provider")
		var p *unstructured.Unstructured
		if i := slices.IndexFunc(f.providers.is, func(p unstructured.Unstructured) bool { return p.GetName() == name }); i >= 0 {
			p = &f.providers.is[i]
		}
		if name == digestAnswerer.provider || p != nil && pathOf(*p) == digestAnswerer.path {
			rules, asked = append(rules, rule), append(asked, p)
		}
	}
	return rules, asked
}

// pathOf is the path of a Provider's address.
func pathOf(p unstructured.Unstructured) string {
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Path
}

// checkPins finds what keeps tags from being pinned, for which Pods are then
// refused, and what refuses them before a policy has judged them.
func checkPins(f *facts) []finding {
	if f.assigns.err != nil {
		return []finding{notDone(f.assigns.err)}
	}
	rules, asked := f.pins()
	if len(rules) == 0 {
		return nil // nobody wants it
	}
	if err := cmp.Or(f.providers.err, f.mutation.err); err != nil {
		return []finding{notDone(err)}
	}
	var found []finding
	if f.mutation.is == nil {
		found = append(found, warns(helmValues+"--set disableMutation=false", "the webhook %s is not there: no tag is pinned, and Pods are refused for theirs", mutationWebhook))
	}
	checked := make(map[string]bool)
	for i, rule := range rules {
		name := rule.GetName()
		if errs := statusErrors(rule); len(errs) > 0 {
			found = append(found, warns("kubectl get assign "+name+" -o yaml", "Gatekeeper cannot use Assign/%s: %s", name, errs[0]))
		}
		if policy, _, _ := unstructured.NestedString(rule.Object, "spec", "parameters", "assign", "externalData", "failurePolicy"); policy != "Ignore" {
			found = append(found, warns(fmt.Sprintf(`kubectl patch assign %s --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`, name),
				"Assign/%s refuses Pods while the provider has no answer, also under break-glass and whatever the policy's mode", name))
		}
		provider, _, _ := unstructured.NestedString(rule.Object, "spec", "parameters", "assign", "externalData", "provider")
		if checked[provider] {
			continue
		}
		checked[provider] = true
		found = append(found, f.checkPinning(name, provider, asked[i])...)
	}
	if len(found) == 0 {
		found = append(found, holds("by %s", count(len(rules), "rule")))
	}
	return found
}

// checkPinning finds what keeps a Provider from saying what tags point to. That
// weakens no policy, which refuses tags.
func (f *facts) checkPinning(rule, name string, p *unstructured.Unstructured) []finding {
	const lost = "no tag is pinned, and Pods are refused for theirs"
	if p == nil {
		return []finding{warns("install the provider with the chart oke-sign", "there is no Provider %s, which Assign/%s asks: %s", name, rule, lost)}
	}
	if path := pathOf(*p); path != digestAnswerer.path {
		return []finding{warns(fmt.Sprintf(`kubectl patch provider %s --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443%s"}}'`, name, digestAnswerer.path),
			"%s leads to %s, and what tags point to is answered under %s: %s", name, clip(path, 100), digestAnswerer.path, lost)}
	}
	limit := 10 // seconds, of a webhook that says nothing
	if w := f.mutation.is; w != nil && w.TimeoutSeconds != nil {
		limit = int(*w.TimeoutSeconds)
	}
	var found []finding
	for _, x := range checkProvider(*p, digestAnswerer, f.now, limit) {
		if x.State == stateFails { // what only warns is said of the other Providers
			x.State = stateWarns
			found = append(found, x)
		}
	}
	return found
}

// mutating finds the webhook that pins tags; nil if it is not there.
func mutating(c *admissionregistrationv1.MutatingWebhookConfiguration) *admissionregistrationv1.MutatingWebhook {
	i := slices.IndexFunc(c.Webhooks, func(w admissionregistrationv1.MutatingWebhook) bool { return w.Name == mutationWebhook })
	if i < 0 {
		return nil
	}
	return &c.Webhooks[i]
}
