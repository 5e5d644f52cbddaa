package doctor

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/policies"
)

// checkNamespaceLabels checks that the owner of a namespace cannot exempt it by a label.
func checkNamespaceLabels(f *facts) []finding {
	if f.labels.err != nil {
		return []finding{unknown(f.labels.err)}
	}
	install := "helm upgrade oke-sign charts/oke-sign -n " + f.providerNamespace() + " --reset-then-reuse-values --set namespaceLabels.enabled=true"
	const hole = "the owner of a namespace can exempt it from the image policy through namespaces/status"
	guard := f.labels.is
	switch {
	case !guard.served:
		return []finding{fails("upgrade the cluster to Kubernetes 1.30 or newer", "the API server has no ValidatingAdmissionPolicies: %s", hole)}
	case guard.policy == nil:
		return []finding{fails(install, "the ValidatingAdmissionPolicy %s does not exist: %s", labelGuardName, hole)}
	case guard.binding == nil:
		return []finding{fails(install, "the ValidatingAdmissionPolicyBinding %s does not exist, so its policy denies nothing: %s", labelGuardName, hole)}
	}
	weak, err := weakGuard(guard)
	if err != nil {
		return []finding{unknown(err)}
	}
	var found []finding
	for _, what := range weak {
		found = append(found, fails(install, "%s: %s", what, hole))
	}
	if len(found) == 0 {
		names, _ := mayIgnore(guard.policy)
		found = append(found, holds("guarded by the API server; the label %s is allowed on %s", enforcement.IgnoreLabel, strings.Join(names, ", ")))
	}
	return found
}

// weakGuard returns how a policy and its binding are weaker than those of this release.
func weakGuard(guard labelGuard) ([]string, error) {
	var want admissionregistrationv1.ValidatingAdmissionPolicy
	if err := yaml.UnmarshalStrict(policies.NamespaceLabels, &want); err != nil {
		return nil, err
	}
	policy := guard.policy.Spec
	var found []string
	say := func(weak bool, format string, args ...any) {
		if weak {
			found = append(found, fmt.Sprintf(format, args...))
		}
	}
	say(policy.FailurePolicy != nil && *policy.FailurePolicy != admissionregistrationv1.Fail, "failurePolicy of policy %s is not Fail", labelGuardName)
	say(len(policy.MatchConditions) > 0, "policy %s has matchConditions", labelGuardName)
	say(policy.ParamKind != nil, "policy %s has parameters", labelGuardName)
	found = append(found, unmatched(policy.MatchConstraints)...)
	for _, v := range want.Spec.Validations {
		there := slices.ContainsFunc(policy.Validations, func(is admissionregistrationv1.Validation) bool { return is.Expression == v.Expression })
		say(!there, "policy %s lacks an expression of this release", labelGuardName)
	}
	for _, v := range want.Spec.Variables {
		there := slices.ContainsFunc(policy.Variables, func(is admissionregistrationv1.Variable) bool {
			return is.Name == v.Name && (is.Expression == v.Expression || v.Name == "exempt")
		})
		say(!there, "the variable %s of policy %s is not that of this release", v.Name, labelGuardName)
	}
	_, err := mayIgnore(guard.policy)
	say(err != nil, "the variable exempt of policy %s is not a list of names", labelGuardName)

	binding := guard.binding.Spec
	say(binding.PolicyName != labelGuardName, "binding %s is for policy %s", labelGuardName, cli.Printable(binding.PolicyName))
	say(!slices.Contains(binding.ValidationActions, admissionregistrationv1.Deny), "binding %s does not deny", labelGuardName)
	say(binding.MatchResources != nil && !matchesAll(binding.MatchResources), "binding %s has matchResources", labelGuardName)
	say(binding.ParamRef != nil, "binding %s has parameters", labelGuardName)
	return found, nil
}

// unmatched returns the requests that a policy does not see.
func unmatched(match *admissionregistrationv1.MatchResources) []string {
	if match == nil {
		return []string{"policy " + labelGuardName + " matches nothing"}
	}
	var found []string
	rest := *match
	rest.ResourceRules = nil
	if !matchesAll(&rest) {
		found = append(found, "policy "+labelGuardName+" selects by labels or excludes resources")
	}
	for _, of := range []struct {
		resource  string
		operation admissionregistrationv1.OperationType
	}{
		{"namespaces", admissionregistrationv1.Create}, {"namespaces", admissionregistrationv1.Update},
		{"namespaces/status", admissionregistrationv1.Update}, {"namespaces/finalize", admissionregistrationv1.Update},
	} {
		if !slices.ContainsFunc(match.ResourceRules, func(r admissionregistrationv1.NamedRuleWithOperations) bool {
			return len(r.ResourceNames) == 0 && enforcement.Covers(r.RuleWithOperations, "", of.resource, of.operation)
		}) {
			found = append(found, fmt.Sprintf("policy %s does not see %s of %s", labelGuardName, of.operation, of.resource))
		}
	}
	return found
}

