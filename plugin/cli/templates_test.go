package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

type imageValue struct {
	Image string   `json:"image"`
	Pods  int      `json:"pods"`
	Keys  []string `json:"keys,omitempty"`
}

// Templates see the document of -o json. A list is under items, as kubectl's are.
func TestTemplates(t *testing.T) {
	file := filepath.Join(t.TempDir(), "template")
	if err := os.WriteFile(file, []byte("{.items[1].image}"), 0o600); err != nil {
		t.Fatal(err)
	}
	list := []any{imageValue{"web", 3, []string{"a", "b"}}, imageValue{Image: "db\x1b[2J"}}
	for name, tc := range map[string]struct {
		format string
		value  any
		want   string
	}{
		"a list by jsonpath":          {"jsonpath={.items[*].image}", list, "web db?[2J"},
		"lines by jsonpath":           {`jsonpath={range .items[*]}{.pods}{"\t"}{.image}{"\n"}{end}`, list, "3\tweb\n0\tdb?[2J\n"},
		"a filter":                    {"jsonpath={.items[?(@.pods>1)].image}", list, "web"},
		"a member that is not there":  {"jsonpath={.items[*].gone}", list, ""},
		"an object by jsonpath":       {"jsonpath={.image}", list[0], "web"},
		"JSON by jsonpath":            {"jsonpath-as-json={.items[0].pods}", list, "[\n    3\n]\n"},
		"a file":                      {"jsonpath-file=" + file, list, "db?[2J"},
		"a Go template":               {`go-template={{range .items}}{{.image}}:{{.pods}};{{end}}`, list, "web:3;db?[2J:0;"},
		"no element":                  {`go-template={{len .items}}`, []any{}, "0"},
		"columns":                     {"custom-columns=IMAGE:.image,PODS:{.pods},KEYS:keys[*],FIRST:.keys[0]", list, "IMAGE     PODS   KEYS     FIRST\nweb       3      a,b      a\ndb?[2J    0      <none>   <none>\n"},
		"columns of an object":        {"custom-columns=I:.image", list[0], "I\nweb\n"},
		"a list as kubectl prints it": {"custom-columns=I:.image", map[string]any{"kind": "List", "items": list}, "I\nweb\ndb?[2J\n"},
	} {
		var out bytes.Buffer
		o := cli.Output{Format: tc.format}
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		err := o.Print(&out, cli.Document{Value: tc.value})
		if got := out.String(); err != nil || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(tc.want), " ") || strings.Count(got, "\n") != strings.Count(tc.want, "\n") {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tc.want)
		}
	}
}

// A template that cannot be read is wrong use, before the command does anything.
func TestTemplatesThatAreNone(t *testing.T) {
	for format, want := range map[string]string{
		"jsonpath":                    "-o jsonpath needs a template",
		"jsonpath=":                   "-o jsonpath needs a template",
		"jsonpath={.items":            "-o jsonpath: ",
		"jsonpath-file=/nowhere":      "-o jsonpath-file: ",
		"go-template={{":              "-o go-template: ",
		"custom-columns":              "-o custom-columns needs a template",
		"custom-columns=IMAGE":        `"IMAGE" is not NAME:PATH`,
		"custom-columns=:.image":      `":.image" is not NAME:PATH`,
		"custom-columns=A:.image,":    `"" is not NAME:PATH`,
		"custom-columns=A:.items[?(]": "-o custom-columns: ",
		"custom-columns=A:{.b}{.c}":   "is not NAME:PATH",
		"xml":                         "unknown format --output",
		"xml=1":                       "unknown format --output",
		"template={{.}}":              "unknown format --output",
	} {
		var said bytes.Buffer
		code := cli.Report(&said, (&cli.Output{Format: format}).Validate())
		if code != cli.ExitUsage || !strings.Contains(said.String(), want) || !strings.Contains(said.String(), "hint: ") {
			t.Errorf("%s: got %d, %s", format, code, &said)
		}
	}
	// A template that does not fit the document prints nothing.
	var out, said bytes.Buffer
	o := cli.Output{Format: "go-template={{len .items.image}}"}
	if code := cli.Report(&said, o.Print(&out, cli.Document{Value: []any{1}})); code != cli.ExitUsage || out.Len() > 0 {
		t.Errorf("got %d, %s, %s", code, &out, &said)
	}
}

