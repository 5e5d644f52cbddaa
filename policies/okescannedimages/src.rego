# Admits an image of OCI Registry only if a recent scan of exactly this image is known. The
# scan must have found no problem of a severity that the policy forbids.
package okescannedimages

import data.lib.answers
import data.lib.externaldata
import data.lib.images
import data.lib.message
import data.lib.references

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.checked
	not acceptable(image)
	not admitted_unscanned(image)
}

violation contains problem if some problem in images.violations

# admitted_unscanned holds for an image that needs no scan. It never holds for an ambiguous
# reference.
admitted_unscanned(image) if references.exempt(image)

admitted_unscanned(image) if {
	input.parameters.otherRegistries == "Allow"
	references.other_registry(image)
}

admitted_unscanned(image) if references.under_break_glass(image)

acceptable(image) if {
	without_forbidden_problems(scan(image))
	recent(scan(image))
}

# unknown: Allow admits an image if the provider answers that it has no scan, or only an old
# one. A missing answer still denies.
acceptable(image) if {
	input.parameters.unknown == "Allow"
	without_forbidden_problems(scan(image))
}

acceptable(image) if {
	input.parameters.unknown == "Allow"
	unknown(scan(image))
}

# without_forbidden_problems holds for a scan if the policy ignores, by id, every problem of a
# forbidden severity. A scan counts all problems but may list only some. A problem that is not
# listed cannot be ignored, so the counts must match the list.
without_forbidden_problems(found) if {
	valid_scan(found)
	every severity in forbidden_severities {
		found.counts[severity] == count({problem.id | some problem in found.problems; problem.severity == severity})
	}
	every problem in found.problems {
		tolerated(problem)
	}
}

tolerated(problem) if problem.severity in tolerated_severities

tolerated(problem) if problem.id in input.parameters.ignore

# valid_scan holds for a scan that has its time and its problems.
valid_scan(found) if {
	found.known == true
	time.parse_rfc3339_ns(found.scannedAt)
	is_array(found.problems)
	every severity in forbidden_severities {
		is_number(found.counts[severity])
	}
}

# recent holds for a scan within maxAge of now, before or after. Clocks differ, but a scan from
# the far future is as wrong as an old one.
recent(found) if {
	age := time.now_ns() - time.parse_rfc3339_ns(found.scannedAt)
	abs(age) <= time.parse_duration_ns(object.get(input.parameters, "maxAge", "720h"))
}

unknown(found) if {
	found.known == false
	answers.valid_reason(found.reason)
}

severities := ["CRITICAL", "HIGH", "MEDIUM", "LOW"]

# forbidden_severities are maxSeverity and all above it. An unknown maxSeverity forbids every
# severity.
default forbidden_severities := ["CRITICAL", "HIGH", "MEDIUM", "LOW", "NONE"]

forbidden_severities := array.slice(severities, 0, i + 1) if severities[i] == lowest_forbidden

lowest_forbidden := object.get(input.parameters, "maxSeverity", "HIGH")

tolerated_severities := {severity | some severity in array.concat(severities, ["NONE"]); not severity in forbidden_severities}

scan(image) := scans[questions[image.ref]]

scans := answers.by_question(answer)

errors := answers.errors_by_question(answer)

default answer := {}

answer := externaldata.answers(provider, sort([question | some question in questions])) if count(questions) > 0

provider := object.get(input.parameters, "provider", "oke-sign-scans")

# questions maps each reference to its question. The question has no part of the policy: the
# answer says what the scan found, and the rules above decide what it means.
questions := {image.ref: json.marshal({"image": image.ref}) |
	some image in images.checked
	image.ref in references.pinned
	references.classified[image.ref].class == "oci-registry"
	not admitted_unscanned(image)
}

# The rules below only word the denial.
default reason(_) := "no-answer"

reason(image) := references.invalid_reference(image).reason if {
	references.invalid_reference(image)
} else := "not-oci-registry" if {
	references.other_registry(image)
} else := "no-digest" if {
	not image.ref in references.pinned
} else := scan(image).reason if {
	unknown(scan(image))
} else := "scan-too-old" if {
	without_forbidden_problems(scan(image))
} else := "problems" if {
	valid_scan(scan(image))
}

default detail(_) := "no valid scan of this image is known"

detail(image) := references.invalid_reference(image).detail if {
	references.invalid_reference(image)
} else := details[reason(image)] if {
	details[reason(image)]
} else := sprintf("scanned at %v, and maxAge is %v", [scan(image).scannedAt, object.get(input.parameters, "maxAge", "720h")]) if {
	reason(image) == "scan-too-old"
} else := sprintf("%d of severity %v or worse; not ignored: %v", [sum([scan(image).counts[severity] | some severity in forbidden_severities]), lowest_forbidden, worst_problems(scan(image))]) if {
	reason(image) == "problems"
} else := sprintf("could not find out what scans say, from provider %v: %v", [provider, answers.error_detail(answer, scans, errors, questions[image.ref])]) if {
	reason(image) == "no-answer"
} else := replace(scan(image).detail, "…", "..")

details := {
	"not-oci-registry": "this policy admits images of OCI Registry only (otherRegistries: Deny); copy it there, or list it in exemptImages",
	"no-digest": "a tag may move after the check; pin it with kubectl oke-sign pin",
}

# worst_problems lists the ids of the three worst problems that the policy forbids.
worst_problems(found) := concat(", ", array.concat(array.slice(ids, 0, 3), [".." | count(ids) > 3])) if {
	ids := [message.printable(problem.id, 40) |
		some severity in forbidden_severities
		some problem in found.problems
		problem.severity == severity
		not tolerated(problem)
	]
}
