# Admits an image of OCI Registry only if the provider answers that one of the allowed keys of
# OCI Vault signed exactly this image.
package okesignedimages

import data.lib.answers
import data.lib.externaldata
import data.lib.images
import data.lib.message
import data.lib.ocir
import data.lib.references
import data.lib.regions

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.checked
	not signed(image)
	not admitted_unverified(image)
	not revoked(image)
}

violation contains message.violation(images.place(image), "revoked", concat("; ", sort(revocations(image))), image.ref) if {
	some image in images.checked
	revoked(image)
}

violation contains problem if some problem in images.violations

# With report, a policy without keys lists each image that it admits without a check.
violation contains message.violation(images.place(image), "no-key-listed", detail, image.ref) if {
	input.parameters.report == true
	some image in images.checked
	any_key(image)
	not revoked(image)
	not references.exempt(image)
	not references.under_break_glass(image)
	detail := "admitted without a check of its signature: the policy lists no key"
}

# admitted_unverified holds for an image that needs no verdict. It never holds for an ambiguous
# reference.
admitted_unverified(image) if references.exempt(image)

admitted_unverified(image) if {
	input.parameters.otherRegistries == "Allow"
	references.other_registry(image)
}

admitted_unverified(image) if references.under_break_glass(image)

admitted_unverified(image) if any_key(image)

# any_key holds for a literal [], which admits any image of OCI Registry. Keys that are missing,
# null or misspelt admit none.
any_key(image) if {
	input.parameters.keys == []
	references.oci_registry(image)
}

# revoked holds for an image that the policy forbids by its digest. Signatures, exemptions and
# break-glass do not count then. A tag cannot be compared with a digest.
revoked(image) if {
	references.classified[image.ref].class != "ambiguous"
	count(revocations(image)) > 0
}

# revocations are the reasons for which an image is revoked.
revocations(image) := object.get(revoked_digests, name.digest, set()) | object.get(revoked_images, repository_and_digest(name), set()) if {
	count(input.parameters.revoked) > 0
	name := ocir.parse(image.ref)
}

revoked_digests[entry.digest] contains reason_of(entry) if some entry in input.parameters.revoked

revoked_images[repository_and_digest(name)] contains reason_of(entry) if {
	some entry in input.parameters.revoked
	name := ocir.parse(entry.image)
	name.digest != ""
}

reason_of(entry) := message.printable(object.get(entry, "reason", null), 200)

# repository_and_digest treats all hosts of OCI Registry as one. Each region has several
# hosts, and a copy in another region has the same bytes.
repository_and_digest(name) := concat("", ["OCI Registry/", name.path, "@", name.digest]) if {
	name.host in regions.hosts
} else := concat("", [name.host, "/", name.path, "@", name.digest])

# signed holds if the verdict on exactly this image and these keys says so.
signed(image) if verdicts[questions[image.ref]].signed == true

verdicts := answers.by_question(answer)

errors := answers.errors_by_question(answer)

default answer := {}

answer := externaldata.answers(provider, sort([question | some question in questions])) if count(questions) > 0

provider := object.get(input.parameters, "provider", "oke-sign")

# questions maps each reference to its question. The keys are part of the question because
# Gatekeeper caches answers by question, and two policies must not share a verdict. An image
# that many containers use is asked about once.
questions := {image.ref: json.marshal({"image": image.ref, "keys": keys}) |
	some image in images.checked
	image.ref in references.pinned
	references.classified[image.ref].class == "oci-registry"
	not admitted_unverified(image)
	not revoked(image)
}

# keys is a set: json.marshal writes it sorted, each key once. The provider rejects a question
# with its keys in another order (provider/server), since the same answer would have two
# names. If any key is not a string, keys is undefined and no image is signed.
keys := {key | some key in input.parameters.keys} if {
	is_array(input.parameters.keys)
	every key in input.parameters.keys {
		is_string(key)
	}
}

# The rules below only word the denial.
default reason(_) := "no-answer"

reason(image) := references.invalid_reference(image).reason if {
	references.invalid_reference(image)
} else := "not-oci-registry" if {
	references.other_registry(image)
} else := "no-keys" if {
	not keys
} else := "no-digest" if {
	not image.ref in references.pinned
} else := denial(image).reason

default detail(_) := "denied by the provider"

detail(image) := references.invalid_reference(image).detail if {
	references.invalid_reference(image)
} else := details[reason(image)] if {
	details[reason(image)]
} else := sprintf("could not find out whether it is signed, from provider %v: %v", [provider, answers.error_detail(answer, verdicts, errors, questions[image.ref])]) if {
	reason(image) == "no-answer"
} else := replace(denial(image).detail, "…", "..")

details := {
	"not-oci-registry": "this policy admits images of OCI Registry only (otherRegistries: Deny); copy it there, or list it in exemptImages",
	"no-keys": "the policy has no valid parameters.keys; list the keys, since [] would admit any image of OCI Registry",
	"no-digest": "a tag may move after the check; pin it with kubectl oke-sign pin",
}

# denial is a verdict that says no, with a valid reason.
denial(image) := verdict if {
	verdict := verdicts[questions[image.ref]]
	verdict.signed == false
	answers.valid_reason(verdict.reason)
	verdict.reason != "signed"
}
