package okebreakglass_test

import data.okebreakglass

now := time.parse_rfc3339_ns("2021-12-21T12:00:00Z")

annotation := "oracle.image-policy.k8s.io/break-glass"

used := {annotation: "true"}

with_reason := object.union(used, {"oke-sign.dev/break-glass-reason": "INC-7"})

until(time) := object.union(used, {"oke-sign.dev/break-glass-until": time})

pod(annotations) := {"metadata": {"annotations": annotations}, "spec": {"containers": [{"name": "c", "image": "a"}]}}

deployment(annotations) := {"spec": {"template": pod(annotations)}}

request(operation, user, kind, object) := {
	"operation": operation,
	"userInfo": user,
	"kind": kind,
	"object": object,
}

alice := {"username": "alice", "groups": ["system:authenticated", "sre"]}

pod_kind := {"group": "", "version": "v1", "kind": "Pod"}

reasons(parameters, review) := got if {
	messages := {violation.msg | some violation in okebreakglass.violation} with input as {"parameters": parameters, "review": review}
		with time.now_ns as now
	got := {reason | some message in messages; [_, reason] := array.slice(split(message, ": "), 0, 2)}
}

create(parameters, annotations) := got if {
	got := reasons(parameters, request("CREATE", alice, pod_kind, pod(annotations)))
	got == reasons(parameters, request("CREATE", alice, {"group": "apps", "kind": "Deployment"}, deployment(annotations)))
}

test_pods_without_break_glass_are_admitted_under_every_policy if {
	parameters := {"users": ["nobody"], "requireReason": true, "maxDuration": "1h", "report": true}
	every annotations in [{}, null, {"other": "true"}, {annotation: "false"}, {"oke-sign.dev/break-glass-until": "never"}] {
		create(parameters, annotations) == set()
	}
	reasons(parameters, request("CREATE", alice, {"group": "apps", "kind": "Deployment"}, object.union(
		deployment({}),
		{"metadata": {"annotations": used}},
	))) == set()
}

# Kritis accepts any value of the annotation.
test_only_one_spelling_has_an_effect[note] if {
	some note, value in {
		"yes": "yes",
		"True": "True",
		"empty": "",
		"a space": "true ",
		"boolean": true,
		"null": null,
	}
	create({}, {annotation: value}) == {"no-effect"}
}

# YAML reads true without quotes as a boolean, which looks correct in a manifest.
test_the_message_asks_for_quotes if {
	review := request("CREATE", alice, pod_kind, pod({annotation: true}))
	[violation.msg | some violation in okebreakglass.violation] == [concat("", [
		"break-glass: no-effect: this value does nothing; oracle.image-policy.k8s.io/break-glass takes effect only ",
		"with the value \"true\", in YAML with quotes: true",
	])]
		with input as {"parameters": {}, "review": review}
}

test_every_user_may_by_default if {
	create({}, used) == set()
	create({"users": [], "groups": [], "serviceAccounts": []}, used) == set()
}

test_reasons[note] if {
	some note, case in {
		"given": {"annotations": with_reason, "want": set()},
		"missing": {"annotations": used, "want": {"no-reason"}},
		"empty": {"annotations": object.union(with_reason, {"oke-sign.dev/break-glass-reason": ""}), "want": {"no-reason"}},
		"blank": {"annotations": object.union(with_reason, {"oke-sign.dev/break-glass-reason": " \t\n"}), "want": {"no-reason"}},
		"no text": {"annotations": object.union(with_reason, {"oke-sign.dev/break-glass-reason": 1}), "want": {"no-reason"}},
	}
	create({"requireReason": true}, case.annotations) == case.want
	create({"requireReason": false}, case.annotations) == set()
}

