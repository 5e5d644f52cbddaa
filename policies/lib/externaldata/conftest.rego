# Gets answers for conftest: from recorded verdicts if they are given as data, otherwise from
# a running provider, over HTTPS. The record is the ConfigMap that kubectl oke-sign verdicts
# writes. data.oke_sign.providers has the providers by name: url, and ca, cert and key as PEM.
package lib.externaldata

answers(provider, questions) := {
	"responses": [[question, entry.verdict] |
		some entry in json.unmarshal(data.data["verdicts.json"])
		question := json.marshal(object.union(entry.question, sorted_keys(entry.question)))
		question in questions
	],
	"errors": [],
	"status_code": 0,
	"system_error": "no recorded verdict for this question",
} if {
	data.data["verdicts.json"]
} else := {
	"responses": [[item.key, item.value] | some item in items; not failed(item)],
	"errors": [[item.key, item.error] | some item in items; failed(item)],
	"status_code": reply.status_code,
	"system_error": system_error,
} if {
	reply := post(data.oke_sign.providers[provider], questions)
	items := object.get(reply, ["body", "response", "items"], [])
	system_error := object.get(
		reply, ["body", "response", "systemError"],
		object.get(reply, ["error", "message"], ""),
	)
}

# sorted_keys returns the keys of a recorded question as the policy asks for them: sorted,
# each once.
sorted_keys(question) := {"keys": {key | some key in question.keys}} if {
	question.keys
} else := {}

post(provider, questions) := http.send({
	"method": "POST",
	"url": provider.url,
	"headers": {"Content-Type": "application/json"},
	"body": {
		"apiVersion": "externaldata.gatekeeper.sh/v1beta1",
		"kind": "ProviderRequest",
		"request": {"keys": questions},
	},
	"tls_ca_cert": provider.ca,
	"tls_client_cert": provider.cert,
	"tls_client_key": provider.key,
	"timeout": "10s",
	"enable_redirect": false,
	"raise_error": false,
})

failed(item) if item.error != ""
