package server

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of the texts about questions without an answer, in bytes.
const (
	maxSystemError = 1 << 10
	maxCause       = 600 // OCI's request id comes last in its errors
	maxImageShown  = 256
)

// retryNote returns the end of the detail of a cached denial.
func retryNote(after time.Duration) string {
	return fmt.Sprintf(" (asked again after %s plus Gatekeeper's cache)", after)
}

// systemError joins lines up to maxSystemError bytes, and says how many lines it left out.
// The image policy copies the text into a denial that people read.
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

// oneLine bounds a text from outside and makes it printable, because the text may attack
// the terminal that shows it.
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

// readable returns a duration as people write it. JSON would show nanoseconds.
func readable(d time.Duration) string { return d.Round(time.Microsecond).String() }
