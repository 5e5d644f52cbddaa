# Requires every image to be pinned by a digest. A tag may name another image tomorrow, and on
# another node today.
package okeimagedigests

import data.lib.images
import data.lib.message
import data.lib.references

violation contains message.violation(images.place(image), reason(image), detail(image), image.ref) if {
	some image in images.checked
	not image.ref in references.pinned
	not references.exempt(image)
	not references.under_break_glass(image)
	not not_required(image)
}

violation contains problem if some problem in images.violations

# not_required holds for images of other registries, if the policy leaves them out.
not_required(image) if {
	input.parameters.registries == "OCIRegistry"
	references.other_registry(image)
}

default reason(_) := "no-digest"

reason(image) := references.invalid_reference(image).reason

default detail(_) := "a tag may move; pin it with kubectl oke-sign pin"

detail(image) := references.invalid_reference(image).detail if {
	references.invalid_reference(image)
} else := "a tag may move; kubectl oke-sign signatures NAME:TAG shows the digest, kubectl oke-sign pin writes it" if {
	references.oci_registry(image)
}
