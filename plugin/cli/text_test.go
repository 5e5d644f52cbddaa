package cli_test

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

func TestPrintable(t *testing.T) {
	for name, row := range map[string]struct{ in, want string }{
		"plain text stays":                 {"nightly build, é €", "nightly build, é €"},
		"an escape sequence is disarmed":   {"a\x1b[2Jb", "a?[2Jb"},
		"a C1 control is one in UTF-8 too": {"a\u009b2Jb", "a?2Jb"},
		"lines become one":                 {"yes\r\nno\u2028x", "yes  no x"},
		"writing direction is not turned":  {"a\u202eb\u2066c", "a?b?c"},
		"invalid UTF-8 is shown as such":   {"a\xffb", "a?b"},
	} {
		if got := cli.Printable(row.in); got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b]0;title\x07b\u200f\xc3")
	f.Fuzz(func(t *testing.T, s string) {
		got := cli.Printable(s)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !utf8.ValidString(got) {
			t.Errorf("%q: %q is not fit for a terminal at %d", s, got, i)
		}
		if again := cli.Printable(got); again != got {
			t.Errorf("%q: %q becomes %q", s, got, again)
		}
	})
}