// Headings are for people.
func TestNoHeaders(t *testing.T) {
	d := cli.Document{
		Value: []imageValue{{Image: "web"}}, Columns: []cli.Column{{Name: "image"}, {Name: "pods", Wide: true}},
		Sections: []cli.Section{{Rows: [][]string{{"web", "3"}}}, {Title: "shop", Rows: [][]string{{"db", "4"}}}},
	}
	for format, want := range map[string]string{
		"table": "web\n\nshop\n  db\n", "wide": "web   3\n\nshop\n  db    4\n", "custom-columns=I:.image": "web\n",
	} {
		var o cli.Output
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.Bind(flags)
		err := flags.Parse([]string{"--no-headers", "-o", format})
		var out bytes.Buffer
		if err == nil {
			err = o.Print(&out, d)
		}
		if err != nil || out.String() != want {
			t.Errorf("%s: got %q, %v, want %q", format, &out, err, want)
		}
	}
}

// Colours are for words at a terminal, or where somebody wants them. They take no room.
func TestColour(t *testing.T) {
	d := cli.Document{
		Columns: []cli.Column{{Name: "signed"}, {Name: "image"}},
		Sections: []cli.Section{
			{Rows: [][]string{{"yes", "web"}, {"no: unsigned", "db"}, {"perhaps", "no-such"}, {"warns", "y\x1b[2J"}}},
			{Title: "shop/Pod/web: denied", Rows: [][]string{{"unknown", "web"}}},
		},
	}
	const (
		plain    = "SIGNED         IMAGE\nyes            web\nno: unsigned   db\nperhaps        no-such\nwarns          y?[2J\n\nshop/Pod/web: denied\n  SIGNED    IMAGE\n  unknown   web\n"
		coloured = "SIGNED         IMAGE\n<32>yes<0>            web\n<31>no: unsigned<0>   db\nperhaps        no-such\n<33>warns<0>          y?[2J\n\nshop/Pod/web: <31>denied<0>\n  SIGNED    IMAGE\n  <33>unknown<0>   web\n"
	)
	xterm := map[string]string{"TERM": "xterm"}
	for name, tc := range map[string]struct {
		env  map[string]string
		args []string
		tty  bool
		want string
	}{
		"a terminal":                {xterm, nil, true, coloured},
		"a pipe":                    {xterm, nil, false, plain},
		"a pipe, wanted":            {nil, []string{"--color=always"}, false, coloured},
		"a terminal, not wanted":    {xterm, []string{"--color=never"}, true, plain},
		"NO_COLOR":                  {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, nil, true, plain},
		"NO_COLOR, and wanted":      {map[string]string{"NO_COLOR": "1"}, []string{"--color=always"}, true, coloured},
		"a terminal without colour": {map[string]string{"TERM": "dumb"}, nil, true, plain},
		"a terminal of no kind":     {nil, nil, true, plain},
	} {
		var o cli.Output
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		o.Bind(flags)
		cli.BindColor(flags, func(name string) string { return tc.env[name] })
		if err := flags.Parse(tc.args); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		got := out.String
		err := error(nil)
		if tc.tty {
			tty, shown := screen(t, 80)
			err, got = o.Print(tty, d), shown
		} else {
			err = o.Print(&out, d)
		}
		text := got()
		for _, code := range []int{0, 31, 32, 33} {
			text = strings.ReplaceAll(text, fmt.Sprintf("\x1b[%dm", code), fmt.Sprintf("<%d>", code))
		}
		if err != nil || text != tc.want {
			t.Errorf("%s: %v, got\n%s\nwant\n%s", name, err, text, tc.want)
		}
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	cli.BindColor(flags, func(string) string { return "" })
	if err := flags.Parse([]string{"--color", "blue"}); err == nil {
		t.Error("--color blue is no error")
	}
}
