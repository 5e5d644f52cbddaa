package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

func TestOutcome(t *testing.T) {
	failed, partial := cli.Result{Err: errors.New("x")}, cli.Result{PartialErr: errors.New("x")}
	no, yes := cli.Result{Denied: true}, cli.Result{}
	for name, tc := range map[string]struct {
		results []cli.Result
		want    error
	}{
		"nothing asked":                     {nil, nil},
		"all yes":                           {[]cli.Result{yes, yes}, nil},
		"a no outweighs a yes":              {[]cli.Result{yes, no, yes}, cli.ErrNo},
		"not knowing outweighs a no":        {[]cli.Result{no, failed, no}, cli.ErrFailed},
		"not knowing a part outweighs a no": {[]cli.Result{partial, no}, cli.ErrFailed},
		"a no after an unknown":             {[]cli.Result{failed, no}, cli.ErrFailed},
	} {
		if got := cli.Outcome(tc.results); !errors.Is(got, tc.want) || (got == nil) != (tc.want == nil) {
			t.Errorf("%s: got %v, want %v", name, got, tc.want)
		}
	}
}

func TestForEach(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	targets := make([]string, 40)
	for i := range targets {
		targets[i] = fmt.Sprint("image-", i)
	}
	var now, most atomic.Int32
	results := cli.ForEach(ctx, targets, func(ctx context.Context, i int) cli.Result {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if i == 20 {
			cancel()
			return cli.Result{Err: ctx.Err()}
		}
		return cli.Result{Value: i}
	})
	if most.Load() > cli.Parallel {
		t.Errorf("%d at once, more than %d", most.Load(), cli.Parallel)
	}
	begun := 0
	for i, r := range results {
		if r.Target != targets[i] {
			t.Errorf("result %d is of %q", i, r.Target)
		}
		switch {
		case r.Err == nil && r.Value == i:
			begun++
		case r.Err == nil || r.Err.Error() != "interrupted":
			t.Errorf("result %d: %v, %v", i, r.Value, r.Err)
		}
	}
	if begun == 0 || begun == len(targets) {
		t.Errorf("%d of %d were done, and the interrupt came in the middle", begun, len(targets))
	}
	if cli.Outcome(results) == nil {
		t.Error("a command that was stopped says that all went well")
	}
}

// An error of many targets is printed once, and all errors fill at most a screen.
func TestComplaints(t *testing.T) {
	streams, _, _, errOut := genericiooptions.NewTestIOStreams()
	terminal := cli.Terminal{Streams: streams}
	hinted := func(text string) error { return &cli.HintedError{What: errors.New(text), Hint: "sign it"} }
	results := []cli.Result{
		{Target: "a", Err: hinted("unsigned")},
		{Target: "b", Err: hinted("unsigned")},
		{Target: "c", Err: cli.SharedError(errors.New("OCI does not answer"))},
		{Target: "d", Err: cli.SharedError(errors.New("OCI does not answer"))},
		{Target: "e", PartialErr: errors.New("no right to list keys")},
		{Target: "f"},
	}
	terminal.ComplainAbout(results)
	want := "error: a: unsigned\nhint: sign it\nerror: b: unsigned\nerror: OCI does not answer\nerror: e: no right to list keys\n"
	if errOut.String() != want {
		t.Errorf("got\n%swant\n%s", errOut, want)
	}
	errOut.Reset()
	results = nil
	for i := range 25 {
		results = append(results, cli.Result{Target: fmt.Sprint(i), Err: errors.New("gone")})
	}
	terminal.ComplainAbout(results)
	if text := errOut.String(); strings.Count(text, "error: ") != 10 || !strings.HasSuffix(text, "and 15 errors more\n") {
		t.Errorf("got\n%s", text)
	}
}

func TestFinish(t *testing.T) {
	columns := []cli.Column{{Name: "image"}, {Name: "signed"}, {Name: "key", Wide: true}}
	results := []cli.Result{
		{Target: "web", Value: map[string]any{"image": "web"}, Rows: [][]string{{"web", "yes", "k1"}}, Names: []string{"web@sha256:1"}},
		{Target: "db", Err: errors.New("no answer")},
		{Target: "old", Value: map[string]any{"image": "old"}, Rows: [][]string{{"old", "no", ""}}, Denied: true, Notes: []string{"signed by a key that is gone"}},
	}
	for format, want := range map[string]string{
		"table": "IMAGE   SIGNED\nweb     yes\nold     no\n",
		"wide":  "IMAGE   SIGNED   KEY\nweb     yes      k1\nold     no\n",
		"name":  "web@sha256:1\n",
		"json":  `[{"image":"web"},{"image":"db","error":"no answer"},{"image":"old"}]`,
		"yaml":  "- image: web\n- error: no answer\n  image: db\n- image: old\n",
	} {
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		terminal := cli.Terminal{Streams: streams}
		err := terminal.Finish(cli.Output{Format: format}, columns, results)
		if !errors.Is(err, cli.ErrFailed) {
			t.Errorf("%s: %v", format, err)
		}
		got := out.String()
		if format == "json" {
			var v any
			if err := json.Unmarshal([]byte(got), &v); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			got = strings.ReplaceAll(string(text), `{"error":"no answer","image":"db"}`, `{"image":"db","error":"no answer"}`)
		} else if format != "yaml" {
			var lines []string
			for line := range strings.Lines(got) {
				lines = append(lines, strings.TrimRight(line, " \n")+"\n")
			}
			got = strings.Join(lines, "")
		}
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
		if text := errOut.String(); text != "signed by a key that is gone\nerror: db: no answer\n" {
			t.Errorf("%s: said\n%s", format, text)
		}
	}
}

// A program that reads JSON gets exactly one document: the data, or the error if
// there is no data.
func TestWithErrorDocument(t *testing.T) {
	failed := errors.New("the cluster does not answer")
	for name, tc := range map[string]struct {
		format, prints string
		err            error
		want           string
	}{
		"it went well":                    {"json", `{"keys":[]}`, nil, `{"keys":[]}`},
		"it failed before it had data":    {"json", "", failed, `{"error":"the cluster does not answer"}`},
		"it failed after it had data":     {"json", `{"keys":[]}`, failed, `{"keys":[]}`},
		"people read the error by itself": {"table", "", failed, ""},
		"wrong use has no data":           {"json", "", cli.Usage("-n is given", ""), ""},
	} {
		streams, _, out, _ := genericiooptions.NewTestIOStreams()
		terminal := cli.Terminal{Streams: streams}
		err := cli.WithErrorDocument(&terminal, &cli.Output{Format: tc.format}, func() error {
			_, _ = fmt.Fprint(terminal.Streams.Out, tc.prints)
			return tc.err
		})
		if !errors.Is(err, tc.err) {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.ReplaceAll(strings.Join(strings.Fields(out.String()), ""), " ", ""); got != strings.ReplaceAll(tc.want, " ", "") {
			t.Errorf("%s: got %s, want %s", name, out, tc.want)
		}
	}
}
