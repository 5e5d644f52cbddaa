# Answers from a record of verdicts, for gator and conftest, which cannot ask a
# provider. The record is the ConfigMap oke-sign-verdicts, in any namespace; its
# verdicts.json is a list of {"question": {"image", "keys"}, "verdict"}.
package lib.fetch

answers(_, questions) := {
	"responses": [[question, entry.verdict] |
		some entry in records
		question := json.marshal({
			"image": entry.question.image,
			"keys": {key | some key in entry.question.keys},
		})
		question in questions
	],
	"errors": [],
	"status_code": 0,
	"system_error": "no recorded verdict for this image and these keys",
}

# A user is at the other end of an admission request only. There a record would
# be as good as its writer, so it admits nothing.
records contains entry if {
	not input.review.userInfo.username
	some namespace in data.inventory.namespace
	some entry in json.unmarshal(namespace.v1.ConfigMap["oke-sign-verdicts"].data["verdicts.json"])
}
