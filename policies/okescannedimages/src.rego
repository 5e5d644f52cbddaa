# Images of OCI Registry run only when a scan of exactly this image is known, is
# new enough, and found nothing as bad as the policy forbids.
package okescannedimages

import data.lib.answers
import data.lib.fetch
import data.lib.images
import data.lib.message
import data.lib.names

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.judged
	not clean(image)
	not settled(image)
}

violation contains problem if some problem in images.unreadable

# What follows needs no scan. Nothing settles an ambiguous reference.
settled(image) if names.exempt(image)

settled(image) if {
	input.parameters.otherRegistries == "Allow"
	names.other_registry(image)
}

settled(image) if names.broken_glass(image)

clean(image) if {
	harmless(scan(image))
	young(scan(image))
}

# unknown: Allow lets pass what the provider says there is no scan of, or an old one
# only. That the provider says nothing is not the same.
clean(image) if {
	input.parameters.unknown == "Allow"
	harmless(scan(image))
}

clean(image) if {
	input.parameters.unknown == "Allow"
	unknown(scan(image))
}

# harmless is a scan in which every problem that the policy forbids is ignored by
# its id. All problems are counted, and perhaps not all listed: what is not listed
# cannot be ignored.
harmless(found) if {
	read(found)
	every severity in forbidden {
		found.counts[severity] == count({problem.id | some problem in found.problems; problem.severity == severity})
	}
	every problem in found.problems {
		tolerable(problem)
	}
}

tolerable(problem) if problem.severity in tolerated

tolerable(problem) if problem.id in input.parameters.ignore

# read holds for a scan that says when it was made and what it found.
read(found) if {
	found.known == true
	time.parse_rfc3339_ns(found.scannedAt)
	is_array(found.problems)
	every severity in forbidden {
		is_number(found.counts[severity])
	}
}

# A scan from the future is as odd as an old one.
young(found) if {
	age := time.now_ns() - time.parse_rfc3339_ns(found.scannedAt)
	abs(age) <= time.parse_duration_ns(object.get(input.parameters, "maxAge", "720h"))
}

unknown(found) if {
	found.known == false
	answers.word(found.reason)
}

severities := ["CRITICAL", "HIGH", "MEDIUM", "LOW"]

# A severity that does not exist forbids everything.
default forbidden := ["CRITICAL", "HIGH", "MEDIUM", "LOW", "NONE"]

forbidden := array.slice(severities, 0, i + 1) if severities[i] == least

least := object.get(input.parameters, "maxSeverity", "HIGH")

tolerated := {severity | some severity in array.concat(severities, ["NONE"]); not severity in forbidden}

scan(image) := values[questions[image.ref]]

values := answers.values(answer)

errors := answers.errors(answer)

default answer := {}

answer := fetch.answers(provider, sort([question | some question in questions])) if count(questions) > 0

provider := object.get(input.parameters, "provider", "oke-sign-scans")

# Nothing of the policy is in the question: the answer says what was found, and
# what that means is decided here.
questions := {image.ref: json.marshal({"image": image.ref}) |
	some image in images.judged
	image.ref in names.pinned
	names.of[image.ref].class == "oci-registry"
	not settled(image)
}

# From here on everything is said and nothing decided.
default reason(_) := "no-answer"

reason(image) := names.fault(image).reason if {
	names.fault(image)
} else := "not-oci-registry" if {
	names.other_registry(image)
} else := "no-digest" if {
	not image.ref in names.pinned
} else := scan(image).reason if {
	unknown(scan(image))
} else := "scan-too-old" if {
	harmless(scan(image))
} else := "problems" if {
	read(scan(image))
}

default detail(_) := "no usable scan of this image is known"

detail(image) := names.fault(image).detail if {
	names.fault(image)
} else := explanations[reason(image)] if {
	explanations[reason(image)]
} else := sprintf("scanned at %v, and maxAge is %v", [scan(image).scannedAt, object.get(input.parameters, "maxAge", "720h")]) if {
	reason(image) == "scan-too-old"
} else := sprintf("%d of severity %v or worse, less those to ignore: %v", [sum([scan(image).counts[severity] | some severity in forbidden]), least, worst(scan(image))]) if {
	reason(image) == "problems"
} else := sprintf("could not find out what scans say, from provider %v: %v", [provider, answers.cause(answer, values, errors, questions[image.ref])]) if {
	reason(image) == "no-answer"
} else := replace(scan(image).detail, "…", "..")

explanations := {
	"not-oci-registry": "this policy admits images of OCI Registry only (otherRegistries: Deny)",
	"no-digest": "a tag may move after the check; pin it with kubectl oke-sign pin",
}

# worst are the first problems that count, the worst before others.
worst(found) := concat(", ", array.concat(array.slice(ids, 0, 3), [".." | count(ids) > 3])) if {
	ids := [message.printable(problem.id, 40) |
		some severity in forbidden
		some problem in found.problems
		problem.severity == severity
		not tolerable(problem)
	]
}
