// Package signature holds what a signature record of OCI Registry says and
// proves whether a key signed it for one image.
//
// A record is what somebody uploaded: anyone who may push to a repository may
// attach any record to any of its images, and OCI is not known to check it.
// The package trusts the public key it is given and nothing else, reads a
// message only after its bytes were verified exactly as stored, and then holds
// every field against the image asked for and the record itself. It does no
// I/O, and does not decide which keys are allowed or still usable.
package signature

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes that the four algorithms name
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// What a record can fail to prove. Every error of Verify wraps one of them.
var (
	// ErrBadSignature: the signature does not verify under the key, or its
	// algorithm is not one of the four or not the one the message names.
	ErrBadSignature = errors.New("bad signature")
	// ErrWrongKey: verified, but the message names another key or version than
	// the record.
	ErrWrongKey = errors.New("signed for another key")
	// ErrWrongImage: verified, but the message is about another digest or
	// repository.
	ErrWrongImage = errors.New("signed for another image")
	// ErrMalformed: verified, but the text is no message about an image.
	ErrMalformed = errors.New("signed something else than a message about an image")
)

// Algorithm is a signature algorithm that OCI Registry knows: RSASSA-PSS
// (RFC 8017, 8.1) with one of four hashes, MGF1 with the same hash.
type Algorithm string

// The algorithms of the Artifacts API. OCI Vault has more; images cannot be
// signed with them.
const (
	SHA224 Algorithm = "SHA_224_RSA_PKCS_PSS"
	SHA256 Algorithm = "SHA_256_RSA_PKCS_PSS"
	SHA384 Algorithm = "SHA_384_RSA_PKCS_PSS"
	SHA512 Algorithm = "SHA_512_RSA_PKCS_PSS"
)

// ParseAlgorithm reads the canonical name of one of the four algorithms.
func ParseAlgorithm(s string) (Algorithm, error) {
	switch a := Algorithm(s); a {
	case SHA224, SHA256, SHA384, SHA512:
		return a, nil
	}
	return "", fmt.Errorf("not an algorithm that images are signed with: %.80q", s)
}

// Hash is the algorithm's hash function, or 0 for none of the four.
func (a Algorithm) Hash() crypto.Hash {
	switch a {
	case SHA224:
		return crypto.SHA224
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

// StateAvailable is the lifecycle state of a record that counts.
const StateAvailable = "AVAILABLE"

// Record is a container image signature as OCI Registry returned it. No field
// of it has been checked.
type Record struct {
	ID           string
	ImageID      string
	KeyID        string
	KeyVersionID string
	Algorithm    string
	Message      string // base64
	Signature    string // base64
	State        string
	CreatedBy    string
	DisplayName  string
	TimeCreated  time.Time
}

// Bounds on the base64 text of a record, so that a hostile one costs little:
// room for four times the message that OCI Vault signs, and for twice the largest
// signature.
const (
	maxMessageText   = (4*MaxMessage + 2) / 3 * 4
	maxSignatureText = (2*maxKeyBits/8 + 2) / 3 * 4
)

// Verify proves that pub signed rec for img, and returns the signed message. It
// accepts any salt length, because OCI does not document the one it uses.
//
// The message names neither region nor namespace. So a repository of the same name
// may carry the record elsewhere, and this is accepted: the digest is the same, and
// the same bytes run.
func Verify(rec Record, pub *rsa.PublicKey, img image.Pinned) (Message, error) {
	alg, err := ParseAlgorithm(rec.Algorithm)
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	text, err := decode(rec.Message, maxMessageText)
	if err != nil {
		return Message{}, fmt.Errorf("%w: message: %w", ErrBadSignature, err)
	}
	sig, err := decode(rec.Signature, maxSignatureText)
	if err != nil {
		return Message{}, fmt.Errorf("%w: signature: %w", ErrBadSignature, err)
	}
	h := alg.Hash().New()
	h.Write(text)
	opts := rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthAuto, Hash: alg.Hash()}
	if err := rsa.VerifyPSS(pub, alg.Hash(), h.Sum(nil), sig, &opts); err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}

	m, err := ParseMessage(text) // only now is it a statement by the key
	if err != nil {
		return Message{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case img.IsZero() || m.ImageDigest != img.Digest():
		return Message{}, fmt.Errorf("%w: %.80q", ErrWrongImage, m.ImageDigest)
	case m.RepositoryName != img.Repository():
		return Message{}, fmt.Errorf("%w: of repository %.80q", ErrWrongImage, m.RepositoryName)
	case m.KeyID != rec.KeyID:
		return Message{}, fmt.Errorf("%w: %s", ErrWrongKey, Short(m.KeyID))
	case m.KeyVersionID != rec.KeyVersionID:
		return Message{}, fmt.Errorf("%w: version %s", ErrWrongKey, Short(m.KeyVersionID))
	case m.Algorithm != rec.Algorithm:
		return Message{}, fmt.Errorf("%w: the message names algorithm %.40q", ErrBadSignature, m.Algorithm)
	}
	return m, nil
}

// decode accepts one spelling only: encoding/base64 skips line breaks and
// ignores stray bits, and what has many spellings can be stored many times.
func decode(s string, limit int) ([]byte, error) {
	if len(s) > limit {
		return nil, fmt.Errorf("%d characters, at most %d are read", len(s), limit)
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not standard base64 without line breaks")
	}
	return b, nil
}

// Sizes of an RSA key in bits: OCI Vault makes 2048, 3072 and 4096, and imports
// nothing larger. The upper bound keeps one verification cheap.
const (
	minKeyBits = 2048
	maxKeyBits = 8192
	maxPEM     = 4096
)

// ParsePublicKey reads an RSA public key from exactly one PEM block, PKIX
// ("PUBLIC KEY") or PKCS #1 ("RSA PUBLIC KEY"): which of them OCI Vault writes
// is not documented.
func ParsePublicKey(text string) (*rsa.PublicKey, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("a public key of %d bytes", len(text))
	}
	data := bytes.TrimSpace([]byte(text))
	block, rest := pem.Decode(data)
	if block == nil || len(rest) > 0 || len(block.Headers) > 0 || !bytes.HasPrefix(data, []byte("-----BEGIN ")) ||
		bytes.Count(data, []byte("-----BEGIN ")) != 1 {
		return nil, errors.New("not exactly one PEM block")
	}
	var pub *rsa.PublicKey
	switch block.Type {
	case "PUBLIC KEY":
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing a public key: %w", err)
		}
		var ok bool
		if pub, ok = key.(*rsa.PublicKey); !ok {
			return nil, fmt.Errorf("not an RSA public key: %T", key)
		}
	case "RSA PUBLIC KEY":
		key, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing a public key: %w", err)
		}
		pub = key
	default:
		return nil, fmt.Errorf("a PEM block of type %.40q, not a public key", block.Type)
	}
	if bits := pub.N.BitLen(); bits < minKeyBits || bits > maxKeyBits {
		return nil, fmt.Errorf("an RSA key of %d bits; %d to %d are accepted", bits, minKeyBits, maxKeyBits)
	}
	return pub, nil
}
