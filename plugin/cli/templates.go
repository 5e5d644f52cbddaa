package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/util/jsonpath"
)

// templates are the values of -o that need a template behind an equals sign, as in
// kubectl.
var templates = []string{"jsonpath", "jsonpath-as-json", "jsonpath-file", "go-template", "go-template-file", customColumns}

const customColumns = "custom-columns"

// exampleOf shows how to write a template.
var exampleOf = map[string]string{
	"jsonpath": `'{.items[*].image}'`, "jsonpath-as-json": `'{.items}'`, "jsonpath-file": "FILE",
	"go-template": `'{{range .items}}{{.image}}{{"\n"}}{{end}}'`, "go-template-file": "FILE", customColumns: "IMAGE:.image,SIGNED:.signed",
}

// templatePrinter returns the printer of a format with a template. ok is false for other
// formats.
func templatePrinter(format string) (p printers.ResourcePrinter, ok bool, err error) {
	kind, template, given := strings.Cut(format, "=")
	if !slices.Contains(templates, kind) {
		return nil, false, nil
	}
	switch {
	case !given || template == "":
		err = Usage("-o "+kind+" needs a template", "for instance -o "+kind+"="+exampleOf[kind])
	case kind != customColumns:
		p, err = genericclioptions.NewKubeTemplatePrintFlags().ToPrinter(format)
	}
	if err == nil {
		return p, true, nil
	}
	if _, wrong := err.(*UsageError); !wrong { //nolint:errorlint // made above
		err = Usage(fmt.Sprintf("-o %s: %v", kind, err), "for instance -o "+kind+"="+exampleOf[kind])
	}
	return nil, true, err
}

// printTemplate writes a document by a template. A template sees what -o json prints; a
// list is under items, as in kubectl.
func (o *Output) printTemplate(b *bytes.Buffer, d Document) error {
	text, err := json.Marshal(d.Value)
	if err != nil {
		return err
	}
	var value any
	if err := kjson.Unmarshal(text, &value); err != nil {
		return err
	}
	object, isObject := value.(map[string]any)
	items, isList := value.([]any)
	if !isObject {
		object = map[string]any{"apiVersion": "v1", "kind": "List", "items": items}
	} else if nested, ok := object["items"].([]any); ok && object["kind"] == "List" {
		items, isList = nested, true
	}
	if !isList {
		items = []any{object}
	}
	if spec, ok := strings.CutPrefix(o.Format, customColumns+"="); ok {
		return o.printColumns(b, spec, items)
	}
	p, _, err := templatePrinter(o.Format)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := p.PrintObj(&unstructured.Unstructured{Object: object}, &out); err != nil {
		return Usage("-o "+Clip(err.Error(), 300), "-o json shows the document; a list is under .items")
	}
	b.WriteString(plain(out.String()))
	return nil
}

// plain replaces what a terminal would obey, apart from ends of lines and tabs.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, text)
}

// customColumn is a column of -o custom-columns.
type customColumn struct {
	name string
	path *jsonpath.JSONPath
}

// relaxed is a path as people write it, with or without braces and the leading dot.
var relaxed = regexp.MustCompile(`^\{?\.?([^{}]+)\}?$`)

// parseColumns reads NAME:PATH,NAME:PATH.
func parseColumns(spec string) ([]customColumn, error) {
	var columns []customColumn
	for part := range strings.SplitSeq(spec, ",") {
		name, path, ok := strings.Cut(part, ":")
		inner := relaxed.FindStringSubmatch(path)
		if !ok || name == "" || inner == nil {
			return nil, Usage(fmt.Sprintf("-o custom-columns: %q is not NAME:PATH", part), "for instance -o custom-columns="+exampleOf[customColumns])
		}
		parser := jsonpath.New(name).AllowMissingKeys(true)
		if err := parser.Parse("{." + inner[1] + "}"); err != nil {
			return nil, Usage(fmt.Sprintf("-o custom-columns: %q: %v", path, err), "for instance -o custom-columns="+exampleOf[customColumns])
		}
		columns = append(columns, customColumn{name, parser})
	}
	return columns, nil
}

// printColumns writes a row for each item.
func (o *Output) printColumns(b *bytes.Buffer, spec string, items []any) error {
	columns, err := parseColumns(spec)
	if err != nil {
		return err
	}
	var heading []Column
	for _, c := range columns {
		heading = append(heading, Column{Name: c.name})
	}
	var rows [][]string
	for _, item := range items {
		var row []string
		for _, c := range columns {
			cell, err := c.of(item)
			if err != nil {
				return Usage(fmt.Sprintf("-o custom-columns: %s: %v", c.name, err), "-o json shows the document")
			}
			row = append(row, cell)
		}
		rows = append(rows, row)
	}
	writeRows(b, heading, rows, style{wide: true, noHeaders: o.noHeaders})
	return nil
}

// of returns the values of the column in an item, as one text.
func (c customColumn) of(item any) (string, error) {
	found, err := c.path.FindResults(item)
	if err != nil {
		return "", err
	}
	var values []string
	for _, results := range found {
		for _, r := range results {
			text, err := json.Marshal(r.Interface())
			if err != nil {
				return "", err
			}
			var word string
			if json.Unmarshal(text, &word) != nil {
				word = string(text)
			}
			values = append(values, word)
		}
	}
	if len(values) == 0 {
		return "<none>", nil
	}
	return strings.Join(values, ","), nil
}
