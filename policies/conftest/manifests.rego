# Manifests under conftest, which hands over one document at a time, as it is
# written. What cannot be read is refused: nobody looks at a check that is silent.
package lib.manifests

import data.lib.images
import data.lib.message
import data.okebreakglass
import data.okeimagedigests
import data.okescannedimages
import data.okesignedimages

# Without constraints the structure alone is judged: digests, registries and
# break-glass. That nothing is said about signatures is said aloud.
default constraints := [
	{"kind": "OKEImageDigests"},
	{"kind": "OKEBreakGlass"},
	{"kind": "OKEBreakGlass", "spec": {"enforcementAction": "warn", "parameters": {"report": true}}},
	{"kind": "OKESignedImages", "spec": {"parameters": {"keys": []}}},
	{"kind": "OKESignedImages", "spec": {"enforcementAction": "warn", "parameters": {"keys": [], "report": true}}},
]

constraints := data.oke_sign.constraints

refused contains problem if some problem in unusable

refused contains told(manifest, violation) if {
	some manifest in manifests
	some constraint in constraints
	not lenient(constraint)
	some violation in violations(constraint, manifest)
}

refused contains sprintf("%s: unreadable: containers stand where none are looked for: %v", [title(manifest), message.printable(value, 200)]) if {
	some manifest in manifests
	walk(manifest, [path, value])
	path[count(path) - 1] in images.containers
	is_array(value)
	some container in value
	container.image
	not value in {pod.spec[field] | some pod in images.pods(manifest); some field in images.containers}
}

warned contains told(manifest, violation) if {
	some manifest in manifests
	some constraint in constraints
	lenient(constraint)
	some violation in violations(constraint, manifest)
	not told(manifest, violation) in refused
}

warned contains "empty: nothing stands in this document" if input == null

lenient(constraint) if constraint.spec.enforcementAction in {"warn", "dryrun"}

told(manifest, violation) := sprintf("%s: %s", [title(manifest), violation.msg])

title(manifest) := message.printable(sprintf("%v/%v", [manifest.kind, object.get(manifest, ["metadata", "name"], "?")]), 80)

# An object without a Pod has no images, and is no business of any constraint.
violations(constraint, manifest) := found if {
	count(images.pods(manifest)) > 0
	review := {"parameters": parameters(constraint), "review": {"object": manifest}}
	found := by_kind(constraint.kind, review)
} else := set()

default parameters(_) := {}

parameters(constraint) := constraint.spec.parameters

by_kind("OKEBreakGlass", review) := found if found := okebreakglass.violation with input as review

by_kind("OKEImageDigests", review) := found if found := okeimagedigests.violation with input as review

by_kind("OKEScannedImages", review) := found if found := okescannedimages.violation with input as review

by_kind("OKESignedImages", review) := found if found := okesignedimages.violation with input as review

# manifests are the document, or what it lists.
manifests := [manifest | some manifest in input.items] if {
	listed
	itemized
} else := [input]

listed if input.kind == "List"

listed if {
	endswith(input.kind, "List")
	input.items
}

unusable contains "unreadable: not one Kubernetes object, with apiVersion and kind; conftest must run without --combine" if {
	some manifest in manifests
	manifest != null
	not readable(manifest)
}

unusable contains "unreadable: a list in a list" if {
	some manifest in manifests
	endswith(manifest.kind, "List")
	manifest.items
	manifest != input
}

unusable contains "unreadable: items must be a list" if {
	listed
	not itemized
}

itemized if is_array(input.items)

readable(manifest) if {
	is_string(manifest.apiVersion)
	is_string(manifest.kind)
}

unusable contains "no constraints: data.oke_sign.constraints must be a list that is not empty" if {
	data.oke_sign
	not given
}

unusable contains "no constraints: verdicts are given, and data.oke_sign.constraints does not say what they are for" if {
	data.data
	not given
}

unusable contains "no constraints: a constraint is given as data by itself; it belongs into the list data.oke_sign.constraints" if {
	known({"kind": data.kind})
	not given
}

unusable contains "unreadable: data/verdicts.json must be a list, as kubectl oke-sign verdicts writes it" if {
	data.data
	not recorded
}

recorded if is_array(json.unmarshal(data.data["verdicts.json"]))

unusable contains sprintf("no such policy: %s", [message.printable(constraint, 120)]) if {
	some constraint in constraints
	not known(constraint)
}

known(constraint) if constraint.kind in {"OKEBreakGlass", "OKEImageDigests", "OKEScannedImages", "OKESignedImages"}

given if {
	is_array(data.oke_sign.constraints)
	count(data.oke_sign.constraints) > 0
}
