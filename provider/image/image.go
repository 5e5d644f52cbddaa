// Package image parses image references of OCI Registry, distinguishes OCI Registry's hosts
// from all others, and has the table of OCI's regions.
//
// The package trusts only its own tables and does no I/O. It does not resolve tags, and
// does not know whether an image exists.
package image

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Class is the kind of registry to which a reference leads.
//
// The policies decide the same in Rego (policies/lib/ocir.rego). The tests of both read
// policies/lib/testdata/references.json.
type Class uint8

const (
	// Ambiguous is a reference that does not parse, that may mean OCI Registry in a
	// form that is not canonical, or that a container runtime may read as the id of an
	// image on the node. It is never admitted.
	Ambiguous Class = iota
	// Other is an image of another registry, including Docker Hub's short names.
	Other
	// OCIRegistry is an image under one of OCI Registry's canonical hosts.
	OCIRegistry
)

func (c Class) String() string {
	switch c {
	case Other:
		return "other"
	case OCIRegistry:
		return "oci-registry"
	default:
		return "ambiguous"
	}
}

var (
	// ErrNotOCIRegistry is a well-formed reference to another registry.
	ErrNotOCIRegistry = errors.New("not an image of OCI Registry")
	// ErrAmbiguous is a reference of class Ambiguous.
	ErrAmbiguous = errors.New("not a reference that can be relied on")
)

// Limits of a reference. A host has at most the length of a DNS name and a port. A path has
// at most 255 bytes, as the distribution specification says. maxReference has room for
// both with tag and digest.
const (
	maxReference = 1024
	maxPath      = 255
	maxTag       = 128
)

// Reference is a parsed image reference of OCI Registry with a canonical host. References
// are comparable. The zero Reference names nothing.
type Reference struct {
	region    Region
	host      string
	namespace string
	repo      string
	tag       string
	digest    string
}

// Parse reads an image reference of OCI Registry. The error is ErrNotOCIRegistry for an
// image of another registry, and ErrAmbiguous for a reference that readers could
// understand in two ways.
func Parse(s string) (Reference, error) {
	ref, class, why := parse(s)
	switch class {
	case OCIRegistry:
		return ref, nil
	case Other:
		return Reference{}, ErrNotOCIRegistry
	default:
		return Reference{}, fmt.Errorf("%w: %s", ErrAmbiguous, why)
	}
}

// Classify returns the class of the reference s.
func Classify(s string) Class {
	_, class, _ := parse(s)
	return class
}

// Region returns the region that stores the image.
func (r Reference) Region() Region { return r.region }

// Host returns the canonical registry host of the reference. A registry has several hosts,
// so the host does not identify the image.
func (r Reference) Host() string { return r.host }

// Namespace returns the Object Storage namespace of the tenancy that owns the image.
func (r Reference) Namespace() string { return r.namespace }

// Repository returns the name of the repository without host and namespace, as in OCI's
// APIs and in signed messages. The name may have slashes.
func (r Reference) Repository() string { return r.repo }

// Tag returns the tag, or "". A tag beside a digest has no effect.
func (r Reference) Tag() string { return r.tag }

// Digest returns "sha256:" and 64 lower-case hexadecimal digits, or "".
func (r Reference) Digest() string { return r.digest }

// Name returns the reference without tag and digest.
func (r Reference) Name() string { return r.host + "/" + r.namespace + "/" + r.repo }

// Identity returns the reference without its tag, with the same host for all hosts of a
// registry. Two references that pin the same image have the same identity.
func (r Reference) Identity() Reference {
	if r != (Reference{}) {
		r.host, r.tag = canonicalHost(r.region), ""
	}
	return r
}

// Effective returns the reference as a node reads it: a reference without tag and digest
// has the tag latest.
func (r Reference) Effective() Reference {
	if r != (Reference{}) && r.tag == "" && r.digest == "" {
		r.tag = "latest"
	}
	return r
}

// WithDigest returns the reference with its digest replaced.
func (r Reference) WithDigest(digest string) (Reference, error) {
	if !ValidDigest(digest) {
		return Reference{}, fmt.Errorf("not a sha256 digest: %.100q", digest)
	}
	r.digest = digest
	return r, nil
}

// String returns the canonical form, which parses to the same reference.
func (r Reference) String() string {
	if r == (Reference{}) {
		return ""
	}
	s := r.Name()
	if r.tag != "" {
		s += ":" + r.tag
	}
	if r.digest != "" {
		s += "@" + r.digest
	}
	return s
}

// ValidDigest reports whether s is "sha256:" and 64 lower-case hexadecimal digits. OCI
// Registry has no other digests.
func ValidDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && isHex(hex)
}

