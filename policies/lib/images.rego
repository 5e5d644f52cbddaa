# Finds every image that the object under review may bring to a node. It reads objects by
# their shape and not by their kind, so that it also reads workloads of unknown kinds.
package lib.images

import data.lib.message
import data.lib.ocir

# checked are the images that the policy must check. On UPDATE they are the images that the
# old object does not have: a change of finalizers or labels, or an eviction, must not depend
# on a registry. An image of the old object was admitted with it, by a verdict, an exemption
# or break-glass, and the audit checks it again. Audit and gator have no old object, so they
# check everything.
checked := new_images if not too_many

default checked := []

new_images := images(reviewed_pods) if {
	not update
} else := [image |
	some image in images(reviewed_pods)
	not in_old_object(image)
]

update if input.review.operation == "UPDATE"

# in_old_object holds for an image that the old object has. A digest names the same image in
# any container. A tag may have moved, and a new container pulls the image that the tag names
# now. A tag therefore counts as old only in the same container.
in_old_object(image) if [position(image), image.ref] in old_positions

in_old_object(image) if {
	image.ref in old_refs
	pinned(image)
}

old_pods := pods(input.review.oldObject)

old_positions := {[position(image), image.ref] | some image in images(old_pods)}

old_refs := {image.ref | some image in images(old_pods)}

pinned(image) if ocir.classify(image.ref).pinned

# too_many holds for a request with more images than the policy can check in time. The
# request is denied before any image is checked.
too_many if count(new_images) > max_images

max_images := 250

# violations are those for a request that may hide an image from the policy.
violations contains violation if {
	not deletion
	some violation in unreadable_parts(reviewed, reviewed_pods)
	not violation in old_unreadable_parts
}

violations contains message.violation("object", "too-many-images", detail, count(new_images)) if {
	too_many
	detail := sprintf("more than %d images; split the object, so that each part is checked in time", [max_images])
}

default old_unreadable_parts := set()

old_unreadable_parts := unreadable_parts(input.review.oldObject, old_pods) if {
	update
	is_object(input.review.oldObject)
}

# On DELETE, Gatekeeper copies the deleted object into object, so object is ignored there. A
# missing object becomes one without a Pod, which is a violation.
default reviewed := {}

reviewed := input.review.object if not deletion

reviewed_pods := pods(reviewed)

deletion if input.review.operation == "DELETE"

unreadable_parts(obj, pods_of) := no_pod | no_list if {
	no_pod := {message.violation("object", "no-pod-spec", detail, kind) |
		count(pods_of) == 0
		not controller_revision(obj)
		detail := "it has no Pod and no Pod template, so no images; remove this kind from the match of the constraint"
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

# A StatefulSet makes its older Pods from a ControllerRevision: a strategic merge patch of
# the StatefulSet, written by its controller. Other controllers store other data in theirs,
# without a Pod.
controller_revision(obj) if {
	obj.kind == "ControllerRevision"
	startswith(obj.apiVersion, "apps/")
}

containers := ["containers", "ephemeralContainers", "initContainers"]

# images are the images of Pods, each with its field, index, reference and Pod. A container
# or volume without an image has the reference null, which is invalid.
images(pods_of) := array.concat(array.concat(with_image, without_image), mounted) if {
	with_image := [image |
		some pod in pods_of
		some field in containers
		some i, container in pod.spec[field]
		image := {"field": field, "index": i, "ref": container.image, "pod": pod}
	]

	# Nearly every container has an image, so this search runs only if the counts differ.
	# The sum is never too small: count counts each element of a list or an object, and each
	# letter of a string, for which unreadable_parts has a violation. A sum that is too large
	# only costs this search.
	without_image := [image |
		count(with_image) != sum([count(pod.spec[field]) | some pod in pods_of; some field in containers])
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
		image := {"field": "volumes", "index": i, "ref": volume_reference(volume), "pod": pod}
	]
}

has_image(container) if "image" in object.keys(container)

default volume_reference(_) := null

volume_reference(volume) := volume.image.reference

# place is the field and the name of an image's container or volume, for messages. With the
# longest field, ephemeralContainers, and a slash it is as long as message.longest.place.
place(image) := sprintf("%s/%s", [image.field, message.printable(name(image), 40)])

name(image) := written if {
	written := image.pod.spec[image.field][image.index].name
	is_string(written)
} else := image.index

# position identifies an image's container or volume in the object. A container with a name
# keeps its position when the order changes.
position(image) := [image.pod.at, image.field, name(image)]

# pods are the Pod specs of an object, each with the annotations of the Pod it becomes and
# its path in the object. A Pod has its own spec; workloads have theirs in a template, at the
# paths of Kubernetes and of common extensions.
pods(obj) := {pod |
	some [at, template] in templates(obj)
	spec := template.spec
	some field in containers
	spec[field]
	pod := {"at": at, "spec": spec, "annotations": object.get(template, ["metadata", "annotations"], {})}
} | {pod |
	# A ControllerRevision may add to the containers of its StatefulSet.
	controller_revision(obj)
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
