package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-cmp/cmp"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// Only a yes confirms.
func TestConfirm(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	const no = "not confirmed; nothing was changed"
	for name, tc := range map[string]struct {
		ctx   context.Context
		typed string
		want  string
	}{
		"yes":                             {t.Context(), "yes\n", ""},
		"y":                               {t.Context(), "y\n", ""},
		"capitals and spaces":             {t.Context(), "  YES \r\n", ""},
		"no":                              {t.Context(), "n\n", no},
		"the key for the default":         {t.Context(), "\n", no},
		"a sentence that begins with yes": {t.Context(), "yes, but not in prod\n", no},
		"a yes on the line after":         {t.Context(), "\nyes\n", no},
		"an end of the input":             {t.Context(), "", no},
		"a yes that is cut off":           {t.Context(), "yes", no},
		"a line that does not end":        {t.Context(), strings.Repeat("y", 1<<20), no},
		"a yes to a command that ends":    {cancelled, "", "interrupted; nothing was changed"},
	} {
		streams, in, _, errOut := genericiooptions.NewTestIOStreams()
		if in.WriteString(tc.typed); tc.ctx.Err() != nil {
			streams.In = silent{t.Context()}
		}
		got := ""
		if err := (&cli.Terminal{Streams: streams}).Confirm(tc.ctx, "Sign\x1b[2J it?"); err != nil {
			got = err.Error()
		}
		if got != tc.want || !strings.HasPrefix(errOut.String(), "Sign?[2J it? [y/N] ") {
			t.Errorf("%s: got %q, want %q; asked %q", name, got, tc.want, errOut)
		}
	}
}

// silent is a terminal without input.
type silent struct{ context.Context }

func (r silent) Read([]byte) (int, error) { <-r.Done(); return 0, r.Err() }

