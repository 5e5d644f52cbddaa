package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/pflag"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"
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
}

// Bind adds -o with the values of Formats.
func (o *Output) Bind(flags *pflag.FlagSet) { o.BindFormats(flags, Formats) }

// BindFormats adds -o with other formats.
func (o *Output) BindFormats(flags *pflag.FlagSet, formats []string) {
	flags.StringVarP(&o.Format, "output", "o", "table", "`FORMAT` of the output: "+strings.Join(formats, ", ")+".")
}

// Validate rejects a format that is not in Formats.
func (o *Output) Validate() error { return o.ValidateFormats(Formats) }

// ValidateFormats rejects a format that is not in formats.
func (o *Output) ValidateFormats(formats []string) error {
	if slices.Contains(formats, o.Format) {
		return nil
	}
	return Usage(fmt.Sprintf("unknown format --output %q", o.Format), "use -o "+strings.Join(formats, ", -o "))
}

// Document is what a command found out, in the three forms it can be printed in.
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

// Column is a column of a table; wide ones are left out unless asked for.
type Column struct {
	Name string
	Wide bool
}

// Print writes the data as a whole, so that a reader never takes a part for it.
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
	case "wide": // as wide as it is
		err = writeTable(&b, d, true, 0)
	default:
		err = writeTable(&b, d, false, terminalWidth(w))
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

// writeYAML goes by way of the escaped JSON: the YAML library refuses to read
// control characters as they are, and escapes them when it writes.
func writeYAML(b *bytes.Buffer, v any) error {
	text, err := escapedJSON(v, func(r rune) string { return fmt.Sprintf(`\U%08x`, r) }) // YAML knows no surrogates
	if err != nil {
		return err
	}
	text, err = yaml.JSONToYAML(text)
	b.Write(text)
	return err
}

// escapedJSON escapes what is not visible even where JSON would not have to:
// terminals obey some of it, and JSON is read on terminals too. How to escape
// what takes more than four digits is left to the caller.
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

// writeTable writes blocks one below the other, in lines of width characters if that
// is not 0. Those without a title make one table with what stands before and after
// them.
func writeTable(b *bytes.Buffer, d Document, wide bool, width int) error {
	var plain [][]string
	for _, block := range d.Sections {
		if block.Title == "" {
			plain = append(plain, block.Rows...)
		}
	}
	if err := writeRows(b, d.Columns, plain, wide, width); err != nil {
		return err
	}
	for i, block := range d.Sections {
		if block.Title == "" {
			continue
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(Printable(block.Title) + "\n")
		var rows bytes.Buffer
		if err := writeRows(&rows, d.Columns, block.Rows, wide, max(0, width-2)); err != nil {
			return err
		}
		for line := range strings.Lines(rows.String()) {
			b.WriteString("  " + line)
		}
		if len(block.Rows) == 0 {
			b.WriteString("  " + d.nothing + "\n")
		}
	}
	return nil
}

func writeRows(b *bytes.Buffer, columns []Column, rows [][]string, wide bool, width int) error {
	table := &metav1.Table{}
	for _, c := range columns {
		priority := int32(0)
		if c.Wide {
			priority = 1
		}
		table.ColumnDefinitions = append(table.ColumnDefinitions, metav1.TableColumnDefinition{Name: c.Name, Type: "string", Priority: priority})
	}
	for _, row := range rows {
		cells := make([]any, len(row))
		for i, cell := range row {
			cells[i] = Printable(strings.TrimPrefix(cell, copied))
		}
		table.Rows = append(table.Rows, metav1.TableRow{Cells: cells})
	}
	var padded bytes.Buffer
	if err := printers.NewTablePrinter(printers.PrintOptions{Wide: wide}).PrintObj(table, &padded); err != nil {
		return err
	}
	var plain bytes.Buffer
	longest := 0
	for line := range strings.Lines(padded.String()) {
		line = strings.TrimRight(line, " \n")
		longest = max(longest, utf8.RuneCountInString(line))
		plain.WriteString(line + "\n")
	}
	if width == 0 || longest <= width {
		b.Write(plain.Bytes())
		return nil
	}
	fit(b, shown(columns, rows), width)
	return nil
}

// shown are the cells of a table that is not wide, with its heading.
func shown(columns []Column, rows [][]string) [][]string {
	var heading []string
	for _, c := range columns {
		if !c.Wide {
			heading = append(heading, strings.ToUpper(c.Name))
		}
	}
	table := [][]string{heading}
	for _, row := range rows {
		var cells []string
		for i, cell := range row {
			if columns[i].Wide {
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
