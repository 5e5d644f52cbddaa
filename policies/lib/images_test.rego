package lib.images_test

import data.lib.images

places(review) := found if {
	found := {[images.place(image), image.ref] | some image in images.checked} with input.review as review
}

problems(review) := found if {
	found := {violation.msg | some violation in images.violations} with input.review as review
}

spec := {
	"containers": [{"name": "web", "image": "a"}, {"name": "sidecar", "image": "b"}],
	"initContainers": [{"name": "wait", "image": "c"}],
	"ephemeralContainers": [{"name": "debug", "image": "d"}],
	"volumes": [{"name": "model", "image": {"reference": "e"}}, {"name": "tmp", "emptyDir": {}}],
}

all_places := {
	["containers/web", "a"],
	["containers/sidecar", "b"],
	["initContainers/wait", "c"],
	["ephemeralContainers/debug", "d"],
	["volumes/model", "e"],
}

# One object of each shape, for any kind.
shapes := {
	"Pod": {"spec": spec},
	"PodTemplate": {"template": {"spec": spec}},
	"Deployment": {"spec": {"template": {"spec": spec}}},
	"CronJob": {"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}},
	"ControllerRevision": {"data": {"spec": {"template": {"spec": spec}}}},
	"JobSet": {"spec": {"replicatedJobs": [{"template": {"spec": {"template": {"spec": spec}}}}]}},
	"an unknown kind with several shapes": {
		"spec": {"containers": spec.containers, "template": {"spec": spec}},
		"template": {"spec": spec},
	},
}

# CVE-2023-2727: ephemeral containers are checked like all others.
test_every_image_of_every_shape_is_checked[kind] if {
	some kind, object in shapes
	places({"operation": "CREATE", "object": object}) == all_places
	problems({"operation": "CREATE", "object": object}) == set()
}

test_without_an_operation_every_image_is_checked[kind] if {
	some kind, object in shapes
	places({"object": object}) == all_places
	places({"operation": "", "object": object, "oldObject": object}) == all_places
}

# CVE-2023-34091: new images are checked also in an object with a deletion timestamp.
test_on_update_only_new_references_are_checked[kind] if {
	some kind, object in shapes
	old := json.patch(object, [])
	terminating := {"metadata": {"deletionTimestamp": "2021-12-21T12:00:00Z", "finalizers": ["x"]}}
	places({"operation": "UPDATE", "object": object, "oldObject": old}) == set()
	places({"operation": "UPDATE", "object": object, "oldObject": null}) == all_places
	places({"operation": "UPDATE", "object": object}) == all_places
	before := json.unmarshal(replace(json.marshal(object), `"image":"`, `"image":"old-`))
	places({"operation": "UPDATE", "object": with_fields(object, terminating), "oldObject": with_fields(before, terminating)}) == all_places - {["volumes/model", "e"]}
}

with_fields(obj, fields) := object.union(obj, fields)

by_digest(name) := sprintf("%s@sha256:%064d", [name, 7])

test_a_tag_is_old_only_in_its_container[note] if {
	a := {"name": "x", "image": "a"}
	b := {"name": "z", "image": "b"}
	old := {"containers": [a, {"image": "c"}], "initContainers": [b], "volumes": [{"name": "v", "image": {"reference": "d"}}]}
	some note, case in {
		"nothing changes": {"new": old, "want": set()},
		"another order": {"new": {"containers": [{"name": "new", "image": by_digest("a")}, {"image": "c"}, a]}, "want": {["containers/new", by_digest("a")]}},
		"one goes": {"new": {"containers": [a]}, "want": set()},
		"another name": {"new": {"containers": [{"name": "y", "image": "a"}]}, "want": {["containers/y", "a"]}},
		"no name": {"new": {"containers": [{"image": "a"}]}, "want": {["containers/0", "a"]}},
		"another place without a name": {"new": {"containers": [{"image": "c"}]}, "want": {["containers/0", "c"]}},
		"a name that is a number": {"new": {"containers": [a, {"name": "1", "image": "c"}]}, "want": {["containers/1", "c"]}},
		"another field": {"new": {"containers": [b]}, "want": {["containers/z", "b"]}},
		"an ephemeral container": {"new": object.union(old, {"ephemeralContainers": [a]}), "want": {["ephemeralContainers/x", "a"]}},
		"from a volume": {"new": {"containers": [{"name": "v", "image": "d"}]}, "want": {["containers/v", "d"]}},
		"a volume": {"new": {"containers": [], "volumes": [{"name": "w", "image": {"reference": "d"}}]}, "want": {["volumes/w", "d"]}},
	}
	got := places({"operation": "UPDATE", "object": {"spec": case.new}, "oldObject": {"spec": old}})
	print(note, got)
	got == case.want
}

test_a_digest_is_old_in_any_container if {
	places({
		"operation": "UPDATE",
		"object": {"spec": {
			"containers": [{"name": "x", "image": by_digest("b")}, {"name": "y", "image": by_digest("a")}],
			"ephemeralContainers": [{"name": "z", "image": by_digest("quay.io/c:1")}],
		}},
		"oldObject": {"spec": {
			"containers": [{"name": "x", "image": by_digest("a")}, {"image": by_digest("quay.io/c:1")}],
			"initContainers": [{"name": "z", "image": by_digest("b")}],
		}},
	}) == set()
}

# An ambiguous reference is never pinned.
test_an_ambiguous_reference_is_old_only_in_its_container if {
	every ref in [by_digest("IAD.ocir.io/ns/a"), by_digest("iad.ocir.io:443/ns/a"), by_digest("cafe:"), null, 1, [by_digest("a")]] {
		old := {"spec": {"containers": [{"name": "x", "image": ref}]}}
		places({"operation": "UPDATE", "object": old, "oldObject": old}) == set()
		places({
			"operation": "UPDATE",
			"object": {"spec": {"containers": [{"name": "y", "image": ref}]}},
			"oldObject": old,
		}) == {["containers/y", ref]}
	}
}

job(job_name, image) := {"name": job_name, "template": {"spec": {"template": {"spec": {"containers": [{"name": "x", "image": image}]}}}}}

updated(jobs) := places({
	"operation": "UPDATE",
	"object": {"spec": {"replicatedJobs": jobs}},
	"oldObject": {"spec": {"replicatedJobs": [job("driver", "a"), job("worker", "b")]}},
})

test_a_container_of_another_template_is_new if {
	updated([job("worker", "b"), job("driver", "a")]) == set()
	updated([job("worker", "a"), job("driver", "a")]) == {["containers/x", "a"]}
	updated([job("third", "b")]) == {["containers/x", "b"]}
	updated([job("third", by_digest("b"))]) == {["containers/x", by_digest("b")]}
}

test_a_deleted_object_is_not_checked if {
	review := {"operation": "DELETE", "object": {"spec": spec}, "oldObject": {"spec": spec}}
	places(review) == set()
	problems(review) == set()
	problems({"operation": "DELETE", "object": {}, "oldObject": {}}) == set()
}

# A container without a readable image has the reference null.
test_images_that_are_none[note] if {
	some note, container in {
		"missing": {"name": "web"},
		"null": {"name": "web", "image": null},
		"the container is null": null,
		"the container is text": "nginx",
		"the container is a list": ["nginx"],
	}
	got := places({"object": {"spec": {"containers": [container]}}})
	got in {{["containers/web", null]}, {["containers/0", null]}}
}

test_images_are_handed_on_as_they_are[note] if {
	some note, image in {"empty": "", "number": 1, "list": ["nginx"], "object": {"a": "nginx"}, "false": false}
	places({"object": {"spec": {"containers": [{"name": "web", "image": image}]}}}) == {["containers/web", image]}
}

test_image_volumes_without_a_reference[note] if {
	some note, image in {"empty": {}, "text": "nginx", "false": false, "null reference": {"reference": null}}
	object := {"spec": {"containers": [], "volumes": [{"name": "v", "image": image}]}}
	places({"object": object}) == {["volumes/v", null]}
}

test_long_names_leave_room_for_the_reason if {
	name := concat("", [c | some _ in numbers.range(1, 300); c := "n"])
	object := {"spec": {"ephemeralContainers": [{"name": name, "image": "a"}]}}
	[place] := [p | some [p, _] in places({"object": object})]
	count(place) == 60
	startswith(place, "ephemeralContainers/nnnn")
}

test_names_cannot_break_the_line if {
	object := {"spec": {"containers": [{"name": "a\nb\u202e", "image": "a"}]}}
	[place] := [p | some [p, _] in places({"object": object})]
	regex.match(`^[ -~]+$`, place)
}

# An object without a Pod is a violation.
test_objects_without_a_pod[note] if {
	some note, object in {
		"empty": {},
		"null": null,
		"text": "pod",
		"list": [{"spec": spec}],
		"no spec": {"metadata": {"name": "x"}},
		"spec is text": {"spec": "x"},
		"no containers": {"spec": {"volumes": []}},
		"template is empty": {"spec": {"template": {}}},
		"template is text": {"spec": {"template": "x"}},
		"a list of pods": {"kind": "List", "items": [{"spec": spec}]},
	}
	count(problems({"object": object, "kind": {"kind": "X"}})) == 1
	count(problems({"object": object})) == 1
	count(problems({"operation": "UPDATE", "object": object, "oldObject": {"spec": spec}})) == 1
}

test_no_object_at_all_is_unreadable if {
	count(problems({})) == 1
	count(problems({"operation": "CREATE"})) == 1
	count(images.violations) == 1 with input as {}
}

test_fields_that_are_no_lists[note] if {
	some note, field in [
		["containers", {"a": {"image": "x"}}], ["containers", "x"],
		["initContainers", {"a": {"image": "x"}}], ["initContainers", 1],
		["ephemeralContainers", {}], ["volumes", {"a": {"image": {"reference": "x"}}}], ["volumes", true],
	]
	got := problems({"object": {"spec": object.union({"containers": []}, {field[0]: field[1]})}})
	count(got) == 1
	every message in got {
		startswith(message, sprintf("%s: unreadable: ", [field[0]]))
	}
}

test_a_part_that_was_unreadable_before_may_be_updated if {
	problems({"operation": "UPDATE", "object": {"spec": {}}, "oldObject": {"spec": {}}}) == set()
	count(problems({"operation": "UPDATE", "object": {"spec": {}}, "oldObject": null})) == 1
}

# An unreadable part of the old object does not excuse another one.
test_another_unreadable_part_is_a_violation if {
	problems({
		"operation": "UPDATE",
		"object": {"spec": {"containers": [], "volumes": "x", "initContainers": "y"}},
		"oldObject": {"spec": {"containers": [], "volumes": "x"}},
	}) == {"initContainers: unreadable: must be a list: y"}
	count(problems({
		"operation": "UPDATE",
		"object": {"spec": {"containers": [], "volumes": "x"}},
		"oldObject": {"spec": {}},
	})) == 1
}

many(n) := {"spec": {"containers": [{"name": sprintf("c%d", [i]), "image": "a"} | some i in numbers.range(1, n)]}}

test_too_many_images if {
	count(places({"object": many(250)})) == 250
	problems({"object": many(250)}) == set()
	got := problems({"object": many(251)})
	got == {"object: too-many-images: more than 250 images; split the object, so that each part is checked in time: 251"}
	places({"object": many(251)}) == set()
	problems({"operation": "UPDATE", "object": many(251), "oldObject": many(251)}) == set()
	count(problems({"operation": "UPDATE", "object": many(502), "oldObject": many(251)})) == 1
	places({"operation": "UPDATE", "object": many(252), "oldObject": many(251)}) == {["containers/c252", "a"]}
	problems({"operation": "DELETE", "object": many(251), "oldObject": many(251)}) == set()
}

revision(payload) := {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": payload}

replacing(template) := {"spec": {"template": object.union(template, {"$patch": "replace"})}}

# Other projects store other data in ControllerRevisions.
test_revisions_without_a_pod_have_no_violations[note] if {
	some note, payload in {
		"nothing": {},
		"no template": {"spec": {"cpu": {"guest": 1}}},
		"a virtual machine": {"spec": {"template": {"metadata": {"labels": {}}, "spec": {"domain": {}, "volumes": [{"name": "d", "containerDisk": {"image": "a"}}]}}}},
		"another template": {"spec": {"leaderWorkerTemplate": {"$patch": "replace", "workerTemplate": {"spec": spec}}}},
		"text": {"spec": "x"},
		"a template that is text": {"spec": {"template": "x"}},
		"a list": ["x"],
		"null": null,
	}
	problems({"object": revision(payload)}) == set()
	places({"object": revision(payload)}) == set()
	count(problems({"object": object.union(revision(payload), {"apiVersion": "example.com/v1"})})) == 1
	count(problems({"object": object.union(revision(payload), {"kind": "Revision"})})) == 1
}

test_revisions_as_a_controller_writes_them if {
	object := revision(replacing({"metadata": {"labels": {"Spec": "x"}}, "spec": spec}))
	places({"object": object}) == all_places
	problems({"object": object}) == set()
}

# Only the annotations that the Pod will have count.
test_annotations_belong_to_the_pod[kind] if {
	on_pod := {"annotations": {"at": "the pod"}}
	elsewhere := {"annotations": {"at": "elsewhere"}}
	some kind, object in {
		"Pod": {"metadata": on_pod, "spec": spec},
		"Deployment": {"metadata": elsewhere, "spec": {"metadata": elsewhere, "template": {"metadata": on_pod, "spec": spec}}},
		"CronJob": {"metadata": elsewhere, "spec": {"jobTemplate": {
			"metadata": elsewhere,
			"spec": {"template": {"metadata": on_pod, "spec": spec}},
		}}},
		"PodTemplate": {"metadata": elsewhere, "template": {"metadata": on_pod, "spec": spec}},
		"ControllerRevision": {"metadata": elsewhere, "data": {"metadata": elsewhere, "spec": {"template": {"metadata": on_pod, "spec": spec}}}},
		"ControllerRevision without containers": object.union(revision({"spec": {"template": {"metadata": on_pod, "spec": {"volumes": spec.volumes}}}}), {"metadata": elsewhere}),
	}
	got := {image.pod.annotations | some image in images.checked} with input.review as {"object": object}
	got == {on_pod.annotations}
}
