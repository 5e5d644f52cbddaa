# Images of OCI Registry run only when the provider vouches that one of the listed
# keys of OCI Vault signed exactly this image.
package okesignedimages

import data.lib.breakglass
import data.lib.fetch
import data.lib.images
import data.lib.message
import data.lib.ocir

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.judged
	not admitted(image)
}

violation contains problem if some problem in images.unreadable

# With report, a policy without keys lists what only the want of keys lets in.
violation contains message.violation(images.place(image), "no-key-listed", detail, image.ref) if {
	input.parameters.report == true
	some image in images.judged
	any_key(image)
	not exempt(image)
	not broken_glass(image)
	detail := "admitted whoever signed it, or nobody: the policy lists no key"
}

# Whatever is not admitted by name is a violation.
admitted(image) if settled(image)

admitted(image) if signed(image)

# What follows needs no verdict. Nothing settles a doubtful reference.
settled(image) if exempt(image)

settled(image) if {
	names[image.ref].class == "other"
	input.parameters.otherRegistries == "Allow"
}

settled(image) if broken_glass(image)

settled(image) if any_key(image)

exempt(image) if ocir.exempt(names[image.ref], input.parameters.exemptImages)

broken_glass(image) if {
	names[image.ref].class == "oci-registry"
	object.get(input.parameters, "breakGlass", "Honor") == "Honor"
	breakglass.in_use(image.annotations)
}

names := {image.ref: ocir.read(image.ref) | some image in images.judged}

# Only a literal [] means any image of OCI Registry. Keys that are missing, null or
# misspelt mean none.
any_key(image) if {
	names[image.ref].class == "oci-registry"
	input.parameters.keys == []
}

# A verdict counts only as the one answer to exactly the question asked, without
# an error beside it. The provider may be down, slow, of another version or a
# liar: null, missing, odd and doubled answers are all no answer.
signed(image) if {
	question := questions[image.ref]
	values[question].signed == true
	not question in failed
}

values := {question: value |
	count(answer.responses) == count({question | some [question, _] in answer.responses})
	some [question, value] in answer.responses
}

failed := {question | some [question, _] in answer.errors}

answer := fetch.answers(provider, sort({question | some question in questions})) if count(questions) > 0

provider := object.get(input.parameters, "provider", "oke-sign")

# The keys are part of the question because Gatekeeper remembers answers by
# question: two policies must not share a verdict.
questions := {image.ref: json.marshal({"image": image.ref, "keys": keys}) |
	some image in images.judged
	names[image.ref].class == "oci-registry"
	names[image.ref].digest != ""
	not settled(image)
}

keys := {key | some key in input.parameters.keys} if {
	is_array(input.parameters.keys)
	every key in input.parameters.keys {
		is_string(key)
	}
}

# From here on everything is said and nothing decided.
default reason(_) := "no-answer"

reason(image) := "no-image" if {
	image.ref in {null, ""}
} else := "doubtful" if {
	names[image.ref].class == "doubtful"
} else := "not-oci-registry" if {
	names[image.ref].class == "other"
} else := "no-keys" if {
	not keys
} else := "no-digest" if {
	names[image.ref].digest == ""
} else := denial(image).reason

default detail(_) := "refused by the provider"

detail(image) := names[image.ref].doubt if {
	reason(image) == "doubtful"
} else := explanations[reason(image)] if {
	explanations[reason(image)]
} else := sprintf("could not find out whether it is signed, from provider %v: %v", [provider, cause(image)]) if {
	reason(image) == "no-answer"
} else := replace(denial(image).detail, "…", "..")

explanations := {
	"no-image": "the container or volume names no image",
	"not-oci-registry": "this policy admits images of OCI Registry only (otherRegistries: Deny)",
	"no-keys": "the policy has no readable parameters.keys; [] would admit any image of OCI Registry",
	"no-digest": "a tag may move after the check; pin it with kubectl oke-sign pin",
}

# denial is a verdict that is a plain no, with a reason fit to be shown.
denial(image) := value if {
	value := values[questions[image.ref]]
	value.signed == false
	regex.match(`^[a-z]+(-[a-z]+)*$`, value.reason)
	value.reason != "signed"
	not questions[image.ref] in failed
}

default cause(_) := "no answer"

cause(image) := message.printable(texts, 400) if {
	texts := [text | some [question, text] in answer.errors; question == questions[image.ref]]
	count(texts) > 0
} else := sprintf("not a verdict: %s", [message.printable(values[questions[image.ref]], 120)]) if {
	values[questions[image.ref]]
} else := replace(answer.system_error, "\n", "; ") if {
	answer.system_error != ""
} else := sprintf("no answer about this image (HTTP status %v)", [answer.status_code])
