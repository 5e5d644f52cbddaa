# Answers from a running provider, asked directly, for conftest. Where it is and
# how to be let in stands in data.oke_sign.provider: url, and as PEM ca, cert, key.
package lib.fetch

answers(_, questions) := {
	"responses": [[item.key, item.value] | some item in items; not failed(item)],
	"errors": [[item.key, item.error] | some item in items; failed(item)],
	"status_code": reply.status_code,
	"system_error": system_error,
} if {
	reply := http.send({
		"method": "POST",
		"url": data.oke_sign.provider.url,
		"headers": {"Content-Type": "application/json"},
		"body": {
			"apiVersion": "externaldata.gatekeeper.sh/v1beta1",
			"kind": "ProviderRequest",
			"request": {"keys": questions},
		},
		"tls_ca_cert": data.oke_sign.provider.ca,
		"tls_client_cert": data.oke_sign.provider.cert,
		"tls_client_key": data.oke_sign.provider.key,
		"timeout": "10s",
		"enable_redirect": false,
		"raise_error": false,
	})
	items := object.get(reply, ["body", "response", "items"], [])
	system_error := object.get(
		reply, ["body", "response", "systemError"],
		object.get(reply, ["error", "message"], ""),
	)
}

failed(item) if item.error != ""
