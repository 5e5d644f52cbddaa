package okeimagedigests_test

import data.okeimagedigests

digest := "@sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"

break_glass := {"oracle.image-policy.k8s.io/break-glass": "true"}

pod(annotations, refs) := {
	"metadata": {"annotations": annotations},
	"spec": {"containers": [{"name": sprintf("c%d", [i]), "image": ref} | some i, ref in refs]},
}

# reasons are the reasons of all violations, by place.
reasons(parameters, object) := got if {
	messages := {violation.msg | some violation in okeimagedigests.violation} with input as {
		"parameters": parameters,
		"review": {"operation": "CREATE", "object": object},
	}
	got := {place: reason | some message in messages; [place, reason] := array.slice(split(message, ": "), 0, 2)}
}

test_decisions[note] if {
	settings := {
		"parameters": {"registries": "OCIRegistry", "exemptImages": ["nginx", "cafe", "iad.ocir.io:443/ns/repo"]},
		"annotations": break_glass,
	}
	some note, case in {
		"by digest": {"ref": concat("", ["iad.ocir.io/ns/repo", digest])},
		"by tag and digest": {"ref": concat("", ["iad.ocir.io/ns/repo:v1", digest])},
		"another registry by digest": {"ref": concat("", ["nginx", digest])},
		"by tag": {"ref": "iad.ocir.io/ns/repo:v1", "want": "no-digest"},
		"without tag and digest": {"ref": "iad.ocir.io/ns/repo", "want": "no-digest"},
		"another registry by tag": {"ref": "nginx:latest", "want": "no-digest"},
		"another registry, digests of OCI Registry only": {"ref": "nginx:latest", "parameters": {"registries": "OCIRegistry"}},
		"registries misspelt": {"ref": "nginx:latest", "want": "no-digest", "parameters": {"registries": "ociregistry"}},
		"OCI Registry, digests of OCI Registry only": {"ref": "iad.ocir.io/ns/repo:v1", "want": "no-digest", "parameters": {"registries": "OCIRegistry"}},
		"exempt": {"ref": "quay.io/a/b:1", "parameters": {"exemptImages": ["quay.io/a/**"]}},
		"exempt in OCI Registry": {"ref": "iad.ocir.io/ns/repo:1", "parameters": {"exemptImages": ["iad.ocir.io/ns/repo"]}},
		"exempt elsewhere": {"ref": "quay.io/b/b:1", "want": "no-digest", "parameters": {"exemptImages": ["quay.io/a/**"]}},
		"names without a host are never exempt": {"ref": "nginx:1", "want": "no-digest", "parameters": {"exemptImages": ["nginx", "docker.io/library/nginx"]}},
		"break-glass": {"ref": "iad.ocir.io/ns/repo:1", "annotations": break_glass},
		"break-glass ignored": {"ref": "iad.ocir.io/ns/repo:1", "want": "no-digest", "annotations": break_glass, "parameters": {"breakGlass": "Ignore"}},
		"break-glass is for OCI Registry": {"ref": "nginx:1", "want": "no-digest", "annotations": break_glass},
		"an image id": object.union(settings, {"ref": "cafe", "want": "ambiguous"}),
		"a port": object.union(settings, {"ref": concat("", ["iad.ocir.io:443/ns/repo", digest]), "want": "ambiguous"}),
		"another algorithm": object.union(settings, {"ref": "quay.io/a/b@sha512:00", "want": "ambiguous"}),
		"half a digest": object.union(settings, {"ref": substring(concat("", ["quay.io/a/b", digest]), 0, 50), "want": "ambiguous"}),
		"two digests": object.union(settings, {"ref": concat("", ["quay.io/a/b", digest, digest]), "want": "ambiguous"}),
		"upper case": object.union(settings, {"ref": concat("", ["quay.io/a/b", upper(digest)]), "want": "ambiguous"}),
		"a number": object.union(settings, {"ref": 7, "want": "ambiguous"}),
		"empty": object.union(settings, {"ref": "", "want": "no-image"}),
		"null": object.union(settings, {"ref": null, "want": "no-image"}),
	}
	got := reasons(object.get(case, "parameters", {}), pod(object.get(case, "annotations", {}), [case.ref]))
	got == {"containers/c0": reason | some reason in [case.want]}
}

test_ambiguous_references_are_denied_under_every_setting if {
	ambiguous := [vector.ref | some vector in data.references; vector.class == "ambiguous"]
	count(ambiguous) > 50
	every registries in ["All", "OCIRegistry"] {
		parameters := {"registries": registries, "breakGlass": "Honor", "exemptImages": ambiguous}
		count(reasons(parameters, pod(break_glass, ambiguous))) == count(ambiguous)
	}
}

test_the_message_says_how_to_pin if {
	some message in {violation.msg | some violation in okeimagedigests.violation} with input as {
		"parameters": {},
		"review": {"object": pod({}, ["iad.ocir.io/ns/repo:v1"])},
	}
	contains(message, "kubectl oke-sign pin")
	contains(message, "kubectl oke-sign signatures")
}

# The plugin has no signatures of other registries, so the message does not name that command.
test_the_message_fits_the_registry if {
	messages := {violation.msg | some violation in okeimagedigests.violation} with input as {
		"parameters": {},
		"review": {"object": pod({}, ["nginx:1"])},
	}
	messages == {"containers/c0: no-digest: a tag may move; pin it with kubectl oke-sign pin: nginx:1"}
}

test_one_bad_image_among_good_ones_in_every_position if {
	good := concat("", ["iad.ocir.io/ns/repo", digest])
	every i in numbers.range(0, 3) {
		refs := [ref | some n in numbers.range(0, 3); ref := {true: "nginx", false: good}[n == i]]
		reasons({}, pod({}, refs)) == {sprintf("containers/c%d", [i]): "no-digest"}
	}
}

test_on_update_only_new_references_are_checked if {
	review := {"operation": "UPDATE", "object": pod({"a": "b"}, ["nginx"])}
	okeimagedigests.violation == set() with input as {"review": object.union(review, {"oldObject": pod({}, ["nginx"])})}
	count(okeimagedigests.violation) == 1 with input as {"review": object.union(review, {"oldObject": pod({}, ["nginx:1"])})}
}

test_objects_without_images_are_denied if {
	count(okeimagedigests.violation) == 1 with input as {"review": {"object": {"spec": {}}}}
	count(okeimagedigests.violation) == 1 with input as {}
}
