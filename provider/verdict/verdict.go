// Package verdict decides whether an image is signed by an allowed key.
//
// Decide is the decision and nothing else: it is pure. Checker gathers what the
// decision needs, from functions that it is given, and remembers it for a time.
// A verdict, whichever way it goes, is an answer and may be remembered; an error
// is the lack of one, is never remembered, and is never a yes.
//
// Nothing in a signature record is trusted before its signature is verified, and
// what is asked of OCI Vault depends on the allowed keys alone, not on what the
// records say or how many there are.
package verdict

import (
	"cmp"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Verdict is the answer to one question: is this image signed by one of these
// keys? Its zero value says no.
type Verdict struct {
	Signed     bool   `json:"signed"`
	Reason     Reason `json:"reason"`
	Detail     string `json:"detail,omitempty"`     // of a denial, for people
	Key        string `json:"key,omitempty"`        // the key that signed
	KeyVersion string `json:"keyVersion,omitempty"` // and its version
	Signature  string `json:"signature,omitempty"`  // the record that proves it
	Algorithm  string `json:"algorithm,omitempty"`
	SignedAt   string `json:"signedAt,omitempty"` // RFC 3339, UTC; when the record was made, by OCI's clock

	// Capped is set when the image has more records than were looked at.
	Capped bool `json:"-"`
	// Kept is for how long a Checker gives the same denial again before it looks
	// anew.
	Kept time.Duration `json:"-"`
	// Age is how long ago the gathering of what it is decided on began.
	Age time.Duration `json:"-"`
}

// Key is a master key as OCI Vault describes it. Its state changes; the public
// keys of its versions do not.
type Key struct {
	ID        signature.KeyID
	State     string // lifecycle state, or NotFound
	Algorithm string // of the key's shape: "RSA", "AES", "ECDSA"
	// Versions are those that Vault lists for the key, with their states.
	Versions map[signature.KeyVersionID]string
}

// Lifecycle states of keys and their versions that matter here.
const (
	Enabled  = "ENABLED"
	NotFound = "NOT_FOUND" // not one of Vault's: it does not find the key, or the principal may not read it
)

// unusable says why a version of the key proves nothing now, or "".
func (k Key) unusable(id signature.KeyVersionID) string {
	state, listed := k.Versions[id]
	switch {
	case k.State == NotFound:
		return fmt.Sprintf("OCI Vault does not find key %s, or this principal may not read it", k.ID.Short())
	case k.State != Enabled:
		return fmt.Sprintf("key %s is %s", k.ID.Short(), plain(k.State))
	case k.Algorithm != "RSA":
		return fmt.Sprintf("key %s is an %s key, and images are signed with RSA keys", k.ID.Short(), plain(k.Algorithm))
	case !listed:
		return fmt.Sprintf("version %s is not one of key %s", id.Short(), k.ID.Short())
	case state != Enabled:
		return fmt.Sprintf("version %s of key %s is %s", id.Short(), k.ID.Short(), plain(state))
	}
	return ""
}

// Finding is what one record of an image came to under an allowed key.
type Finding struct {
	Reason    Reason // Signed, or what it failed for
	Detail    string // why it failed
	Key       signature.KeyID
	Version   signature.KeyVersionID
	Signature string // the record
	Algorithm string
	SignedAt  time.Time
}

// Prove holds a record against the public key of the key version that it names.
// Whether the key counts is not considered here; Decide does.
func Prove(ref image.Reference, rec signature.Record, key signature.KeyID, version signature.KeyVersionID, pub *rsa.PublicKey) Finding {
	f := Finding{Reason: Signed, Key: key, Version: version, Signature: rec.ID, Algorithm: rec.Algorithm, SignedAt: rec.TimeCreated}
	_, err := signature.Verify(rec, pub, ref)
	switch {
	case err == nil:
		return f
	case errors.Is(err, signature.ErrWrongImage):
		f.Reason = WrongImage
	case errors.Is(err, signature.ErrWrongKey):
		f.Reason = WrongKey
	default:
		f.Reason = BadSignature
	}
	f.Detail = err.Error()
	return f
}

// Evidence is all that is known about one image before the keys' present states
// are considered.
type Evidence struct {
	Findings  []Finding // of the records that name an allowed key, newest first
	Records   int       // usable records, of whatever key
	Unusable  int       // records that are not available
	OtherKeys []string  // ends of the keys that the other usable records name, each once
	Missing   bool      // there is no such image
	Capped    bool      // there are more records than were looked at
}

// Decide says whether evidence and the present states of the allowed keys make
// the image signed. A proof counts only while keys holds its key, and the key
// and the version are enabled.
func Decide(ev Evidence, allowed []signature.KeyID, keys map[signature.KeyID]Key) Verdict {
	v := decide(ev, allowed, keys)
	if v.Capped = ev.Capped; ev.Capped && !v.Signed {
		v.Detail += "; the image has more records than are looked at"
	}
	return v
}

func decide(ev Evidence, allowed []signature.KeyID, keys map[signature.KeyID]Key) Verdict {
	var worst *Finding
	for i := range ev.Findings {
		f := ev.Findings[i]
		if f.Reason == Signed {
			key, known := keys[f.Key]
			why := key.unusable(f.Version)
			switch {
			case !known || !slices.Contains(allowed, f.Key):
				why = fmt.Sprintf("the state of key %s is not known", f.Key.Short())
			case why == "":
				return Verdict{
					Signed: true, Reason: Signed,
					Key: f.Key.String(), KeyVersion: f.Version.String(), Signature: plain(f.Signature),
					Algorithm: f.Algorithm, SignedAt: timestamp(f.SignedAt),
				}
			}
			f.Reason, f.Detail = KeyUnusable, why
		}
		if worst == nil || f.Reason.rank() < worst.Reason.rank() {
			worst = &f
		}
	}
	switch {
	case worst != nil:
		return Verdict{Reason: worst.Reason, Detail: describe(*worst)}
	case ev.Records > 0:
		return Verdict{Reason: KeyNotAllowed, Detail: fmt.Sprintf("%s, by %s; allowed: %s",
			count(ev.Records, "signature"), keyList(ev.OtherKeys), allowedList(allowed))}
	case ev.Missing:
		return Verdict{Reason: ImageNotFound, Detail: "no such image, or this principal may not read it"}
	case ev.Unusable > 0:
		return Verdict{Reason: Unsigned, Detail: fmt.Sprintf("no signature; %s not available", count(ev.Unusable, "record"))}
	default:
		return Verdict{Reason: Unsigned, Detail: "no signature"}
	}
}

func describe(f Finding) string {
	if f.Reason == KeyUnusable {
		return f.Detail
	}
	return fmt.Sprintf("signature %s by key %s: %s", signature.Short(f.Signature), f.Key.Short(), f.Detail)
}

// maxKeysShown bounds the keys that a detail names: records are as many as
// somebody liked to upload.
const maxKeysShown = 3

func keyList(short []string) string {
	if len(short) == 0 {
		return "no key that it names"
	}
	word := "key"
	if len(short) > 1 {
		word = "keys"
	}
	more := ""
	if n := len(short) - maxKeysShown; n > 0 {
		short, more = short[:maxKeysShown], fmt.Sprintf(" and %d more", n)
	} else if len(short) > 1 {
		last := len(short) - 1
		short, more = short[:last], " and "+short[last]
	}
	return word + " " + strings.Join(short, ", ") + more
}

func allowedList(keys []signature.KeyID) string {
	if len(keys) == 0 {
		return "none"
	}
	short := make([]string, len(keys))
	for i, k := range keys {
		short[i] = k.Short()
	}
	return strings.Join(short, ", ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// plain makes a text of OCI's fit for a message: printable ASCII, at most an
// OCID's length.
func plain(s string) string {
	const most = 255
	odd := func(r rune) bool { return r < ' ' || r > '~' }
	if s != "" && len(s) <= most && !strings.ContainsFunc(s, odd) {
		return s // nearly always
	}
	s = strings.Map(func(r rune) rune {
		if odd(r) {
			return '?'
		}
		return r
	}, s[:min(len(s), most)])
	return cmp.Or(s, "unknown")
}

func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
