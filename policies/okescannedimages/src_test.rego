package okescannedimages_test

import data.okescannedimages

now := time.parse_rfc3339_ns("2021-12-21T12:00:00Z")

digest := "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"

ref := concat("", ["iad.ocir.io/ns/repo", digest])

question := json.marshal({"image": ref})

break_glass := {"oracle.image-policy.k8s.io/break-glass": "true"}

pod(annotations, refs) := {
	"metadata": {"annotations": annotations},
	"spec": {"containers": [{"name": sprintf("c%d", [i]), "image": ref} | some i, ref in refs]},
}

# scan is a recent scan that lists all of these problems.
scan(problems) := {
	"known": true,
	"scannedAt": "2021-12-21T07:02:58Z",
	"problems": problems,
	"counts": {severity: count([p | some p in problems; p.severity == severity]) |
		some severity in ["CRITICAL", "HIGH", "MEDIUM", "LOW"]
	},
}

critical := {"id": "CVE-2021-44228", "severity": "CRITICAL"}

high := {"id": "CVE-2021-45046", "severity": "HIGH"}

medium := {"id": "CVE-2021-0003", "severity": "MEDIUM"}

low := {"id": "CVE-2021-0004", "severity": "LOW"}

answered(values) := {"responses": [[question, value] | some value in values], "errors": [], "status_code": 200, "system_error": ""}

messages(parameters, object, answer) := got if {
	got := {violation.msg | some violation in okescannedimages.violation} with input as {
		"parameters": parameters,
		"review": {"operation": "CREATE", "object": object},
	}
		with data.lib.externaldata.answers as answer
		with time.now_ns as now
}

reasons(parameters, object, answer) := {concat(": ", array.slice(split(message, ": "), 0, 2)) |
	some message in messages(parameters, object, answer)
}

denied(parameters, value, reason) if {
	got := reasons(parameters, pod({}, [ref]), answered([value]))
	print(got, reason)
	got == {sprintf("containers/c0: %s", [reason])}
}

admitted(parameters, value) if reasons(parameters, pod({}, [ref]), answered([value])) == set()

test_severities[note] if {
	some note, case in {
		"nothing found": {"problems": [], "from": null},
		"low": {"problems": [low], "from": "LOW"},
		"medium": {"problems": [low, medium], "from": "MEDIUM"},
		"high": {"problems": [low, high, medium], "from": "HIGH"},
		"critical": {"problems": [critical], "from": "CRITICAL"},
		"none": {"problems": [{"id": "CVE-2021-0005", "severity": "NONE"}], "from": null},
	}
	ranks := {null: 0, "LOW": 1, "MEDIUM": 2, "HIGH": 3, "CRITICAL": 4}
	every max in ["LOW", "MEDIUM", "HIGH", "CRITICAL"] {
		got := reasons({"maxSeverity": max}, pod({}, [ref]), answered([scan(case.problems)]))
		print(note, max, got)
		got == {"containers/c0: problems" | ranks[case.from] >= ranks[max]}
	}
}

test_by_default_high_is_denied_and_a_month_is_old if {
	denied({}, scan([high]), "problems")
	admitted({}, scan([medium]))
	admitted({}, object.union(scan([]), {"scannedAt": "2021-11-22T12:00:00Z"}))
	denied({}, object.union(scan([]), {"scannedAt": "2021-11-20T12:00:00Z"}), "scan-too-old")
}

test_ignored_problems_do_not_count if {
	admitted({"ignore": ["CVE-2021-44228", "CVE-2021-45046"]}, scan([critical, high, medium]))
	denied({"ignore": ["CVE-2021-44228"]}, scan([critical, high]), "problems")
	denied({"ignore": ["CVE-2021"]}, scan([critical]), "problems")
	denied({"ignore": ["cve-2021-44228"]}, scan([critical]), "problems")
	denied({"ignore": "CVE-2021-44228"}, scan([critical]), "problems")
}

test_a_counted_problem_that_is_not_listed_cannot_be_ignored if {
	more := object.union(scan([critical]), {"counts": {"CRITICAL": 2}})
	denied({"ignore": ["CVE-2021-44228"]}, more, "problems")
	admitted({}, object.union(scan([]), {"counts": {"MEDIUM": 700}}))
}

