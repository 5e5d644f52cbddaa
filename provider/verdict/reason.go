package verdict

import "slices"

// Reason is the code in a verdict.
type Reason string

// The reasons.
const (
	Signed         Reason = "signed"
	WrongImage     Reason = "wrong-image"
	WrongKey       Reason = "wrong-key"
	BadSignature   Reason = "bad-signature"
	KeyUnusable    Reason = "key-unusable"
	KeyNotAllowed  Reason = "key-not-allowed"
	Unsigned       Reason = "unsigned"
	ImageNotFound  Reason = "image-not-found"
	NotCovered     Reason = "not-covered"
	NoDigest       Reason = "no-digest"
	NotOCIRegistry Reason = "not-oci-registry"
)

// Meaning explains a reason to people and to the chart's alerts.
type Meaning struct {
	Reason   Reason
	Sentence string // continues "the image"
	Remedy   string // what to do next; IMAGE and KEY stand for the image and an allowed key
	Alarm    Alarm
}

// Alarm is the chart's alert for which a reason counts.
type Alarm uint8

const (
	Benign Alarm = iota // no alert
	Unread              // the provider may be unable to read OCI Registry
	Forged              // a signature record may be an attack
)

// reasons lists all reasons in the order of precedence.
var reasons = [...]Meaning{
	{Signed, "has a record that proves an allowed key for exactly this image", "", Benign},
	{WrongImage, "has a genuine signature, of another image or of something that is no signed message", "kubectl oke-sign sign IMAGE --key KEY; the signature that is there was not made for this image, so find out who put it there", Forged},
	{WrongKey, "has a record that names another key than the signed message does", "kubectl oke-sign sign IMAGE --key KEY; the signature that is there names a key that did not make it, so find out who put it there", Forged},
	{BadSignature, "has a record that does not verify", "kubectl oke-sign sign IMAGE --key KEY", Forged},
	{KeyUnusable, "is signed with a key that is disabled, deleted, or a version that the key does not have", "enable the key or its version in OCI Vault if it was disabled by mistake, or sign with another that the policy lists", Benign},
	{KeyNotAllowed, "is signed, by no key that the policy lists", "kubectl oke-sign sign IMAGE --key KEY", Benign},
	{Unsigned, "has no signature", "kubectl oke-sign sign IMAGE --key KEY", Benign},
	{ImageNotFound, "is not there, or the provider's principal may not read it", "check the image's name, and that you and the provider may read its repository", Unread},
	{NotCovered, "is of a tenancy that the provider was not given", "give the provider the tenancy with --tenancy NAMESPACE=OCID, or exempt the image", Unread},
	{NoDigest, "is referenced by a tag", "kubectl oke-sign pin IMAGE shows its digest; kubectl oke-sign pin -f FILE writes it", Unread},
	{NotOCIRegistry, "is of another registry", "copy the image to OCI Registry and sign it there", Unread},
}

// Reasons returns every reason, in the order of precedence.
func Reasons() (list []Reason) {
	for _, m := range reasons {
		list = append(list, m.Reason)
	}
	return list
}

// Meaning returns the meaning of r, or the zero Meaning if r is not a reason.
func (r Reason) Meaning() Meaning {
	if i := r.rank(); i < len(reasons) {
		return reasons[i]
	}
	return Meaning{}
}

// rank returns the position of r in the order of precedence. Other texts come last.
func (r Reason) rank() int {
	if i := slices.IndexFunc(reasons[:], func(m Meaning) bool { return m.Reason == r }); i >= 0 {
		return i
	}
	return len(reasons)
}
