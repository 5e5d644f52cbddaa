# Classifies image references by registry, and matches them against exemptions. Package
# provider/image makes the same decisions in Go. testdata/references.json holds both to the
# same answers.
package lib.ocir

import data.lib.regions

# longest is the maximum length of each part of a reference, in bytes. provider/image has the
# same limits. longest.canonical is shorter than parse accepts, so that it bounds the path too.
longest := {"reference": 1024, "path": 255, "tag": 128, "canonical": 255}

# digest_length is that of sha256: and 64 hexadecimal digits.
digest_length := 71

# canonical is the set of references in the most common form: a canonical host of OCI
# Registry, a namespace, a repository and a digest. One expression finds them in a third of
# the time that classify needs. Its grammar is narrower than that of parse: classify returns
# oci-registry and pinned for each of them, and decides all other references.
# TestCanonicalAgreesWithClassify compares both grammars and provider/image on thousands of
# random references.
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

# classify returns the class of a reference and whether it is pinned by a digest. The class
# is "oci-registry" for a canonical host of OCI Registry, and "other" for a reference that
# cannot lead there. The rest is "ambiguous": a reference that does not parse, a host that
# resembles OCI Registry's, and a name that a node may read as the id of one of its images.
# An ambiguous reference is never pinned.
default classify(_) := {"class": "ambiguous", "explanation": "not of the form host/path:tag@sha256:<64 hex digits>"}

classify(ref) := classify_parsed(parse(ref))

classify_parsed(name) := {"class": "oci-registry", "pinned": name.digest != ""} if {
	name.host in regions.hosts
	contains(name.path, "/") # a namespace and a repository
} else := {"class": "other", "pinned": name.digest != ""} if {
	on_other_registry(name)
} else := {"class": "ambiguous", "explanation": "a node may read this as the id of an image that it already has"} if {
	resembles_image_id(name)
} else := {"class": "ambiguous", "explanation": "OCI Registry is <region key>.ocir.io or ocir.<region>.oci.<domain>, then /<namespace>/<repository>; no port"}

# on_other_registry holds for a name that no node resolves to OCI Registry or to an image
# that the node has. A canonical host also resembles OCI Registry's, so a canonical host
# without a namespace or a repository is not on another registry.
on_other_registry(name) if {
	not resembles_oci_registry(name.host)
	not resembles_image_id(name)
}

# classify_all maps each reference to its class.
classify_all(refs) := object.union(
	{ref: {"class": "oci-registry", "pinned": true} | some ref in canonical(refs)},
	{ref: classify(ref) | some ref in (refs - canonical(refs))},
)

# parse splits a reference into host, path, tag and digest; only the path is required. It is
# undefined if any part of the reference is invalid. As in Docker, a first component is a
# host if it has a dot, a colon or an upper-case letter, or is localhost.
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

# A host in upper case or with a port reaches the same servers as the canonical host.
resembles_oci_registry(host) if regex.match(`(?i)^(?:.*\.)?ocir\.io(?::[0-9]*)?$`, host)

# Oracle lists artifacts.<region>.oci.<domain> among the hosts that speak Docker's protocol. A
# customer's dedicated region has the customer's domain. Dual-stack hosts and hosts of one
# tenancy have further labels.
resembles_oci_registry(host) if {
	labels := split(split(lower(host), ":")[0], ".")
	some i, label in labels
	label in {"artifacts", "ocir"}
	oracle_domain(array.slice(labels, i + 1, count(labels)))
}

oracle_domain(labels) if {
	some label in labels
	label in {"oci", "ocs"}
}

oracle_domain(labels) if {
	some domain in regions.domains
	endswith(concat(".", array.concat([""], labels)), concat("", [".", domain]))
}

resembles_image_id(name) if {
	name.host == ""
	name.path == "sha256"
}

resembles_image_id(name) if {
	name.host == ""
	name.tag == ""
	name.digest == ""
	regex.match(`^[0-9a-f]+$`, name.path)
}

# exempt holds if one of the patterns covers the reference. The caller excludes ambiguous
# references. A pattern is a host and a path, with an optional final /** for everything below
# the path and an optional digest. A name without a host is never exempt, because the node
# decides which registry it means.
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
