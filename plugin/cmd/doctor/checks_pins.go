package doctor

import (
	"cmp"
	"fmt"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

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
		found = append(found, warns(f.upgradeGatekeeper("disableMutation=false"), "the webhook %s is not there: no tag is pinned, and Pods are refused for theirs", mutationWebhook))
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
		return []finding{warns(fmt.Sprintf(`kubectl patch provider %s --type merge -p '{"spec":{"url":%q}}'`, x.provider, f.address(digestAnswerer.path)),
			"%s leads to %s, and what tags point to is answered under %s: %s", x.provider, cli.Clip(path, 100), digestAnswerer.path, lost)}
	}
	limit := 10 // seconds, of a webhook that says nothing
	if w := f.mutation.is; w != nil && w.TimeoutSeconds != nil {
		limit = int(*w.TimeoutSeconds)
	}
	var found []finding
	for _, y := range checkProvider(f, *x.asked, digestAnswerer, limit) {
		if y.State == stateFails { // what only warns is said of the other Providers
			y.State = stateWarns
			found = append(found, y)
		}
	}
	return found
}
