package doctor_test

import "testing"

func TestExemptNamespaces(t *testing.T) {
	told(t, "exempt namespaces", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: gatekeeper-system, kube-system, oke-sign",
		}},
		"an exempt name that nobody has": {gone("Namespace/oke-sign"), []string{
			"fails: namespace oke-sign is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace oke-sign, or take oke-sign out of validatingWebhookExemptNamespacesLabels of Gatekeeper's values",
		}},
		"a free name in the Config": {add("{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config}, spec: {match: [{processes: ['*'], excludedNamespaces: [free, 'no-*']}]}}"), []string{
			"fails: namespace free is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace free, or take free out of Gatekeeper's Config",
		}},
		"a free name in Gatekeeper's arguments": {at(manager, []any{"--exempt-namespace=free"}, args), []string{
			"fails: namespace free is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace free, or take free out of --exempt-namespace of gatekeeper-controller-manager",
		}},
		"a free name in a constraint": {at(signed, []any{"kube-system", "free", "no-*"}, "spec,match,excludedNamespaces"), []string{
			"fails: namespace free is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace free, or take free out of OKESignedImages/signed",
		}},
		"a free name that may get the label": {at(guard, `["gatekeeper-system","free"]`, "spec,variables,0,expression"), []string{
			"fails: namespace free is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace free, or take free out of ValidatingAdmissionPolicy/oke-sign-namespace-labels",
		}},
		"a free name in two lists": {all(at(manager, []any{"--exempt-namespace=free", "--exempt-namespace=free"}, args), at(signed, []any{"free"}, "spec,match,excludedNamespaces")), []string{
			"fails: namespace free is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace free, or take free out of --exempt-namespace of gatekeeper-controller-manager, OKESignedImages/signed",
		}},
		"a constraint with an invalid list": {at(signed, "free", "spec,match,excludedNamespaces"), []string{
			"holds: gatekeeper-system, kube-system, oke-sign",
		}},
		"Gatekeeper elsewhere": {at(webhook, "policy", "webhooks,0,clientConfig,service,namespace"), []string{
			"fails: namespace gatekeeper-system is exempt, and Gatekeeper runs in policy",
			"-> take gatekeeper-system out of validatingWebhookExemptNamespacesLabels of Gatekeeper's values, ValidatingAdmissionPolicy/oke-sign-namespace-labels, and exempt policy",
		}},
		"a label that exempts": {at(webhook, []any{map[string]any{"key": "team", "operator": "NotIn", "values": []any{"infra"}}}, "webhooks,0,namespaceSelector,matchExpressions"), []string{
			"warns: Gatekeeper's webhook chooses namespaces by the label team, so the owner of a Namespace can exempt it",
			"-> exempt namespaces by kubernetes.io/metadata.name",
		}},
		"a label that chooses": {at(webhook, map[string]any{"matchLabels": map[string]any{"policy": "on"}}, "webhooks,0,namespaceSelector"), []string{
			"warns: Gatekeeper's webhook chooses namespaces by the label policy, so the owner of a Namespace can exempt it",
			"-> exempt namespaces by kubernetes.io/metadata.name",
		}},
		"nothing is exempt": {all(at(webhook, nil, "webhooks,0,namespaceSelector"), at(guard, "[]", "spec,variables,0,expression")), nil},
		"the webhook may not be read": {unread("ValidatingWebhookConfiguration", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"the Config may not be read": {unread("Config", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"the guard may not be read, and a name is free": {all(unread("ValidatingAdmissionPolicy", forbidden), gone("Namespace/kube-system")), []string{
			"fails: namespace kube-system is exempt and does not exist: anybody who may create it can run any image there",
			"-> kubectl create namespace kube-system, or take kube-system out of validatingWebhookExemptNamespacesLabels of Gatekeeper's values",
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"namespaces may not be listed": {unread("Namespace", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestLabelsOfNamespaces(t *testing.T) {
	told(t, "labels of namespaces", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: guarded by the API server; the label admission.gatekeeper.sh/ignore is allowed on gatekeeper-system",
		}},
		"an API server without such policies": {func(w *world) { w.Old = true }, []string{
			"fails: the API server has no ValidatingAdmissionPolicies: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> upgrade the cluster to Kubernetes 1.30 or newer",
		}},
		"no guard": {gone(guard), []string{
			"fails: the ValidatingAdmissionPolicy oke-sign-namespace-labels does not exist: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"no binding": {gone(bound), []string{
			"fails: the ValidatingAdmissionPolicyBinding oke-sign-namespace-labels does not exist, so its policy denies nothing: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a guard that fails open": {at(guard, "Ignore", "spec,failurePolicy"), []string{
			"fails: failurePolicy of policy oke-sign-namespace-labels is not Fail: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"no failurePolicy, which Kubernetes takes for Fail": {at(guard, nil, "spec,failurePolicy"), []string{
			"holds: guarded by the API server; the label admission.gatekeeper.sh/ignore is allowed on gatekeeper-system",
		}},
		"a condition": {at(guard, []any{map[string]any{"name": "never", "expression": "false"}}, "spec,matchConditions"), []string{
			"fails: policy oke-sign-namespace-labels has matchConditions: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"parameters": {at(guard, map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}, "spec,paramKind"), []string{
			"fails: policy oke-sign-namespace-labels has parameters: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"no finalize": {at(guard, []any{"namespaces", "namespaces/status"}, "spec,matchConstraints,resourceRules,0,resources"), []string{
			"fails: policy oke-sign-namespace-labels does not see UPDATE of namespaces/finalize: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"no status": {at(guard, []any{"namespaces", "namespaces/finalize"}, "spec,matchConstraints,resourceRules,0,resources"), []string{
			"fails: policy oke-sign-namespace-labels does not see UPDATE of namespaces/status: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"updates only": {at(guard, []any{"UPDATE"}, "spec,matchConstraints,resourceRules,0,operations"), []string{
			"fails: policy oke-sign-namespace-labels does not see CREATE of namespaces: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"one namespace only": {at(guard, []any{"shop"}, "spec,matchConstraints,resourceRules,0,resourceNames"), []string{
			"fails: policy oke-sign-namespace-labels does not see CREATE of namespaces: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
			"fails: policy oke-sign-namespace-labels does not see UPDATE of namespaces: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
			"fails: policy oke-sign-namespace-labels does not see UPDATE of namespaces/status: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
			"fails: policy oke-sign-namespace-labels does not see UPDATE of namespaces/finalize: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"labeled namespaces only": {at(guard, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,matchConstraints,namespaceSelector"), []string{
			"fails: policy oke-sign-namespace-labels selects by labels or excludes resources: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"labeled objects only": {at(guard, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,matchConstraints,objectSelector"), []string{
			"fails: policy oke-sign-namespace-labels selects by labels or excludes resources: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a resource left out": {at(guard, []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"*"}, "resources": []any{"namespaces/status"}}}, "spec,matchConstraints,excludeResourceRules"), []string{
			"fails: policy oke-sign-namespace-labels selects by labels or excludes resources: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a guard that matches nothing": {at(guard, nil, "spec,matchConstraints"), []string{
			"fails: policy oke-sign-namespace-labels matches nothing: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"another expression": {at(guard, "true", "spec,validations,1,expression"), []string{
			"fails: policy oke-sign-namespace-labels lacks an expression of this release: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"another variable": {at(guard, "oldObject.metadata.labels", "spec,variables,2,expression"), []string{
			"fails: the variable after of policy oke-sign-namespace-labels is not that of this release: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"more names may get the label": {at(guard, `["gatekeeper-system","kube-system"]`, "spec,variables,0,expression"), []string{
			"holds: guarded by the API server; the label admission.gatekeeper.sh/ignore is allowed on gatekeeper-system, kube-system",
		}},
		"names by a rule": {at(guard, "[object.metadata.name]", "spec,variables,0,expression"), []string{
			"fails: the variable exempt of policy oke-sign-namespace-labels is not a list of names: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a binding that warns": {at(bound, []any{"Warn", "Audit"}, "spec,validationActions"), []string{
			"fails: binding oke-sign-namespace-labels does not deny: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a binding of some namespaces": {at(bound, map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]any{"a": "b"}}}, "spec,matchResources"), []string{
			"fails: binding oke-sign-namespace-labels has matchResources: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a binding with parameters": {at(bound, map[string]any{"name": "p"}, "spec,paramRef"), []string{
			"fails: binding oke-sign-namespace-labels has parameters: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"the binding of another policy, with an escape sequence": {at(bound, "other\x1b[2J", "spec,policyName"), []string{
			"fails: binding oke-sign-namespace-labels is for policy other?[2J: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"two weaknesses": {all(at(guard, "Ignore", "spec,failurePolicy"), at(bound, []any{"Warn"}, "spec,validationActions")), []string{
			"fails: failurePolicy of policy oke-sign-namespace-labels is not Fail: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
			"fails: binding oke-sign-namespace-labels does not deny: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n oke-sign --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"a provider elsewhere": {all(gone(guard), elsewhere), []string{
			"fails: the ValidatingAdmissionPolicy oke-sign-namespace-labels does not exist: the owner of a namespace can exempt it from the image policy through namespaces/status",
			"-> helm upgrade oke-sign charts/oke-sign -n signing --reset-then-reuse-values --set namespaceLabels.enabled=true",
		}},
		"the guard may not be read": {unread("ValidatingAdmissionPolicy", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}
