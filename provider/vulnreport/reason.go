package vulnreport

import "slices"

// Reason says in one word why nothing is known.
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

// Meaning is what a reason tells people.
type Meaning struct {
	Reason   Reason
	Sentence string // goes on after "the image"
	Remedy   string // what to do next; IMAGE stands for the image
}

var reasons = [...]Meaning{
	{NotScanned, "has no result under any of its tags",
		"wait some minutes if it was just pushed; kubectl oke-sign scan setup --compartment OCID --repository NAME has its repository scanned, and a push under its tag the image"},
	{OlderPush, "has results under its tags, and all may be of other images",
		"wait some minutes if it was just pushed; kubectl oke-sign scan target list shows whether its repository is scanned still"},
	{NoTag, "has no tag, so that no result leads to it", "push it again under a tag, which has it scanned; or run what the tag points to now"},
	{ImageNotFound, "does not exist, or the provider's identity may not read it",
		"check the image's name, and that you and the provider may read its repository"},
	{NotCovered, "is of a tenancy that the provider was not given",
		"give the provider the tenancy with --tenancy NAMESPACE=OCID, or exempt the image"},
	{NoDigest, "is referenced by a tag", "kubectl oke-sign pin IMAGE shows its digest; kubectl oke-sign pin -f FILE writes it"},
	{NotOCIRegistry, "is of another registry", "copy the image to OCI Registry and have it scanned there"},
}

// Meanings returns what every reason means.
func Meanings() []Meaning { return slices.Clone(reasons[:]) }

// Reasons returns every reason.
func Reasons() []Reason {
	list := make([]Reason, len(reasons))
	for i, m := range reasons {
		list[i] = m.Reason
	}
	return list
}

// Meaning returns what r means; of what is no reason it is the zero value.
func (r Reason) Meaning() Meaning {
	if i := slices.IndexFunc(reasons[:], func(m Meaning) bool { return m.Reason == r }); i >= 0 {
		return reasons[i]
	}
	return Meaning{}
}
