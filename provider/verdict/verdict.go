// Package verdict decides whether an image is signed by an allowed key.
//
// The package does no I/O and caches nothing: package checker gathers the evidence. It
// trusts the public keys and the states of keys that its caller passes. A denial is an
// answer, an error is the lack of an answer, and neither is ever a yes.
package verdict

import (
	"bytes"
	"cmp"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Verdict is the answer to one question: is this image signed by an allowed key, or by as
// many of them as the question asks for? The zero Verdict says no.
type Verdict struct {
	Reason     Reason `json:"reason"`
	Detail     string `json:"detail,omitempty"`     // of a denial, for people
	Key        string `json:"key,omitempty"`        // the key that signed
	KeyVersion string `json:"keyVersion,omitempty"` // and its version
	Signature  string `json:"signature,omitempty"`  // the id of the signature record that proves it
	Algorithm  string `json:"algorithm,omitempty"`
	SignedAt   string `json:"signedAt,omitempty"` // RFC 3339, UTC; when the record was made, by OCI's clock
	// By lists the proofs that count, the newest of each key, if the question asks for
	// more than one key. Key and the following fields then describe the first of them.
	By []Proof `json:"by,omitempty"`
}

// Proof is a signature record that proves an allowed key. Its fields are as in Verdict.
type Proof struct {
	Key        string `json:"key"`
	KeyVersion string `json:"keyVersion"`
	Signature  string `json:"signature"`
	Algorithm  string `json:"algorithm"`
	SignedAt   string `json:"signedAt,omitempty"`
}

// Signed reports whether the verdict is yes.
func (v Verdict) Signed() bool { return v.Reason == Signed }

// Members are the JSON members of a Verdict.
type Members struct {
	Signed bool `json:"signed"`
	fields
}

type fields Verdict // has no MarshalJSON

// Members returns the JSON members of v. A struct may embed them beside its own members.
func (v Verdict) Members() Members { return Members{v.Signed(), fields(v)} }

// MarshalJSON writes the members. The calling encoder escapes them.
func (v Verdict) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v.Members())
	return b.Bytes(), err
}

// Key is a master key as OCI Vault describes it. Its state changes. The public keys of its
// versions do not change.
type Key struct {
	ID        signature.KeyID
	State     string // lifecycle state, or NotFound
	Algorithm string // of the key's shape: "RSA", "AES", "ECDSA"
	// Versions are the versions that OCI Vault lists for the key, with their states.
	Versions map[signature.KeyVersionID]string
}

// Lifecycle states of keys and versions that matter here. A key is NotFound if OCI Vault
// does not have it, or this identity may not read it.
const Enabled, NotFound = "ENABLED", "NOT_FOUND"

// Unusable returns the reason why a version of the key proves nothing now, or "".
func (k Key) Unusable(id signature.KeyVersionID) string {
	state, listed := k.Versions[id]
	shown := func(s string) string { return cmp.Or(signature.Printable(s), "unknown") }
	switch {
	case k.State == NotFound:
		return fmt.Sprintf("OCI Vault does not find key %s, or this identity may not read it", k.ID.Short())
	case k.State != Enabled:
		return fmt.Sprintf("key %s is %s", k.ID.Short(), shown(k.State))
	case k.Algorithm != "RSA":
		return fmt.Sprintf("key %s is an %s key, and images are signed with RSA keys", k.ID.Short(), shown(k.Algorithm))
	case !listed:
		return fmt.Sprintf("version %s is not one of key %s", id.Short(), k.ID.Short())
	case state != Enabled:
		return fmt.Sprintf("version %s of key %s is %s", id.Short(), k.ID.Short(), shown(state))
	}
	return ""
}

// Finding is what one signature record of an image came to under an allowed key.
type Finding struct {
	Reason    Reason // Signed, or what it failed for
	Detail    string // why it failed, for people
	Key       signature.KeyID
	Version   signature.KeyVersionID
	Signature string // the record
	Algorithm string
	SignedAt  time.Time
}

// proof returns the finding as a Verdict shows it.
func (f Finding) proof() Proof {
	return Proof{
		Key: f.Key.String(), KeyVersion: f.Version.String(), Signature: signature.Printable(f.Signature),
		Algorithm: f.Algorithm, SignedAt: timestamp(f.SignedAt),
	}
}

// Prove verifies a signature record with the public key of the key version that it names.
// Decide decides whether the key counts.
func Prove(img image.Pinned, rec signature.Record, key signature.KeyID, version signature.KeyVersionID, pub *rsa.PublicKey) Finding {
	f := Finding{Reason: Signed, Key: key, Version: version, Signature: rec.ID, Algorithm: rec.Algorithm, SignedAt: rec.TimeCreated}
	_, err := signature.Verify(rec, pub, img)
	switch {
	case err == nil:
		return f
	case errors.Is(err, signature.ErrWrongImage), errors.Is(err, signature.ErrMalformed):
		f.Reason = WrongImage
	case errors.Is(err, signature.ErrWrongKey):
		f.Reason = WrongKey
	default:
		f.Reason = BadSignature
	}
	f.Detail = fmt.Sprintf("signature %s by key %s: %s", signature.Short(f.Signature), f.Key.Short(), err)
	return f
}

