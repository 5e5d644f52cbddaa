package signature

import (
	"fmt"
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
)

// Lengths of the parts of an OCID, in bytes. The unique part of every known key's OCID has
// 60 bytes, and Oracle's CLI requires this length.
const (
	maxOCID         = 255
	maxVaultExt     = 63
	keyUniqueLength = 60
)

const versionCharset = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

// KeyID is the OCID of a master key of OCI Vault. KeyIDs are comparable. The zero KeyID
// names no key.
type KeyID struct {
	ocid   string
	ext    string
	region image.Region
}

// ParseKeyID reads the OCID of a key:
// ocid1.key.<realm>.<region>.<vault extension>.<unique>. It accepts no other form, because
// package vault derives hosts from the parts. The region must be in the table of package
// image and must belong to the realm.
func ParseKeyID(s string) (KeyID, error) {
	bad := func(why string) (KeyID, error) {
		return KeyID{}, fmt.Errorf("not the OCID of a key: %.120q: %s", s, why)
	}
	parts := strings.Split(s, ".")
	if len(parts) != 6 || parts[0] != "ocid1" || parts[1] != "key" {
		return bad("want ocid1.key.<realm>.<region>.<vault>.<unique>")
	}
	region, err := image.ParseRegion(parts[3])
	if err != nil {
		return bad(err.Error())
	}
	if region.Realm() != parts[2] {
		return bad(fmt.Sprintf("region %s is of realm %s", region, region.Realm()))
	}
	ext, unique := parts[4], parts[5]
	if len(ext) < 1 || len(ext) > maxVaultExt || !lowerAlnum(ext) {
		return bad("the vault's part is 1 to 63 lower-case letters and digits")
	}
	if len(unique) != keyUniqueLength || !lowerAlnum(unique) {
		return bad("the last part is 60 lower-case letters and digits")
	}
	return KeyID{ocid: s, ext: ext, region: region}, nil
}

func (k KeyID) String() string { return k.ocid }

// Region returns the region of the key's vault.
func (k KeyID) Region() image.Region { return k.region }

// VaultExtension returns the vault's part of the OCID. The names of the vault's hosts begin
// with it.
func (k KeyID) VaultExtension() string { return k.ext }

// Short returns the end of the OCID, by which people recognise a key: "…v3t6jcf64a".
func (k KeyID) Short() string { return Short(k.ocid) }

// IsZero reports whether k names no key.
func (k KeyID) IsZero() bool { return k == KeyID{} }

// KeyVersionID is the OCID of a key version. Its layout varies, so its parts are not read.
// The zero KeyVersionID names no version.
type KeyVersionID struct{ ocid string }

// ParseKeyVersionID reads the OCID of a key version. Uploaders choose the OCID in a record,
// and the OCID becomes a path segment of a request. Therefore ParseKeyVersionID rejects
// characters that could leave the segment.
func ParseKeyVersionID(s string) (KeyVersionID, error) {
	rest, ok := strings.CutPrefix(s, "ocid1.keyversion.")
	if !ok || rest == "" || len(s) > maxOCID || strings.Contains(s, "..") ||
		strings.Trim(rest, versionCharset) != "" { // Trim leaves nothing if all characters are allowed
		return KeyVersionID{}, fmt.Errorf("not the OCID of a key version: %.120q", s)
	}
	return KeyVersionID{s}, nil
}

func (v KeyVersionID) String() string { return v.ocid }

// Short returns the end of the OCID: "…5slkxvenra".
func (v KeyVersionID) Short() string { return Short(v.ocid) }

// IsZero reports whether v names no version.
func (v KeyVersionID) IsZero() bool { return v == KeyVersionID{} }

// Short returns an ellipsis and the last ten bytes of an OCID, as OCI Registry's display
// names of signatures do. The result is printable for any s.
func Short(s string) string {
	const shown = 10
	ellipsis := ""
	if len(s) > shown {
		s, ellipsis = s[len(s)-shown:], "…"
	}
	return ellipsis + Printable(s)
}

// Printable makes a text from outside safe for a terminal: it replaces all characters but
// printable ASCII without spaces by question marks, and cuts the text to an OCID's length.
func Printable(s string) string {
	odd := func(r rune) bool { return r <= ' ' || r > '~' }
	if s = s[:min(len(s), maxOCID)]; !strings.ContainsFunc(s, odd) {
		return s // nearly always
	}
	return strings.Map(func(r rune) rune {
		if odd(r) {
			return '?'
		}
		return r
	}, s)
}

func lowerAlnum(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}
