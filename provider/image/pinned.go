package image

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Pinned is one image of OCI Registry: its repository and its digest. References with
// different hosts or tags that pin the same image have equal Pinned values. A Pinned is
// small, shares no memory with the text that it was read from, and can be the key of a
// cache. The zero Pinned is no image.
type Pinned struct {
	region Region
	path   string // namespace/repository
	digest [32]byte
}

// Pinned returns the image that r pins, or false if r has no digest.
func (r Reference) Pinned() (Pinned, bool) {
	var p Pinned
	digits := strings.TrimPrefix(r.digest, "sha256:") // 64 of them, or none
	if n, _ := hex.Decode(p.digest[:], []byte(digits)); n != len(p.digest) {
		return Pinned{}, false
	}
	p.region, p.path = r.region, r.namespace+"/"+r.repo
	return p, true
}

// Reference returns p as a reference without tag. Its host is of the form that all realms
// have.
func (p Pinned) Reference() Reference {
	if p.IsZero() {
		return Reference{}
	}
	return Reference{region: p.region, host: canonicalHost(p.region), namespace: p.Namespace(), repo: p.Repository(), digest: p.Digest()}
}

// Region returns the region that stores the image.
func (p Pinned) Region() Region { return p.region }

// Namespace returns the Object Storage namespace of the tenancy that owns the image.
func (p Pinned) Namespace() string {
	namespace, _, _ := strings.Cut(p.path, "/")
	return namespace
}

// Repository returns the name of the repository without host and namespace.
func (p Pinned) Repository() string {
	_, repo, _ := strings.Cut(p.path, "/")
	return repo
}

// Digest returns "sha256:" and 64 lower-case hexadecimal digits, or "" for no image.
func (p Pinned) Digest() string {
	if p.IsZero() {
		return ""
	}
	return fmt.Sprintf("sha256:%x", p.digest)
}

// IsZero reports whether p is no image.
func (p Pinned) IsZero() bool { return p == Pinned{} }

// String returns the canonical reference, which parses to a reference that pins p.
func (p Pinned) String() string { return p.Reference().String() }
