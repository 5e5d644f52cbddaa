// Package signature verifies whether a key signed a signature record of OCI Registry for
// one image.
//
// Everybody who may push to a repository may attach any record to any of its images, and
// OCI is not known to check records. The package trusts only the public key that its
// caller passes. It verifies the bytes of a signed message exactly as stored, and reads
// the message afterwards. Then it compares each field with the image and the record. The
// package does no I/O, and does not decide which keys are allowed or enabled.
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

// Errors of Verify. Each error of Verify wraps one of them.
var (
	// ErrBadSignature means that the signature does not verify under the key, that its
	// algorithm is not one of the four, or that the message names another algorithm.
	ErrBadSignature = errors.New("bad signature")
	// ErrWrongKey means that the signature verifies, and that the signed message names
	// another key or version than the record.
	ErrWrongKey = errors.New("signed for another key")
	// ErrWrongImage means that the signature verifies, and that the signed message names
	// another digest or repository.
	ErrWrongImage = errors.New("signed for another image")
	// ErrMalformed means that the signature verifies, and that the signed text is not a
	// message about an image.
	ErrMalformed = errors.New("signed something else than a message about an image")
)

// Algorithm is a signature algorithm that OCI Registry knows: RSASSA-PSS
// (RFC 8017, 8.1) with one of four hashes, MGF1 with the same hash.
type Algorithm string

// The algorithms of the Artifacts API. OCI Vault has more algorithms, which cannot sign
// images.
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

// Hash returns the algorithm's hash function, or 0 for an unknown algorithm.
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

// StateAvailable is the lifecycle state of a signature record that counts.
const StateAvailable = "AVAILABLE"

// Record is a signature record as OCI Registry returned it. Its fields are unchecked.
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

// Bounds of a record's base64 texts, so that a hostile record costs little: four times the
// longest message that OCI Vault signs, and twice the longest signature.
const (
	maxMessageText   = (4*MaxMessage + 2) / 3 * 4
	maxSignatureText = (2*maxKeyBits/8 + 2) / 3 * 4
)

// Verify verifies that pub signed rec for img, and returns the signed message. It accepts
// any salt length, because OCI does not document its salt length.
//
// The signed message names neither region nor namespace. Therefore the record also counts
// for a repository of the same name elsewhere. This is accepted, because the digest is the
// same and the same bytes run.
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

// decode decodes base64 and accepts one spelling only. Package encoding/base64 skips line
// breaks and ignores stray bits, so one text could be stored in many spellings.
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

// Bounds of an RSA key in bits. OCI Vault creates keys of 2048, 3072 and 4096 bits, and
// imports no larger keys. The upper bound limits the cost of a verification.
const (
	minKeyBits = 2048
	maxKeyBits = 8192
	maxPEM     = 4096
)

// ParsePublicKey reads an RSA public key from exactly one PEM block: PKIX ("PUBLIC KEY") or
// PKCS #1 ("RSA PUBLIC KEY"). OCI does not document which one OCI Vault writes.
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