test_a_list_with_more_than_the_counts_is_denied if {
	denied({}, object.union(scan([critical]), {"counts": {"CRITICAL": 0}}), "problems")
	denied({}, object.union(scan([{"id": "CVE-2021-1", "severity": "SEVERE"}]), {}), "problems")
	denied({}, object.union(scan([{"id": "CVE-2021-1", "severity": "critical"}]), {}), "problems")
	denied({}, object.union(scan([]), {"problems": ["CVE-2021-44228"]}), "problems")
}

test_a_misspelt_severity_forbids_everything if {
	every severity in ["high", "", null, 7, "NONE", ["HIGH"]] {
		count(messages({"maxSeverity": severity}, pod({}, [ref]), answered([scan([low])]))) == 1
	}
}

test_age[note] if {
	some note, case in {
		"of today": {"at": "2021-12-21T07:02:58Z", "recent": true},
		"of yesterday": {"at": "2021-12-20T11:00:00Z", "recent": false},
		"from the near future, by another clock": {"at": "2021-12-21T12:04:00Z", "recent": true},
		"from the far future": {"at": "2121-12-21T12:00:00Z", "recent": false},
	}
	found := object.union(scan([]), {"scannedAt": case.at})
	got := reasons({"maxAge": "24h"}, pod({}, [ref]), answered([found]))
	got == {reason | some reason in ["containers/c0: scan-too-old"]; not case.recent}
	admitted({"maxAge": "24h", "unknown": "Allow"}, found)
	denied({"maxAge": "24h", "unknown": "Allow"}, object.union(found, scan([critical])), "problems")
	denied({"maxAge": "a while"}, found, "scan-too-old")
}

test_unknown if {
	unknown := {"known": false, "reason": "not-scanned", "detail": "no scan since it was pushed"}
	denied({}, unknown, "not-scanned")
	denied({"unknown": "Deny"}, unknown, "not-scanned")
	denied({"unknown": "allow"}, unknown, "not-scanned")
	admitted({"unknown": "Allow"}, unknown)
}

# Only one valid answer counts, for every value of unknown.
test_invalid_answers[note] if {
	clean := scan([])
	some note, answer in {
		"nothing": {},
		"lists are null": {"responses": null, "errors": null, "status_code": 500, "system_error": "connection refused"},
		"lists are empty": {"responses": [], "errors": [], "status_code": 503, "system_error": ""},
		"a system error": {"responses": [], "errors": [], "status_code": 200, "system_error": "being fetched"},
		"null": null,
		"an item error": {"responses": [], "errors": [[question, "no"]]},
		"clean, and an error": {"responses": [[question, clean]], "errors": [[question, "no"]]},
		"clean, and not": answered([clean, scan([critical])]),
		"unknown, and clean": answered([{"known": false, "reason": "not-scanned"}, clean]),
		"for another image": {"responses": [[json.marshal({"image": "iad.ocir.io/ns/other"}), clean]], "errors": []},
		"the question spelled otherwise": {"responses": [[concat("", [question, " "]), clean]], "errors": []},
		"the value is null": answered([null]),
		"the value is true": answered([true]),
		"the value is a list": answered([[clean]]),
		"known is text": answered([object.union(clean, {"known": "true"})]),
		"known is missing": answered([object.remove(clean, ["known"])]),
		"unknown without a reason": answered([{"known": false}]),
		"unknown for a long reason": answered([{"known": false, "reason": "it: is so"}]),
		"no time": answered([object.remove(clean, ["scannedAt"])]),
		"no such time": answered([object.union(clean, {"scannedAt": "yesterday"})]),
		"a time beyond all times": answered([object.union(clean, {"scannedAt": "9999-12-21T12:00:00Z"})]),
		"no list": answered([object.remove(clean, ["problems"])]),
		"the list is null": answered([object.union(clean, {"problems": null})]),
		"the list is text": answered([object.union(clean, {"problems": "none"})]),
		"no counts": answered([object.remove(clean, ["counts"])]),
		"a count is missing": answered([object.union(object.remove(clean, ["counts"]), {"counts": {"HIGH": 0}})]),
		"a count is text": answered([object.union(clean, {"counts": {"HIGH": "0"}})]),
	}
	every unknown in ["Deny", "Allow"] {
		got := messages({"unknown": unknown}, pod({}, [ref]), answer)
		print(note, got)
		count(got) == 1
		every message in got {
			startswith(message, "containers/c0: no-answer: could not find out what scans say, from provider oke-sign-scans: ")
		}
	}
}

