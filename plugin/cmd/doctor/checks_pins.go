package doctor

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// Gatekeeper's webhook that changes objects, and one kind of its rules for that.
const (
	mutationConfiguration = "gatekeeper-mutating-webhook-configuration"
	mutationWebhook       = "mutation.gatekeeper.sh"
)

var assignKind = schema.GroupVersionResource{Group: "mutations.gatekeeper.sh", Version: "v1", Resource: "assign"}

// digestAnswerer is how the provider is asked for the digests of tags.
var digestAnswerer = answerer{provider: "oke-sign-digests", path: "/v1/digests", timeout: 1}

// pin is a rule by which Gatekeeper puts digests in the place of tags.
type pin struct {
	rule          unstructured.Unstructured
	provider      string                     // that it asks
	asked         *unstructured.Unstructured // the Provider, or nil if it is not there
	failurePolicy string
}

func (f *facts) pins() []pin {
	var found []pin
	for _, rule := range f.assigns.is {
		data, _, _ := unstructured.NestedMap(rule.Object, "spec", "parameters", "assign", "externalData")
		x := pin{rule: rule}
		x.provider, _ = data["provider"].(string)
		x.failurePolicy, _ = data["failurePolicy"].(string)
		x.asked = f.provider(x.provider)
		if x.provider == digestAnswerer.provider || x.asked != nil && pathOf(*x.asked) == digestAnswerer.path {
			found = append(found, x)
		}
	}
	return found
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
		return []finding{unknown(f.assigns.err)}
	}
	pins := f.pins()
	if len(pins) == 0 {
		return nil // nobody wants it
	}
	if err := cmp.Or(f.providers.err, f.mutation.err); err != nil {
		return []finding{unknown(err)}
	}
	var found []finding
	if f.mutation.is == nil {
		found = append(found, warns(helmValues+"--set disableMutation=false", "the webhook %s is not there: no tag is pinned, and Pods are refused for theirs", mutationWebhook))
	}
	checked := make(map[string]bool)
	for _, x := range pins {
		name := x.rule.GetName()
		if errs := statusErrors(x.rule); len(errs) > 0 {
			found = append(found, warns("kubectl get assign "+name+" -o yaml", "Gatekeeper cannot use Assign/%s: %s", name, errs[0]))
		}
		if x.failurePolicy != "Ignore" {
			found = append(found, warns(fmt.Sprintf(`kubectl patch assign %s --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`, name),
				"Assign/%s refuses Pods while the provider has no answer, also under break-glass and whatever the policy's mode", name))
		}
		if !checked[x.provider] {
			found = append(found, f.checkPinning(x)...)
		}
		checked[x.provider] = true
	}
	if len(found) == 0 {
		found = append(found, holds("by %s", cli.Count(len(pins), "rule")))
	}
	return found
}

// checkPinning finds what keeps a Provider from saying what tags point to. That
// weakens no policy, which refuses tags.
func (f *facts) checkPinning(x pin) []finding {
	const lost = "no tag is pinned, and Pods are refused for theirs"
	if x.asked == nil {
		return []finding{warns("install the provider with the chart oke-sign", "there is no Provider %s, which Assign/%s asks: %s", x.provider, x.rule.GetName(), lost)}
	}
	if path := pathOf(*x.asked); path != digestAnswerer.path {
		return []finding{warns(fmt.Sprintf(`kubectl patch provider %s --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443%s"}}'`, x.provider, digestAnswerer.path),
			"%s leads to %s, and what tags point to is answered under %s: %s", x.provider, cli.Clip(path, 100), digestAnswerer.path, lost)}
	}
	limit := 10 // seconds, of a webhook that says nothing
	if w := f.mutation.is; w != nil && w.TimeoutSeconds != nil {
		limit = int(*w.TimeoutSeconds)
	}
	var found []finding
	for _, y := range checkProvider(*x.asked, digestAnswerer, f.now, limit) {
		if y.State == stateFails { // what only warns is said of the other Providers
			y.State = stateWarns
			found = append(found, y)
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