// matchesAll reports whether a match excludes nothing.
func matchesAll(m *admissionregistrationv1.MatchResources) bool {
	empty := func(s *metav1.LabelSelector) bool { return s == nil || len(s.MatchLabels)+len(s.MatchExpressions) == 0 }
	return empty(m.NamespaceSelector) && empty(m.ObjectSelector) && len(m.ResourceRules)+len(m.ExcludeResourceRules) == 0
}

// mayIgnore returns the namespaces that the policy lets have Gatekeeper's ignore label.
func mayIgnore(policy *admissionregistrationv1.ValidatingAdmissionPolicy) (names []string, err error) {
	for _, v := range policy.Spec.Variables {
		if v.Name == "exempt" {
			err = json.Unmarshal([]byte(v.Expression), &names)
		}
	}
	return names, err
}

// exemptNames returns the namespaces that are exempt by name, each with the settings
// that exempt it. It skips names with a wildcard.
func (f *facts) exemptNames() map[string][]string {
	found := make(map[string][]string)
	add := func(by string, names ...string) {
		for _, name := range names {
			if name != "" && !strings.Contains(name, "*") && !slices.Contains(found[name], by) {
				found[name] = append(found[name], by)
			}
		}
	}
	if w, err := f.validation(); err == nil && w != nil && w.NamespaceSelector != nil {
		for _, e := range w.NamespaceSelector.MatchExpressions {
			if e.Key == corev1.LabelMetadataName && e.Operator == metav1.LabelSelectorOpNotIn {
				add("validatingWebhookExemptNamespacesLabels of Gatekeeper's values", e.Values...)
			}
		}
	}
	add("Gatekeeper's Config", enforcement.ExcludedNamespaces(f.configs.is)...)
	for _, d := range f.gatekeeper.is {
		add("--exempt-namespace of "+d.Name, flagsOf(d.Spec.Template.Spec, "exempt-namespace")...)
	}
	for _, c := range f.constraints.is {
		names, _, _ := unstructured.NestedStringSlice(c.Object, "spec", "match", "excludedNamespaces")
		add(c.GetKind()+"/"+c.GetName(), names...)
	}
	if f.labels.is.policy != nil {
		if names, err := mayIgnore(f.labels.is.policy); err == nil {
			add("ValidatingAdmissionPolicy/"+labelGuardName, names...)
		}
	}
	return found
}

// checkExempt finds exempt names of namespaces that do not exist, and exempt default
// names of an installation that uses other names.
func checkExempt(f *facts) []finding {
	if err := cmp.Or(f.namespaces.err, f.constraints.err); err != nil {
		return []finding{unknown(err)}
	}
	var found []finding
	exempt := f.exemptNames()
	for _, name := range slices.Sorted(maps.Keys(exempt)) {
		by := strings.Join(exempt[name], ", ")
		remove := "take " + name + " out of " + by
		switch {
		case !slices.ContainsFunc(f.namespaces.is, func(n corev1.Namespace) bool { return n.Name == name }):
			found = append(found, fails("kubectl create namespace "+name+", or "+remove,
				"namespace %s is exempt and does not exist: anybody who may create it can run any image there", name))
		case name == "oke-sign" && len(f.backends) > 0 && !f.isBackend(name):
			found = append(found, fails(remove+", and exempt "+f.providerNamespace(),
				"namespace %s is exempt, and the provider runs in %s", name, f.providerNamespace()))
		case name == "gatekeeper-system" && f.gatekeeperNamespace() != name:
			found = append(found, fails(remove+", and exempt "+f.gatekeeperNamespace(),
				"namespace %s is exempt, and Gatekeeper runs in %s", name, f.gatekeeperNamespace()))
		}
	}
	found = append(found, chosenByLabel(f)...)
	_, unread := f.validation()
	unread = cmp.Or(unread, f.configs.err, f.gatekeeper.err, f.labels.err)
	switch {
	case unread != nil: // more names may be exempt
		found = append(found, unknown(unread))
	case len(found) == 0 && len(exempt) > 0:
		found = append(found, holds("%s", strings.Join(slices.Sorted(maps.Keys(exempt)), ", ")))
	}
	return found
}

// isBackend reports whether a provider runs in a namespace, or could run there because
// doctor could not follow its address.
func (f *facts) isBackend(namespace string) bool {
	for _, b := range f.backends {
		if b.namespace == namespace || b.namespace == "" {
			return true
		}
	}
	return false
}

// chosenByLabel finds unguarded labels by which Gatekeeper's webhook skips namespaces.
func chosenByLabel(f *facts) []finding {
	w, err := f.validation()
	if err != nil || w == nil || w.NamespaceSelector == nil {
		return nil
	}
	keys := slices.Collect(maps.Keys(w.NamespaceSelector.MatchLabels))
	for _, e := range w.NamespaceSelector.MatchExpressions {
		keys = append(keys, e.Key)
	}
	slices.Sort(keys)
	var found []finding
	for _, key := range slices.Compact(keys) {
		if key != enforcement.IgnoreLabel && key != corev1.LabelMetadataName {
			found = append(found, warns("exempt namespaces by kubernetes.io/metadata.name",
				"Gatekeeper's webhook chooses namespaces by the label %s, so the owner of a Namespace can exempt it", cli.Printable(key)))
		}
	}
	return found
}
