# Every image that the object under review may bring to a node. Objects are read
# by their shape and not by their kind, so that workloads that nobody thought of
# here are read too.
package lib.images

import data.lib.message

# judged is what the request has to answer for. On UPDATE that is the images that
# the old object does not have: finalizers, labels and evictions of what runs
# already must not hang on a registry. Audit and gator know no old object and
# judge everything.
judged contains image if {
	some image in images(reviewed)
	not image.ref in old_refs
}

old_refs contains image.ref if {
	input.review.operation == "UPDATE"
	some image in images(input.review.oldObject)
}

# unreadable is a violation for whatever may hide an image.
unreadable contains violation if {
	some violation in hidden(reviewed)
	not violation in old_hidden
}

old_hidden contains violation if {
	input.review.operation == "UPDATE"
	is_object(input.review.oldObject)
	some violation in hidden(input.review.oldObject)
}

# Gatekeeper puts an object that goes away in the place of the object. A missing
# object is one without images, and so unreadable.
default reviewed := {}

reviewed := input.review.object if not deletion

deletion if input.review.operation == "DELETE"

hidden(obj) := violations if {
	not deletion
	violations := no_pod(obj) | no_list(obj)
}

no_pod(obj) := {message.violation("object", "no-pod-spec", detail, kind) |
	count(pods(obj)) == 0
	detail := "no pod and no pod template found in it, so no images; the constraint must not match this kind"
}

no_list(obj) := {message.violation(field, "unreadable", "must be a list", value) |
	some pod in pods(obj)
	some field, value in pod.spec
	field in {"containers", "ephemeralContainers", "initContainers", "volumes"}
	value != null
	not is_array(value)
}

default kind := "?"

kind := input.review.kind.kind

# images are places with what is written there. A container without an image has
# the reference null, which names nothing.
images(obj) := in_containers(obj) | in_volumes(obj)

in_containers(obj) := {image |
	some pod in pods(obj)
	some field in ["containers", "ephemeralContainers", "initContainers"]
	some i, container in pod.spec[field]
	image := {
		"at": [field, name(container, i)],
		"ref": ref(container, "image"),
		"annotations": pod.annotations,
	}
}

in_volumes(obj) := {image |
	some pod in pods(obj)
	some i, volume in pod.spec.volumes
	volume.image != null
	image := {
		"at": ["volumes", name(volume, i)],
		"ref": ref(volume.image, "reference"),
		"annotations": pod.annotations,
	}
}

default ref(_, _) := null

ref(holder, field) := holder[field]

name(holder, i) := holder.name if {
	is_string(holder.name)
} else := i

# place is where an image stands, in words. A name is cut so that the reason stays
# within the first 80 bytes of a message.
place(image) := sprintf("%s/%s", [image.at[0], message.printable(image.at[1], 40)])

# pods are the specs of pods, each with the annotations of the pod it becomes.
pods(obj) := {pod |
	some template in templates(obj)
	some field in ["containers", "ephemeralContainers", "initContainers"]
	template.spec[field]
	pod := {"spec": template.spec, "annotations": annotations(template)}
}

default annotations(_) := {}

annotations(template) := template.metadata.annotations

# templates are all the places where Kubernetes and what extends it keep the
# template of a pod; a Pod is its own.
templates(obj) := {template |
	some path in [[], ["template"], ["spec", "template"], ["spec", "jobTemplate", "spec", "template"]]
	template := object.get(obj, path, null)
} | {template |
	some job in obj.spec.replicatedJobs # JobSet
	template := job.template.spec.template
}
