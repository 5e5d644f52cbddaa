package cli

import "bytes"

// Fitted is a table as it is shown at a terminal of so many columns.
func Fitted(width int, columns []string, rows ...[]string) string {
	var b bytes.Buffer
	d := Document{Sections: []Section{{Rows: rows}}}
	for _, name := range columns {
		d.Columns = append(d.Columns, Column{Name: name})
	}
	if err := writeTable(&b, d, false, width); err != nil {
		return err.Error()
	}
	return b.String()
}
