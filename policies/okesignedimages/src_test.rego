package okesignedimages_test

import data.okesignedimages

# signed_if_good is a provider that answers signed for every image with "good" in its name.
signed_if_good(_, questions) := {
	"responses": [[question, verdict(question)] | some question in questions],
	"errors": [],
	"status_code": 200,
	"system_error": "",
}

verdict(question) := {"signed": true, "reason": "signed"} if contains(question, "good")

else := {"signed": false, "reason": "unsigned", "detail": "no signature"}

digest := "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"

good := concat("", ["iad.ocir.io/ns/good", digest])

bad := concat("", ["iad.ocir.io/ns/bad", digest])

key(letter) := concat("", ["ocid1.key.oc1.iad.b5q4c5lnaahik.", concat("", [letter | some _ in numbers.range(1, 60)])])

keys := [key("b"), key("a"), key("b")]

break_glass := {"oracle.image-policy.k8s.io/break-glass": "true"}

pod(annotations, refs) := {
	"metadata": {"annotations": annotations},
	"spec": {"containers": [{"name": sprintf("c%d", [i]), "image": ref} | some i, ref in refs]},
}

# found is the set of the place and the reason of every violation.
found(parameters, object) := {concat(": ", array.slice(split(message, ": "), 0, 2)) | some message in messages(parameters, object)}

messages(parameters, object) := got if {
	got := {violation.msg | some violation in okesignedimages.violation} with input as {
		"parameters": parameters,
		"review": {"operation": "CREATE", "object": object},
	}
		with data.lib.externaldata.answers as signed_if_good
}

denied(parameters, object, reason) if found(parameters, object) == {sprintf("containers/c0: %s", [reason])}

admitted(parameters, object) if found(parameters, object) == set()

test_signed_is_admitted_and_unsigned_is_denied if {
	admitted({"keys": keys}, pod({}, [good]))
	denied({"keys": keys}, pod({}, [bad]), "unsigned")
}

test_the_detail_of_a_denial_is_that_of_the_verdict if {
	messages({"keys": keys}, pod({}, [bad])) == {sprintf("containers/c0: unsigned: no signature: %v", [bad])}
}

