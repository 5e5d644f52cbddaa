package cmd_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/cmd"
)

func TestPrintable(t *testing.T) {
	for name, row := range map[string]struct{ in, want string }{
		"plain text stays":                   {"nightly build, é €", "nightly build, é €"},
		"an escape sequence is disarmed":     {"a\x1b[2Jb", "a?[2Jb"},
		"a C1 control is one in UTF-8 too":   {"a\u009b2Jb", "a?2Jb"},
		"lines become one":                   {"yes\r\nno\u2028x", "yes  no x"},
		"writing direction is not turned":    {"a\u202eb\u2066c", "a?b?c"},
		"what is not UTF-8 is shown as such": {"a\xffb", "a?b"},
	} {
		if got := cmd.Printable(row.in); got != row.want {
			t.Errorf("%s: got %q, want %q", name, got, row.want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b]0;title\x07b\u200f\xc3")
	f.Fuzz(func(t *testing.T, s string) {
		got := cmd.Printable(s)
		if i := strings.IndexFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 || !utf8.ValidString(got) {
			t.Errorf("%q: %q is not fit for a terminal at %d", s, got, i)
		}
		if again := cmd.Printable(got); again != got {
			t.Errorf("%q: %q becomes %q", s, got, again)
		}
	})
}

// Whatever a record holds, json and yaml carry it whole, and neither has
// anything in it that a terminal would obey.
func FuzzPrinted(f *testing.F) {
	f.Add("a\x1b[2J\u009b\u202e\U000e0041\u2028\n\"'\\")
	f.Fuzz(func(t *testing.T, s string) {
		want := map[string]string{"x": strings.ToValidUTF8(s, "\ufffd")}
		for format, read := range map[string]func([]byte, *map[string]string) error{
			"json": func(b []byte, v *map[string]string) error { return json.Unmarshal(b, v) },
			"yaml": func(b []byte, v *map[string]string) error { return yaml.Unmarshal(b, v) },
		} {
			text, err := cmd.Printed(format, want)
			if err != nil {
				t.Fatalf("%s of %q: %v", format, s, err)
			}
			obeyed := func(r rune) bool {
				// YAML has no escape for marks of writing direction that its writers use.
				return r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && format == "json")
			}
			if i := strings.IndexFunc(text, obeyed); i >= 0 {
				t.Errorf("%s of %q: %q is not fit for a terminal at %d", format, s, text, i)
			}
			var got map[string]string
			if err := read([]byte(text), &got); err != nil || got["x"] != want["x"] {
				t.Errorf("%s of %q: read back as %q, %v", format, s, got["x"], err)
			}
		}
	})
}
