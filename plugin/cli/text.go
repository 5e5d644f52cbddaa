package cli

import (
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Timestamp formats a time as RFC 3339 in UTC; the zero time is "".
func Timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// Printable makes a text safe for one line of a terminal. Other people write the
// descriptions, names and messages of OCI. An escape sequence in one could overwrite
// the line that says "no", and marks of writing direction could reorder it. Every
// invisible character becomes a space or a question mark.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, !unicode.IsPrint(r) && !unicode.IsSpace(r):
			return '?'
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, s)
}

// Clip returns the printable text, cut to n characters.
func Clip(s string, n int) string {
	s = Printable(s)
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

var longDigest = regexp.MustCompile(`(@sha256:[0-9a-f]{12})[0-9a-f]+`)

// Brief shortens the digests in a text for a table. Twelve digits distinguish images
// and leave room for the rest of the line.
func Brief(text string) string {
	return Printable(longDigest.ReplaceAllString(text, "$1…"))
}

// Count returns a number and its noun.
func Count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