# The rows are in the order of the decision.
test_decision_order[note] if {
	ambiguous := concat("", ["IAD.ocir.io/ns/good", digest])
	revoked := [{"image": good, "reason": "CVE-2026-0001"}]
	tomorrow := time.format(time.now_ns() + time.parse_duration_ns("24h"))
	everything := {"keys": [], "otherRegistries": "Allow", "exemptImages": ["IAD.ocir.io/ns/good", "iad.ocir.io/**"]}
	some note, case in {
		"ambiguous, under every exception": {"denied": "ambiguous", "ref": ambiguous, "parameters": everything, "annotations": break_glass},
		"ambiguous and revoked": {"denied": "ambiguous", "ref": ambiguous, "parameters": {"keys": keys, "revoked": revoked}, "annotations": {}},
		"revoked although signed": {"denied": "revoked", "ref": good, "parameters": {"keys": keys, "revoked": revoked}, "annotations": {}},
		"revoked, under every exception": {"denied": "revoked", "ref": good, "parameters": object.union(everything, {"revoked": revoked}), "annotations": break_glass},
		"revoked in another registry": {"denied": "revoked", "ref": concat("", ["quay.io/a/b:1", digest]), "parameters": object.union(everything, {"revoked": [{"digest": substring(digest, 1, -1), "reason": "CVE-2026-0001"}]}), "annotations": {}},
		"revoked by its digest in every repository": {"denied": "revoked", "ref": good, "parameters": {"keys": keys, "revoked": [{"digest": substring(digest, 1, -1), "reason": "CVE-2026-0001"}]}, "annotations": {}},
		"revoked under another host of OCI Registry": {"denied": "revoked", "ref": concat("", ["ocir.us-ashburn-1.oci.oraclecloud.com/ns/good", digest]), "parameters": {"keys": keys, "revoked": revoked}, "annotations": {}},
		"revoked, with a tag": {"denied": "revoked", "ref": concat("", ["iad.ocir.io/ns/good:v1", digest]), "parameters": {"keys": keys, "revoked": revoked}, "annotations": {}},
		"revoked twice": {"denied": "revoked", "ref": good, "parameters": {"keys": keys, "revoked": array.concat(revoked, [{"digest": substring(digest, 1, -1), "reason": "again"}])}, "annotations": {}},
		"revoked without a reason": {"denied": "revoked", "ref": good, "parameters": {"keys": keys, "revoked": [{"digest": substring(digest, 1, -1)}]}, "annotations": {}},
		"another image is revoked": {"denied": "unsigned", "ref": bad, "parameters": {"keys": keys, "revoked": revoked}, "annotations": {}},
		"a tag cannot be revoked": {"denied": "no-digest", "ref": "iad.ocir.io/ns/good", "parameters": {"keys": keys, "revoked": [{"image": "iad.ocir.io/ns/good", "reason": "no digest"}]}, "annotations": {}},
		"exempt until tomorrow": {"denied": null, "ref": bad, "parameters": {"keys": keys, "exemptions": [{"images": ["iad.ocir.io/ns/bad"], "until": tomorrow, "reason": "INC-7"}]}, "annotations": {}},
		"exempt until yesterday": {"denied": "unsigned", "ref": bad, "parameters": {"keys": keys, "exemptions": [{"images": ["iad.ocir.io/ns/bad"], "until": "2026-01-01T00:00:00Z", "reason": "INC-7"}]}, "annotations": {}},
		"exempt without an end": {"denied": "unsigned", "ref": bad, "parameters": {"keys": keys, "exemptions": [{"images": ["iad.ocir.io/ns/bad"], "reason": "INC-7"}]}, "annotations": {}},
		"one of two exemptions has ended": {"denied": null, "ref": bad, "parameters": {"keys": keys, "exemptions": [{"images": ["iad.ocir.io/ns/bad"], "until": "soon"}, {"images": ["iad.ocir.io/ns/bad"], "until": tomorrow}]}, "annotations": {}},
		"exempt": {"denied": null, "ref": bad, "parameters": {"keys": keys, "exemptImages": ["iad.ocir.io/ns/bad"]}, "annotations": {}},
		"exempt in another registry": {"denied": null, "ref": "quay.io/a/b:1", "parameters": {"keys": keys, "exemptImages": ["quay.io/a/**"]}, "annotations": {}},
		"exempt without keys": {"denied": null, "ref": bad, "parameters": {"exemptImages": ["iad.ocir.io/ns/bad"]}, "annotations": {}},
		"other registry": {"denied": "not-oci-registry", "ref": "nginx:latest", "parameters": {"keys": keys}, "annotations": {}},
		"other registry denied": {"denied": "not-oci-registry", "ref": "nginx:latest", "parameters": {"keys": keys, "otherRegistries": "Deny"}, "annotations": {}},
		"other registry allowed": {"denied": null, "ref": "nginx:latest", "parameters": {"keys": keys, "otherRegistries": "Allow"}, "annotations": {}},
		"other registry misspelt": {"denied": "not-oci-registry", "ref": "nginx:latest", "parameters": {"keys": keys, "otherRegistries": "allow"}, "annotations": {}},
		"break-glass is for OCI Registry": {"denied": "not-oci-registry", "ref": "nginx:latest", "parameters": {"keys": keys}, "annotations": break_glass},
		"no keys are for OCI Registry": {"denied": "not-oci-registry", "ref": "nginx:latest", "parameters": {"keys": []}, "annotations": {}},
		"break-glass": {"denied": null, "ref": bad, "parameters": {"keys": keys}, "annotations": break_glass},
		"break-glass by tag": {"denied": null, "ref": "iad.ocir.io/ns/bad:1", "parameters": {"keys": keys}, "annotations": break_glass},
		"break-glass without keys": {"denied": null, "ref": bad, "parameters": {}, "annotations": break_glass},
		"break-glass ignored": {"denied": "unsigned", "ref": bad, "parameters": {"keys": keys, "breakGlass": "Ignore"}, "annotations": break_glass},
		"break-glass honoured in lower case": {"denied": "unsigned", "ref": bad, "parameters": {"keys": keys, "breakGlass": "honor"}, "annotations": break_glass},
		"no keys": {"denied": null, "ref": bad, "parameters": {"keys": []}, "annotations": {}},
		"no keys by tag": {"denied": null, "ref": "iad.ocir.io/ns/bad:1", "parameters": {"keys": []}, "annotations": {}},
		"tag": {"denied": "no-digest", "ref": "iad.ocir.io/ns/good:latest", "parameters": {"keys": keys}, "annotations": {}},
		"neither tag nor digest": {"denied": "no-digest", "ref": "iad.ocir.io/ns/good", "parameters": {"keys": keys}, "annotations": {}},
		"tag and digest": {"denied": null, "ref": concat("", ["iad.ocir.io/ns/good:v1", digest]), "parameters": {"keys": keys}, "annotations": {}},
	}
	reasons := {sprintf("containers/c0: %s", [reason]) | some reason in [case.denied]; reason != null}
	found(case.parameters, pod(case.annotations, [case.ref])) == reasons
}

