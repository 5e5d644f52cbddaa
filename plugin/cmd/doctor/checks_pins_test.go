package doctor_test

import "testing"

func TestTagsArePinned(t *testing.T) {
	told(t, "tags are pinned", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: by 1 rule",
		}},
		"no rule": {gone(pin), nil},
		"no webhook": {gone(mutation), []string{
			"warns: the webhook mutation.gatekeeper.sh is not there: no tag is pinned, and Pods are refused for theirs",
			"-> helm upgrade gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --reuse-values --set disableMutation=false",
		}},
		"another webhook": {at(mutation, "other", "webhooks,0,name"), []string{
			"warns: the webhook mutation.gatekeeper.sh is not there: no tag is pinned, and Pods are refused for theirs",
			"-> helm upgrade gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --reuse-values --set disableMutation=false",
		}},
		"a rule that refuses without an answer": {at(pin, "Fail", "spec,parameters,assign,externalData,failurePolicy"), []string{
			"warns: Assign/pin refuses Pods while the provider has no answer, also under break-glass and whatever the policy's mode",
			`-> kubectl patch assign pin --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`,
		}},
		"a rule that uses a default without an answer": {at(pin, "UseDefault", "spec,parameters,assign,externalData,failurePolicy"), []string{
			"warns: Assign/pin refuses Pods while the provider has no answer, also under break-glass and whatever the policy's mode",
			`-> kubectl patch assign pin --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`,
		}},
		"a rule with an error": {at(pin, []any{map[string]any{"errors": []any{map[string]any{"message": "conflict"}}}}, "status,byPod"), []string{
			"warns: Gatekeeper cannot use Assign/pin: conflict",
			"-> kubectl get assign pin -o yaml",
		}},
		"a rule of hostile shape": {at(pin, "oke-sign-digests", "spec,parameters,assign,externalData"), nil},
		"no Provider": {gone(digests), []string{
			"warns: there is no Provider oke-sign-digests, which Assign/pin asks: no tag is pinned, and Pods are refused for theirs",
			"-> install the provider with the chart oke-sign",
		}},
		"a Provider that leads elsewhere": {at(digests, "https://oke-sign.oke-sign.svc:8443/v1/signatures", "spec,url"), []string{
			"warns: oke-sign-digests leads to /v1/signatures, and what tags point to is answered under /v1/digests: no tag is pinned, and Pods are refused for theirs",
			`-> kubectl patch provider oke-sign-digests --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/digests"}}'`,
		}},
		"a Provider without time-out": {at(digests, nil, "spec,timeout"), []string{
			"warns: oke-sign-digests has no time-out, which Gatekeeper takes for 0: every question fails at once",
			`-> kubectl patch provider oke-sign-digests --type merge -p '{"spec":{"timeout":1}}'`,
		}},
		"a Provider of another name": {all(func(w *world) {
			w.Objects["Provider/own"] = w.Objects[digests]
			w.Objects["Provider/own"].SetName("own")
			delete(w.Objects, digests)
		}, at(pin, "own", "spec,parameters,assign,externalData,provider"), at("Provider/own", int64(3), "spec,timeout")), []string{
			"warns: own has a time-out of 3 s, and the webhook one of 3 s: a slow answer ends the webhook, not the question",
			`-> kubectl patch provider own --type merge -p '{"spec":{"timeout":1}}'`,
		}},
		"two rules that ask one Provider": {all(add("{apiVersion: mutations.gatekeeper.sh/v1, kind: Assign, metadata: {name: second}, spec: {parameters: {assign: {externalData: {provider: oke-sign-digests, failurePolicy: Ignore}}}}}"), at(digests, nil, "spec,timeout")), []string{
			"warns: oke-sign-digests has no time-out, which Gatekeeper takes for 0: every question fails at once",
			`-> kubectl patch provider oke-sign-digests --type merge -p '{"spec":{"timeout":1}}'`,
		}},
		"rules may not be listed": {unread("Assign", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> you need the right to read it",
		}},
		"Providers may not be listed": {all(unread("Provider", forbidden)), []string{
			"unknown: objects is forbidden: you may not",
			"-> you need the right to read it",
		}},
		"the webhook may not be read": {unread("MutatingWebhookConfiguration", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> you need the right to read it",
		}},
	})
}
