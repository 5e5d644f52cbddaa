package cli_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"

	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// JSON and YAML contain every record unchanged, without control characters of
// terminals.
func FuzzPrinted(f *testing.F) {
	f.Add("a\x1b[2J\u009b\u202e\U000e0041\u2028\n\"'\\")
	f.Fuzz(func(t *testing.T, s string) {
		want := map[string]string{"x": strings.ToValidUTF8(s, "\ufffd")}
		for format, read := range map[string]func([]byte, *map[string]string) error{
			"json": func(b []byte, v *map[string]string) error { return json.Unmarshal(b, v) },
			"yaml": func(b []byte, v *map[string]string) error { return yaml.Unmarshal(b, v) },
		} {
			var printed bytes.Buffer
			if err := (&cli.Output{Format: format}).Print(&printed, cli.Document{Value: want}); err != nil {
				t.Fatalf("%s of %q: %v", format, s, err)
			}
			text := printed.String()
			obeyed := func(r rune) bool {
				// The writers of YAML do not escape marks of writing direction.
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
