package ocitest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strings"
)

// maxMessage bounds the decoded message of Sign and Verify.
const maxMessage = 4096

func cryptoRoutes() []route {
	const s = "crypto"
	return []route{
		to(s, "POST", "/20180608/sign", "keymanagement.Sign", (*call).sign),
		to(s, "POST", "/20180608/verify", "keymanagement.Verify", (*call).verify),
	}
}

// scheme has the parts of one of the vault's signing algorithms.
type scheme struct {
	family string // "RSA" or "ECDSA"
	pss    bool
	hash   crypto.Hash
}

func parseScheme(name string) (scheme, error) {
	hashes := map[string]crypto.Hash{"224": crypto.SHA224, "256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}
	s, bits := scheme{}, ""
	switch {
	case strings.HasPrefix(name, "ECDSA_SHA_") && name != "ECDSA_SHA_224":
		s.family, bits = "ECDSA", strings.TrimPrefix(name, "ECDSA_SHA_")
	case strings.HasPrefix(name, "SHA_") && strings.HasSuffix(name, "_RSA_PKCS_PSS"):
		s.family, s.pss, bits = "RSA", true, strings.TrimSuffix(strings.TrimPrefix(name, "SHA_"), "_RSA_PKCS_PSS")
	case strings.HasPrefix(name, "SHA_") && strings.HasSuffix(name, "_RSA_PKCS1_V1_5"):
		s.family, bits = "RSA", strings.TrimSuffix(strings.TrimPrefix(name, "SHA_"), "_RSA_PKCS1_V1_5")
	}
	h, ok := hashes[bits]
	if !ok {
		return scheme{}, invalid("signingAlgorithm: %.60q is unknown", name)
	}
	s.hash = h
	return s, nil
}

func (s scheme) sign(k crypto.Signer, digest []byte, salt string) ([]byte, error) {
	if !s.pss {
		return k.Sign(rand.Reader, digest, s.hash) // PKCS #1 v1.5, or ECDSA in DER
	}
	opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash}
	if salt == "max" {
		opts.SaltLength = rsa.PSSSaltLengthAuto // the longest salt that fits
	}
	return k.Sign(rand.Reader, digest, opts)
}

func (s scheme) valid(pub crypto.PublicKey, digest, sig []byte) bool {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if s.pss {
			return rsa.VerifyPSS(pub, s.hash, digest, sig, nil) == nil
		}
		return rsa.VerifyPKCS1v15(pub, s.hash, digest, sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(pub, digest, sig)
	}
	return false
}

type cryptoInput struct {
	KeyID, KeyVersionID, Message, MessageType, Signature, SigningAlgorithm string
}

// cryptoCall reads what Sign and Verify share: the key version, the algorithm, and
// the digest of the message.
func (c *call) cryptoCall(permission string) (in cryptoInput, k *key, v *keyVersion, s scheme, digest []byte, err error) {
	if err = c.decode(&in); err != nil {
		return
	}
	if err = required("keyId", in.KeyID, "message", in.Message, "signingAlgorithm", in.SigningAlgorithm); err != nil {
		return
	}
	if err = oneOf("messageType", in.MessageType, "RAW", "DIGEST"); err != nil {
		return
	}
	if s, err = parseScheme(in.SigningAlgorithm); err != nil {
		return
	}
	if k, err = c.findKey(in.KeyID, permission); err != nil {
		return
	}
	if v = k.current(); in.KeyVersionID != "" {
		if v = k.version(in.KeyVersionID); v == nil {
			err = notFound("no version " + in.KeyVersionID + " of this key")
			return
		}
	}
	if state := c.unusable(k, v); state != "" {
		err = notFound("the key is " + state)
		if c.sw.DisabledCrypto == "409" {
			err = conflict("IncorrectState", "The key is %s.", state)
		}
		return
	}
	if k.Shape.Algorithm != s.family {
		err = invalid("signingAlgorithm: %s does not fit a key of algorithm %s", in.SigningAlgorithm, k.Shape.Algorithm)
		return
	}
	digest, err = digestOf(in, s.hash)
	return
}

func digestOf(in cryptoInput, hash crypto.Hash) ([]byte, error) {
	message, err := base64.StdEncoding.DecodeString(in.Message)
	if err != nil {
		return nil, invalid("message: not base64")
	}
	if in.MessageType == "DIGEST" {
		if len(message) != hash.Size() {
			return nil, invalid("message: a digest of %s has %d bytes", hash, hash.Size())
		}
		return message, nil
	}
	if len(message) > maxMessage {
		return nil, invalid("message: longer than %d bytes", maxMessage)
	}
	h := hash.New()
	h.Write(message) //nolint:errcheck // a hash never fails
	return h.Sum(nil), nil
}

func (c *call) sign() (any, error) {
	in, k, v, s, digest, err := c.cryptoCall("KEY_SIGN")
	if err != nil {
		return nil, err
	}
	signer, err := v.parsed()
	if err != nil {
		return nil, err
	}
	sig, err := s.sign(signer, digest, c.sw.Salt)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return map[string]string{
		"keyId": k.ID, "keyVersionId": v.ID, "signature": base64.StdEncoding.EncodeToString(sig), "signingAlgorithm": in.SigningAlgorithm,
	}, nil
}

func (c *call) verify() (any, error) {
	in, _, v, s, digest, err := c.cryptoCall("KEY_VERIFY")
	if err != nil {
		return nil, err
	}
	if err := required("keyVersionId", in.KeyVersionID, "signature", in.Signature); err != nil {
		return nil, err
	}
	sig, err := base64.StdEncoding.DecodeString(in.Signature)
	if err != nil {
		return nil, invalid("signature: not base64")
	}
	signer, err := v.parsed()
	if err != nil {
		return nil, err
	}
	return map[string]bool{"isSignatureValid": s.valid(signer.Public(), digest, sig)}, nil
}
