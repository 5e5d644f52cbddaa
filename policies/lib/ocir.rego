# Names of images: which registry a reference leads to, and which references an
# exemption covers. Go decides the same in provider/image; both are held to
# testdata/references.json.
package lib.ocir

import data.lib.regions

# The longest that parts of a reference may be, in bytes; provider/image has the same.
# longest.canonical is shorter than parse would admit, so that it bounds the path too.
longest := {"reference": 1024, "path": 255, "tag": 128, "canonical": 255}

# digest_length is that of sha256: and 64 hexadecimal digits.
digest_length := 71

# canonical are the references of the form that most images have: a canonical host of
# OCI Registry, a namespace, a repository, and a digest. One expression finds them in
# a third of the time that class needs. It has a grammar of its own, which is narrower
# than that of parse: class says oci-registry and pinned of each of them, and has the
# last word on all other references. TestCanonicalAgreesWithClass holds the two
# grammars to that, and to provider/image, on thousands of references made at random.
canonical(refs) := {ref |
	hosts := regions.hosts
	some ref in refs
	regex.match(
		`^[a-z0-9.-]+/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*)+(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}$`,
		ref,
	)
	hosts[substring(ref, 0, indexof(ref, "/"))]
	count(ref) <= longest.canonical
}

# class says what a reference means: "oci-registry" for a canonical host of OCI
# Registry, "other" for what cannot lead there, and "ambiguous" for all else: what
# does not parse, what may reach OCI Registry under a host that only resembles its
# own, and what a node may take for the id of an image it holds. A digest pins the
# image; a tag can come to mean another one. Nothing pins what is ambiguous.
default class(_) := {"class": "ambiguous", "explanation": "not of the form host/path:tag@sha256:<64 hex digits>"}

class(ref) := classified(parse(ref))

classified(name) := {"class": "oci-registry", "pinned": name.digest != ""} if {
	name.host in regions.hosts
	contains(name.path, "/") # a namespace and a repository
} else := {"class": "other", "pinned": name.digest != ""} if {
	elsewhere(name)
} else := {"class": "ambiguous", "explanation": "a node may take this for the id of an image that it holds already"} if {
	image_id(name)
} else := {"class": "ambiguous", "explanation": "OCI Registry is <region key>.ocir.io or ocir.<region>.oci.<domain>, then /<namespace>/<repository>; no port"}

# elsewhere holds for a name that no node takes to OCI Registry, nor for an image that
# the node holds. The canonical hosts resemble OCI Registry's, too, so that one of them
# without a namespace or a repository is not elsewhere.
elsewhere(name) if {
	not resembles(name.host)
	not image_id(name)
}

# read is the class of every reference.
read(refs) := object.union(
	{ref: {"class": "oci-registry", "pinned": true} | some ref in canonical(refs)},
	{ref: class(ref) | some ref in (refs - canonical(refs))},
)

# parse is undefined unless all of ref is host, path, tag and digest, of which
# only the path must be there. As for Docker, a first component with a dot, a
# colon or an upper-case letter is a host, and so is localhost.
parse(ref) := {"host": host, "path": path, "tag": tag, "digest": digest} if {
	count(ref) <= longest.reference
	[[_, host, path, tag, digest]] := regex.find_all_string_submatch_n(
		`^(?:([^/]*[.:A-Z][^/]*|localhost)/)?([a-z0-9]+(?:(?:\.|__?|-+|/)[a-z0-9]+)*)(?::([A-Za-z0-9_][A-Za-z0-9_.-]*))?(?:@(sha256:[0-9a-f]+))?$`,
		ref, 1,
	)
	well_formed(host)
	count(path) <= longest.path
	count(tag) <= longest.tag
	count(digest) in {0, digest_length}
}

well_formed(host) if host in regions.hosts

well_formed("")

well_formed(host) if {
	regex.match(`^(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`, host)
	not regex.match(`^[.-]|\.[.-]|-\.|[.-](?::|$)`, host) # labels begin and end in a letter or digit
}

# Upper case and a port reach the same servers as the canonical host.
resembles(host) if regex.match(`(?i)^(?:.*\.)?ocir\.io(?::[0-9]*)?$`, host)

# Oracle lists artifacts.<region>.oci.<domain> among the hosts that speak Docker's
# protocol. A region of a customer's own has the customer's domain, and dual-stack
# hosts and those of one tenancy have further labels.
resembles(host) if {
	labels := split(split(lower(host), ":")[0], ".")
	some i, label in labels
	label in {"artifacts", "ocir"}
	of_oracle(array.slice(labels, i + 1, count(labels)))
}

of_oracle(labels) if {
	some label in labels
	label in {"oci", "ocs"}
}

of_oracle(labels) if {
	some domain in regions.domains
	endswith(concat(".", array.concat([""], labels)), concat("", [".", domain]))
}

image_id(name) if {
	name.host == ""
	name.path == "sha256"
}

image_id(name) if {
	name.host == ""
	name.tag == ""
	name.digest == ""
	regex.match(`^[0-9a-f]+$`, name.path)
}

# exempt says whether one of the patterns covers a reference that is not ambiguous.
# A pattern is a host and a path, perhaps with a final /** for whatever lies below
# the path, and perhaps with a digest. A name without a host is never exempt: the
# node decides which registry it means.
exempt(ref, patterns) if {
	some pattern in patterns
	[[_, host, path, below, digest]] := regex.find_all_string_submatch_n(
		`^([^/]+)/([a-z0-9]+(?:(?:\.|__?|-+|/)[a-z0-9]+)*)(/\*\*)?(?:@(sha256:[0-9a-f]{64}))?$`,
		pattern, 1,
	)
	name := parse(ref)
	host == name.host
	covers(path, below, name.path)
	digest in {"", name.digest}
}

covers(path, below, whole) if {
	below == ""
	path == whole
}

covers(path, below, whole) if {
	below == "/**"
	startswith(whole, concat("", [path, "/"]))
}
