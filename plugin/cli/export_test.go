package cli

import "bytes"

// Fitted returns a table as a terminal with this many columns shows it.
func Fitted(width int, columns []string, rows ...[]string) string {
	var b bytes.Buffer
	d := Document{Sections: []Section{{Rows: rows}}}
	for _, name := range columns {
		d.Columns = append(d.Columns, Column{Name: name})
	}
	writeTable(&b, d, style{width: width})
	return b.String()
}
