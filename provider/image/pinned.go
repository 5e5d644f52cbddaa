package image

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// Pinned is one image of OCI Registry: where it is stored, and its digest. Two
// references to the same image under different hosts or tags are equal when
// pinned. Pinned is small, shares no memory with the text that it was read from,
// and is fit for the key of a cache. The zero value is no image.
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

// Reference returns p as a reference under the one host of its registry that all
// realms have. It has no tag.
func (p Pinned) Reference() Reference {
	if p.IsZero() {
		return Reference{}
	}
	return Reference{region: p.region, host: canonicalHost(p.region), namespace: p.Namespace(), repo: p.Repository(), digest: p.Digest()}
}

// Region is where the image is stored.
func (p Pinned) Region() Region { return p.region }

// Namespace is the Object Storage namespace of the tenancy that owns the image.
func (p Pinned) Namespace() string {
	namespace, _, _ := strings.Cut(p.path, "/")
	return namespace
}

// Repository is the name of the repository, without host and namespace.
func (p Pinned) Repository() string {
	_, repo, _ := strings.Cut(p.path, "/")
	return repo
}

// Digest is "sha256:" and 64 lower-case hexadecimal digits, or empty for no image.
func (p Pinned) Digest() string {
	if p.IsZero() {
		return ""
	}
	return fmt.Sprintf("sha256:%x", p.digest)
}

// IsZero reports whether p is no image.
func (p Pinned) IsZero() bool { return p == Pinned{} }

// String is the canonical reference. It parses back to a reference that pins p.
func (p Pinned) String() string { return p.Reference().String() }

func canonicalHost(r Region) string { return "ocir." + r.ID() + ".oci." + r.Domain() }
