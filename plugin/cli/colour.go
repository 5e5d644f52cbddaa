package cli

import (
	"io"
	"strings"

	"github.com/spf13/pflag"
)

// Words of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// BindColor adds --color. The default is never with NO_COLOR, or if TERM is dumb or not set.
func BindColor(flags *pflag.FlagSet, getenv func(string) string) {
	mode := colorAuto
	if term := getenv("TERM"); getenv("NO_COLOR") != "" || term == "" || term == "dumb" {
		mode = colorNever
	}
	flags.Var(NewWord(&mode, colorAuto, colorAlways, colorNever), "color", "`WHEN` to colour tables: auto (at a terminal), always or never. NO_COLOR sets never.")
	flags.Lookup("color").DefValue = colorAuto
}

// colors reports whether the output has colours.
func (o *Output) colors(w io.Writer) bool {
	if o.flags == nil {
		return false
	}
	f := o.flags.Lookup("color")
	if f == nil {
		return false
	}
	if counting, ok := w.(*countingWriter); ok {
		w = counting.Writer
	}
	return f.Value.String() == colorAlways || f.Value.String() == colorAuto && isTerminal(w)
}

// Colours of a terminal, and the end of a colour.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	noTint = "\x1b[0m"
)

// tints are the colours of the words that the eye looks for.
var tints = map[string]string{
	"yes": green, "allowed": green, "admitted": green, "admits": green, "signed": green, "holds": green,
	"warns": yellow, "warned": yellow, "unknown": yellow, "unmatched": yellow, "not-asked": yellow, "break-glass": yellow, "counted": yellow,
	"no": red, "NO": red, "denied": red, "denies": red, "fails": red, "error": red, "missing": red,
}

// tint returns the colour of a cell: that of its word before a colon, or "".
func tint(cell string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(cell), ":")
	return tints[word] // headings are in capitals, and have none
}

// tinted colours the word at the end of a title, as in "shop/Pod/web: denied".
func tinted(title string) string {
	at := strings.LastIndex(title, ": ") + 2
	if at < 2 || tints[title[at:]] == "" {
		return title
	}
	return title[:at] + tints[title[at:]] + title[at:] + noTint
}