test_only_a_literal_empty_list_means_any_key[note] if {
	some note, parameters in {
		"missing": {},
		"misspelt": {"key": []},
		"null": {"keys": null},
		"text": {"keys": ""},
		"a key as text": {"keys": key("a")},
		"object": {"keys": {}},
		"false": {"keys": false},
		"number": {"keys": 0},
		"a list of what is no text": {"keys": [1]},
		"a list with a null": {"keys": [null]},
		"a list in a list": {"keys": [[]]},
		"one key and something else": {"keys": [key("a"), {}]},
	}
	denied(parameters, pod({}, [good]), "no-keys")
}

# Kritis accepts any value of the annotation.
test_break_glass_is_spelled_one_way_only[note] if {
	some note, annotations in {
		"True": {"oracle.image-policy.k8s.io/break-glass": "True"},
		"yes": {"oracle.image-policy.k8s.io/break-glass": "yes"},
		"space": {"oracle.image-policy.k8s.io/break-glass": "true "},
		"boolean": {"oracle.image-policy.k8s.io/break-glass": true},
		"empty": {"oracle.image-policy.k8s.io/break-glass": ""},
		"false": {"oracle.image-policy.k8s.io/break-glass": "false"},
		"another name": {"image-policy.k8s.io/break-glass": "true"},
		"upper case": {"oracle.image-policy.k8s.io/Break-Glass": "true"},
		"no annotations": null,
		"a list": ["oracle.image-policy.k8s.io/break-glass"],
	}
	denied({"keys": keys}, pod(annotations, [bad]), "unsigned")
}

test_break_glass_belongs_to_the_pod if {
	containers := [{"name": "c0", "image": bad}]
	denied(
		{"keys": keys}, {
			"metadata": {"annotations": break_glass},
			"spec": {"template": {"spec": {"containers": containers}}},
		},
		"unsigned",
	)
	admitted({"keys": keys}, {"spec": {"template": {"metadata": {"annotations": break_glass}, "spec": {"containers": containers}}}})
	denied({"keys": keys}, {"metadata": {"labels": break_glass}, "spec": {"containers": containers}}, "unsigned")
	denied({"keys": keys}, {"spec": {"annotations": break_glass, "containers": containers}}, "unsigned")
}