# The rows are in the order of the decision.
test_decision_order[note] if {
	everything := {"otherRegistries": "Allow", "unknown": "Allow", "exemptImages": ["IAD.ocir.io/ns/repo", "iad.ocir.io/**"]}
	some note, case in {
		"ambiguous": {"ref": concat("", ["IAD.ocir.io/ns/repo", digest]), "parameters": everything, "annotations": break_glass, "want": "ambiguous"},
		"no image": {"ref": "", "parameters": everything, "annotations": break_glass, "want": "no-image"},
		"exempt": {"ref": "iad.ocir.io/ns/repo:1", "parameters": {"exemptImages": ["iad.ocir.io/ns/repo"]}},
		"other registry": {"ref": "nginx", "want": "not-oci-registry"},
		"other registry by digest": {"ref": concat("", ["quay.io/a/b", digest]), "want": "not-oci-registry"},
		"other registry allowed": {"ref": "nginx", "parameters": {"otherRegistries": "Allow"}},
		"break-glass": {"ref": "iad.ocir.io/ns/repo:1", "annotations": break_glass},
		"break-glass ignored": {"ref": "iad.ocir.io/ns/repo:1", "annotations": break_glass, "parameters": {"breakGlass": "Ignore"}, "want": "no-digest"},
		"break-glass is for OCI Registry": {"ref": "nginx", "annotations": break_glass, "want": "not-oci-registry"},
		"tag": {"ref": "iad.ocir.io/ns/repo:1", "want": "no-digest"},
		"tag, unknown allowed": {"ref": "iad.ocir.io/ns/repo:1", "parameters": {"unknown": "Allow"}, "want": "no-digest"},
	}
	got := reasons(object.get(case, "parameters", {}), pod(object.get(case, "annotations", {}), [case.ref]), answered([]))
	print(note, got)
	got == {sprintf("containers/c0: %s", [want]) | some want in [case.want]}
}

test_one_bad_image_among_good_ones_in_every_position if {
	every i in numbers.range(0, 3) {
		refs := [concat("", ["iad.ocir.io/ns/", name, digest]) | some n in numbers.range(0, 3); name := {true: "bad", false: sprintf("good%d", [n])}[n == i]]
		found := {concat(": ", array.slice(split(violation.msg, ": "), 0, 2)) | some violation in okescannedimages.violation} with input as {
			"parameters": {},
			"review": {"operation": "CREATE", "object": pod({}, refs)},
		}
			with data.lib.externaldata.answers as scanner
			with time.now_ns as now
		found == {sprintf("containers/c%d: problems", [i])}
	}
}

scanner(_, questions) := {
	"responses": [[q, scan([critical | contains(q, "bad")])] | some q in questions],
	"errors": [], "status_code": 200, "system_error": "",
}

test_the_worst_problems_are_named if {
	found := scan([low, high, critical, {"id": "CVE-2021-0006", "severity": "HIGH"}, {"id": "CVE-2021-0007", "severity": "HIGH"}])
	some message in messages({"ignore": ["CVE-2021-0006"]}, pod({}, [ref]), answered([found]))
	startswith(message, "containers/c0: problems: 4 of severity HIGH or worse; not ignored: CVE-2021-44228, CVE-2021-45046, CVE-2021-0007: ")
}

test_questions_have_only_the_image if {
	got := okescannedimages.questions with input as {
		"parameters": {"maxSeverity": "LOW", "ignore": ["CVE-2021-44228"]},
		"review": {"operation": "CREATE", "object": pod({}, [ref, ref, "nginx", "iad.ocir.io/ns/repo:1", 7])},
	}
	got == {ref: sprintf(`{"image":"%s"}`, [ref])}
}

test_on_update_there_is_no_question_about_old_images if {
	okescannedimages.questions == {} with input as {
		"parameters": {},
		"review": {"operation": "UPDATE", "object": pod({"a": "b"}, [ref]), "oldObject": pod({}, [ref])},
	}
}

test_objects_without_images_are_denied if {
	count(okescannedimages.violation) == 1 with input as {"parameters": {}, "review": {"object": {"spec": {}}}}
	count(okescannedimages.violation) == 1 with input as {}
}
