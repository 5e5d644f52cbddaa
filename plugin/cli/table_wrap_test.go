package cli_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// No line is wider than the terminal, except for longer words and commands. No text
// of the table is lost.
func FuzzFit(f *testing.F) {
	f.Add("iad.ocir.io/ns/repo@sha256:0123456789ab…", "yes", "no-digest: a tag may move; pin it with kubectl oke-sign pin", uint16(40))
	f.Add("", "", "", uint16(1))
	f.Add("key", "", strings.Repeat("ocid1.", 20), uint16(0))
	f.Add("  signed by", strings.Repeat("a ", 100), strings.Repeat("é", 200), uint16(80))
	f.Fuzz(func(t *testing.T, first, second, third string, width uint16) {
		const least = 80
		columns := least + int(width%200)
		text := cli.Fitted(columns, []string{"image", "signed", "why"}, []string{first, second, third})
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			word := line[strings.LastIndexByte(line, ' ')+1:]
			if n := utf8.RuneCountInString(line); n > columns && utf8.RuneCountInString(word) <= 16 {
				t.Errorf("%d characters at a terminal of %d: %q", n, columns, line)
			}
		}
		bare := func(s string) map[rune]int {
			runes := make(map[rune]int)
			for _, r := range cli.Printable(s) {
				if r != ' ' {
					runes[r]++
				}
			}
			return runes
		}
		got, want := bare(strings.ReplaceAll(text, "\n", " ")), bare("IMAGE SIGNED WHY"+first+second+third)
		for r, n := range want {
			if got[r] != n {
				t.Errorf("%d of %q, want %d:\n%s", got[r], r, n, text)
			}
		}
	})
}
