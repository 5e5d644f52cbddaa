package cmd

import "bytes"

// Printable is what becomes of text from outside before a person sees it.
func Printable(s string) string { return printable(s) }

// Printed is a value as -o prints it.
func Printed(format string, v any) (string, error) {
	var b bytes.Buffer
	o := output{format: format}
	err := o.print(&b, data{value: v})
	return b.String(), err
}