test_one_bad_image_among_good_ones_in_every_position if {
	every i in numbers.range(0, 4) {
		refs := [ref | some n in numbers.range(0, 4); ref := {true: bad, false: good}[n == i]]
		found({"keys": keys}, pod({}, refs)) == {sprintf("containers/c%d: unsigned", [i])}
	}
	every field in ["containers", "initContainers", "ephemeralContainers"] {
		holder := {"spec": object.union({"containers": [{"name": "c", "image": good}]}, {field: [
			{"name": "a", "image": good},
			{"name": "b", "image": bad},
		]})}
		found({"keys": keys}, holder) == {sprintf("%s/b: unsigned", [field])}
	}
	found({"keys": keys}, {"spec": {
		"containers": [{"name": "c", "image": good}],
		"volumes": [{"name": "v", "image": {"reference": bad}}, {"name": "w", "image": {"reference": good}}],
	}}) == {"volumes/v: unsigned"}
}

test_missing_images[note] if {
	some note, container in {
		"missing": {"name": "c0"},
		"empty": {"name": "c0", "image": ""},
		"null": {"name": "c0", "image": null},
	}
	some parameters in [{"keys": keys}, {"keys": [], "otherRegistries": "Allow"}]
	object := {"metadata": {"annotations": break_glass}, "spec": {"containers": [container, {"name": "c1", "image": good}]}}
	denied(parameters, object, "no-image")
}

test_images_that_are_no_string[note] if {
	some note, image in {"number": 1, "list": [good], "object": {"ref": good}, "true": true}
	object := {"metadata": {"annotations": break_glass}, "spec": {"containers": [{"name": "c0", "image": image}]}}
	denied({"keys": [], "otherRegistries": "Allow"}, object, "ambiguous")
}

# Only one valid yes to the question admits the image.
test_invalid_answers[note] if {
	question := json.marshal({"image": good, "keys": sort({k | some k in keys})})
	yes := {"signed": true, "reason": "signed"}
	some note, answer in {
		"nothing": {},
		"lists are null": {"responses": null, "errors": null, "status_code": 500, "system_error": "connection refused"},
		"lists are empty": {"responses": [], "errors": [], "status_code": 503, "system_error": ""},
		"null": null,
		"text": "signed",
		"an item error": {"responses": [], "errors": [[question, "no"]]},
		"a yes and an error": {"responses": [[question, yes]], "errors": [[question, "no"]]},
		"a yes and a no": {"responses": [[question, yes], [question, {"signed": false, "reason": "unsigned"}]], "errors": []},
		"two kinds of yes": {"responses": [[question, yes], [question, {"signed": true}]], "errors": []},
		"a yes to another question": {"responses": [["other", yes]], "errors": []},
		"for another image": {"responses": [[json.marshal({"image": bad, "keys": sort({k | some k in keys})}), yes]], "errors": []},
		"for other keys": {"responses": [[json.marshal({"image": good, "keys": [key("a")]}), yes]], "errors": []},
		"for no keys": {"responses": [[json.marshal({"image": good, "keys": []}), yes]], "errors": []},
		"the question spelled otherwise": {"responses": [[concat("", [question, " "]), yes]], "errors": []},
		"signed is text": {"responses": [[question, {"signed": "true"}]], "errors": []},
		"signed is a number": {"responses": [[question, {"signed": 1}]], "errors": []},
		"signed is missing": {"responses": [[question, {"reason": "signed"}]], "errors": []},
		"signed is null": {"responses": [[question, {"signed": null}]], "errors": []},
		"the value is true": {"responses": [[question, true]], "errors": []},
		"the value is null": {"responses": [[question, null]], "errors": []},
		"the value is text": {"responses": [[question, "signed"]], "errors": []},
		"the value is a list": {"responses": [[question, [yes]]], "errors": []},
		"the value is one deeper": {"responses": [[question, {"verdict": yes}]], "errors": []},
		"the item is too short": {"responses": [[question]], "errors": []},
		"the item is too long": {"responses": [[question, yes, yes]], "errors": []},
		"responses are an object": {"responses": {question: yes}, "errors": []},
		"a no that says signed": {"responses": [[question, {"signed": false, "reason": "signed"}]], "errors": []},
		"a no with a long reason": {"responses": [[question, {"signed": false, "reason": "x: y"}]], "errors": []},
		"a no with a reason that is no text": {"responses": [[question, {"signed": false, "reason": {}}]], "errors": []},
		"a system error that is no text": {"responses": [], "errors": [], "system_error": {"a": 1}},
	}
	messages := {violation.msg | some violation in okesignedimages.violation} with input as {
		"parameters": {"keys": keys},
		"review": {"operation": "CREATE", "object": pod({}, [good])},
	}
		with data.lib.externaldata.answers as answer
	print(note, messages)
	count(messages) == 1
	every message in messages {
		startswith(message, "containers/c0: no-answer: could not find out whether it is signed, from provider oke-sign: ")
		endswith(message, good)
	}
}

