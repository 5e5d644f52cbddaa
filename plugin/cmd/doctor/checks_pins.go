package doctor

import (
	"cmp"
	"fmt"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// checkPins finds what keeps Gatekeeper from pinning tags, and rules that deny Pods
// before a policy sees them.
func checkPins(f *facts) []finding {
	if f.assigns.err != nil {
		return []finding{unknown(f.assigns.err)}
	}
	pins := f.pins()
	if len(pins) == 0 {
		return nil // no rule pins tags
	}
	if err := cmp.Or(f.providers.err, f.mutation.err); err != nil {
		return []finding{unknown(err)}
	}
	var found []finding
	if f.mutation.is == nil {
		found = append(found, warns(f.upgradeGatekeeper("disableMutation=false"), "the webhook %s does not exist: no tag is pinned, and Pods with tags are denied", mutationWebhook))
	}
	checked := make(map[string]bool)
	for _, x := range pins {
		name := x.rule.GetName()
		if errs := statusErrors(x.rule); len(errs) > 0 {
			found = append(found, warns("kubectl get assign "+name+" -o yaml", "Gatekeeper cannot use Assign/%s: %s", name, errs[0]))
		}
		if x.failurePolicy != "Ignore" {
			found = append(found, warns(fmt.Sprintf(`kubectl patch assign %s --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`, name),
				"Assign/%s denies Pods while the provider does not answer, in every mode of the policy and under break-glass", name))
		}
		if !checked[x.provider] {
			found = append(found, checkPinning(f, x)...)
		}
		checked[x.provider] = true
	}
	if len(found) == 0 {
		found = append(found, holds("by %s", cli.Count(len(pins), "rule")))
	}
	return found
}

// checkPinning finds what keeps a Provider from resolving tags. Its findings only warn:
// the policy denies tags, so nothing gets past it.
func checkPinning(f *facts, x pin) []finding {
	const lost = "no tag is pinned, and Pods with tags are denied"
	if x.asked == nil {
		return []finding{warns("install the provider with the chart oke-sign", "Assign/%[2]s asks the Provider %[1]s, which does not exist: %[3]s", x.provider, x.rule.GetName(), lost)}
	}
	if path := pathOf(*x.asked); path != digestEndpoint.path {
		return []finding{warns(fmt.Sprintf(`kubectl patch provider %s --type merge -p '{"spec":{"url":%q}}'`, x.provider, f.address(digestEndpoint.path)),
			"%s has the path %s, and the provider resolves tags at %s: %s", x.provider, cli.Clip(path, 100), digestEndpoint.path, lost)}
	}
	limit := 10 // seconds, of a webhook that says nothing
	if w := f.mutation.is; w != nil && w.TimeoutSeconds != nil {
		limit = int(*w.TimeoutSeconds)
	}
	var found []finding
	for _, y := range checkProvider(f, *x.asked, digestEndpoint, limit) {
		if y.State == stateFails { // checkProviders reports warnings about the CA
			y.State = stateWarns
			found = append(found, y)
		}
	}
	return found
}
