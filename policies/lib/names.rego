# What the images that are judged are called, and what lets one in by its name and
# its Pod alone. A policy on images begins with this and adds what it asks for.
package lib.names

import data.lib.breakglass
import data.lib.images
import data.lib.ocir

refs := {image.ref | some image in images.judged}

of := ocir.read(refs)

# Nothing lets an ambiguous reference in: it is neither exempt nor of a registry.
exempt(image) if {
	of[image.ref].class != "ambiguous"
	ocir.exempt(image.ref, input.parameters.exemptImages)
}

other_registry(image) if of[image.ref].class == "other"

oci_registry(image) if of[image.ref].class == "oci-registry"

broken_glass(image) if {
	breakglass.in_use(image.pod.annotations)
	oci_registry(image)
	object.get(input.parameters, "breakGlass", "Honor") == "Honor"
}

# pinned are the references with a digest that counts. A ambiguous one has none.
pinned := ocir.canonical(refs) | {ref | some ref in (refs - ocir.canonical(refs)); of[ref].pinned}

# fault is a reason that holds under every policy, with the words for it.
fault(image) := {"reason": "no-image", "detail": "the container or volume names no image"} if {
	image.ref in {null, ""}
} else := {"reason": "ambiguous", "detail": of[image.ref].explanation} if {
	of[image.ref].class == "ambiguous"
}
