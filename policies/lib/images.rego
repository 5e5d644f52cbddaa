# Every image that the object under review may bring to a node. Objects are read
# by their shape and not by their kind, so that workloads that nobody thought of
# here are read too.
package lib.images

import data.lib.message

# judged is what the request has to answer for. On UPDATE that is the images that
# the old object does not have: finalizers, labels and evictions of what runs
# already must not hang on a registry. Audit and gator know no old object and
# judge everything.
judged := images(reviewed_pods) if {
	not update
} else := [image |
	some image in images(reviewed_pods)
	not image.ref in old_refs
]

update if input.review.operation == "UPDATE"

old_refs := {image.ref | some image in images(pods(input.review.oldObject))}

# unreadable are violations for whatever may hide an image.
unreadable contains problem if {
	not deletion
	some problem in hidden(reviewed_pods)
	not problem in hidden_before
}

default hidden_before := set()

hidden_before := hidden(pods(input.review.oldObject)) if {
	update
	is_object(input.review.oldObject)
}

# Gatekeeper puts an object that goes away in the place of the object. A missing
# object is one without images, and so unreadable.
default reviewed := {}

reviewed := input.review.object if not deletion

reviewed_pods := pods(reviewed)

deletion if input.review.operation == "DELETE"

hidden(pods_of) := no_pod | no_list if {
	no_pod := {message.violation("object", "no-pod-spec", detail, kind) |
		count(pods_of) == 0
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

# place is where an image stands, in words. A name is cut so that the reason stays
# within the first 80 bytes of a message.
place(image) := sprintf("%s/%s", [image.field, message.printable(name(image), 40)])

name(image) := written if {
	written := image.pod.spec[image.field][image.index].name
	is_string(written)
} else := image.index

# pods are the specs of pods, each with the annotations of the pod it becomes. They
# are found wherever Kubernetes and what extends it keep the template of a pod; a
# Pod is its own.
pods(obj) := {pod |
	some template in array.concat(
		[
			obj,
			object.get(obj, "template", null),
			object.get(obj, ["spec", "template"], null),
			object.get(obj, ["spec", "jobTemplate", "spec", "template"], null),
		],
		[job.template.spec.template | some job in obj.spec.replicatedJobs], # JobSet
	)
	spec := template.spec
	some field in containers
	spec[field]
	pod := {"spec": spec, "annotations": object.get(template, ["metadata", "annotations"], {})}
}
