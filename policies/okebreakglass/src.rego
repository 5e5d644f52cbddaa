# Limits who may use break-glass, why and for how long. This policy only denies. The other
# policies decide which images break-glass admits.
package okebreakglass

import data.lib.breakglass
import data.lib.images
import data.lib.message

violation contains message.violation("break-glass", "no-effect", detail, value) if {
	some annotations in checked_annotations
	value := annotations[breakglass.annotation]
	not value in {"true", "false"}
	detail := sprintf("this value does nothing; %s takes effect only with the value \"true\", in YAML with quotes", [breakglass.annotation])
}

violation contains message.violation("break-glass", "no-reason", detail, "(none)") if {
	some annotations in annotations_in_use
	input.parameters.requireReason == true
	not has_reason(annotations)
	detail := sprintf("give the reason in the annotation %s", [breakglass.reason_annotation])
}

violation contains message.violation(images.place(image), "no-digest", detail, image.ref) if {
	input.parameters.requireDigest == true
	some image in images.images(break_glass_pods)
	not images.too_many
	not images.pinned(image)
	detail := "a tag may move while break-glass lasts; pin it with kubectl oke-sign pin"
}

violation contains message.violation("break-glass", reason, detail, end_text(annotations)) if {
	some annotations in annotations_in_use
	needs_end(annotations)
	not valid_end(annotations)
	reason := end_reason(annotations)
	detail := sprintf("%s %s; set one such as 2026-01-31T18:00:00Z (RFC 3339), %s", [breakglass.until_annotation, end_problems[reason], end_limit])
}

violation contains message.violation("break-glass", "not-allowed", detail, user) if {
	count(annotations_in_use) > 0
	not permitted
	detail := sprintf("only these may use break-glass: users %v, groups %v, service accounts %v", [
		object.get(input.parameters, "users", []),
		object.get(input.parameters, "groups", []),
		object.get(input.parameters, "serviceAccounts", []),
	])
}

violation contains problem if {
	some problem in revision_violations(images.reviewed)
	not problem in old_revision_violations
	not permitted
}

violation contains problem if some problem in images.violations

# With report, every break-glass use is listed.
violation contains message.violation("break-glass", "in-use", detail, reason_text(annotations)) if {
	input.parameters.report == true
	some annotations in annotations_in_use
	detail := sprintf("images of OCI Registry are admitted here, signed or not, until %v", [end_text(annotations)])
}

annotations_in_use contains pod.annotations if some pod in break_glass_pods

break_glass_pods contains pod if {
	some pod in checked_pods
	breakglass.in_use(pod.annotations)
}

checked_annotations contains pod.annotations if some pod in checked_pods

# checked_pods are the Pods that this policy checks. On UPDATE they are those whose break-glass
# annotations change or that get new images. So a network plugin or a controller can annotate a
# running Pod, and a Pod whose break-glass has expired can still be deleted. Each Pod of an
# object is compared with itself, because an annotation of one Pod is new to another. Annotations
# may have come unchecked, through the status or the binding of a Pod, so they admit no image
# that comes later.
checked_pods contains pod if {
	some pod in images.reviewed_pods
	not unchanged(pod)
}

unchanged(pod) if {
	images.update
	[pod.at, break_glass_annotations(pod)] in old_annotations
	every image in images.images({pod}) {
		in_old_object(image)
	}
}

# in_old_object holds for an image that the old object has under the same annotations: in the
# same container, or by its digest in the same Pod.
in_old_object(image) if [images.position(image), break_glass_annotations(image.pod), image.ref] in old_positions

in_old_object(image) if {
	[image.pod.at, break_glass_annotations(image.pod), image.ref] in old_refs
	images.pinned(image)
}

old_annotations := {[pod.at, break_glass_annotations(pod)] | some pod in images.old_pods}

old_positions := {[images.position(image), break_glass_annotations(image.pod), image.ref] | some image in images.images(images.old_pods)}

old_refs := {[image.pod.at, break_glass_annotations(image.pod), image.ref] | some image in images.images(images.old_pods)}

