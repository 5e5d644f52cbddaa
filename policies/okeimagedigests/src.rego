# Images are referenced by digest. A tag may name another image tomorrow, and on
# another node today.
package okeimagedigests

import data.lib.images
import data.lib.message
import data.lib.names

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.judged
	not image.ref in names.pinned
	not names.exempt(image)
	not names.broken_glass(image)
	not passed_over(image)
}

violation contains problem if some problem in images.unreadable

passed_over(image) if {
	input.parameters.registries == "OCIRegistry"
	names.other_registry(image)
}

default reason(_) := "no-digest"

reason(image) := names.fault(image).reason

default detail(_) := "a tag may move; pin it with kubectl oke-sign pin"

detail(image) := names.fault(image).detail if {
	names.fault(image)
} else := "a tag may move; kubectl oke-sign signatures NAME:TAG shows the digest, kubectl oke-sign pin writes it" if {
	names.oci_registry(image)
}
