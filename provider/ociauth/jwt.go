package ociauth

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/oci"
)

// claims are the claims of a token that this package uses.
type claims struct {
	Tenancy string
	Expires float64 // seconds since 1970; 0 if absent
}

// readClaims reads the claims of a JWT. It does not check the signature, since OCI does.
// The tenancy of a workload or a resource is in res_tenant, that of a user in tenant.
func readClaims(text string) (claims, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return claims{}, fmt.Errorf("%w: the token is not a JWT", oci.ErrMalformed)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return claims{}, fmt.Errorf("%w: the token's claims cannot be read", oci.ErrMalformed)
	}
	said, err := parseAnswer(payload)
	if err != nil {
		return claims{}, fmt.Errorf("%w: the token's claims cannot be read", oci.ErrMalformed)
	}
	return claims{Tenancy: cmp.Or(said.text("res_tenant"), said.text("tenant")), Expires: said.number("exp")}, nil
}

var errExpired = errors.New("the token expired")

// checkToken rejects text that cannot stand in a header, and a token that expired by
// its own claim. OCI would answer such a token with a bare 401.
func checkToken(token string, now time.Time) error {
	if token == "" || !consists(token, letters+"._-+/=~") {
		return errors.New("it holds no token")
	}
	if strings.Count(token, ".") != 2 {
		return nil // not a JWT: nothing to read
	}
	claims, err := readClaims(token)
	if err != nil || claims.Expires <= 0 || claims.Expires > 1e11 {
		return nil // OCI decides about it
	}
	if end := time.Unix(int64(claims.Expires), 0); !now.Before(end) {
		return fmt.Errorf("%w at %s", errExpired, end.UTC().Format(time.RFC3339))
	}
	return nil
}

// readToken reads a file that has one token, and checks the token.
func readToken(file string) (string, error) {
	data, err := oci.ReadFile(file, maxTokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	return token, checkToken(token, time.Now())
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// consists reports whether s has only characters of set. Trim stops at the first
// other character.
func consists(s, set string) bool { return strings.Trim(s, set) == "" }