# revision_violations are those for a ControllerRevision whose Pod may differ from the template
# in it. A ControllerRevision is a strategic merge patch of the StatefulSet. A patch that does
# not replace the template adds its images to the StatefulSet's template, with the annotations
# there. The controller reads the result with encoding/json, which accepts "Spec" and
# "\u017fpec" for "spec".
revision_violations(obj) := similar_names | not_replacing if {
	images.controller_revision(obj)
	similar_names := {message.violation("data", "not-allowed", detail, key) |
		some [fields, names] in [
			[obj.data, {"spec"}],
			[object.get(obj, ["data", "spec"], {}), {"template"}],
			[object.get(obj, ["data", "spec", "template"], {}), {"metadata", "spec"}],
			[object.get(obj, ["data", "spec", "template", "metadata"], {}), {"annotations"}],
		]
		some key, _ in fields
		not key in names
		some name in names
		case_folded(key) == case_folded(name)
		detail := sprintf("only users who may use break-glass may write a field that the controller reads as %v", [name])
	}
	not_replacing := {message.violation("data", "not-allowed", detail, "(none)") |
		count(images.images(images.pods(obj))) > 0
		not obj.data.spec.template["$patch"] == "replace"
		detail := "only users who may use break-glass may write a ControllerRevision that does not replace the whole template ($patch: replace)"
	}
} else := set()

default old_revision_violations := set()

old_revision_violations := revision_violations(input.review.oldObject) if images.update

case_folded(key) := lower(upper(key))

break_glass_annotations(pod) := {name: value |
	some name in breakglass.annotations
	value := pod.annotations[name]
}

has_reason(annotations) if regex.match(`[^\s]`, annotations[breakglass.reason_annotation])

default reason_text(_) := "(no reason given)"

reason_text(annotations) := annotations[breakglass.reason_annotation]

# An end that the annotation states takes effect, whether or not the policy requires one.
needs_end(_) if input.parameters.maxDuration

needs_end(annotations) if annotations[breakglass.until_annotation]

valid_end(annotations) if {
	end_ns(annotations) > time.now_ns()
	end_ns(annotations) <= latest_end
}

end_ns(annotations) := time.parse_rfc3339_ns(annotations[breakglass.until_annotation])

latest_end := time.now_ns() + time.parse_duration_ns(input.parameters.maxDuration)

latest_end := 9223372036854775807 if not input.parameters.maxDuration

default end_reason(_) := "bad-end"

end_reason(annotations) := "expired" if {
	end_ns(annotations) <= time.now_ns()
} else := "too-long" if {
	end_ns(annotations) > latest_end
} else := "no-end" if {
	not annotations[breakglass.until_annotation]
}

default end_text(_) := "(no end)"

end_text(annotations) := annotations[breakglass.until_annotation]

end_problems := {
	"bad-end": "is not a time before 2262",
	"expired": "has passed",
	"no-end": "is missing",
	"too-long": "is too far ahead",
}

default end_limit := "in the future"

end_limit := sprintf("at most %v from now", [input.parameters.maxDuration]) if input.parameters.maxDuration

# user is empty in the audit, which sees the object without its author.
default user := ""

user := input.review.userInfo.username

permitted if user == ""

permitted if {
	every name in ["users", "groups", "serviceAccounts"] {
		object.get(input.parameters, name, []) == []
	}
}

permitted if user in input.parameters.users

permitted if {
	some group in input.review.userInfo.groups
	group in input.parameters.groups
}

permitted if {
	some account in input.parameters.serviceAccounts
	[namespace, name] := split(account, "/")
	user == sprintf("system:serviceaccount:%s:%s", [namespace, name])
}

# A controller creates what a user requested before, and the policy checked that request. Only
# the pairs of controller and kind that Kubernetes itself has are permitted. An owner reference
# proves nothing, because any user can write one. A controller that updates a Pod requests
# something new, so it is not exempt.
permitted if {
	input.review.operation == "CREATE"
	input.review.kind.kind in controller_creates[user]
	api_groups[input.review.kind.kind] == input.review.kind.group
}

api_groups := {"ControllerRevision": "apps", "Job": "batch", "Pod": "", "ReplicaSet": "apps"}

controller_creates := {
	"system:kube-controller-manager": {"ControllerRevision", "Job", "Pod", "ReplicaSet"},
	"system:serviceaccount:kube-system:cronjob-controller": {"Job"},
	"system:serviceaccount:kube-system:daemon-set-controller": {"ControllerRevision", "Pod"},
	"system:serviceaccount:kube-system:deployment-controller": {"ReplicaSet"},
	"system:serviceaccount:kube-system:job-controller": {"Pod"},
	"system:serviceaccount:kube-system:replicaset-controller": {"Pod"},
	"system:serviceaccount:kube-system:replication-controller": {"Pod"},
	"system:serviceaccount:kube-system:statefulset-controller": {"ControllerRevision", "Pod"},
}
