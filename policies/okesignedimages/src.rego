# Images of OCI Registry run only when the provider vouches that one of the listed
# keys of OCI Vault signed exactly this image.
package okesignedimages

import data.lib.answers
import data.lib.fetch
import data.lib.images
import data.lib.message
import data.lib.names

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.judged
	not signed(image)
	not settled(image)
}

violation contains problem if some problem in images.unreadable

# With report, a policy without keys lists what only the want of keys lets in.
violation contains message.violation(images.place(image), "no-key-listed", detail, image.ref) if {
	input.parameters.report == true
	some image in images.judged
	any_key(image)
	not names.exempt(image)
	not names.broken_glass(image)
	detail := "admitted whoever signed it, or nobody: the policy lists no key"
}

# What follows needs no verdict. Nothing settles an ambiguous reference.
settled(image) if names.exempt(image)

settled(image) if {
	input.parameters.otherRegistries == "Allow"
	names.other_registry(image)
}

settled(image) if names.broken_glass(image)

settled(image) if any_key(image)

# Only a literal [] means any image of OCI Registry. Keys that are missing, null or
# misspelt mean none.
any_key(image) if {
	input.parameters.keys == []
	names.oci_registry(image)
}

# signed holds for a plain yes on exactly this image and these keys.
signed(image) if values[questions[image.ref]].signed == true

values := answers.values(answer)

errors := answers.errors(answer)

default answer := {}

answer := fetch.answers(provider, sort([question | some question in questions])) if count(questions) > 0

provider := object.get(input.parameters, "provider", "oke-sign")

# The keys are part of the question because Gatekeeper caches answers by question:
# two policies must not share a verdict. Questions are made by reference, and not by
# image, so that an image that stands in many containers is asked about once.
questions := {image.ref: json.marshal({"image": image.ref, "keys": keys}) |
	some image in images.judged
	image.ref in names.pinned
	names.of[image.ref].class == "oci-registry"
	not settled(image)
}

# keys are a set, which json.marshal writes in order and each key once. The provider
# rejects a question whose keys are in another order (provider/server), since it would
# be a second name for the same answer. One key that is no string leaves keys
# undefined, and then nothing is signed.
keys := {key | some key in input.parameters.keys} if {
	is_array(input.parameters.keys)
	every key in input.parameters.keys {
		is_string(key)
	}
}

# From here on everything is said and nothing decided.
default reason(_) := "no-answer"

reason(image) := names.fault(image).reason if {
	names.fault(image)
} else := "not-oci-registry" if {
	names.other_registry(image)
} else := "no-keys" if {
	not keys
} else := "no-digest" if {
	not image.ref in names.pinned
} else := denial(image).reason

default detail(_) := "refused by the provider"

detail(image) := names.fault(image).detail if {
	names.fault(image)
} else := explanations[reason(image)] if {
	explanations[reason(image)]
} else := sprintf("could not find out whether it is signed, from provider %v: %v", [provider, answers.cause(answer, values, errors, questions[image.ref])]) if {
	reason(image) == "no-answer"
} else := replace(denial(image).detail, "…", "..")

explanations := {
	"not-oci-registry": "this policy admits images of OCI Registry only (otherRegistries: Deny)",
	"no-keys": "the policy has no readable parameters.keys; [] would admit any image of OCI Registry",
	"no-digest": "a tag may move after the check; pin it with kubectl oke-sign pin",
}

# denial is a verdict that is a plain no, with a reason fit to be shown.
denial(image) := value if {
	value := values[questions[image.ref]]
	value.signed == false
	answers.word(value.reason)
	value.reason != "signed"
}
