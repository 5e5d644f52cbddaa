package doctor_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

func TestTemplates(t *testing.T) {
	told(t, "templates", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: OKESignedImages",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"no template of the policy": {gone("ConstraintTemplate/okesignedimages"), []string{
			"fails: OKESignedImages is not installed",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"no template of another kind": {gone("ConstraintTemplate/okescannedimages"), []string{
			"holds: OKESignedImages",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
		}},
		"a template with an error": {at("ConstraintTemplate/okesignedimages", []any{map[string]any{"errors": []any{map[string]any{"message": "rego_parse_error\x1b[2J"}}}}, "status,byPod"), []string{
			"fails: Gatekeeper cannot use OKESignedImages: rego_parse_error?[2J",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"a template that Gatekeeper has not taken in": {at("ConstraintTemplate/okesignedimages", false, "status,created"), []string{
			"fails: Gatekeeper has not loaded OKESignedImages",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"a template without a status": {at("ConstraintTemplate/okebreakglass", nil, "status"), []string{
			"holds: OKESignedImages",
			"holds: OKEImageDigests",
			"fails: Gatekeeper has not loaded OKEBreakGlass",
			"-> kubectl apply -f policies/okebreakglass/template.yaml",
			"holds: OKEScannedImages",
		}},
		"a status of hostile shape": {at("ConstraintTemplate/okesignedimages", map[string]any{"created": "yes", "byPod": []any{"a", int64(1), map[string]any{"errors": "x"}}}, "status"), []string{
			"fails: Gatekeeper has not loaded OKESignedImages",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"errors of hostile shape": {at("ConstraintTemplate/okesignedimages", []any{map[string]any{"errors": []any{"x"}}}, "status,byPod"), []string{
			"fails: Gatekeeper cannot use OKESignedImages: ",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"a template of another release": {at("ConstraintTemplate/okesignedimages", []any{}, "spec,targets"), []string{
			"warns: OKESignedImages is not the template of this release",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"targets of hostile shape": {at("ConstraintTemplate/okesignedimages", "admission", "spec,targets"), []string{
			"warns: OKESignedImages is not the template of this release",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"a template for recorded verdicts": {recorded, []string{
			"fails: OKESignedImages is the template for recorded verdicts in CI: in a cluster it denies every image that needs a verdict",
			"-> kubectl apply -f policies/okesignedimages/template.yaml",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
		"templates may not be listed": {unread("ConstraintTemplate", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"constraints may not be listed, which no template needs": {unread("constraints", forbidden), []string{
			"holds: OKESignedImages",
			"holds: OKEImageDigests",
			"holds: OKEBreakGlass",
			"holds: OKEScannedImages",
		}},
	})
}

func TestConstraintsEnforce(t *testing.T) {
	told(t, "constraints enforce", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: signed denies Pods",
		}},
		"no constraint": {gone(signed), []string{
			"fails: no constraint requires signatures",
			"-> kubectl oke-sign policy set --key KEY",
		}},
		"only warnings": {at(signed, "warn", "spec,enforcementAction"), []string{
			"fails: 1 constraint of kind OKESignedImages, but none denies Pods",
			"-> set enforcementAction: deny in a constraint that matches Pods, with kubectl edit okesignedimages",
		}},
		"only the audit": {all(at(signed, "scoped", "spec,enforcementAction"), at(signed, []any{map[string]any{"action": "deny", "enforcementPoints": []any{map[string]any{"name": "audit.gatekeeper.sh"}}}}, "spec,scopedEnforcementActions")), []string{
			"fails: 1 constraint of kind OKESignedImages, but none denies Pods",
			"-> set enforcementAction: deny in a constraint that matches Pods, with kubectl edit okesignedimages",
		}},
		"workloads only": {at(signed, []any{"Deployment"}, "spec,match,kinds,0,kinds"), []string{
			"fails: 1 constraint of kind OKESignedImages, but none denies Pods",
			"-> set enforcementAction: deny in a constraint that matches Pods, with kubectl edit okesignedimages",
			"fails: OKESignedImages/signed applies to no Pod: spec.match.kinds includes neither Pods nor workloads",
			"-> kubectl edit okesignedimages/signed",
		}},
		"no key": {at(signed, []any{}, "spec,parameters,keys"), []string{
			"holds: signed denies Pods",
			"warns: OKESignedImages/signed lists no key, so every image of OCI Registry may run, signed or not",
			"-> kubectl edit okesignedimages/signed",
		}},
		"no list of keys": {at(signed, nil, "spec,parameters,keys"), []string{
			"holds: signed denies Pods",
			"fails: OKESignedImages/signed has no list of keys, and denies every image of OCI Registry",
			"-> kubectl edit okesignedimages/signed",
		}},
		"no parameters": {at(signed, nil, "spec,parameters"), []string{
			"holds: signed denies Pods",
			"fails: OKESignedImages/signed has no list of keys, and denies every image of OCI Registry",
			"-> kubectl edit okesignedimages/signed",
		}},
		"keys that are no list": {at(signed, "ocid1.key", "spec,parameters,keys"), []string{
			"holds: signed denies Pods",
			"fails: OKESignedImages/signed has no list of keys, and denies every image of OCI Registry",
			"-> kubectl edit okesignedimages/signed",
		}},
		"some Pods": {at(signed, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,match,labelSelector"), []string{
			"holds: signed denies Pods",
			`warns: OKESignedImages/signed does not cover all Pods: only objects with {"matchLabels":{"a":"b"}}, and the creator of a Pod chooses its labels`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"some namespaces": {at(signed, []any{"prod", "shop"}, "spec,match,namespaces"), []string{
			"holds: signed denies Pods",
			`warns: OKESignedImages/signed does not cover all Pods: only namespaces ["prod","shop"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"namespaces by label": {at(signed, map[string]any{"matchLabels": map[string]any{"env": "prod"}}, "spec,match,namespaceSelector"), []string{
			`fails: OKESignedImages/signed applies to no Pod: no namespace matches: only namespaces with {"matchLabels":{"env":"prod"}}, so the owner of a Namespace can exempt it`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"all but a namespace that Gatekeeper checks": {at(signed, []any{"kube-system", "default-*"}, "spec,match,excludedNamespaces"), []string{
			"holds: signed denies Pods",
			`warns: OKESignedImages/signed does not cover all Pods: not namespaces ["default-*"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"a namespace that nobody has": {at(signed, []any{"shpo"}, "spec,match,namespaces"), []string{
			`fails: OKESignedImages/signed applies to no Pod: no namespace matches: only namespaces ["shpo"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"a namespace that nobody has, in the image policy of policy set": {all(at(signed, []any{"shpo"}, "spec,match,namespaces"), at(signed, "pods", "metadata,labels,oke-sign.dev/policy")), []string{
			`fails: OKESignedImages/signed applies to no Pod: no namespace matches: only namespaces ["shpo"]`,
			"-> kubectl oke-sign policy edit",
		}},
		"a namespace that nobody has, beside a constraint for all": {all(at(signed, []any{"shpo"}, "spec,match,namespaces"), more(`parameters: {keys: [`+soundKey+`]}`)), []string{
			"holds: more denies Pods",
			`fails: OKESignedImages/signed applies to no Pod: no namespace matches: only namespaces ["shpo"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"all namespaces left out": {at(signed, []any{"*"}, "spec,match,excludedNamespaces"), []string{
			`fails: OKESignedImages/signed applies to no Pod: no namespace matches: not namespaces ["*"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"only a namespace that Gatekeeper does not check": {at(signed, []any{"kube-*", "oke-sign"}, "spec,match,namespaces"), []string{
			"fails: OKESignedImages/signed applies to no Pod: it covers only namespaces that Gatekeeper does not check: kube-system, oke-sign",
			"-> kubectl edit okesignedimages/signed",
		}},
		"a namespace without Pods, while others have some": {all(at(signed, []any{"shop"}, "spec,match,namespaces"), web("prod")), []string{
			`fails: OKESignedImages/signed applies to no Pod that runs: none of 1 Pod matches: only namespaces ["shop"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"a namespace without Pods, beside a constraint for all": {all(at(signed, []any{"shop"}, "spec,match,namespaces"), web("prod"), more(`parameters: {keys: [`+soundKey+`]}`)), []string{
			"holds: more denies Pods",
			`warns: OKESignedImages/signed applies to no Pod that runs: none of 1 Pod matches: only namespaces ["shop"]`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"labels that no Pod has": {all(at(signed, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,match,labelSelector"), web("shop")), []string{
			`fails: OKESignedImages/signed applies to no Pod that runs: none of 1 Pod matches: only objects with {"matchLabels":{"a":"b"}}, and the creator of a Pod chooses its labels`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"a name that no Pod has": {all(at(signed, "job-*", "spec,match,name"), web("shop")), []string{
			`fails: OKESignedImages/signed applies to no Pod that runs: none of 1 Pod matches: only objects named "job-*"`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"labels that a Pod has": {all(at(signed, map[string]any{"matchLabels": map[string]any{"app": "web"}}, "spec,match,labelSelector"), web("shop")), []string{
			"holds: signed denies Pods",
			`warns: OKESignedImages/signed does not cover all Pods: only objects with {"matchLabels":{"app":"web"}}, and the creator of a Pod chooses its labels`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"Pods may not be listed, and the match depends on them": {all(at(signed, []any{"shop"}, "spec,match,namespaces"), web("shop"), unread("Pod", forbidden)), []string{
			"unknown: whether OKESignedImages/signed applies to a Pod: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"namespaces may not be listed, and the match depends on them": {all(at(signed, []any{"shop"}, "spec,match,namespaces"), unread("Namespace", forbidden)), []string{
			"unknown: whether OKESignedImages/signed applies to a Pod: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"namespaces may not be listed, and the match does not depend on them": {unread("Namespace", forbidden), []string{
			"holds: signed denies Pods",
		}},
		"workloads, not their Pods": {all(at(signed, []any{"apps"}, "spec,match,kinds,0,apiGroups"), at(signed, []any{"Deployment"}, "spec,match,kinds,0,kinds"), more(`parameters: {keys: [`+soundKey+`]}`)), []string{
			"holds: more denies Pods",
		}},
		"digests of Services": {add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEImageDigests, metadata: {name: digests}, spec: {match: {kinds: [{apiGroups: [''], kinds: [Service]}]}}}"), []string{
			"holds: signed denies Pods",
			"fails: OKEImageDigests/digests applies to no Pod: spec.match.kinds does not include Pods",
			"-> kubectl edit okeimagedigests/digests",
		}},
		"all but some namespaces": {at(signed, []any{"kube-system"}, "spec,match,excludedNamespaces"), []string{
			"holds: signed denies Pods",
		}},
		"objects of one name": {at(signed, "web", "spec,match,name"), []string{
			"holds: signed denies Pods",
			`warns: OKESignedImages/signed does not cover all Pods: only objects named "web"`,
			"-> kubectl edit okesignedimages/signed",
		}},
		"objects of any name": {at(signed, "*", "spec,match,name"), []string{
			"holds: signed denies Pods",
		}},
		"objects that are generated only": {at(signed, "Generated", "spec,match,source"), []string{
			"fails: OKESignedImages/signed applies to no Pod: spec.match.source is Generated, and nobody sends such objects",
			"-> kubectl edit okesignedimages/signed",
		}},
		"objects of any source": {at(signed, "All", "spec,match,source"), []string{
			"holds: signed denies Pods",
		}},
		"cluster-wide objects only": {at(signed, "Cluster", "spec,match,scope"), []string{
			"fails: OKESignedImages/signed applies to no Pod: spec.match.scope is Cluster, and Pods are in namespaces",
			"-> kubectl edit okesignedimages/signed",
		}},
		"namespaced objects only": {at(signed, "Namespaced", "spec,match,scope"), []string{
			"holds: signed denies Pods",
		}},
		"an empty choice": {at(signed, map[string]any{}, "spec,match,labelSelector"), []string{
			"holds: signed denies Pods",
		}},
		"a choice longer than a screen": {at(signed, []any{strings.Repeat("x", 500)}, "spec,match,namespaces"), []string{
			"fails: OKESignedImages/signed applies to no Pod: no namespace matches: only namespaces [\"" + strings.Repeat("x", 181) + "…",
			"-> kubectl edit okesignedimages/signed",
		}},
		"a match that is none": {at(signed, "Pod", "spec,match"), []string{
			"unknown: whether OKESignedImages/signed applies to a Pod: spec.match: cannot restore struct from: string",
			"-> try again; if it stays, fix the cause that the error names",
		}},
		"a specification that is none": {at(signed, "deny", "spec"), []string{
			"fails: OKESignedImages/signed has no list of keys, and denies every image of OCI Registry",
			"-> kubectl edit okesignedimages/signed",
			"unknown: whether OKESignedImages/signed applies to a Pod: spec.match: cannot restore struct from: string",
			"-> try again; if it stays, fix the cause that the error names",
		}},
		"one that denies beside one that warns": {add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: trial}, spec: {enforcementAction: warn, parameters: {keys: []}}}"), []string{
			"holds: signed denies Pods",
		}},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestConstraintsAreTakenIn(t *testing.T) {
	told(t, "constraints are loaded", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: 2 constraints",
		}},
		"no status": {at(signed, nil, "status,byPod"), []string{
			"fails: no Pod of Gatekeeper enforces OKESignedImages/signed yet",
			"-> kubectl get okesignedimages/signed -o yaml",
		}},
		"only the audit enforces it": {at(signed, []any{map[string]any{"id": "audit", "enforced": true, "operations": []any{"audit", "status"}}}, "status,byPod"), []string{
			"fails: no Pod of Gatekeeper enforces OKESignedImages/signed yet",
			"-> kubectl get okesignedimages/signed -o yaml",
		}},
		"the webhook has not enforced it yet": {at(signed, []any{map[string]any{"id": "a", "enforced": false, "operations": []any{"webhook"}}}, "status,byPod"), []string{
			"fails: no Pod of Gatekeeper enforces OKESignedImages/signed yet",
			"-> kubectl get okesignedimages/signed -o yaml",
		}},
		"an error": {at(glass, []any{map[string]any{"errors": []any{map[string]any{"message": "bad"}}}}, "status,byPod"), []string{
			"fails: Gatekeeper cannot use OKEBreakGlass/glass: bad",
			"-> kubectl get okebreakglass/glass -o yaml",
		}},
		"a status of hostile shape": {at(signed, []any{"a", map[string]any{"enforced": "true"}}, "status,byPod"), []string{
			"fails: no Pod of Gatekeeper enforces OKESignedImages/signed yet",
			"-> kubectl get okesignedimages/signed -o yaml",
		}},
		"no constraint, of which another check tells": {all(gone(signed), gone(glass)), nil},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestAnswers(t *testing.T) {
	told(t, "answers", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: the last audit got all answers",
		}},
		"no answer": {at(signed, []any{map[string]any{"message": "containers/c: no-answer: could not find out"}}, "status,violations"), []string{
			"fails: the last audit got no answer: containers/c: no-answer: could not find out",
			"-> kubectl -n oke-sign logs deployment/oke-sign",
		}},
		"no answer in another namespace": {all(at(signed, []any{map[string]any{"message": "containers/c: no-answer: could not find out"}}, "status,violations"), elsewhere), []string{
			"fails: the last audit got no answer: containers/c: no-answer: could not find out",
			"-> kubectl -n signing logs deployment/oke-sign",
		}},
		"OCI lets the provider read nothing": {at(signed, []any{map[string]any{"message": "containers/c: no-answer: 404 NotAuthorizedOrNotFound"}}, "status,violations"), []string{
			"fails: the provider may not read from OCI: containers/c: no-answer: 404 NotAuthorizedOrNotFound",
			"-> kubectl oke-sign iam --cluster OCID --workload oke-sign/oke-sign prints the statements",
		}},
		"an image that the provider does not see": {at(signed, []any{map[string]any{"message": "containers/c: image-not-found: x"}}, "status,violations"), []string{
			"warns: the provider does not find an image that runs: containers/c: image-not-found: x",
			"-> kubectl oke-sign iam --cluster OCID --workload oke-sign/oke-sign prints the statements; for another tenancy give the provider --tenancy",
		}},
		"an image of another tenancy": {at(signed, []any{map[string]any{"message": "containers/c: not-covered: x"}}, "status,violations"), []string{
			"warns: the provider does not find an image that runs: containers/c: not-covered: x",
			"-> kubectl oke-sign iam --cluster OCID --workload oke-sign/oke-sign prints the statements; for another tenancy give the provider --tenancy",
		}},
		"an image that you see and the provider does not": {all(at(signed, []any{map[string]any{"message": "containers/c: image-not-found: no such image: iad.ocir.io/idwpqivumvev/shop@sha256:00"}}, "status,violations"), running("iad.ocir.io/idwpqivumvev/shop@sha256:00", simulate.DeniedImage, verdict.KeyNotAllowed)), []string{
			"fails: the provider may not read what you may read in OCI: repository iad.ocir.io/idwpqivumvev/shop",
			"-> kubectl oke-sign iam --cluster OCID --workload oke-sign/oke-sign prints the statements",
		}},
		"an image that you do not see either": {all(at(signed, []any{map[string]any{"message": "containers/c: image-not-found: no such image: iad.ocir.io/idwpqivumvev/shop@sha256:00"}}, "status,violations"), running("iad.ocir.io/idwpqivumvev/shop@sha256:00", simulate.DeniedImage, verdict.ImageNotFound)), []string{
			"warns: the provider does not find an image that runs: containers/c: image-not-found: no such image: iad.ocir.io/idwpqivumvev/shop@sha256:00",
			"-> kubectl oke-sign iam --cluster OCID --workload oke-sign/oke-sign prints the statements; for another tenancy give the provider --tenancy",
		}},
		"a key that you see and the provider does not": {all(at(signed, []any{map[string]any{"message": "containers/c: key-unusable: OCI Vault does not find key " + soundKey + ": iad"}}, "status,violations"), vaultKey(healthy)), []string{
			"fails: the provider may not read what you may read in OCI: key image-key",
			"-> kubectl oke-sign iam --cluster OCID --workload oke-sign/oke-sign prints the statements",
		}},
		"a key that you do not see either": {all(at(signed, []any{map[string]any{"message": "containers/c: key-unusable: OCI Vault does not find key " + soundKey + ": iad"}}, "status,violations"), vaultKey(func(k *doctor.Key) { k.Key.Missing = true })), []string{
			"holds: the last audit got all answers",
		}},
		"no answer about scans": {all(add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEScannedImages, metadata: {name: scanned}, spec: {}, status: {violations: [{message: 'containers/c: no-answer: late'}]}}")), []string{
			"warns: the last audit got no answer about scans: containers/c: no-answer: late",
			"-> wait for the next audit; then kubectl -n oke-sign logs deployment/oke-sign",
		}},
		"a denial as it should be": {at(signed, []any{map[string]any{"message": "containers/c: key-not-allowed: x"}}, "status,violations"), []string{
			"holds: the last audit got all answers",
		}},
		"a message longer than a line, with an escape sequence": {at(signed, []any{map[string]any{"message": "\x1b[2J: no-answer: " + strings.Repeat("x", 500)}}, "status,violations"), []string{
			"fails: the last audit got no answer: ?[2J: no-answer: " + strings.Repeat("x", 238) + "…",
			"-> kubectl -n oke-sign logs deployment/oke-sign",
		}},
		"violations of hostile shape": {at(signed, []any{"no-answer", int64(1), map[string]any{"message": int64(1)}}, "status,violations"), []string{
			"holds: the last audit got all answers",
		}},
		"a list that is none": {at(signed, "no-answer", "status,violations"), []string{
			"holds: the last audit got all answers",
		}},
		"no audit so far": {at(signed, nil, "status,auditTimestamp"), []string{
			"warns: no audit has finished yet",
			"-> wait a minute, then run kubectl oke-sign doctor again",
		}},
		"no constraint, of which another check tells": {all(gone(signed), gone(glass)), nil},
		"nodes sign in for the provider": {all(at(signed, []any{map[string]any{"message": "containers/c: not-covered: x"}}, "status,violations"), auth("instance_principal")), []string{
			"warns: the provider does not find an image that runs: containers/c: not-covered: x",
			"-> kubectl oke-sign iam prints the statements; they are for the dynamic group of the nodes; for another tenancy give the provider --tenancy",
		}},
		"nobody knows how the provider signs in": {all(at(signed, []any{map[string]any{"message": "containers/c: not-covered: x"}}, "status,violations"), auth("other")), []string{
			"warns: the provider does not find an image that runs: containers/c: not-covered: x",
			"-> kubectl oke-sign iam prints the statements for the provider; for another tenancy give the provider --tenancy",
		}},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestAuditListsAll(t *testing.T) {
	told(t, "audit lists all", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: every violation",
		}},
		"a list that is cut": {at(signed, int64(101), "status,totalViolations"), []string{
			"warns: OKESignedImages/signed has 101 violations, and the audit lists 0 of them",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set constraintViolationsLimit=500",
		}},
		"a list that is cut far below": {all(at(signed, int64(1200), "status,totalViolations"), at(signed, []any{map[string]any{"message": "a"}, map[string]any{"message": "b"}}, "status,violations")), []string{
			"warns: OKESignedImages/signed has 1200 violations, and the audit lists 2 of them",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set constraintViolationsLimit=1200",
		}},
		"a list that is whole": {all(at(signed, int64(1), "status,totalViolations"), at(signed, []any{map[string]any{"message": "a"}}, "status,violations")), []string{
			"holds: every violation",
		}},
		"a total that is none": {at(signed, "many", "status,totalViolations"), nil},
		"no total":             {at(signed, nil, "status,totalViolations"), nil},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestOKEPolicy(t *testing.T) {
	told(t, "OKE image policy", map[string]row{
		"nothing says which cluster it is": {sound, []string{
			"skipped: the kubeconfig does not name an OKE cluster, so the OKE image policy was not checked",
			"-> kubectl oke-sign doctor --cluster OCID checks it",
		}},
		"off": {okePolicy(false), []string{
			"holds: off",
		}},
		"on, and ours refuses nothing": {all(okePolicy(true), at(signed, "warn", "spec,enforcementAction")), []string{
			"holds: on, and oke-sign denies nothing",
		}},
		"on, with the same keys": {okePolicy(true, soundKey), []string{
			"warns: on as well: a Pod must satisfy both; both list the same keys",
			"-> disable one of them when you trust the other: kubectl oke-sign cluster-policy disable --cluster ocid1.cluster.oc1.iad.aaaaaaaaprod",
		}},
		"on, with another key": {okePolicy(true, otherKey), []string{
			"warns: on as well: a Pod must satisfy both; only OKE's lists …v3t6jother, and only ours …v3t6jcf64a",
			"-> disable one of them when you trust the other: kubectl oke-sign cluster-policy disable --cluster ocid1.cluster.oc1.iad.aaaaaaaaprod",
		}},
		"on, with one key more": {okePolicy(true, soundKey, otherKey), []string{
			"warns: on as well: a Pod must satisfy both; only OKE's lists …v3t6jother",
			"-> disable one of them when you trust the other: kubectl oke-sign cluster-policy disable --cluster ocid1.cluster.oc1.iad.aaaaaaaaprod",
		}},
		"on, with one key less": {all(okePolicy(true, soundKey), at(signed, []any{soundKey, otherKey}, "spec,parameters,keys")), []string{
			"warns: on as well: a Pod must satisfy both; only ours lists …v3t6jother",
			"-> disable one of them when you trust the other: kubectl oke-sign cluster-policy disable --cluster ocid1.cluster.oc1.iad.aaaaaaaaprod",
		}},
		"on, without a key": {okePolicy(true), []string{
			"warns: on as well: a Pod must satisfy both; OKE's lists no key, and admits every image of OCI Registry",
			"-> disable one of them when you trust the other: kubectl oke-sign cluster-policy disable --cluster ocid1.cluster.oc1.iad.aaaaaaaaprod",
		}},
		"it may not be read": {unread("oke", errors.New("reading cluster x: 404")), []string{
			"unknown: reading cluster x: 404",
			"-> check --cluster, and that a policy lets you `read clusters`",
		}},
	})
}

func TestWhatRunsMayRun(t *testing.T) {
	told(t, "running images", map[string]row{
		"nothing runs": {sound, []string{
			"holds: 0 images",
		}},
		"images that may run": {all(running("iad.ocir.io/idwpqivumvev/a@sha256:00", simulate.AllowedImage, verdict.Signed), running("docker.io/b", simulate.WarnedImage, verdict.ImageNotFound)), []string{
			"holds: 2 images",
		}},
		"an image that is refused": {running("iad.ocir.io/idwpqivumvev/a@sha256:00", simulate.DeniedImage, verdict.KeyNotAllowed), []string{
			"warns: 1 image would be denied when their Pods restart: iad.ocir.io/idwpqivumvev/a",
			"-> kubectl oke-sign status -A",
		}},
		"an image of another tenancy": {running("iad.ocir.io/oracle/a@sha256:00", simulate.DeniedImage, verdict.NotCovered), []string{
			"warns: 1 image from other tenancies would be denied when their Pods restart: iad.ocir.io/oracle/a",
			"-> give the provider --tenancy if the tenancy is yours; or copy and sign the images; or exempt them: exemptImages: [iad.ocir.io/oracle/a]",
		}},
		"both": {all(running("iad.ocir.io/idwpqivumvev/a:1", simulate.DeniedImage, verdict.KeyNotAllowed), running("iad.ocir.io/oracle/b@sha256:00", simulate.DeniedImage, verdict.NotCovered)), []string{
			"warns: 1 image from other tenancies would be denied when their Pods restart: iad.ocir.io/oracle/b",
			"-> give the provider --tenancy if the tenancy is yours; or copy and sign the images; or exempt them: exemptImages: [iad.ocir.io/oracle/b]",
			"warns: 1 image would be denied when their Pods restart: iad.ocir.io/idwpqivumvev/a:1",
			"-> kubectl oke-sign status -A",
		}},
		"a name longer than a line, with an escape sequence": {running("\x1b[2J"+strings.Repeat("x", 500), simulate.DeniedImage, verdict.KeyNotAllowed), []string{
			"warns: 1 image would be denied when their Pods restart: ?[2J" + strings.Repeat("x", 295) + "…",
			"-> kubectl oke-sign status -A",
		}},
		"what runs could not be read": {unread("running", broken), []string{
			"unknown: Internal error occurred: etcd is gone",
			"-> try again; if it stays, fix the cause that the error names",
		}},
	})
}
