package ociauth

import (
	"bytes"
	"crypto/md5" //nolint:gosec // OCI defines the fingerprint of an API key by it
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/common"
)

// parseKey reads a private key in PEM. Errors call its source name.
func parseKey(data []byte, passphrase, name string) (*rsa.PrivateKey, error) {
	var secret *string
	if passphrase != "" {
		secret = &passphrase
	}
	key, err := common.PrivateKeyFromBytes(data, secret)
	switch {
	case err != nil && (bytes.Contains(data, []byte("ENCRYPTED")) && passphrase == ""):
		return nil, fmt.Errorf("%s is encrypted and there is no pass_phrase", name)
	case err != nil && bytes.Contains(data, []byte("ENCRYPTED")):
		return nil, fmt.Errorf("%s cannot be opened with the pass phrase", name)
	case err != nil || key == nil:
		return nil, fmt.Errorf("%s holds no RSA private key in PEM", name)
	case key.N.BitLen() < 2048:
		return nil, fmt.Errorf("%s holds an RSA key of %d bits; OCI requires at least 2048", name, key.N.BitLen())
	}
	return key, nil
}

// fingerprintOf returns a public key's fingerprint as OCI writes it.
func fingerprintOf(pub *rsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return ""
	}
	sum := md5.Sum(der) //nolint:gosec // a name of the key, without a part in security
	return strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":")
}

// encodeKey returns a public key in DER and base64, as the token services take it.
func encodeKey(public *rsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encoding a key: %w", err)
	}
	return base64.StdEncoding.EncodeToString(der), nil
}
