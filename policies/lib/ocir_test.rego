package lib.ocir_test

import data.lib.ocir
import data.lib.references

classify(ref) := ocir.classify_all({ref})[ref]

digest := "sha256:ee44b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"

other_digest := "sha256:0000b399df993016003bf5466bd3eeb221305e9d0fa831606bc7902d149c775b"

# GO-2026-6225, CVE-2026-105769: look-alikes of a host are other registries.
test_classes_agree_with_the_shared_table if {
	count(data.references) > 50
	some class in ["ambiguous", "oci-registry", "other"]
	count([v | some v in data.references; v.class == class]) > 10
	wrong := [sprintf("%s (%s)", [v.ref, v.why]) | some v in data.references; classify(v.ref).class != v.class]
	print(wrong)
	count(wrong) == 0
}

test_canonical_references_have_the_same_class if {
	refs := {v.ref | some v in data.references}
	count(ocir.canonical(refs)) > 5
	every ref in ocir.canonical(refs) {
		ocir.classify(ref) == classify(ref)
	}
}

test_a_value_that_is_no_string_is_ambiguous if {
	every ref in [null, 1, true, [], {}, ["nginx"], {"image": "nginx"}, {"nginx"}] {
		name := classify(ref)
		name.class == "ambiguous"
		not name.pinned
		not ocir.exempt(ref, ["quay.io/a/**"])
	}
}

test_upper_case_anywhere_in_the_host_is_ambiguous if {
	every host in ["OCIR.us-ashburn-1.oci.oraclecloud.com", "ocir.us-ashburn-1.OCI.oraclecloud.com", "iad.ocir.IO"] {
		classify(concat("/", [host, "ns/repo"])).class == "ambiguous"
	}
}

test_each_ambiguous_reference_has_an_explanation if {
	said := {vector.ref | some vector in data.references; is_string(classify(vector.ref).explanation)}
	said == {vector.ref | some vector in data.references; vector.class == "ambiguous"}
	is_string(classify(null).explanation)
}

# The expression of k8simagedigests in gatekeeper-library ends before the digest does.
test_only_a_whole_digest_pins[ref] if {
	some ref, want in {
		"iad.ocir.io/ns/repo": "",
		"iad.ocir.io/ns/repo:v1": "",
		concat("@", ["iad.ocir.io/ns/repo", digest]): digest,
		concat("@", ["iad.ocir.io/ns/repo:v1", digest]): digest,
		concat("@", ["iad.ocir.io/ns/repo", upper(digest)]): "",
		concat("@", ["iad.ocir.io/ns/repo", digest, digest]): "",
		concat("@", ["nginx", digest]): digest,
		concat(":", ["nginx", digest]): "",
	}
	object.get(classify(ref), "pinned", false) == want != ""
}

exempt(ref, pattern) if {
	references.exempt({"ref": ref}) with input as {
		"parameters": {"exemptImages": [pattern]},
		"review": {"object": {"spec": {"containers": [{"image": ref}]}}},
	}
}

