package doctor_test

import "testing"

func TestBreakGlassIsHeld(t *testing.T) {
	told(t, "break-glass is limited", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: by 1 constraint",
		}},
		"no rules": {gone(glass), []string{
			"warns: no constraint of kind OKEBreakGlass: anybody who may create a Pod may use break-glass, without a reason and without an end",
			"-> kubectl oke-sign policy set --break-glass-group GROUP",
		}},
		"no rules, and the policy ignores the annotation": {all(gone(glass), at(signed, "Ignore", "spec,parameters,breakGlass")), []string{
			"holds: the policy ignores the annotation",
		}},
		"no rules, and only the constraint on digests honours it": {all(gone(glass), at(signed, "Ignore", "spec,parameters,breakGlass"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEImageDigests, metadata: {name: digests}, spec: {match: {kinds: [{apiGroups: [''], kinds: [Pod]}]}, parameters: {}}, status: {byPod: [{id: a, enforced: true}]}}")), []string{
			"warns: no constraint of kind OKEBreakGlass: anybody who may create a Pod may use break-glass, without a reason and without an end",
			"-> kubectl oke-sign policy set --break-glass-group GROUP",
		}},
		"no rules, and nothing is enforced": {all(gone(glass), at(signed, "warn", "spec,enforcementAction")), []string{
			"holds: the policy ignores the annotation",
		}},
		"rules that only warn": {at(glass, "warn", "spec,enforcementAction"), []string{
			"fails: OKEBreakGlass/glass denies nobody",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"enforcementAction":"deny"}}'`,
		}},
		"rules that only report": {at(glass, true, "spec,parameters,report"), []string{
			"warns: no constraint of kind OKEBreakGlass: anybody who may create a Pod may use break-glass, without a reason and without an end",
			"-> kubectl oke-sign policy set --break-glass-group GROUP",
		}},
		"rules that only report beside rules that deny": {add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {enforcementAction: dryrun, parameters: {users: [alice]}}}"), []string{
			"holds: by 1 constraint",
		}},
		"no end": {at(glass, nil, "spec,parameters,maxDuration"), []string{
			"warns: OKEBreakGlass/glass sets no maxDuration: scaling an old ReplicaSet starts its Pods under break-glass again, at any time",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"maxDuration":"8h"}}}'`,
		}},
		"tags": {at(glass, false, "spec,parameters,requireDigest"), []string{
			"warns: OKEBreakGlass/glass does not require digests: a Pod under break-glass runs whatever image its tag names when it starts",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"requireDigest":true}}}'`,
		}},
		"rules that omit the kind of old Pods": {at(glass, []any{"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"}, "spec,match,kinds,1,kinds"), []string{
			"fails: OKEBreakGlass does not cover ControllerRevision: break-glass is not limited there",
			`-> kubectl patch okebreakglass glass --type json -p '[{"op":"add","path":"/spec/match/kinds/-","value":{"apiGroups":["apps"],"kinds":["ControllerRevision"]}}]'`,
		}},
		"a kind left out": {at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), []string{
			"fails: OKEBreakGlass does not cover CronJob: break-glass is not limited there",
			`-> kubectl patch okebreakglass glass --type json -p '[{"op":"add","path":"/spec/match/kinds/-","value":{"apiGroups":["batch"],"kinds":["CronJob"]}}]'`,
		}},
		"rules that omit a kind, and allow everybody": {all(at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), at(glass, nil, "spec,parameters,groups")), []string{
			"warns: OKEBreakGlass does not cover CronJob: break-glass is not limited there",
			`-> kubectl patch okebreakglass glass --type json -p '[{"op":"add","path":"/spec/match/kinds/-","value":{"apiGroups":["batch"],"kinds":["CronJob"]}}]'`,
		}},
		"a namespace left out": {at(glass, []any{"shop"}, "spec,match,excludedNamespaces"), []string{
			`fails: OKEBreakGlass/glass does not cover all that OKESignedImages/signed covers: not namespaces ["shop"]`,
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"match":{"excludedNamespaces":null}}}'`,
		}},
		"rules that omit a namespace without Gatekeeper": {at(glass, []any{"kube-system", "oke-sign"}, "spec,match,excludedNamespaces"), []string{
			"holds: by 1 constraint",
		}},
		"as narrow as the constraint on images": {all(at(glass, []any{"kube-system", "dev-*"}, "spec,match,excludedNamespaces"), at(signed, []any{"dev-*", "shop"}, "spec,match,excludedNamespaces")), []string{
			"holds: by 1 constraint",
		}},
		"fewer namespaces than the constraint on images": {all(at(glass, []any{"shop"}, "spec,match,namespaces"), at(signed, []any{"shop", "prod"}, "spec,match,namespaces")), []string{
			`fails: OKEBreakGlass/glass does not cover all that OKESignedImages/signed covers: only namespaces ["shop"]`,
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"match":{"namespaces":["shop","prod"]}}}'`,
		}},
		"more namespaces than the constraint on images": {all(at(glass, []any{"sho*", "test"}, "spec,match,namespaces"), at(signed, []any{"shop"}, "spec,match,namespaces")), []string{
			"holds: by 1 constraint",
		}},
		"as wide as one of two constraints on images": {all(at(glass, []any{"shop"}, "spec,match,namespaces"), at(signed, []any{"shop"}, "spec,match,namespaces"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEImageDigests, metadata: {name: digests}, spec: {}}")), []string{
			`fails: OKEBreakGlass/glass does not cover all that OKEImageDigests/digests covers: only namespaces ["shop"]`,
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"match":{"namespaces":null}}}'`,
		}},
		"namespaces by the labels that the constraint on images selects": {all(at(glass, map[string]any{"matchLabels": map[string]any{"env": "prod"}}, "spec,match,namespaceSelector"), at(signed, map[string]any{"matchLabels": map[string]any{"env": "prod"}}, "spec,match,namespaceSelector")), []string{
			"holds: by 1 constraint",
		}},
		"namespaces by other labels": {all(at(glass, map[string]any{"matchLabels": map[string]any{"env": "prod"}}, "spec,match,namespaceSelector"), at(signed, map[string]any{"matchLabels": map[string]any{"env": "test"}}, "spec,match,namespaceSelector")), []string{
			`fails: OKEBreakGlass/glass does not cover all that OKESignedImages/signed covers: only namespaces with {"matchLabels":{"env":"prod"}}, so the owner of a Namespace can exempt it`,
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"match":{"namespaceSelector":{"matchLabels":{"env":"test"}}}}}'`,
		}},
		"Pods by the labels that the constraint on images selects": {all(at(glass, map[string]any{"matchLabels": map[string]any{"app": "web"}}, "spec,match,labelSelector"), at(signed, map[string]any{"matchLabels": map[string]any{"app": "web"}}, "spec,match,labelSelector")), []string{
			`fails: OKEBreakGlass/glass does not cover all that OKESignedImages/signed covers: only objects with {"matchLabels":{"app":"web"}}, and the creator of a Pod chooses its labels`,
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"match":{"labelSelector":null}}}'`,
		}},
		"rules that omit a kind, which a second constraint covers everywhere": {all(at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {match: {kinds: [{apiGroups: [batch], kinds: [CronJob]}]}, parameters: {users: [alice]}}}")), []string{
			"holds: by 2 constraints",
		}},
		"rules that omit a kind, which a second constraint covers in one namespace": {all(at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {match: {namespaces: [shop], kinds: [{apiGroups: [batch], kinds: [CronJob]}]}, parameters: {users: [alice]}}}")), []string{
			"fails: OKEBreakGlass does not cover CronJob: break-glass is not limited there",
			`-> kubectl patch okebreakglass glass --type json -p '[{"op":"add","path":"/spec/match/kinds/-","value":{"apiGroups":["batch"],"kinds":["CronJob"]}}]'`,
		}},
		"a maximum duration in one namespace only": {all(at(glass, nil, "spec,parameters,maxDuration"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {match: {namespaces: [shop]}, parameters: {users: [alice], maxDuration: 8h}}}")), []string{
			"warns: OKEBreakGlass/glass sets no maxDuration: scaling an old ReplicaSet starts its Pods under break-glass again, at any time",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"maxDuration":"8h"}}}'`,
		}},
		"parameters of hostile shape": {at(glass, map[string]any{"groups": "sre", "maxDuration": int64(8), "requireDigest": "true", "report": "true"}, "spec,parameters"), []string{
			"warns: OKEBreakGlass/glass sets no maxDuration: scaling an old ReplicaSet starts its Pods under break-glass again, at any time",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"maxDuration":"8h"}}}'`,
			"warns: OKEBreakGlass/glass does not require digests: a Pod under break-glass runs whatever image its tag names when it starts",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"requireDigest":true}}}'`,
		}},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}
