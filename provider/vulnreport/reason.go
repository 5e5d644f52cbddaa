package vulnreport

import "slices"

// Reason is the code of an unknown report.
type Reason string

// The reasons.
const (
	NotScanned     Reason = "not-scanned"
	OlderPush      Reason = "older-push"
	NoTag          Reason = "no-tag"
	ImageNotFound  Reason = "image-not-found"
	NotCovered     Reason = "not-covered"
	NoDigest       Reason = "no-digest"
	NotOCIRegistry Reason = "not-oci-registry"
)

// Meaning explains a reason to people.
type Meaning struct {
	Reason   Reason
	Sentence string // continues "the image"
	Remedy   string // what to do next; IMAGE stands for the image
}

var reasons = [...]Meaning{
	{NotScanned, "has no result under any of its tags",
		"wait a few minutes if it was just pushed; kubectl oke-sign scan setup --compartment OCID --repository NAME starts scans of its repository, and a push of the tag scans the image"},
	{OlderPush, "has results under its tags, but all of them may be of other images",
		"wait a few minutes if it was just pushed; kubectl oke-sign scan target list shows whether its repository is still scanned"},
	{NoTag, "has no tag, and results name images by their tags", "push it again under a tag, so that it is scanned; or run the image that the tag names now"},
	{ImageNotFound, "does not exist, or the provider's identity may not read it",
		"check the image's name, and that you and the provider may read its repository"},
	{NotCovered, "is of a tenancy that the provider is not configured for",
		"give the provider the tenancy with --tenancy NAMESPACE=OCID, or exempt the image"},
	{NoDigest, "is referenced by a tag", "kubectl oke-sign pin IMAGE shows its digest; kubectl oke-sign pin -f FILE writes it"},
	{NotOCIRegistry, "is of another registry", "copy the image to OCI Registry and have it scanned there"},
}

// Meanings returns the meaning of every reason.
func Meanings() []Meaning { return slices.Clone(reasons[:]) }

// Reasons returns every reason.
func Reasons() []Reason {
	list := make([]Reason, len(reasons))
	for i, m := range reasons {
		list[i] = m.Reason
	}
	return list
}

// Meaning returns the meaning of r, or the zero value if r is not a reason.
func (r Reason) Meaning() Meaning {
	if i := slices.IndexFunc(reasons[:], func(m Meaning) bool { return m.Reason == r }); i >= 0 {
		return reasons[i]
	}
	return Meaning{}
}
