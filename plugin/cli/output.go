package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// Formats are the values of -o of every command.
var Formats = []string{"table", "wide", "json", "yaml", "name"}

// FormatsAnd returns Formats and more formats.
func FormatsAnd(more ...string) []string { return slices.Concat(Formats, more) }

// Output is the output format of a command.
type Output struct {
	Format  string
	Nothing string // replaces "no signatures" below a title without rows

	noHeaders bool
	flags     *pflag.FlagSet // of the command, among them --color
}

// Bind adds -o with the values of Formats.
func (o *Output) Bind(flags *pflag.FlagSet) { o.BindFormats(flags, Formats) }

// BindFormats adds -o with other formats.
func (o *Output) BindFormats(flags *pflag.FlagSet, formats []string) {
	flags.StringVarP(&o.Format, "output", "o", "table", "`FORMAT` of the output: "+strings.Join(formats, ", ")+
		"; or as in kubectl jsonpath=, go-template= or custom-columns= with a template, for which a list is .items.")
	flags.BoolVar(&o.noHeaders, "no-headers", false, "Print tables without their headings.")
	o.flags = flags
}

// Validate rejects a format that is not in Formats.
func (o *Output) Validate() error { return o.ValidateFormats(Formats) }

// ValidateFormats rejects a format that is neither in formats nor has a valid template.
func (o *Output) ValidateFormats(formats []string) error {
	if slices.Contains(formats, o.Format) {
		return nil
	}
	if spec, ok := strings.CutPrefix(o.Format, customColumns+"="); ok && spec != "" {
		_, err := parseColumns(spec)
		return err
	}
	if _, ok, err := templatePrinter(o.Format); ok {
		return err
	}
	return Usage(fmt.Sprintf("unknown format --output %q", o.Format), "use -o "+strings.Join(slices.Concat(formats, templates), ", -o "))
}

// Document is the result of a command, for all output formats.
type Document struct {
	Value    any // for json and yaml
	Columns  []Column
	Sections []Section
	Names    []string
	nothing  string // is said of a block without rows
}

// Section is a part of a table, with or without a title.
type Section struct {
	Title string
	Rows  [][]string
}

// Column is a column of a table. A wide column shows only with -o wide.
type Column struct {
	Name string
	Wide bool
}

// Print writes the data in one piece, so that no reader mistakes a part for the whole.
func (o *Output) Print(w io.Writer, d Document) error {
	var b bytes.Buffer
	var err error
	switch o.Format {
	case "json":
		err = writeJSON(&b, d.Value)
	case "yaml":
		err = writeYAML(&b, d.Value)
	case "name":
		for _, name := range d.Names {
			fmt.Fprintln(&b, Printable(name))
		}
	case "", "table":
		writeTable(&b, d, style{width: terminalWidth(w), noHeaders: o.noHeaders, color: o.colors(w)})
	case "wide": // as wide as it is
		writeTable(&b, d, style{wide: true, noHeaders: o.noHeaders, color: o.colors(w)})
	default:
		err = o.printTemplate(&b, d)
	}
	if wrong := (*UsageError)(nil); errors.As(err, &wrong) {
		return err
	}
	if err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	if _, err := w.Write(b.Bytes()); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

func writeJSON(b *bytes.Buffer, v any) error {
	text, err := escapedJSON(v, func(r rune) string {
		high, low := utf16.EncodeRune(r)
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	})
	b.Write(text)
	return err
}

// writeYAML converts escaped JSON to YAML. The YAML library does not read raw control
// characters, and escapes them when it writes.
func writeYAML(b *bytes.Buffer, v any) error {
	text, err := escapedJSON(v, func(r rune) string { return fmt.Sprintf(`\U%08x`, r) }) // YAML knows no surrogates
	if err != nil {
		return err
	}
	text, err = yaml.JSONToYAML(text)
	b.Write(text)
	return err
}

// escapedJSON escapes invisible characters, although JSON does not require it: people
// read JSON on terminals, which obey some of these characters. The caller chooses how
// to escape characters of more than four digits.
func escapedJSON(v any, long func(rune) string) ([]byte, error) {
	var plain, escaped bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	for _, r := range plain.String() {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			escaped.WriteRune(r)
		case r > 0xffff:
			escaped.WriteString(long(r))
		default:
			fmt.Fprintf(&escaped, `\u%04x`, r)
		}
	}
	return escaped.Bytes(), nil
}

