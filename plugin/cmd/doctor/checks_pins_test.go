package doctor_test

import "testing"

func TestTagsArePinned(t *testing.T) {
	told(t, "tags are pinned", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: by 1 rule",
		}},
		"no rule": {gone(pin), nil},
		"no webhook": {gone(mutation), []string{
			"warns: the webhook mutation.gatekeeper.sh does not exist: no tag is pinned, and Pods with tags are denied",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set disableMutation=false",
		}},
		"another webhook": {at(mutation, "other", "webhooks,0,name"), []string{
			"warns: the webhook mutation.gatekeeper.sh does not exist: no tag is pinned, and Pods with tags are denied",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set disableMutation=false",
		}},
		"a rule that refuses without an answer": {at(pin, "Fail", "spec,parameters,assign,externalData,failurePolicy"), []string{
			"warns: Assign/pin denies Pods while the provider does not answer, in every mode of the policy and under break-glass",
			`-> kubectl patch assign pin --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`,
		}},
		"a rule that uses a default without an answer": {at(pin, "UseDefault", "spec,parameters,assign,externalData,failurePolicy"), []string{
			"warns: Assign/pin denies Pods while the provider does not answer, in every mode of the policy and under break-glass",
			`-> kubectl patch assign pin --type merge -p '{"spec":{"parameters":{"assign":{"externalData":{"failurePolicy":"Ignore"}}}}}'`,
		}},
		"a rule with an error": {at(pin, []any{map[string]any{"errors": []any{map[string]any{"message": "conflict"}}}}, "status,byPod"), []string{
			"warns: Gatekeeper cannot use Assign/pin: conflict",
			"-> kubectl get assign pin -o yaml",
		}},
		"a rule of hostile shape": {at(pin, "oke-sign-digests", "spec,parameters,assign,externalData"), nil},
		"no Provider": {gone(digests), []string{
			"warns: Assign/pin asks the Provider oke-sign-digests, which does not exist: no tag is pinned, and Pods with tags are denied",
			"-> install the provider with the chart oke-sign",
		}},
		"a Provider that leads elsewhere": {at(digests, "https://oke-sign.oke-sign.svc:8443/v1/signatures", "spec,url"), []string{
			"warns: oke-sign-digests has the path /v1/signatures, and the provider resolves tags at /v1/digests: no tag is pinned, and Pods with tags are denied",
			`-> kubectl patch provider oke-sign-digests --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/digests"}}'`,
		}},
		"a Provider without time-out": {at(digests, nil, "spec,timeout"), []string{
			"warns: oke-sign-digests has no time-out, so every request fails at once",
			`-> kubectl patch provider oke-sign-digests --type merge -p '{"spec":{"timeout":1}}'`,
		}},
		"a Provider of another name": {all(func(w *world) {
			w.Objects["Provider/own"] = w.Objects[digests]
			w.Objects["Provider/own"].SetName("own")
			delete(w.Objects, digests)
		}, at(pin, "own", "spec,parameters,assign,externalData,provider"), at("Provider/own", int64(3), "spec,timeout")), []string{
			"warns: the time-out of own is 3 s, and the webhook's is 3 s: a slow answer ends the webhook's call without a reason",
			`-> kubectl patch provider own --type merge -p '{"spec":{"timeout":1}}'`,
		}},
		"two rules that ask one Provider": {all(add("{apiVersion: mutations.gatekeeper.sh/v1, kind: Assign, metadata: {name: second}, spec: {parameters: {assign: {externalData: {provider: oke-sign-digests, failurePolicy: Ignore}}}}}"), at(digests, nil, "spec,timeout")), []string{
			"warns: oke-sign-digests has no time-out, so every request fails at once",
			`-> kubectl patch provider oke-sign-digests --type merge -p '{"spec":{"timeout":1}}'`,
		}},
		"rules may not be listed": {unread("Assign", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"Providers may not be listed": {all(unread("Provider", forbidden)), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"the webhook may not be read": {unread("MutatingWebhookConfiguration", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}
