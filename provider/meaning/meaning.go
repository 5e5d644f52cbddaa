// Package meaning explains the reasons of verdicts to people: in the README's table, in the
// advice of the plugin, and in the chart's alerts. The decision does not depend on it.
package meaning

import "github.com/oke-sign/oke-sign/provider/verdict"

// Meaning explains a reason.
type Meaning struct {
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

// Of returns the meaning of a reason, or the zero Meaning for a text that is no reason.
func Of(r verdict.Reason) Meaning { return meanings()[r] }

func meanings() map[verdict.Reason]Meaning {
	return map[verdict.Reason]Meaning{
		verdict.Signed:         {"has a signature record that proves an allowed key for exactly this image", "", Benign},
		verdict.TooFewKeys:     {"is signed by fewer different keys than the rule asks for", "kubectl oke-sign sign IMAGE --key KEY, with a key that has not signed yet", Benign},
		verdict.WrongImage:     {"has a genuine signature, but of another image, or of a text that is no signed message", "kubectl oke-sign sign IMAGE --key KEY; the existing signature was made for another image, so find out who uploaded it", Forged},
		verdict.WrongKey:       {"has a signature record that names another key than its signed message", "kubectl oke-sign sign IMAGE --key KEY; the existing record names a key that did not make the signature, so find out who uploaded it", Forged},
		verdict.BadSignature:   {"has a signature record that does not verify", "kubectl oke-sign sign IMAGE --key KEY", Forged},
		verdict.KeyUnusable:    {"is signed with a key that is disabled or deleted, or with a version that the key does not have", "enable the key or its version in OCI Vault if it was disabled by mistake, or sign with another allowed key", Benign},
		verdict.KeyNotAllowed:  {"is signed, but by no allowed key", "kubectl oke-sign sign IMAGE --key KEY", Benign},
		verdict.Unsigned:       {"has no signature", "kubectl oke-sign sign IMAGE --key KEY", Benign},
		verdict.ImageNotFound:  {"does not exist, or the provider's identity may not read it", "check the image's name, and that you and the provider may read its repository", Unread},
		verdict.NotCovered:     {"is of a tenancy that the provider is not configured for", "give the provider the tenancy with --tenancy NAMESPACE=OCID, or exempt the image", Unread},
		verdict.NoDigest:       {"is referenced by a tag", "kubectl oke-sign pin IMAGE shows its digest; kubectl oke-sign pin -f FILE writes it", Unread},
		verdict.NotOCIRegistry: {"is of another registry", "copy the image to OCI Registry and sign it there", Unread},
	}
}