test_duration[note] if {
	some note, case in {
		"missing": {"annotations": used, "want": {"no-end"}},
		"in time": {"annotations": until("2021-12-21T13:59:59Z"), "want": set()},
		"at the last moment": {"annotations": until("2021-12-21T14:00:00Z"), "want": set()},
		"another zone": {"annotations": until("2021-12-21T22:30:00+09:00"), "want": set()},
		"too long": {"annotations": until("2021-12-21T14:00:01Z"), "want": {"too-long"}},
		"far too long": {"annotations": until("9999-12-31T23:59:59Z"), "want": {"bad-end"}},
		"over": {"annotations": until("2021-12-21T11:59:59Z"), "want": {"expired"}},
		"just over": {"annotations": until("2021-12-21T12:00:00Z"), "want": {"expired"}},
		"no time": {"annotations": until("tomorrow"), "want": {"bad-end"}},
		"a date": {"annotations": until("2021-12-22"), "want": {"bad-end"}},
		"empty": {"annotations": until(""), "want": {"bad-end"}},
		"no text": {"annotations": until(5), "want": {"bad-end"}},
	}
	create({"maxDuration": "2h"}, case.annotations) == case.want
	create({"maxDuration": "120m"}, case.annotations) == case.want
}

# OPA counts time in nanoseconds, which ends in 2262.
test_the_message_shows_the_format_of_an_end if {
	every at in ["9999-12-31T23:59:59Z", "tomorrow"] {
		review := request("CREATE", alice, pod_kind, pod(until(at)))
		[violation.msg | some violation in okebreakglass.violation] == [concat("", [
			"break-glass: bad-end: oke-sign.dev/break-glass-until is not a time before 2262; ",
			"set one such as 2026-01-31T18:00:00Z (RFC 3339), at most 2h from now: ", at,
		])]
			with input as {"parameters": {"maxDuration": "2h"}, "review": review}
			with time.now_ns as now
	}
}

test_an_end_counts_without_max_duration if {
	create({}, until("2021-12-21T11:59:59Z")) == {"expired"}
	create({}, until("tomorrow")) == {"bad-end"}
	create({}, until("2121-12-21T12:00:00Z")) == set()
}

test_a_duration_that_cannot_be_read_admits_nothing if {
	every duration in ["2 hours", "", 7, [], {}, null] {
		create({"maxDuration": duration}, until("2021-12-21T12:00:01Z")) == {"bad-end"}
	}
}

test_users[note] if {
	some note, case in {
		"the user": {"parameters": {"users": ["alice"]}, "want": set()},
		"another user": {"parameters": {"users": ["bob"]}, "want": {"not-allowed"}},
		"part of the name": {"parameters": {"users": ["ali", "alice2", "ALICE"]}, "want": {"not-allowed"}},
		"the group": {"parameters": {"users": ["bob"], "groups": ["sre"]}, "want": set()},
		"another group": {"parameters": {"groups": ["dev"]}, "want": {"not-allowed"}},
		"a group of the user's name": {"parameters": {"groups": ["alice"]}, "want": {"not-allowed"}},
		"a user of the group's name": {"parameters": {"users": ["sre"]}, "want": {"not-allowed"}},
		"a service account of the user's name": {"parameters": {"serviceAccounts": ["default/alice"]}, "want": {"not-allowed"}},
		"users that are no list": {"parameters": {"users": "alice2"}, "want": {"not-allowed"}},
		"users that are null": {"parameters": {"users": null}, "want": {"not-allowed"}},
	}
	create(case.parameters, used) == case.want
}

test_service_accounts if {
	review := request("CREATE", {"username": "system:serviceaccount:ops:deployer"}, pod_kind, pod(used))
	reasons({"serviceAccounts": ["ops/deployer"]}, review) == set()
	reasons({"users": ["system:serviceaccount:ops:deployer"]}, review) == set()
	every account in ["ops/deploy", "op/deployer", "deployer", "ops/deployer/", "ops:deployer", 1] {
		reasons({"serviceAccounts": [account]}, review) == {"not-allowed"}
	}
}

test_users_are_not_checked_without_a_user if {
	every user in [{}, null, {"groups": ["dev"]}] {
		reasons({"users": ["bob"]}, request("", user, pod_kind, pod(used))) == set()
	}
	reasons({"users": ["bob"], "requireReason": true}, {"object": pod(used), "kind": pod_kind}) == {"no-reason"}
}

kinds := {
	"ControllerRevision": {"group": "apps", "kind": "ControllerRevision"},
	"Pod": {"group": "", "kind": "Pod"},
	"Job": {"group": "batch", "kind": "Job"},
	"ReplicaSet": {"group": "apps", "kind": "ReplicaSet"},
	"Deployment": {"group": "apps", "kind": "Deployment"},
	"CronJob": {"group": "batch", "kind": "CronJob"},
	"Pod of another group": {"group": "example.com", "kind": "Pod"},
	"Job of another group": {"group": "example.com", "kind": "Job"},
	"ReplicaSet of the old group": {"group": "extensions", "kind": "ReplicaSet"},
}

