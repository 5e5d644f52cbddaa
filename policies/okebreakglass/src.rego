# Who may break the glass, why, and for how long. This policy only refuses; what
# an annotation in use lets in is up to the other policies.
package okebreakglass

import data.lib.breakglass
import data.lib.images
import data.lib.message

violation contains message.violation("break-glass", "no-effect", detail, value) if {
	some annotations in judged
	value := annotations[breakglass.annotation]
	not value in {"true", "false"}
	detail := sprintf("%s lets images in with the value \"true\" only, in YAML with its quotes, so this does nothing", [breakglass.annotation])
}

violation contains message.violation("break-glass", "no-reason", detail, "(none)") if {
	some annotations in used
	input.parameters.requireReason == true
	not explained(annotations)
	detail := sprintf("say why, in the annotation %s", [breakglass.reason])
}

violation contains message.violation(images.place(image), "no-digest", detail, image.ref) if {
	input.parameters.requireDigest == true
	some image in images.images(used_pods)
	not images.crowded
	not images.pinned(image)
	detail := "a tag may move while break-glass lasts; pin it with kubectl oke-sign pin"
}

violation contains message.violation("break-glass", reason, detail, end(annotations)) if {
	some annotations in used
	timed(annotations)
	not in_time(annotations)
	reason := overtime(annotations)
	detail := sprintf("%s %s; set one such as 2026-01-31T18:00:00Z (RFC 3339), %s", [breakglass.until, wrong[reason], within])
}

violation contains message.violation("break-glass", "not-allowed", detail, user) if {
	count(used) > 0
	not permitted
	detail := sprintf("only these may break the glass: users %v, groups %v, service accounts %v", [
		object.get(input.parameters, "users", []),
		object.get(input.parameters, "groups", []),
		object.get(input.parameters, "serviceAccounts", []),
	])
}

violation contains problem if {
	some problem in patches(images.reviewed)
	not problem in patches_before
	not permitted
}

violation contains problem if some problem in images.unreadable

# With report, every use is listed.
violation contains message.violation("break-glass", "in-use", detail, why(annotations)) if {
	input.parameters.report == true
	some annotations in used
	detail := sprintf("images of OCI Registry get in here, signed or not, until %v", [end(annotations)])
}

used contains pod.annotations if some pod in used_pods

used_pods contains pod if {
	some pod in judged_pods
	breakglass.in_use(pod.annotations)
}

judged contains pod.annotations if some pod in judged_pods

# On UPDATE a Pod is judged when its annotations change, or images come: what the
# network or a controller notes on a running Pod breaks no glass, and one that has run
# out of time can still be deleted. Each of an object's Pods answers for itself: an
# annotation that one has already is new to another. Annotations may have come
# unseen, through the status or the binding of a Pod, and so they let no image in
# that comes after them.
judged_pods contains pod if {
	some pod in images.reviewed_pods
	not unchanged(pod)
}

unchanged(pod) if {
	images.update
	[pod.at, marks(pod)] in old_marks
	every image in images.images({pod}) {
		had(image)
	}
}

# had holds for an image that was there before under the same annotations: in the
# same container, or by its digest in the same Pod.
had(image) if [images.spot(image), marks(image.pod), image.ref] in old_spots

had(image) if {
	[image.pod.at, marks(image.pod), image.ref] in old_refs
	images.pinned(image)
}

old_marks := {[pod.at, marks(pod)] | some pod in images.old_pods}

old_spots := {[images.spot(image), marks(image.pod), image.ref] | some image in images.images(images.old_pods)}

old_refs := {[image.pod.at, marks(image.pod), image.ref] | some image in images.images(images.old_pods)}