// style is how a table is written.
type style struct {
	wide      bool // with its wide columns
	width     int  // of a line in characters; 0 is no bound
	noHeaders bool
	color     bool
}

// writeTable writes blocks below each other. Adjacent blocks without a title form one
// table.
func writeTable(b *bytes.Buffer, d Document, st style) {
	var plain [][]string
	for _, block := range d.Sections {
		if block.Title == "" {
			plain = append(plain, block.Rows...)
		}
	}
	writeRows(b, d.Columns, plain, st)
	inner := st
	inner.width = max(0, st.width-2)
	for i, block := range d.Sections {
		if block.Title == "" {
			continue
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		title := Printable(block.Title)
		if st.color {
			title = tinted(title)
		}
		b.WriteString(title + "\n")
		var rows bytes.Buffer
		writeRows(&rows, d.Columns, block.Rows, inner)
		for line := range strings.Lines(rows.String()) {
			b.WriteString("  " + line)
		}
		if len(block.Rows) == 0 {
			b.WriteString("  " + d.nothing + "\n")
		}
	}
}

// writeRows writes a table, or nothing if it has no rows. It aligns columns as kubectl
// does. If they do not fit, they move closer together and cells wrap.
func writeRows(b *bytes.Buffer, columns []Column, rows [][]string, st style) {
	if len(rows) == 0 {
		return
	}
	table := shown(columns, rows, st)
	widths := make([]int, len(table[0]))
	for _, row := range table {
		for i, cell := range row {
			widths[i] = max(widths[i], kubectlColumn, utf8.RuneCountInString(strings.TrimPrefix(cell, copied)))
		}
	}
	if last := len(widths) - 1; st.width > 0 && longest(table, widths[:last]) > st.width {
		fit(b, table, st)
		return
	}
	for _, row := range table {
		cells := make([]lined, len(row))
		for i, cell := range row {
			cells[i] = lined{[]string{strings.TrimPrefix(cell, copied)}, st.tint(cell)}
		}
		writeCells(b, cells, grid{widths, kubectlGap})
	}
}

// Sizes of a table of kubectl.
const (
	kubectlColumn = 3 // is the least width of a column
	kubectlGap    = 3 // is between columns
)

// longest returns the length of the longest line. before are the widths of the columns
// before the last.
func longest(table [][]string, before []int) int {
	most := 0
	for _, row := range table {
		end := 0
		for i, cell := range row {
			if n := utf8.RuneCountInString(strings.TrimPrefix(cell, copied)); n > 0 {
				end = n + (kubectlGap * i)
				for _, w := range before[:i] {
					end += w
				}
			}
		}
		most = max(most, end)
	}
	return most
}

// tint returns the colour of a cell, or "".
func (st style) tint(cell string) string {
	if !st.color || strings.HasPrefix(cell, copied) {
		return ""
	}
	return tint(cell)
}

// shown returns the cells of the columns that a style shows, below their headings.
func shown(columns []Column, rows [][]string, st style) [][]string {
	var heading []string
	for _, c := range columns {
		if st.wide || !c.Wide {
			heading = append(heading, strings.ToUpper(c.Name))
		}
	}
	var table [][]string
	if !st.noHeaders {
		table = append(table, heading)
	}
	for _, row := range rows {
		var cells []string
		for i, cell := range row {
			if columns[i].Wide && !st.wide {
				continue
			}
			whole, isCopied := strings.CutPrefix(cell, copied)
			if cell = Printable(whole); isCopied {
				cell = ToCopy(cell)
			}
			cells = append(cells, cell)
		}
		table = append(table, cells)
	}
	return table
}