controllers := {
	"system:kube-controller-manager": {"Pod", "Job", "ReplicaSet", "ControllerRevision"},
	"system:serviceaccount:kube-system:deployment-controller": {"ReplicaSet"},
	"system:serviceaccount:kube-system:cronjob-controller": {"Job"},
	"system:serviceaccount:kube-system:replicaset-controller": {"Pod"},
	"system:serviceaccount:kube-system:replication-controller": {"Pod"},
	"system:serviceaccount:kube-system:statefulset-controller": {"Pod", "ControllerRevision"},
	"system:serviceaccount:kube-system:daemon-set-controller": {"Pod", "ControllerRevision"},
	"system:serviceaccount:kube-system:job-controller": {"Pod"},
	"system:serviceaccount:default:replicaset-controller": set(),
	"system:serviceaccount:kube-system:replicaset-controller2": set(),
	"system:serviceaccount:kube-system:default": set(),
	"replicaset-controller": set(),
	"system:kube-scheduler": set(),
}

test_controllers_are_permitted_in_exact_pairs[user] if {
	some user, made in controllers
	exempt := {name |
		some name, kind in kinds
		reasons({"users": ["bob"]}, request("CREATE", {"username": user}, kind, pod(used))) == set()
	}
	exempt == made
	every kind in kinds {
		old := {"oldObject": pod({})}
		reasons({"users": ["bob"]}, object.union(request("UPDATE", {"username": user}, kind, pod(used)), old)) == {"not-allowed"}
	}
}

test_controllers_are_exempt_from_no_other_rule if {
	user := {"username": "system:serviceaccount:kube-system:replicaset-controller"}
	parameters := {"users": ["bob"], "requireReason": true, "maxDuration": "1h"}
	reasons(parameters, request("CREATE", user, pod_kind, pod(until("2021-12-21T11:00:00Z")))) == {"no-reason", "expired"}
	reasons(parameters, request("CREATE", user, pod_kind, pod({annotation: "yes"}))) == {"no-effect"}
}

# Connaisseur, Portieris and Kritis skip children of a known parent. But any user can write owner
# references.
test_an_owner_proves_nothing if {
	owned := object.union(pod(used), {"metadata": {"ownerReferences": [{"kind": "ReplicaSet", "name": "x", "controller": true}]}})
	reasons({"users": ["bob"]}, request("CREATE", alice, pod_kind, owned)) == {"not-allowed"}
}

update(old, new) := reasons(
	{"users": ["bob"], "requireReason": true, "maxDuration": "1h", "report": true},
	object.union(request("UPDATE", alice, pod_kind, new), {"oldObject": old}),
)

test_updates[note] if {
	expired := object.union(until("2020-01-01T00:00:00Z"), {"oke-sign.dev/break-glass-reason": "INC-7"})
	other_image := {"spec": {"containers": [{"name": "c", "image": "b"}]}}
	some note, case in {
		"nothing changes": {"old": pod(expired), "new": pod(expired), "want": set()},
		"the network notes an address": {"old": pod(expired), "new": pod(object.union(expired, {"cni": "10.0.0.1"})), "want": set()},
		"a finalizer goes": {"old": object.union(pod(expired), {"metadata": {"finalizers": ["x"]}}), "new": pod(expired), "want": set()},
		"the annotation goes": {"old": pod(expired), "new": pod({}), "want": set()},
		"the annotation comes": {"old": pod({}), "new": pod(expired), "want": {"not-allowed", "expired", "in-use"}},
		"false becomes true": {"old": pod({annotation: "false"}), "new": pod(expired), "want": {"not-allowed", "expired", "in-use"}},
		"the end moves": {
			"old": pod(expired),
			"new": pod(object.union(expired, {"oke-sign.dev/break-glass-until": "2021-12-21T12:30:00Z"})),
			"want": {"not-allowed", "in-use"},
		},
		"the reason goes": {"old": pod(expired), "new": pod(until("2020-01-01T00:00:00Z")), "want": {"not-allowed", "expired", "in-use", "no-reason"}},
		"an image changes": {"old": pod(expired), "new": object.union(pod(expired), other_image), "want": {"not-allowed", "expired", "in-use"}},
		"a debug container comes": {
			"old": pod(expired),
			"new": object.union(pod(expired), {"spec": {"ephemeralContainers": [{"name": "d", "image": "busybox"}]}}),
			"want": {"not-allowed", "expired", "in-use"},
		},
		"an image goes": {
			"old": object.union(pod(expired), {"spec": {"initContainers": [{"name": "d", "image": "busybox"}]}}),
			"new": pod(expired),
			"want": set(),
		},
		"an image changes without break-glass": {"old": pod({}), "new": object.union(pod({}), other_image), "want": set()},
		"a misspelling comes": {"old": pod({}), "new": pod({annotation: "yes"}), "want": {"no-effect"}},
		"a misspelling stays": {"old": pod({annotation: "yes"}), "new": pod({annotation: "yes"}), "want": set()},
		"the annotation comes where no image is": {
			"old": object.union(pod({}), {"spec": {"containers": []}}),
			"new": object.union(pod(expired), {"spec": {"containers": []}}),
			"want": {"not-allowed", "expired", "in-use"},
		},
		"the old object is missing": {"old": null, "new": pod(expired), "want": {"not-allowed", "expired", "in-use"}},
	}
	got := update(case.old, case.new)
	print(note, got)
	got == case.want
}

