package verdict

import "slices"

// Reason is the code in a verdict.
type Reason string

// The reasons. Package meaning explains them.
const (
	Signed         Reason = "signed"
	TooFewKeys     Reason = "too-few-keys"
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

// reasons lists all reasons in the order of precedence.
var reasons = [...]Reason{
	Signed, TooFewKeys, WrongImage, WrongKey, BadSignature, KeyUnusable,
	KeyNotAllowed, Unsigned, ImageNotFound, NotCovered, NoDigest, NotOCIRegistry,
}

// Reasons returns every reason, in the order of precedence.
func Reasons() []Reason { return slices.Clone(reasons[:]) }

// rank returns the position of r in the order of precedence. Other texts come last.
func (r Reason) rank() int {
	if i := slices.Index(reasons[:], r); i >= 0 {
		return i
	}
	return len(reasons)
}