func TestPick(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("key-%02d  vault v%d", i, i%3))
	}
	for name, tc := range map[string]struct {
		choices []string
		typed   string
		want    int
		err     string
		says    string
	}{
		"a number":                       {many, "3\n", 2, "", ""},
		"a number of none":               {many, "0\n16\n-1\n2\n", 1, "", "there is no 16\n"},
		"a number with spaces":           {many, "  4 \n", 3, "", ""},
		"a number too large for any":     {many, "99999999999999999999\n5\n", 4, "", `nothing matches "99999999999999999999"`},
		"more than fit a screen":         {many, "1\n", 0, "", "     and 25 more; type a part of the name to search\n"},
		"a search":                       {many, "key-33\n\n", 33, "", "  1  key-33  vault v0\n"},
		"a search in another case":       {many, "KEY-33\n1\n", 33, "", ""},
		"a search for two words":         {many, "v2 key-3\n1\n", 32, "", "  3  key-38  vault v2\n"},
		"a number counts the shown keys": {many, "key-3\n2\n", 31, "", ""},
		"a search that finds nothing":    {many, "gone\n1\n", 0, "", `nothing matches "gone"`},
		"a search that a terminal obeys": {many, "\x1b[2J\n1\n", 0, "", `nothing matches "\x1b[2J"`},
		"nothing, and one is left":       {many[:1], "\n", 0, "", ""},
		"nothing, and several are left":  {many, "\n\n2\n", 1, "", ""},
		"an end of the input":            {many, "gone\n", 0, "nothing was answered", ""},
		"a choice that a terminal obeys": {[]string{"a\x1b[2Jb"}, "1\n", 0, "", "  1  a?[2Jb\n"},
		"a choice longer than a line":    {[]string{strings.Repeat("x", 200)}, "1\n", 0, "", "  1  " + strings.Repeat("x", 74) + "…\n"},
	} {
		streams, in, _, errOut := genericiooptions.NewTestIOStreams()
		in.WriteString(tc.typed)
		got, err := (&cli.Terminal{Streams: streams}).Pick(t.Context(), "Key", tc.choices)
		if got != tc.want || (err != nil || tc.err != "") && fmt.Sprint(err) != tc.err {
			t.Errorf("%s: got %d, %v; want %d, %q", name, got, err, tc.want, tc.err)
		}
		if !strings.Contains(errOut.String(), tc.says) {
			t.Errorf("%s: %q is not on the screen:\n%s", name, tc.says, errOut)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	terminal := cli.Terminal{Streams: genericiooptions.IOStreams{In: silent{t.Context()}, ErrOut: io.Discard}}
	if _, err := terminal.Pick(ctx, "Key", many); !errors.Is(err, context.Canceled) {
		t.Errorf("an interrupt: %v", err)
	}
}

// A question reads one line. The next lines are for the next reader, such as an editor.
func TestQuestionsReadOneLine(t *testing.T) {
	streams, in, _, _ := genericiooptions.NewTestIOStreams()
	in.WriteString("2\nyes\nrest")
	terminal := cli.Terminal{Streams: streams}
	n, err := terminal.Pick(t.Context(), "Key", []string{"a", "b"})
	if err == nil {
		err = terminal.Confirm(t.Context(), "Sign it?")
	}
	if n != 1 || err != nil || in.String() != "rest" {
		t.Errorf("got %d, %v; left %q", n, err, in)
	}
}

// screen returns a terminal with this many columns, and the text on it.
func screen(t *testing.T, columns uint16) (tty *os.File, shown func() string) {
	t.Helper()
	terminal, tty, err := pty.Open()
	if err == nil {
		err = pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	text := make(chan string, 1)
	go func() {
		var all bytes.Buffer
		_, _ = io.Copy(&all, terminal) // on Linux, an error is the end
		text <- strings.ReplaceAll(all.String(), "\r\n", "\n")
	}()
	return tty, func() string {
		tty.Close() //nolint:errcheck // the reader sees the end
		defer terminal.Close()
		return <-text
	}
}

// At a terminal, lines fit its width. A progress bar disappears before any other
// output.
func TestAtATerminal(t *testing.T) {
	long := strings.Repeat("word ", 30) + "end"
	for name, tc := range map[string]struct {
		write func(*cli.Terminal) error
		want  string
	}{
		"a table breaks between words": {func(s *cli.Terminal) error {
			d := cli.Document{Columns: []cli.Column{{Name: "image"}, {Name: "why"}}, Sections: []cli.Section{{Rows: [][]string{{"web", long}}}}}
			return (&cli.Output{Format: "table"}).Print(s.Streams.Out, d)
		}, "IMAGE\n    WHY\nweb\n    " + strings.Repeat("word ", 6) + "word\n    " + strings.Repeat("word ", 6) + "word\n    " + strings.Repeat("word ", 6) +
			"word\n    " + strings.Repeat("word ", 6) + "word\n    word word end\n"},
		"a wide table does not": {func(s *cli.Terminal) error {
			d := cli.Document{Columns: []cli.Column{{Name: "why", Wide: true}}, Sections: []cli.Section{{Rows: [][]string{{long}}}}}
			return (&cli.Output{Format: "wide"}).Print(s.Streams.Out, d)
		}, "WHY\n" + long + "\n"},
		"choices are cut at the edge": {func(s *cli.Terminal) error {
			s.Streams.In = strings.NewReader("1\n")
			_, err := s.Pick(t.Context(), "Key", []string{long})
			return err
		}, "  1  " + strings.Repeat("word ", 6) + "word…\nKey (Enter for this one, or text to search): "},
		"a bar, and a remark in its place": {func(s *cli.Terminal) error {
			s.Bar.Clear(s.Streams.ErrOut) // nothing to clear
			err := s.Poll(t.Context(), "key", onceThen(errors.New("gone")))
			s.Remark("sorry")
			return err
		}, "\rkey: CREATING, 0s\r                 \rsorry\n"},
		"a bar as wide as the terminal": {func(s *cli.Terminal) error {
			return s.Poll(t.Context(), long[:60], onceThen(nil))
		}, "\r" + long[:38] + "…\r" + strings.Repeat(" ", 39) + "\r"},
	} {
		tty, shown := screen(t, 40)
		terminal := &cli.Terminal{Streams: genericiooptions.IOStreams{In: tty, Out: tty, ErrOut: tty}}
		if !terminal.Interactive() {
			t.Errorf("%s: no person at the terminal", name)
		}
		err := tc.write(terminal)
		if diff := cmp.Diff(tc.want, shown()); diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	streams, _, _, _ := genericiooptions.NewTestIOStreams()
	if (&cli.Terminal{Streams: streams}).Interactive() {
		t.Error("a pipe is taken for a person")
	}
}

// onceThen is not done at the first look. At the second look it is done, or it
// fails.
func onceThen(err error) func() (string, bool, error) {
	looks := 0
	return func() (string, bool, error) {
		looks++
		if looks == 1 {
			return "CREATING", false, nil
		}
		return "ENABLED", true, err
	}
}

// Poll looks at growing intervals. It reports a state when it is new and every half
// minute, and stops when its context ends.
func TestPoll(t *testing.T) {
	for name, tc := range map[string]struct {
		states  []string
		bound   time.Duration
		err     error
		says    string
		atMost  time.Duration
		atLeast time.Duration
	}{
		"done at once": {nil, 0, nil, "", 0, 0},
		"done later":   {[]string{"CREATING", "CREATING", "ENABLING"}, 0, nil, "key: CREATING, 0s\nkey: ENABLING, 1s\n", 2 * time.Second, time.Second},
		"a long wait": {
			states("CREATING", 14), 0, nil, "key: CREATING, 0s\nkey: CREATING, 38s\n", 90 * time.Second, 60 * time.Second,
		},
		"an error":          {[]string{"CREATING"}, 0, errors.New("401"), "key: CREATING, 0s\n", time.Second, 0},
		"the end of --time": {states("CREATING", 1000), 5 * time.Second, context.DeadlineExceeded, "key: CREATING, 0s\n", 5 * time.Second, 5 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx := t.Context()
			if tc.bound > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tc.bound)
				defer cancel()
			}
			streams, _, _, errOut := genericiooptions.NewTestIOStreams()
			began, looks := time.Now(), 0
			err := (&cli.Terminal{Streams: streams}).Poll(ctx, "key", func() (string, bool, error) {
				if looks == len(tc.states) {
					return "ENABLED", true, tc.err
				}
				looks++
				return tc.states[looks-1], false, nil
			})
			if took := time.Since(began); !errors.Is(err, tc.err) || took > tc.atMost || took < tc.atLeast {
				t.Errorf("%s: %v after %s", name, err, took)
			}
			if diff := cmp.Diff(tc.says, errOut.String()); diff != "" {
				t.Errorf("%s:\n%s", name, diff)
			}
		})
	}
}