jobs(templates) := {"spec": {"replicatedJobs": [{"name": name, "template": {"spec": {"template": template}}} | some name, template in templates]}}

of(image, annotations) := object.union(pod(annotations), {"spec": {"containers": [{"name": "c", "image": image}]}})

# A JobSet has several Pods. Break-glass of one of them does not extend to the others.
test_each_pod_is_compared_with_itself[note] if {
	expired := object.union(until("2020-01-01T00:00:00Z"), {"oke-sign.dev/break-glass-reason": "INC-7"})
	some note, case in {
		"nothing changes": {"new": {"a": pod(expired), "b": of("b", {})}, "want": set()},
		"one goes": {"new": {"b": of("b", {})}, "want": set()},
		"an image of a Pod without break-glass changes": {"new": {"a": pod(expired), "b": of("c", {})}, "want": set()},
		"an image changes": {"new": {"a": of("b", expired)}, "want": {"not-allowed", "expired", "in-use"}},
		"another Pod of the same name and image": {"new": {"c": pod(expired)}, "want": {"not-allowed", "expired", "in-use"}},
		"the annotations are copied to another": {"new": {"a": pod(expired), "b": of("b", expired)}, "want": {"not-allowed", "expired", "in-use"}},
		"the annotations move to another": {"new": {"a": pod({}), "b": of("b", expired)}, "want": {"not-allowed", "expired", "in-use"}},
		"digests are copied": {"new": {"a": of(by_digest("b"), expired)}, "want": {"not-allowed", "expired", "in-use"}},
	}
	got := update(jobs({"a": pod(expired), "b": of("b", {}), "d": of(by_digest("b"), {})}), jobs(case.new))
	print(note, got)
	got == case.want
}

by_digest(name) := sprintf("quay.io/%s@sha256:%064d", [name, 7])

test_another_order_of_jobs_is_no_change if {
	expired := object.union(until("2020-01-01T00:00:00Z"), {"oke-sign.dev/break-glass-reason": "INC-7"})
	list := jobs({"a": pod(expired), "b": of("b", {})}).spec.replicatedJobs
	reversed := {"spec": {"replicatedJobs": [list[1], list[0]]}}
	update({"spec": {"replicatedJobs": list}}, reversed) == set()
}

