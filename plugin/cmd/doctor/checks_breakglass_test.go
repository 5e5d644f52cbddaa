package doctor_test

import "testing"

func TestBreakGlassIsHeld(t *testing.T) {
	told(t, "break-glass is held", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: by 1 constraint",
		}},
		"no rules": {gone(glass), []string{
			"warns: anybody who may make a Pod may lift the policy with an annotation, without a reason or an end",
			"-> kubectl apply -f a constraint of kind OKEBreakGlass",
		}},
		"no rules, and the policy ignores the annotation": {all(gone(glass), at(signed, "Ignore", "spec,parameters,breakGlass")), []string{
			"holds: the policy ignores the annotation",
		}},
		"no rules, and only the constraint on digests honours it": {all(gone(glass), at(signed, "Ignore", "spec,parameters,breakGlass"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEImageDigests, metadata: {name: digests}, spec: {match: {kinds: [{apiGroups: [''], kinds: [Pod]}]}, parameters: {}}, status: {byPod: [{id: a, enforced: true}]}}")), []string{
			"warns: anybody who may make a Pod may lift the policy with an annotation, without a reason or an end",
			"-> kubectl apply -f a constraint of kind OKEBreakGlass",
		}},
		"no rules, and nothing is enforced": {all(gone(glass), at(signed, "warn", "spec,enforcementAction")), []string{
			"holds: the policy ignores the annotation",
		}},
		"rules that only warn": {at(glass, "warn", "spec,enforcementAction"), []string{
			"fails: OKEBreakGlass/glass refuses nobody",
			"-> set enforcementAction: deny in it",
		}},
		"rules that only report": {at(glass, true, "spec,parameters,report"), []string{
			"warns: anybody who may make a Pod may lift the policy with an annotation, without a reason or an end",
			"-> kubectl apply -f a constraint of kind OKEBreakGlass",
		}},
		"rules that are tried beside those that refuse": {add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {enforcementAction: dryrun, parameters: {users: [alice]}}}"), []string{
			"holds: by 1 constraint",
		}},
		"no end": {at(glass, nil, "spec,parameters,maxDuration"), []string{
			"warns: OKEBreakGlass/glass sets no maxDuration: whoever may scale an old ReplicaSet starts its Pods under break-glass again, at any time",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"maxDuration":"8h"}}}'`,
		}},
		"tags": {at(glass, false, "spec,parameters,requireDigest"), []string{
			"warns: OKEBreakGlass/glass does not require digests: a Pod under break-glass runs what its tag names when the Pod starts",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"requireDigest":true}}}'`,
		}},
		"the kind of old Pods left out": {at(glass, []any{"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"}, "spec,match,kinds,1,kinds"), []string{
			"fails: OKEBreakGlass is not about ControllerRevision: the annotation gets in through them",
			"-> add the kinds to spec.match.kinds",
		}},
		"a kind left out": {at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), []string{
			"fails: OKEBreakGlass is not about CronJob: the annotation gets in through them",
			"-> add the kinds to spec.match.kinds",
		}},
		"a kind left out, and anybody may": {all(at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), at(glass, nil, "spec,parameters,groups")), []string{
			"warns: OKEBreakGlass is not about CronJob: the annotation gets in through them",
			"-> add the kinds to spec.match.kinds",
		}},
		"a namespace left out": {at(glass, []any{"shop"}, "spec,match,excludedNamespaces"), []string{
			`fails: OKEBreakGlass/glass leaves something out: not namespaces ["shop"]`,
			"-> remove it from spec.match",
		}},
		"a kind left out, and a second constraint has it everywhere": {all(at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {match: {kinds: [{apiGroups: [batch], kinds: [CronJob]}]}, parameters: {users: [alice]}}}")), []string{
			"holds: by 2 constraints",
		}},
		"a kind left out, and a second constraint has it in one namespace": {all(at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {match: {namespaces: [shop], kinds: [{apiGroups: [batch], kinds: [CronJob]}]}, parameters: {users: [alice]}}}")), []string{
			"fails: OKEBreakGlass is not about CronJob: the annotation gets in through them",
			"-> add the kinds to spec.match.kinds",
		}},
		"an end in one namespace only": {all(at(glass, nil, "spec,parameters,maxDuration"), add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: second}, spec: {match: {namespaces: [shop]}, parameters: {users: [alice], maxDuration: 8h}}}")), []string{
			"warns: OKEBreakGlass/glass sets no maxDuration: whoever may scale an old ReplicaSet starts its Pods under break-glass again, at any time",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"maxDuration":"8h"}}}'`,
		}},
		"parameters of hostile shape": {at(glass, map[string]any{"groups": "sre", "maxDuration": int64(8), "requireDigest": "true", "report": "true"}, "spec,parameters"), []string{
			"warns: OKEBreakGlass/glass sets no maxDuration: whoever may scale an old ReplicaSet starts its Pods under break-glass again, at any time",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"maxDuration":"8h"}}}'`,
			"warns: OKEBreakGlass/glass does not require digests: a Pod under break-glass runs what its tag names when the Pod starts",
			`-> kubectl patch okebreakglass glass --type merge -p '{"spec":{"parameters":{"requireDigest":true}}}'`,
		}},
		"constraints may not be listed": {unread("constraints", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> you need the right to read it",
		}},
	})
}
