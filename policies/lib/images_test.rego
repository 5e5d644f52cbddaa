package lib.images_test

import data.lib.images

places(review) := found if {
	found := {[images.place(image), image.ref] | some image in images.judged} with input.review as review
}

problems(review) := found if {
	found := {violation.msg | some violation in images.unreadable} with input.review as review
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

# One object of each shape, whatever its kind is called.
shapes := {
	"Pod": {"spec": spec},
	"PodTemplate": {"template": {"spec": spec}},
	"Deployment": {"spec": {"template": {"spec": spec}}},
	"CronJob": {"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}},
	"JobSet": {"spec": {"replicatedJobs": [{"template": {"spec": {"template": {"spec": spec}}}}]}},
	"a kind yet to come, that mixes shapes": {
		"spec": {"containers": spec.containers, "template": {"spec": spec}},
		"template": {"spec": spec},
	},
}

test_every_image_of_every_shape_is_judged[kind] if {
	some kind, object in shapes
	places({"operation": "CREATE", "object": object}) == all_places
	problems({"operation": "CREATE", "object": object}) == set()
}

test_without_an_operation_everything_is_judged[kind] if {
	some kind, object in shapes
	places({"object": object}) == all_places
	places({"operation": "", "object": object, "oldObject": object}) == all_places
}

test_on_update_only_new_references_are_judged[kind] if {
	some kind, object in shapes
	old := json.patch(object, [])
	places({"operation": "UPDATE", "object": object, "oldObject": old}) == set()
	places({"operation": "UPDATE", "object": object, "oldObject": null}) == all_places
	places({"operation": "UPDATE", "object": object}) == all_places
	places({"operation": "UPDATE", "object": object, "oldObject": {"spec": {"containers": [{"name": "x", "image": "a"}]}}}) == all_places - {["containers/web", "a"]}
}

test_another_place_for_an_old_reference_is_nothing_new if {
	places({
		"operation": "UPDATE",
		"object": {"spec": {"containers": [{"name": "x", "image": "b"}, {"name": "y", "image": "a"}]}},
		"oldObject": {"spec": {"containers": [{"name": "x", "image": "a"}], "initContainers": [{"name": "z", "image": "b"}]}},
	}) == set()
}

test_what_is_deleted_is_not_judged if {
	review := {"operation": "DELETE", "object": {"spec": spec}, "oldObject": {"spec": spec}}
	places(review) == set()
	problems(review) == set()
	problems({"operation": "DELETE", "object": {}, "oldObject": {}}) == set()
}

# A container that names no image in a readable way is judged as naming none.
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

# Where no images can be found nothing is admitted either.
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
	count(images.unreadable) == 1 with input as {}
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

test_what_was_unreadable_before_may_be_updated if {
	problems({"operation": "UPDATE", "object": {"spec": {}}, "oldObject": {"spec": {}}}) == set()
	count(problems({"operation": "UPDATE", "object": {"spec": {}}, "oldObject": null})) == 1
}

# The annotations that count are those of the pod that comes of it.
test_annotations_belong_to_the_pod[kind] if {
	mark := {"annotations": {"at": "the pod"}}
	wrong := {"annotations": {"at": "elsewhere"}}
	some kind, object in {
		"Pod": {"metadata": mark, "spec": spec},
		"Deployment": {"metadata": wrong, "spec": {"metadata": wrong, "template": {"metadata": mark, "spec": spec}}},
		"CronJob": {"metadata": wrong, "spec": {"jobTemplate": {
			"metadata": wrong,
			"spec": {"template": {"metadata": mark, "spec": spec}},
		}}},
		"PodTemplate": {"metadata": wrong, "template": {"metadata": mark, "spec": spec}},
	}
	got := {image.pod.annotations | some image in images.judged} with input.review as {"object": object}
	got == {mark.annotations}
}