# Patterns, with references that they cover and references that only resemble those.
# Portieris v0.14.2 had a wildcard that was not anchored. CVE-2026-78427: an exemption by name.
test_exemptions[note] if {
	some note, case in {
		"the image itself": {"pattern": "quay.io/a/b", "yes": ["quay.io/a/b", "quay.io/a/b:1"], "no": [
			"quay.io/a/b/c", "quay.io/a/bc", "quay.io/a", "quay.io/x/quay.io/a/b",
			"evil.com/quay.io/a/b", "quay.io:443/a/b", "Quay.io/a/b", "quay.io.evil.com/a/b", "a/b",
		]},
		"all below a path": {"pattern": "quay.io/a/**", "yes": ["quay.io/a/b", "quay.io/a/b/c:1"], "no": ["quay.io/a", "quay.io/ab/c", "quay.io/b/a/c", "quay.io/aa", "a/b"]},
		"a host with a port": {"pattern": "registry:5000/a", "yes": ["registry:5000/a"], "no": ["registry/a", "registry:500/a"]},
		"dots are dots": {"pattern": "quay.io/a.b", "yes": ["quay.io/a.b"], "no": ["quay.io/axb", "quayxio/a.b"]},
		"one digest": {
			"pattern": concat("@", ["quay.io/a/b", digest]),
			"yes": [concat("@", ["quay.io/a/b", digest]), concat("@", ["quay.io/a/b:1", digest])],
			"no": ["quay.io/a/b", concat("@", ["quay.io/a/b", other_digest])],
		},
		"one digest below a path": {
			"pattern": concat("@", ["quay.io/a/**", digest]),
			"yes": [concat("@", ["quay.io/a/b", digest])],
			"no": ["quay.io/a/b", concat("@", ["quay.io/a/b", other_digest])],
		},
		"OCI Registry": {"pattern": "iad.ocir.io/ns/**", "yes": ["iad.ocir.io/ns/repo"], "no": ["phx.ocir.io/ns/repo", "IAD.ocir.io/ns/repo", "iad.ocir.io:443/ns/repo", "us-ashburn-1.ocir.io/ns/repo"]},
		"an ambiguous host": {"pattern": "xyz.ocir.io/ns/**", "yes": [], "no": ["xyz.ocir.io/ns/repo"]},
		"a host with a port that is ambiguous": {"pattern": "iad.ocir.io:443/ns/repo", "yes": [], "no": ["iad.ocir.io:443/ns/repo"]},
		"a tag": {"pattern": "quay.io/a/b:1", "yes": [], "no": ["quay.io/a/b:1", "quay.io/a/b"]},
		"a whole host": {"pattern": "quay.io/**", "yes": [], "no": ["quay.io/a", "quay.io/a/b"]},
		"everything": {"pattern": "**", "yes": [], "no": ["quay.io/a", "nginx"]},
		"stars inside": {"pattern": "quay.io/*/b", "yes": [], "no": ["quay.io/a/b", "quay.io/*/b"]},
		"stars and more": {"pattern": "quay.io/a/**/b", "yes": [], "no": ["quay.io/a/b", "quay.io/a/x/b"]},
		"an expression": {"pattern": ".*/.*", "yes": [], "no": ["quay.io/a"]},
		"no host": {"pattern": "library/nginx", "yes": [], "no": ["library/nginx", "docker.io/library/nginx"]},
		"nothing": {"pattern": "", "yes": [], "no": ["nginx", "quay.io/a"]},
		"no string": {"pattern": 1, "yes": [], "no": ["nginx", "quay.io/a"]},
	}
	wrong := {ref | some ref in case.yes; not exempt(ref, case.pattern)} | {ref | some ref in case.no; exempt(ref, case.pattern)}
	print(note, wrong)
	count(wrong) == 0
}

# CVE-2024-48921, CVE-2026-84200 (GO-2026-4285): two exemptions do not combine to a third.
test_two_patterns_exempt_no_more_than_each_does if {
	patterns := [concat("@", ["quay.io/a/**", digest]), "quay.io/b/c", "ghcr.io/a/b"]
	every ref in [
		"quay.io/a/x", "quay.io/b/x", "quay.io/a/c", "ghcr.io/b/c",
		concat("@", ["quay.io/a/x", other_digest]), concat("@", ["quay.io/b/d", digest]),
	] {
		not ocir.exempt(ref, patterns)
	}
	ocir.exempt(concat("@", ["quay.io/a/x", digest]), patterns)
	ocir.exempt("quay.io/b/c", patterns)
}

test_any_pattern_is_enough if {
	ocir.exempt("quay.io/a/b", [1, "quay.io/x", "quay.io/a/b"])
	not ocir.exempt("quay.io/a/b", [])
	not ocir.exempt("quay.io/a/b", "quay.io/a/b")
	not ocir.exempt("quay.io/a/b", null)
}