test_a_failed_function_is_denied if {
	count(okesignedimages.violation) == 1 with input as {
		"parameters": {"keys": keys},
		"review": {"operation": "CREATE", "object": pod({}, [good])},
	}
		with data.lib.externaldata.answers as undefined_answers
}

undefined_answers(_, _) := answer if {
	answer := data.nowhere
}

test_every_question_is_asked_once_and_sorted if {
	want := [sprintf(`{"image":"%s","keys":["%s","%s"]}`, [ref, key("a"), key("b")]) | some ref in [bad, good]]
	got := [question | some question in okesignedimages.questions] with input as {
		"parameters": {"keys": keys},
		"review": {"operation": "CREATE", "object": pod({}, [good, bad, good, "nginx", "iad.ocir.io/ns/good:1", 7])},
	}
	sort(got) == want
}

test_no_question_about_images_that_need_no_verdict if {
	every parameters in [{"keys": []}, {"keys": keys, "exemptImages": ["iad.ocir.io/ns/good"]}, {}] {
		okesignedimages.questions == {} with input as {
			"parameters": parameters,
			"review": {"operation": "CREATE", "object": pod({}, [good])},
		}
	}
	okesignedimages.questions == {} with input as {
		"parameters": {"keys": keys},
		"review": {"operation": "UPDATE", "object": pod({"a": "b"}, [good]), "oldObject": pod({}, [good])},
	}
}

test_ambiguous_references_are_denied_under_every_setting if {
	ambiguous := [vector.ref | some vector in data.references; vector.class == "ambiguous"]
	count(ambiguous) > 50
	every other in ["Allow", "Deny"] {
		every list in [[], keys] {
			parameters := {"keys": list, "otherRegistries": other, "breakGlass": "Honor", "exemptImages": ambiguous}
			count(found(parameters, pod(break_glass, ambiguous))) == count(ambiguous)
		}
	}
}

# The report adds violations to the others.
test_report_lists_images_that_are_admitted_without_keys[note] if {
	some note, case in {
		"no keys": {"parameters": {"keys": []}, "want": {"containers/c0: no-key-listed", "containers/c1: no-key-listed", "containers/c2: not-oci-registry"}},
		"keys": {"parameters": {"keys": keys}, "want": {"containers/c1: unsigned", "containers/c2: not-oci-registry"}},
		"missing keys": {"parameters": {}, "want": {"containers/c0: no-keys", "containers/c1: no-keys", "containers/c2: not-oci-registry"}},
		"exempt": {"parameters": {"keys": [], "exemptImages": ["iad.ocir.io/ns/good", "iad.ocir.io/ns/bad"]}, "want": {"containers/c2: not-oci-registry"}},
	}
	parameters := object.union(case.parameters, {"report": true})
	found(parameters, pod({}, [good, bad, "nginx"])) == case.want
}

test_report_does_not_list_break_glass if {
	admitted({"keys": [], "report": true}, pod(break_glass, [bad]))
}

test_objects_without_images_are_denied if {
	count(okesignedimages.violation) == 1 with input as {"parameters": {"keys": []}, "review": {"object": {"spec": {}}}}
	count(okesignedimages.violation) == 1 with input as {"parameters": {"keys": []}}
}