// Evidence is everything known about one image, without the present states of keys.
type Evidence struct {
	Findings  []Finding // of the records that name an allowed key, newest first
	Records   int       // available records, by any key
	Unusable  int       // records that are not available
	OtherKeys string    // the keys that the other available records name, in words
	Missing   bool      // OCI does not have the image
	Truncated bool      // the image has more records than were read
}

// Decide decides whether the image is signed. A proof counts if its key is allowed, and if
// the key and its version are enabled by what state returns now. Each key counts once.
// Decide calls state only for keys with a proof, until enough of them count. If state fails
// for a key and too few others count, Decide returns an error, because the image may be
// signed.
func Decide(ev Evidence, allowed signature.KeySet, state func(signature.KeyID) (Key, error)) (Verdict, error) {
	var reported Finding // the first in the order of reasons
	var failed []signature.KeyID
	var unknown []error
	var buf [signature.MaxKeys]Proof
	proofs := buf[:0] // that count, by different keys
	for _, f := range ev.Findings {
		switch {
		case f.Reason != Signed:
		case slices.ContainsFunc(proofs, func(p Proof) bool { return p.Key == f.Key.String() }):
			continue
		case !allowed.Contains(f.Key):
			f.Reason, f.Detail = KeyNotAllowed, fmt.Sprintf("key %s is not allowed", f.Key.Short())
		case slices.Contains(failed, f.Key):
			continue
		default:
			key, err := state(f.Key)
			if err != nil {
				failed, unknown = append(failed, f.Key), append(unknown, err)
				continue
			}
			if f.Detail = key.Unusable(f.Version); f.Detail == "" {
				if proofs = append(proofs, f.proof()); len(proofs) == allowed.AtLeast() {
					return signed(proofs), nil
				}
				continue
			}
			f.Reason = KeyUnusable
		}
		if reported.Reason == "" || f.Reason.rank() < reported.Reason.rank() {
			reported = f
		}
	}
	if unknown != nil {
		return Verdict{}, errors.Join(unknown...)
	}
	if len(proofs) > 0 {
		return tooFew(proofs, allowed, reported), nil
	}
	return deny(ev, allowed, reported), nil
}

// signed returns the verdict that proofs by enough keys make.
func signed(proofs []Proof) Verdict {
	first := proofs[0]
	v := Verdict{
		Reason: Signed, Key: first.Key, KeyVersion: first.KeyVersion, Signature: first.Signature,
		Algorithm: first.Algorithm, SignedAt: first.SignedAt,
	}
	if len(proofs) > 1 {
		v.By = slices.Clone(proofs)
	}
	return v
}

// tooFew returns the verdict on an image that some keys have signed, but not enough. It says
// which keys count, which others would, and why a further signature does not count.
func tooFew(proofs []Proof, allowed signature.KeySet, reported Finding) Verdict {
	var by, missing []string
	for _, id := range allowed.Keys() {
		if slices.ContainsFunc(proofs, func(p Proof) bool { return p.Key == id.String() }) {
			by = append(by, id.Short())
		} else {
			missing = append(missing, id.Short())
		}
	}
	detail := fmt.Sprintf("signed by %s; %d of %s must sign as well", strings.Join(by, ", "), allowed.AtLeast()-len(by), strings.Join(missing, ", "))
	if reported.Reason != "" {
		detail += "; " + reported.Detail
	}
	return Verdict{Reason: TooFewKeys, Detail: detail, By: slices.Clone(proofs)}
}

// deny returns the verdict on an image that is not signed.
func deny(ev Evidence, allowed signature.KeySet, reported Finding) Verdict {
	v := Verdict{Reason: Unsigned, Detail: "no signature"}
	switch {
	case reported.Reason != "":
		v = Verdict{Reason: reported.Reason, Detail: reported.Detail}
	case ev.Records > 0:
		v = Verdict{Reason: KeyNotAllowed, Detail: fmt.Sprintf("%s, by %s; allowed: %s",
			count(ev.Records, "signature"), ev.OtherKeys, cmp.Or(allowed.Short(), "none"))}
	case ev.Missing:
		v = Verdict{Reason: ImageNotFound, Detail: "no such image, or this identity may not read it"}
	case ev.Unusable > 0:
		v.Detail = fmt.Sprintf("no signature; %s not available", count(ev.Unusable, "record"))
	}
	if ev.Truncated {
		v.Detail += "; the image has more records than are looked at"
	}
	return v
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
