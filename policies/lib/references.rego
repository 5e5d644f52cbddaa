# Classifies the image references of the object under review: exempt, of another registry,
# under break-glass, pinned or invalid. Every image policy starts with these rules and adds
# its own requirement.
package lib.references

import data.lib.breakglass
import data.lib.images
import data.lib.ocir

refs := {image.ref | some image in images.checked}

classified := ocir.classify_all(refs)

# An ambiguous reference is never exempt, of another registry or under break-glass.
exempt(image) if {
	classified[image.ref].class != "ambiguous"
	ocir.exempt(image.ref, input.parameters.exemptImages)
}

exempt(image) if {
	classified[image.ref].class != "ambiguous"
	some exemption in exemptions_in_force
	ocir.exempt(image.ref, exemption.images)
}

# exemptions_in_force are the exemptions whose end is ahead. An end that is missing or
# malformed has passed.
exemptions_in_force := [exemption |
	some exemption in input.parameters.exemptions
	time.parse_rfc3339_ns(exemption.until) > time.now_ns()
]

other_registry(image) if classified[image.ref].class == "other"

oci_registry(image) if classified[image.ref].class == "oci-registry"

under_break_glass(image) if {
	breakglass.in_use(image.pod.annotations)
	oci_registry(image)
	object.get(input.parameters, "breakGlass", "Honor") == "Honor"
}

# pinned is the set of references with a digest. It has no ambiguous reference.
pinned := ocir.canonical(refs) | {ref | some ref in (refs - ocir.canonical(refs)); classified[ref].pinned}

# invalid_reference is the reason and the detail that deny an image under every policy.
invalid_reference(image) := {"reason": "no-image", "detail": "the container or volume names no image"} if {
	image.ref in {null, ""}
} else := {"reason": "ambiguous", "detail": classified[image.ref].explanation} if {
	classified[image.ref].class == "ambiguous"
}