# A tag may have moved since the annotations came. The annotations may also have come unchecked,
# through the status or the binding of the Pod: refs(pod) - refs(old) == set().
test_new_images_under_old_annotations[note] if {
	some note, case in {
		"the same": {"new": break_glass_pod({}), "want": set()},
		"another ephemeral container": {"new": break_glass_pod({"ephemeralContainers": [{"name": "d", "image": "busybox"}]}), "want": {"not-allowed", "in-use"}},
		"an old tag in an ephemeral container": {"new": break_glass_pod({"ephemeralContainers": [{"name": "d", "image": "a"}]}), "want": {"not-allowed", "in-use"}},
		"an old tag under an old name": {"new": break_glass_pod({"ephemeralContainers": [{"name": "c", "image": "a"}]}), "want": {"not-allowed", "in-use"}},
		"an old digest in an ephemeral container": {"new": break_glass_pod({"ephemeralContainers": [{"name": "d", "image": by_digest("b")}]}), "want": set()},
		"another order": {"new": break_glass_pod({"containers": [{"name": "e", "image": by_digest("b")}, {"name": "c", "image": "a"}]}), "want": set()},
		"tags that change places": {"new": break_glass_pod({"containers": [{"name": "c", "image": by_digest("b")}, {"name": "e", "image": "a"}]}), "want": {"not-allowed", "in-use"}},
	}
	got := reasons({"users": ["bob"], "report": true}, object.union(request("UPDATE", alice, pod_kind, case.new), {"oldObject": break_glass_pod({})}))
	print(note, got)
	got == case.want
}

break_glass_pod(fields) := {
	"metadata": {"annotations": used},
	"spec": object.union({"containers": [{"name": "c", "image": "a"}, {"name": "e", "image": by_digest("b")}]}, fields),
}

revision_kind := {"group": "apps", "version": "v1", "kind": "ControllerRevision"}

revision(template) := {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {"spec": {"template": template}}}

replacing(template) := revision(object.union(template, {"$patch": "replace"}))

# A StatefulSet's controller, which is permitted, creates older Pods from ControllerRevisions.
test_revisions_are_checked_as_workloads_are[note] if {
	some note, case in {
		"its own controller": {"user": "system:serviceaccount:kube-system:statefulset-controller", "want": set()},
		"the controller of DaemonSets": {"user": "system:serviceaccount:kube-system:daemon-set-controller", "want": set()},
		"all controllers in one": {"user": "system:kube-controller-manager", "want": set()},
		"another controller": {"user": "system:serviceaccount:kube-system:replicaset-controller", "want": {"not-allowed"}},
		"a user": {"user": "mallory", "want": {"not-allowed"}},
		"a permitted user": {"user": "bob", "want": set()},
	}
	user := {"username": case.user}
	every object in [replacing(pod(used)), revision({"metadata": {"annotations": used}}), revision({"metadata": {"annotations": used}, "spec": {}})] {
		reasons({"users": ["bob"]}, request("CREATE", user, revision_kind, object)) == case.want
		reasons({"users": ["bob"]}, with_old(request("UPDATE", user, revision_kind, object))) == set()
	}
	reasons({"users": ["bob"]}, request("CREATE", user, revision_kind, replacing(pod({})))) == set()
}

with_old(review) := object.union(review, {"oldObject": object.union(review.object, {"revision": 7})})

