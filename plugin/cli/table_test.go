package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// A table fits the terminal. Columns get narrower, and a text that would be very
// narrow goes below its row.
func TestFitted(t *testing.T) {
	const image = "iad.ocir.io/idwpqivumvev/project01/web@sha256:0123456789ab…"
	for name, tc := range map[string]struct {
		width int
		rows  [][]string
		want  string
	}{
		"everything fits": {60, [][]string{{"web", "yes", ""}, {"db", "no", "unsigned"}}, `
IMAGE   SIGNED   WHY
web     yes
db      no       unsigned
`},
		"a name breaks after a part of it": {66, [][]string{{image, "no", "unsigned"}, {"db", "yes", ""}}, `
IMAGE                                             SIGNED  WHY
iad.ocir.io/idwpqivumvev/project01/web@           no      unsigned
sha256:0123456789ab…
db                                                yes
`},
		"a text takes several lines beside its row": {50, [][]string{{"web", "no", "the tag may move to another image; pin it"}}, `
IMAGE  SIGNED  WHY
web    no      the tag may move to another image;
               pin it
`},
		"a longer text goes below its row": {50, [][]string{{"web-web-web-web-web", "no", strings.Repeat("the tag may move; ", 6)}}, `
IMAGE                SIGNED
    WHY
web-web-web-web-web  no
    the tag may move; the tag may move; the tag
    may move; the tag may move; the tag may move;
    the tag may move;
`},
		"a command is never broken": {50, [][]string{{"web", "no", cli.ToCopy("kubectl oke-sign policy exempt docker.io/library/nginx --reason because")}}, `
IMAGE  SIGNED
    WHY
web    no
    kubectl oke-sign policy exempt docker.io/library/nginx --reason because
`},
		"a command goes below a row that leaves it no room": {50, [][]string{{strings.Repeat("a", 60), "no", cli.ToCopy("keys list")}}, `
IMAGE                                  SIGNED  WHY
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  no
aaaaaaaaaaaaaaaaaaaaaaa
    keys list
`},
		"what a terminal obeys is shown": {60, [][]string{{"a\x1b[2Jb", "no\nyes", "c\u202ed"}}, `
IMAGE    SIGNED   WHY
a?[2Jb   no yes   c?d
`},
	} {
		got := "\n" + trimmed(cli.Fitted(tc.width, []string{"image", "signed", "why"}, tc.rows...))
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// trimmed removes the spaces at the ends of a text's lines.
func trimmed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestPrint(t *testing.T) {
	d := cli.Document{
		Value:   map[string]string{"x": "<a&b>"},
		Columns: []cli.Column{{Name: "name"}, {Name: "ocid", Wide: true}},
		Sections: []cli.Section{
			{Rows: [][]string{{"first", "ocid1.key.1"}}},
			{Title: "web\x1b[2J", Rows: [][]string{{"inner", "ocid1.key.2"}}},
			{Title: "db"},
			{Rows: [][]string{{"last", "ocid1.key.3"}}},
		},
		Names: []string{"key/first", "key/a\nb"},
	}
	for format, want := range map[string]string{
		"table": "NAME\nfirst\nlast\n\nweb?[2J\n  NAME\n  inner\n\ndb\n  \n",
		"wide":  "NAME    OCID\nfirst   ocid1.key.1\nlast    ocid1.key.3\n\nweb?[2J\n  NAME    OCID\n  inner   ocid1.key.2\n\ndb\n  \n",
		"name":  "key/first\nkey/a b\n",
		"json":  "{\n  \"x\": \"<a&b>\"\n}\n",
		"yaml":  "x: <a&b>\n",
	} {
		var out bytes.Buffer
		o := cli.Output{Format: format}
		if err := errors.Join(o.Validate(), o.Print(&out, d)); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if diff := cmp.Diff(trimmed(want), trimmed(out.String())); diff != "" {
			t.Errorf("%s:\n%s", format, diff)
		}
	}
	for name, tc := range map[string]struct {
		format string
		value  any
		want   string
	}{
		"a disk that is full":         {"table", nil, "writing the output: no space left"},
		"a value that JSON cannot be": {"json", make(chan int), "printing: json: unsupported type"},
		"the same in YAML":            {"yaml", make(chan int), "printing: json: unsupported type"},
	} {
		o := cli.Output{Format: tc.format}
		if err := o.Print(full{}, cli.Document{Value: tc.value}); err == nil || !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
	for _, format := range []string{"", "JSON", "sarif", "table,wide"} {
		o := cli.Output{Format: format}
		if cli.Report(&bytes.Buffer{}, o.Validate()) != cli.ExitUsage {
			t.Errorf("%q is taken for a format", format)
		}
	}
	if o := (cli.Output{Format: "sarif"}); o.ValidateFormats(append(cli.Formats, "sarif")) != nil {
		t.Error("a format of the command's own is rejected")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// A stopped command says how much it has done. A document replaces the table and
// changes nothing else.
func TestFinishDocument(t *testing.T) {
	done, no := cli.Result{Target: "a"}, cli.Result{Target: "b", Denied: true}
	stopped := cli.Result{Target: "c", Err: cli.SharedError(cli.ErrInterrupted)}
	partial := cli.Result{Target: "d\x1b[2J", PartialErr: errors.New("no right to list keys")}
	for name, tc := range map[string]struct {
		results  []cli.Result
		want     error
		says     string
		failures []string
	}{
		"all done":             {[]cli.Result{done}, nil, "", nil},
		"a no":                 {[]cli.Result{done, no}, cli.ErrNo, "", nil},
		"stopped":              {[]cli.Result{done, no, stopped, stopped}, cli.ErrFailed, "error: interrupted\nstopped after 2 of 4\n", []string{"c: interrupted", "c: interrupted"}},
		"the only one stopped": {[]cli.Result{stopped}, cli.ErrFailed, "error: interrupted\n", []string{"c: interrupted"}},
		"not all is known":     {[]cli.Result{partial}, cli.ErrFailed, "error: d?[2J: no right to list keys\n", []string{"d?[2J: no right to list keys"}},
		"never begun":          {cli.AllFailed([]string{"a", "b"}, errors.New("no sign-in")), cli.ErrFailed, "error: no sign-in\n", []string{"a: no sign-in", "b: no sign-in"}},
	} {
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		err := (&cli.Terminal{Streams: streams}).FinishDocument(map[string]int{"runs": 1}, tc.results)
		if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || errOut.String() != tc.says {
			t.Errorf("%s: got %v, said %q, want %v, %q", name, err, errOut, tc.want, tc.says)
		}
		if out.String() != "{\n  \"runs\": 1\n}\n" {
			t.Errorf("%s: printed %s", name, out)
		}
		if diff := cmp.Diff(tc.failures, cli.Failures(tc.results)); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
	streams, _, _, errOut := genericiooptions.NewTestIOStreams()
	streams.Out = full{}
	err := (&cli.Terminal{Streams: streams}).FinishDocument("x", []cli.Result{no})
	if code := cli.Report(errOut, err); code != cli.ExitFailed || errOut.String() != "error: writing the output: no space left\n" {
		t.Errorf("data that could not be written: %d, %s", code, errOut)
	}
}

func TestTexts(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	for name, tc := range map[string]struct{ got, want string }{
		"a text that fits":                {cli.Clip("four", 4), "four"},
		"a text that does not":            {cli.Clip("éàüöä", 4), "éàü…"},
		"what a terminal obeys is no end": {cli.Clip("a\x1b[2J", 3), "a?…"},
		"an image with a digest":          {cli.Brief("web@" + digest), "web@sha256:0123456789ab…"},
		"several, in a sentence":          {cli.Brief("a@" + digest + ", b@" + digest), "a@sha256:0123456789ab…, b@sha256:0123456789ab…"},
		"a digest by itself":              {cli.Brief(digest), digest},
		"none":                            {cli.Brief("web:1\n"), "web:1 "},
		"no things":                       {cli.Count(0, "key"), "0 keys"},
		"one thing":                       {cli.Count(1, "key"), "1 key"},
		"many things":                     {cli.Count(1000, "key"), "1000 keys"},
		"a time":                          {cli.Timestamp(at), "2026-01-02T02:04:05Z"},
		"no time":                         {cli.Timestamp(time.Time{}), ""},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: got %q, want %q", name, tc.got, tc.want)
		}
	}
	if got := fmt.Sprint(cli.Limited().TryGo(func() error { return nil })); got != "true" {
		t.Error("a group that takes no work")
	}
}