func parse(s string) (Reference, Class, string) {
	if s == "" || len(s) > maxReference {
		return Reference{}, Ambiguous, fmt.Sprintf("a reference has 1 to %d bytes", maxReference)
	}
	name, digest, pinned := strings.Cut(s, "@")
	if pinned && !ValidDigest(digest) {
		return Reference{}, Ambiguous, fmt.Sprintf("after @ stands %.80q, and not sha256: with 64 lower-case hexadecimal digits", digest)
	}
	host, rest := cutHost(name)
	path, tag, tagged := cutTag(rest)
	if host != "" && !validHost(host) {
		return Reference{}, Ambiguous, fmt.Sprintf("the host %.80q is not well formed", host)
	}
	if !validPath(path) {
		return Reference{}, Ambiguous, fmt.Sprintf("the name %.80q is not well formed: lower-case words and digits, joined by . _ - and /", path)
	}
	if tagged && !validTag(tag) {
		return Reference{}, Ambiguous, fmt.Sprintf("the tag %.80q is not well formed", tag)
	}

	if host == "" {
		// Container runtimes take "sha256:<hex>", and any prefix of an image's id,
		// for an image that is already on the node, whatever registry it came from.
		if path == "sha256" || !tagged && !pinned && isHex(path) {
			return Reference{}, Ambiguous, "a container runtime may read it as the id of an image on the node"
		}
		return Reference{}, Other, ""
	}
	region, canonical := byHost[host]
	if !canonical {
		if resemblesOCIR(host) {
			return Reference{}, Ambiguous, fmt.Sprintf("the host %.80q looks like a host of OCI Registry but is not a canonical one", host)
		}
		return Reference{}, Other, ""
	}
	namespace, repo, ok := strings.Cut(path, "/")
	if !ok {
		return Reference{}, Ambiguous, fmt.Sprintf("an image of OCI Registry has a namespace and a repository, and %.80q is one of them at most", path)
	}
	return Reference{region, host, namespace, repo, tag, digest}, OCIRegistry, ""
}

// cutHost splits off the first component if it is a host by Docker's rule: it has a dot, a
// colon or an upper-case letter, or is "localhost".
func cutHost(name string) (host, rest string) {
	first, rest, ok := strings.Cut(name, "/")
	if !ok || first != "localhost" && !strings.ContainsAny(first, ".:") && first == strings.ToLower(first) {
		return "", name
	}
	return first, rest
}

func cutTag(rest string) (path, tag string, ok bool) {
	i := strings.LastIndexByte(rest, ':')
	if i < 0 || strings.Contains(rest[i:], "/") {
		return rest, "", false
	}
	return rest[:i], rest[i+1:], true
}

// resemblesOCIR reports whether a host may be a host of OCI Registry in a form that is not
// canonical. In doubt it reports true: a host with a port or in upper case reaches the
// same servers and would escape a comparison. Oracle lists
// artifacts.<region>.oci.<domain> among the hosts that speak Docker's protocol (Preparing
// for Container Registry). Dedicated regions have the customer's domain, and dual-stack
// and per-tenancy hosts have further labels.
func resemblesOCIR(host string) bool {
	name, _, _ := strings.Cut(strings.ToLower(host), ":")
	if name == "ocir.io" || strings.HasSuffix(name, ".ocir.io") {
		return true
	}
	labels := strings.Split(name, ".")
	i := slices.IndexFunc(labels, func(label string) bool { return label == "ocir" || label == "artifacts" })
	if i < 0 {
		return false
	}
	if below := labels[i+1:]; slices.Contains(below, "oci") || slices.Contains(below, "ocs") {
		return true
	}
	return slices.ContainsFunc(domains, func(domain string) bool { return strings.HasSuffix(name, "."+domain) })
}

func validHost(s string) bool {
	if addr, ok := strings.CutPrefix(s, "["); ok {
		addr, port, ok := strings.Cut(addr, "]")
		return ok && addr != "" && all(addr, func(c byte) bool { return isHexDigit(c) || 'A' <= c && c <= 'F' || c == ':' }) &&
			(port == "" || validPort(port))
	}
	name, port := s, ""
	if before, after, found := strings.Cut(s, ":"); found {
		name, port = before, ":"+after
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' ||
			!all(label, func(c byte) bool { return isAlnum(c) || c == '-' }) {
			return false
		}
	}
	return port == "" || validPort(port)
}

func validPort(s string) bool {
	return len(s) >= 2 && len(s) <= 6 && s[0] == ':' && all(s[1:], isDigit)
}

// validPath reports whether a path has the components of the distribution specification:
// lower-case words joined by ".", "_", "__" or any number of "-".
func validPath(s string) bool {
	if len(s) > maxPath {
		return false
	}
	for component := range strings.SplitSeq(s, "/") {
		if !validComponent(component) {
			return false
		}
	}
	return true
}

func validComponent(s string) bool {
	word := func(c byte) bool { return 'a' <= c && c <= 'z' || isDigit(c) }
	for {
		n := span(s, word)
		if n == 0 {
			return false
		}
		if s = s[n:]; s == "" {
			return true
		}
		n = span(s, func(c byte) bool { return !word(c) })
		switch sep := s[:n]; {
		case sep == ".", sep == "_", sep == "__", strings.Trim(sep, "-") == "":
		default:
			return false
		}
		s = s[n:]
	}
}

func validTag(s string) bool {
	return s != "" && len(s) <= maxTag && s[0] != '.' && s[0] != '-' &&
		all(s, func(c byte) bool { return isAlnum(c) || c == '_' || c == '.' || c == '-' })
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

func all(s string, in func(byte) bool) bool { return span(s, in) == len(s) }

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isHexDigit(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' }
func isAlnum(c byte) bool    { return isDigit(c) || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }
func isHex(s string) bool    { return all(s, isHexDigit) }
