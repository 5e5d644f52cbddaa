package server

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Sizes of the texts about questions that have no answer, in bytes.
const (
	maxSystemError = 1 << 10
	maxCause       = 600 // OCI's request id comes last in its errors
	maxImageShown  = 256
)

// askedAgain completes the detail of a denial that the provider caches.
func askedAgain(after time.Duration) string {
	return fmt.Sprintf(" (asked again after %s plus Gatekeeper's cache)", after)
}

// systemError joins lines as far as maxSystemError allows, and says how many it left
// out. The image policy copies it into a denial that people read.
func systemError(lines []string) string {
	const more = "\nand %d more"
	var b strings.Builder
	for i, l := range lines {
		room := maxSystemError - b.Len() - 1
		if rest := len(lines) - i - 1; rest > 0 {
			room -= len(fmt.Sprintf(more, rest))
		}
		if len(l) > room {
			fmt.Fprintf(&b, more, len(lines)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l)
	}
	return b.String()
}

// oneLine bounds a text from outside and makes it printable, because its author may
// attack the terminal that shows it.
func oneLine(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = strings.ToValidUTF8(s[:most-len("…")], "")
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r), r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}

// readable returns a duration as people write it; JSON would have nanoseconds.
func readable(d time.Duration) string { return d.Round(time.Microsecond).String() }