# The Pod of these revisions differs from the template in them: the patch adds images to the
# annotations of the StatefulSet, or has fields that the policy does not read.
test_revisions_with_another_pod[note] if {
	volume := {"spec": {"volumes": [{"name": "v", "image": {"reference": "a"}}]}}
	plain := pod({})
	some note, payload in {
		"a patch of the template": {"spec": {"template": plain}},
		"a patch of an image volume": {"spec": {"template": volume}},
		"a container without an image": {"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}},
		"another directive": {"spec": {"template": object.union(plain, {"$patch": "merge"})}},
		"a directive elsewhere": {"$patch": "replace", "spec": {"template": plain}},
		"upper case": object.union({"Spec": {}}, replacing(plain).data),
		"a long s": object.union({"\u017fpec": {}}, replacing(plain).data),
		"a template beside it": {"spec": object.union({"TEMPLATE": {}}, replacing(plain).data.spec)},
		"in the template": replacing(object.union(plain, {"Metadata": {}})).data,
		"in its metadata": replacing(object.union(plain, {"metadata": {"annotation\u017f": {}}})).data,
	}
	patch := {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": payload}
	got := reasons({"users": ["bob"]}, request("CREATE", {"username": "mallory"}, revision_kind, patch))
	print(note, got)
	got == {"not-allowed"}
	every name in ["bob", "system:serviceaccount:kube-system:statefulset-controller"] {
		reasons({"users": ["bob"]}, request("CREATE", {"username": name}, revision_kind, patch)) == set()
	}
	reasons({}, request("CREATE", {"username": "mallory"}, revision_kind, patch)) == set()
	reasons({"users": ["bob"]}, with_old(request("UPDATE", {"username": "mallory"}, revision_kind, patch))) == set()

	# An old object counts only on UPDATE.
	reasons({"users": ["bob"]}, with_old(request("CREATE", {"username": "mallory"}, revision_kind, patch))) == {"not-allowed"}
}

test_digests[note] if {
	tag := {"name": "t", "image": "iad.ocir.io/ns/a:1"}
	digest := {"name": "d", "image": by_digest("a")}
	some note, case in {
		"a tag": {"spec": {"containers": [tag]}, "want": {"no-digest"}},
		"a digest": {"spec": {"containers": [digest]}, "want": set()},
		"one of two": {"spec": {"containers": [digest], "initContainers": [tag]}, "want": {"no-digest"}},
		"in a volume": {"spec": {"containers": [digest], "volumes": [{"name": "v", "image": {"reference": "a"}}]}, "want": {"no-digest"}},
		"no image": {"spec": {"containers": [{"name": "c"}]}, "want": {"no-digest"}},
		"an ambiguous reference": {"spec": {"containers": [{"name": "c", "image": upper(by_digest("a"))}]}, "want": {"no-digest"}},
		"too many": {"spec": {"containers": [tag | some _ in numbers.range(1, 251)]}, "want": {"too-many-images"}},
	}
	template := {"metadata": {"annotations": used}, "spec": case.spec}
	got := reasons({"requireDigest": true}, request("CREATE", alice, pod_kind, template))
	print(note, got)
	got == case.want
	reasons({"requireDigest": true}, request("CREATE", alice, {"group": "apps", "kind": "Deployment"}, {"spec": {"template": template}})) == case.want
	reasons({"requireDigest": true}, request("CREATE", alice, revision_kind, replacing(template))) == case.want
	reasons({"requireDigest": true}, request("CREATE", alice, pod_kind, {"spec": case.spec})) - {"too-many-images"} == set()
	every parameters in [{}, {"requireDigest": false}, {"requireDigest": "true"}] {
		reasons(parameters, request("CREATE", alice, pod_kind, template)) - {"too-many-images"} == set()
	}
}

test_the_message_names_the_container_without_a_digest if {
	review := request("CREATE", alice, pod_kind, pod(used))
	[violation.msg | some violation in okebreakglass.violation] == ["containers/c: no-digest: a tag may move while break-glass lasts; pin it with kubectl oke-sign pin: a"]
		with input as {"parameters": {"requireDigest": true}, "review": review}
}

test_revisions_of_other_owners_are_admitted if {
	every payload in [{}, {"spec": {"template": {"spec": {"domain": {}}}}}, {"spec": {"cpu": 1}}] {
		revision := {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": payload}
		reasons({"users": ["bob"], "requireReason": true}, request("CREATE", alice, revision_kind, revision)) == set()
	}
}

test_an_old_object_counts_on_update_only if {
	every operation in ["CREATE", "", "CONNECT"] {
		review := object.union(request(operation, alice, pod_kind, pod(used)), {"oldObject": pod(used)})
		reasons({"users": ["bob"]}, review) == {"not-allowed"}
	}
}

test_a_deleted_object_is_not_checked if {
	reasons({"users": ["bob"], "requireReason": true, "report": true}, request("DELETE", alice, pod_kind, pod(used))) == set()
}

test_report_lists_every_use_and_denies_as_before if {
	create({"report": true}, used) == {"in-use"}
	create({"report": true, "requireReason": true}, used) == {"in-use", "no-reason"}
	create({"report": true}, {annotation: "yes"}) == {"no-effect"}
	reasons({"report": true}, {"object": pod(with_reason)}) == {"in-use"}
	create({"report": "true"}, used) == set()
}

test_every_pod_of_an_object_is_checked if {
	jobs := {"spec": {"replicatedJobs": [
		{"template": {"spec": {"template": pod(with_reason)}}},
		{"template": {"spec": {"template": pod(used)}}},
	]}}
	reasons({"requireReason": true}, request("CREATE", alice, {"group": "jobset.x-k8s.io", "kind": "JobSet"}, jobs)) == {"no-reason"}
}

test_objects_without_a_pod_are_denied if {
	reasons({}, request("CREATE", alice, {"group": "", "kind": "Service"}, {"spec": {}})) == {"no-pod-spec"}
}
