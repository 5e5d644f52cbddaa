package server_test

import (
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/provider/server"
)

func TestSystemError(t *testing.T) {
	const most = server.MaxSystemError
	line := func(n int) string { return strings.Repeat("a", n) }
	for name, tt := range map[string]struct {
		lines []string
		want  string
	}{
		"nothing failed":                   {nil, ""},
		"one line":                         {[]string{"a"}, "a"},
		"several lines":                    {[]string{"a", "b", "c"}, "a\nb\nc"},
		"the longest line":                 {[]string{line(most - 1)}, line(most - 1)},
		"a line too long":                  {[]string{line(most)}, "\nand 1 more"},
		"the last line fills the rest":     {[]string{line(1000), line(most - 1001)}, line(1000) + "\n" + line(most-1001)},
		"the last line is too long by one": {[]string{line(1000), line(most - 1000)}, line(1000) + "\nand 1 more"},
		"a line leaves room for the number of omitted lines":    {[]string{line(most - 1 - len("\nand 2 more")), "b", "c"}, line(most-1-len("\nand 2 more")) + "\nand 2 more"},
		"a line leaves no room for the number of omitted lines": {[]string{line(most - len("\nand 2 more")), "b", "c"}, "\nand 3 more"},
		"omitted lines are counted":                             {append(make([]string, 5), line(most), "", ""), "\n\n\n\n\nand 3 more"},
	} {
		if got := server.SystemError(tt.lines); got != tt.want || len(got) > most {
			t.Errorf("%s: %d bytes %q, want %q", name, len(got), got, tt.want)
		}
	}
}

func TestOneLine(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		most int
		want string
	}{
		"the longest text":                {"abcdefgh", 8, "abcdefgh"},
		"a text that is one too long":     {"abcdefghi", 8, "abcde…"},
		"a cut in the middle of a letter": {"abcdéfghi", 8, "abcd…"},
		"white space of every kind":       {"a\nb\tc\u2028d\u00a0e", 80, "a b c d e"},
		"control characters of terminals": {"a\x1b[31mb\x00\u202e", 80, "a?[31mb??"},
		"invalid UTF-8, and U+FFFD":       {"a\xffb\ufffdc", 80, "a?b?c"},
		"letters of other scripts":        {"é 語", 80, "é 語"},
	} {
		if got := server.OneLine(tt.text, tt.most); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