// states returns n times the same state.
func states(state string, n int) []string { return slices.Repeat([]string{state}, n) }

// Slow work reports its progress. Quick work reports nothing.
func TestProgress(t *testing.T) {
	for name, tc := range map[string]struct {
		each time.Duration
		want string
	}{
		"quick":                   {time.Millisecond, ""},
		"a line every few second": {2 * time.Second, "2 of 5\n4 of 5\n"},
		"slow":                    {time.Minute, "1 of 5\n2 of 5\n3 of 5\n4 of 5\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			streams, _, _, errOut := genericiooptions.NewTestIOStreams()
			done := (&cli.Terminal{Streams: streams}).Progress("%d of %d", 5)
			for range 5 {
				time.Sleep(tc.each) // by the bubble's clock
				done()
			}
			if errOut.String() != tc.want {
				t.Errorf("%s: said %q, want %q", name, errOut, tc.want)
			}
		})
	}
	tty, shown := screen(t, 60)
	terminal := &cli.Terminal{Streams: genericiooptions.IOStreams{ErrOut: tty}}
	synctest.Test(t, func(*testing.T) {
		done := terminal.Progress("%d of %d", 3)
		for range 3 {
			time.Sleep(time.Second)
			done()
		}
	})
	bar := func(filled, done int) string {
		return fmt.Sprintf("\r[%s%s] %d of 3", strings.Repeat("#", filled), strings.Repeat(".", 30-filled), done)
	}
	if diff := cmp.Diff(bar(10, 1)+bar(20, 2)+"\r"+strings.Repeat(" ", 39)+"\r", shown()); diff != "" {
		t.Error(diff)
	}
}
