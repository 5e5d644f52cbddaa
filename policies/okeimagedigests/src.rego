# Images are referenced by digest. A tag may name another image tomorrow, and on
# another node today.
package okeimagedigests

import data.lib.breakglass
import data.lib.images
import data.lib.message
import data.lib.ocir

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.judged
	not admitted(image)
}

violation contains problem if some problem in images.unreadable

# Nothing admits a doubtful reference.
admitted(image) if {
	names[image.ref].class != "doubtful"
	names[image.ref].digest != ""
}

admitted(image) if ocir.exempt(names[image.ref], input.parameters.exemptImages)

admitted(image) if {
	names[image.ref].class == "other"
	input.parameters.registries == "OCIRegistry"
}

admitted(image) if {
	names[image.ref].class == "oci-registry"
	object.get(input.parameters, "breakGlass", "Honor") == "Honor"
	breakglass.in_use(image.annotations)
}

names := {image.ref: ocir.read(image.ref) | some image in images.judged}

default reason(_) := "no-digest"

reason(image) := "no-image" if {
	image.ref in {null, ""}
} else := "doubtful" if {
	names[image.ref].class == "doubtful"
}

default detail(_) := "a tag may move; pin it with kubectl oke-sign pin"

detail(image) := "the container or volume names no image" if {
	reason(image) == "no-image"
} else := names[image.ref].doubt if {
	reason(image) == "doubtful"
} else := "a tag may move; kubectl oke-sign signatures NAME:TAG shows the digest, kubectl oke-sign pin writes it" if {
	names[image.ref].class == "oci-registry"
}
