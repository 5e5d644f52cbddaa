# Every image that the object under review may bring to a node. Objects are read
# by their shape and not by their kind, so that workloads that nobody thought of
# here are read too.
package lib.images

import data.lib.message
import data.lib.ocir

# judged is what the request has to answer for. On UPDATE that is the images that
# the old object does not have: finalizers, labels and evictions of what runs
# already must not hang on a registry. An image that the old object has was admitted
# with it, by a verdict, an exemption or break-glass; the audit judges it again.
# Audit and gator know no old object and judge everything.
judged := added if not crowded

default judged := []

added := images(reviewed_pods) if {
	not update
} else := [image |
	some image in images(reviewed_pods)
	not had(image)
]

update if input.review.operation == "UPDATE"

# had holds for an image that the old object has. A digest names the same image
# wherever it stands. A tag may have moved, and a container that is new pulls what
# it names now, so a tag is old only where it stood before.
had(image) if [spot(image), image.ref] in old_spots

had(image) if {
	image.ref in old_refs
	pinned(image)
}

old_pods := pods(input.review.oldObject)

old_spots := {[spot(image), image.ref] | some image in images(old_pods)}

old_refs := {image.ref | some image in images(old_pods)}

pinned(image) if ocir.class(image.ref).pinned

# crowded are requests whose images would take too long to judge. They are refused
# before anything is asked about an image.
crowded if count(added) > most

most := 250

# unreadable are violations for whatever may hide an image.
unreadable contains problem if {
	not deletion
	some problem in hidden(reviewed, reviewed_pods)
	not problem in hidden_before
}

unreadable contains message.violation("object", "too-many-images", detail, count(added)) if {
	crowded
	detail := sprintf("more than %d images; split the object, so that each part can be judged in time", [most])
}

default hidden_before := set()

hidden_before := hidden(input.review.oldObject, old_pods) if {
	update
	is_object(input.review.oldObject)
}

# Gatekeeper puts an object that goes away in the place of the object. A missing
# object is one without images, and so unreadable.
default reviewed := {}

reviewed := input.review.object if not deletion

reviewed_pods := pods(reviewed)

deletion if input.review.operation == "DELETE"

hidden(obj, pods_of) := no_pod | no_list if {
	no_pod := {message.violation("object", "no-pod-spec", detail, kind) |
		count(pods_of) == 0
		not revision(obj)
		detail := "no pod and no pod template found in it, so no images; the constraint must not match this kind"
	}
	no_list := {message.violation(field, "unreadable", "must be a list", value) |
		some pod in pods_of
		some field in ["containers", "ephemeralContainers", "initContainers", "volumes"]
		value := pod.spec[field]
		value != null
		not is_array(value)
	}
}

default kind := "?"

kind := input.review.kind.kind

# A ControllerRevision is what a StatefulSet makes its older Pods from: a strategic
# merge patch of the StatefulSet, written by its controller. Other controllers keep
# other data in theirs, which holds no Pod.
revision(obj) if {
	obj.kind == "ControllerRevision"
	startswith(obj.apiVersion, "apps/")
}

containers := ["containers", "ephemeralContainers", "initContainers"]

# images are places with what is written there. A container or volume without an
# image has the reference null, which names nothing.
images(pods_of) := array.concat(array.concat(named, unnamed), mounted) if {
	named := [image |
		some pod in pods_of
		some field in containers
		some i, container in pod.spec[field]
		image := {"field": field, "index": i, "ref": container.image, "pod": pod}
	]

	# Nearly every container has an image, so those without are looked for only when
	# the numbers differ. The sum is never too small: each element of a list or an
	# object counts, and so does each letter of a string, for which hidden has a
	# violation. A sum that is too large costs this search and nothing else.
	unnamed := [image |
		count(named) != sum([count(pod.spec[field]) | some pod in pods_of; some field in containers])
		some pod in pods_of
		some field in containers
		some i, container in pod.spec[field]
		not has_image(container)
		image := {"field": field, "index": i, "ref": null, "pod": pod}
	]
	mounted := [image |
		some pod in pods_of
		some i, volume in pod.spec.volumes
		volume.image != null
		image := {"field": "volumes", "index": i, "ref": reference(volume), "pod": pod}
	]
}

has_image(container) if "image" in object.keys(container)

default reference(_) := null

reference(volume) := volume.image.reference

# place is where an image stands, in words. With the longest field,
# ephemeralContainers, and a slash it is as long as message.longest.place.
place(image) := sprintf("%s/%s", [image.field, message.printable(name(image), 40)])

name(image) := written if {
	written := image.pod.spec[image.field][image.index].name
	is_string(written)
} else := image.index

# spot is where an image stands in its object. A container keeps its spot by its name
# when the order changes.
spot(image) := [image.pod.at, image.field, name(image)]

# pods are the specs of pods, each with the annotations of the pod it becomes, and
# where it stands. They are found wherever Kubernetes and what extends it keep the
# template of a pod; a Pod is its own.
pods(obj) := {pod |
	some [at, template] in templates(obj)
	spec := template.spec
	some field in containers
	spec[field]
	pod := {"at": at, "spec": spec, "annotations": object.get(template, ["metadata", "annotations"], {})}
} | {pod |
	# Its containers may be those of the StatefulSet.
	revision(obj)
	template := obj.data.spec.template
	is_object(template)
	pod := {
		"at": "data.spec.template",
		"spec": object.get(template, "spec", {}),
		"annotations": object.get(template, ["metadata", "annotations"], {}),
	}
}

templates(obj) := array.concat(
	[
		["", obj],
		["template", object.get(obj, "template", null)],
		["spec.template", object.get(obj, ["spec", "template"], null)],
		["spec.jobTemplate.spec.template", object.get(obj, ["spec", "jobTemplate", "spec", "template"], null)],
		["data.spec.template", object.get(obj, ["data", "spec", "template"], null)], # ControllerRevision
	],
	[[at, template] |
		some i, job in obj.spec.replicatedJobs # JobSet
		at := ["spec.replicatedJobs", object.get(job, "name", i)]
		template := job.template.spec.template
	],
)