# patches are violations for a ControllerRevision that leads to another Pod than the one
# that stands in it. It is a strategic merge patch of the StatefulSet. One that does
# not replace the template adds its images to what the StatefulSet has, annotations
# included. And the controller reads the result with encoding/json, which takes "Spec"
# and "\u017fpec" for "spec".
patches(obj) := alike | merged if {
	images.revision(obj)
	alike := {message.violation("data", "not-allowed", detail, key) |
		some [fields, names] in [
			[obj.data, {"spec"}],
			[object.get(obj, ["data", "spec"], {}), {"template"}],
			[object.get(obj, ["data", "spec", "template"], {}), {"metadata", "spec"}],
			[object.get(obj, ["data", "spec", "template", "metadata"], {}), {"annotations"}],
		]
		some key, _ in fields
		not key in names
		some name in names
		folded(key) == folded(name)
		detail := sprintf("only those who may break the glass may write a field that the controller takes for %v", [name])
	}
	merged := {message.violation("data", "not-allowed", detail, "(none)") |
		count(images.images(images.pods(obj))) > 0
		not obj.data.spec.template["$patch"] == "replace"
		detail := "only those who may break the glass may write a ControllerRevision that does not replace the whole template ($patch: replace)"
	}
} else := set()

default patches_before := set()

patches_before := patches(input.review.oldObject) if images.update

folded(key) := lower(upper(key))

marks(pod) := {name: value |
	some name in breakglass.names
	value := pod.annotations[name]
}

explained(annotations) if regex.match(`[^\s]`, annotations[breakglass.reason])

default why(_) := "(no reason given)"

why(annotations) := annotations[breakglass.reason]

# An end that is announced is kept, whether or not the policy asks for one.
timed(_) if input.parameters.maxDuration

timed(annotations) if annotations[breakglass.until]

in_time(annotations) if {
	end_ns(annotations) > time.now_ns()
	end_ns(annotations) <= latest
}

end_ns(annotations) := time.parse_rfc3339_ns(annotations[breakglass.until])

latest := time.now_ns() + time.parse_duration_ns(input.parameters.maxDuration)

latest := 9223372036854775807 if not input.parameters.maxDuration

default overtime(_) := "bad-end"

overtime(annotations) := "expired" if {
	end_ns(annotations) <= time.now_ns()
} else := "too-long" if {
	end_ns(annotations) > latest
} else := "no-end" if {
	not annotations[breakglass.until]
}

default end(_) := "(no end)"

end(annotations) := annotations[breakglass.until]

wrong := {
	"bad-end": "is not a time before 2262",
	"expired": "has passed",
	"no-end": "is missing",
	"too-long": "is too far ahead",
}

default within := "in the future"

within := sprintf("at most %v from now", [input.parameters.maxDuration]) if input.parameters.maxDuration

# Who asks is known for an admission request only; the audit sees the object
# without its author.
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

# A controller makes what somebody else asked for, and that request was judged
# when it came. Only the pairs that Kubernetes itself has count: an owner
# reference is written by whoever likes to, and a controller that updates a Pod
# asks for something new.
permitted if {
	input.review.operation == "CREATE"
	input.review.kind.kind in makes[user]
	groups[input.review.kind.kind] == input.review.kind.group
}

groups := {"ControllerRevision": "apps", "Job": "batch", "Pod": "", "ReplicaSet": "apps"}

makes := {
	"system:kube-controller-manager": {"ControllerRevision", "Job", "Pod", "ReplicaSet"},
	"system:serviceaccount:kube-system:cronjob-controller": {"Job"},
	"system:serviceaccount:kube-system:daemon-set-controller": {"ControllerRevision", "Pod"},
	"system:serviceaccount:kube-system:deployment-controller": {"ReplicaSet"},
	"system:serviceaccount:kube-system:job-controller": {"Pod"},
	"system:serviceaccount:kube-system:replicaset-controller": {"Pod"},
	"system:serviceaccount:kube-system:replication-controller": {"Pod"},
	"system:serviceaccount:kube-system:statefulset-controller": {"ControllerRevision", "Pod"},
}
