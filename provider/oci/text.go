package oci

import (
	"strings"
	"unicode"
)

// Text returns a string of an answer in a form that people can read safely. Do not
// compare it or send it back.
func Text(s *string) string {
	if s == nil {
		return ""
	}
	return Printable(*s, 255)
}

// Printable makes text from outside fit for one line of a log, an event or a
// terminal. It shortens the text to limit characters, replaces control characters
// and trims spaces.
func Printable(s string, limit int) string {
	const longest = 4096 // bytes worth reading
	if len(s) > longest {
		s = s[:longest]
	}
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r) || r == unicode.ReplacementChar:
			return '?' // terminals act on some of them, and some turn text around
		}
		return r
	}, s)), " ")
	n := 0
	for i := range s {
		if n == limit {
			return s[:i] + "…"
		}
		n++
	}
	return s
}

// IsOCID reports whether s is an OCID of the kind, such as "tenancy". The OCID must
// also fit into a path segment, a query and the key id of a request's signature.
func IsOCID(s, kind string) bool {
	rest, ok := strings.CutPrefix(s, "ocid1."+kind+".")
	realm, _, dots := strings.Cut(rest, ".")
	return ok && dots && realm != "" && Segment(s)
}

// Segment reports whether s is safe as one segment of a path. The SDK does not
// escape path parameters, and "." or ".." would leave the segment. Every OCID is
// safe; many have two dots in a row inside.
func Segment(s string) bool {
	if len(s) > 255 || strings.Trim(s, ".") == "" {
		return false
	}
	const set = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	return strings.Trim(s, set) == "" // Trim stops at the first other character
}
