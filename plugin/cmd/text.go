package cmd

import (
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// printable makes a text safe for one line of a terminal. Descriptions, names
// and messages of OCI are written by others: an escape sequence in one could
// repaint the line that says "no", and marks of writing direction could reorder
// it. Everything that is not visible becomes a space or a question mark.
func printable(s string) string {
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

// clip is printable text of at most n characters.
func clip(s string, n int) string {
	s = printable(s)
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

var longDigest = regexp.MustCompile(`(@sha256:[0-9a-f]{12})[0-9a-f]+`)

// brief shortens the digests of images in a text for a table: twelve digits tell
// images apart, and leave room for the rest of the line.
func brief(text string) string {
	return printable(longDigest.ReplaceAllString(text, "$1…"))
}

// count is a number and its noun.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
