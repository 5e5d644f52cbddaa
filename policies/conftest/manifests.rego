# Checks manifests under conftest, which passes one document at a time. A document that cannot
# be read is denied, since nobody notices a check that did not run.
package lib.manifests

import data.lib.images
import data.lib.message
import data.okebreakglass
import data.okeimagedigests
import data.okescannedimages
import data.okesignedimages

# Without constraints as data, the policies check digests, registries and break-glass only. A
# warning says for each image that its signature was not checked.
default constraints := [
	{"kind": "OKEImageDigests"},
	{"kind": "OKEBreakGlass"},
	{"kind": "OKEBreakGlass", "spec": {"enforcementAction": "warn", "parameters": {"report": true}}},
	{"kind": "OKESignedImages", "spec": {"parameters": {"keys": []}}},
	{"kind": "OKESignedImages", "spec": {"enforcementAction": "warn", "parameters": {"keys": [], "report": true}}},
]

constraints := data.oke_sign.constraints

denied contains problem if some problem in invalid_input

denied contains line(manifest, violation) if {
	some manifest in manifests
	some constraint in constraints
	not only_warns(constraint)
	some violation in violations(constraint, manifest)
}

denied contains sprintf("%s: unreadable: containers at a path that this policy does not read: %v", [title(manifest), message.printable(value, 200)]) if {
	some manifest in manifests
	walk(manifest, [path, value])
	path[count(path) - 1] in images.containers
	is_array(value)
	some container in value
	container.image
	not value in {pod.spec[field] | some pod in images.pods(manifest); some field in images.containers}
}

warned contains line(manifest, violation) if {
	some manifest in manifests
	some constraint in constraints
	only_warns(constraint)
	some violation in violations(constraint, manifest)
	not line(manifest, violation) in denied
}

warned contains "empty: this document has no content" if input == null

only_warns(constraint) if constraint.spec.enforcementAction in {"warn", "dryrun"}

line(manifest, violation) := sprintf("%s: %s", [title(manifest), violation.msg])

title(manifest) := message.printable(sprintf("%v/%v", [manifest.kind, object.get(manifest, ["metadata", "name"], "?")]), 80)

# An object without a Pod has no images, so no constraint applies to it.
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

# manifests are the document, or the items of a list.
manifests := [manifest | some manifest in input.items] if {
	is_list
	has_items
} else := [input]

is_list if input.kind == "List"

is_list if {
	endswith(input.kind, "List")
	input.items
}

invalid_input contains "unreadable: not one Kubernetes object, with apiVersion and kind; run conftest without --combine" if {
	some manifest in manifests
	manifest != null
	not kubernetes_object(manifest)
}

invalid_input contains "unreadable: a list in a list" if {
	some manifest in manifests
	endswith(manifest.kind, "List")
	manifest.items
	manifest != input
}

invalid_input contains "unreadable: items must be a list" if {
	is_list
	not has_items
}

has_items if is_array(input.items)

kubernetes_object(manifest) if {
	is_string(manifest.apiVersion)
	is_string(manifest.kind)
}

invalid_input contains "no constraints: set data.oke_sign.constraints to a list with at least one" if {
	data.oke_sign
	not constraints_given
}

invalid_input contains "no constraints: the data has verdicts; set data.oke_sign.constraints to the constraints they are for" if {
	data.data
	not constraints_given
}

invalid_input contains "no constraints: a constraint is given as data by itself; put it into the list data.oke_sign.constraints" if {
	known_kind({"kind": data.kind})
	not constraints_given
}

invalid_input contains "unreadable: data/verdicts.json must be a list; kubectl oke-sign verdicts writes it" if {
	data.data
	not valid_record
}

valid_record if is_array(json.unmarshal(data.data["verdicts.json"]))

invalid_input contains sprintf("no such kind of constraint: %s", [message.printable(constraint, 120)]) if {
	some constraint in constraints
	not known_kind(constraint)
}

known_kind(constraint) if constraint.kind in {"OKEBreakGlass", "OKEImageDigests", "OKEScannedImages", "OKESignedImages"}

constraints_given if {
	is_array(data.oke_sign.constraints)
	count(data.oke_sign.constraints) > 0
}
