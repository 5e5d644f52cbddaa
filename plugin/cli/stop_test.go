package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// slow is a person who takes a while to answer.
type slow struct {
	after time.Duration
	io.Reader
}

func (r *slow) Read(b []byte) (int, error) {
	time.Sleep(r.after)
	r.after = 0
	return r.Reader.Read(b)
}

// The time that a person takes to answer does not count against --timeout. The time
// before and after does.
func TestTimeoutWaitsForPeople(t *testing.T) {
	for name, tc := range map[string]struct {
		before, answer, after time.Duration
		late                  bool
	}{
		"a quick answer":         {0, 0, 50 * time.Second, false},
		"a slow answer":          {30 * time.Second, time.Hour, 29 * time.Second, false},
		"slow work, with answer": {30 * time.Second, time.Hour, 31 * time.Second, true},
		"slow work before":       {61 * time.Second, 0, 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			terminal := &cli.Terminal{Timeout: time.Minute, Streams: genericiooptions.IOStreams{
				In: &slow{tc.answer, strings.NewReader("yes\n")}, Out: io.Discard, ErrOut: io.Discard,
			}}
			ctx, cancel := terminal.WithTimeout(t.Context())
			defer cancel()
			child, end := context.WithTimeout(ctx, 24*time.Hour)
			defer end()
			time.Sleep(tc.before)
			if ctx.Err() == nil {
				if err := terminal.Confirm(child, "Sign it?"); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if end, ok := ctx.Deadline(); tc.before < time.Minute && (!ok || time.Until(end) != time.Minute-tc.before) {
				t.Errorf("%s: the deadline is in %s", name, time.Until(end))
			}
			time.Sleep(tc.after)
			synctest.Wait()
			if !tc.late {
				if ctx.Err() != nil || child.Err() != nil {
					t.Errorf("%s: %v, %v", name, ctx.Err(), child.Err())
				}
				return
			}
			for _, c := range []context.Context{ctx, child} {
				if err := cli.StopCause(c, c.Err()); !errors.Is(c.Err(), context.DeadlineExceeded) || err.Error() != "not done within --timeout 1m0s" {
					t.Errorf("%s: %v, %v", name, c.Err(), err)
				}
			}
		})
	}
}

// An interrupt while a question waits is an interrupt, and no end of --timeout.
func TestInterruptOfAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		parent, interrupt := context.WithCancel(t.Context())
		typing, end := context.WithCancel(t.Context())
		defer end()
		terminal := &cli.Terminal{Timeout: time.Minute, Streams: genericiooptions.IOStreams{In: silent{typing}, Out: io.Discard, ErrOut: io.Discard}}
		ctx, cancel := terminal.WithTimeout(parent)
		defer cancel()
		go func() {
			time.Sleep(time.Hour)
			interrupt()
		}()
		if _, err := terminal.Pick(ctx, "Key", []string{"a", "b"}); !errors.Is(cli.StopCause(ctx, err), cli.ErrInterrupted) {
			t.Errorf("got %v", cli.StopCause(ctx, err))
		}
	})
}

// A command that takes longer than a second says so at a terminal, and only there. The
// line makes way for what the command prints.
func TestTicks(t *testing.T) {
	work := func(terminal *cli.Terminal, took time.Duration) {
		ctx, cancel := terminal.WithTimeout(context.Background())
		defer cancel()
		terminal.Doing("listing %s", "keys")
		time.Sleep(took)
		_, _ = fmt.Fprintf(cli.Screen(terminal), "done, %v\n", ctx.Err())
	}
	for name, tc := range map[string]struct {
		took time.Duration
		want []string
		not  string
	}{
		"quick": {10 * time.Millisecond, []string{"done, <nil>\n"}, "listing"},
		"slow":  {2300 * time.Millisecond, []string{"\rlisting keys, 1s", "\rlisting keys, 2s\r                \rdone, <nil>\n"}, "done, <nil>\n\r"},
	} {
		tty, shown := screen(t, 60)
		work(&cli.Terminal{Streams: genericiooptions.IOStreams{Out: tty, ErrOut: tty}, Timeout: time.Minute}, tc.took)
		got := shown()
		for _, want := range tc.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q is not shown: %q", name, want, got)
			}
		}
		if strings.Contains(got, tc.not) {
			t.Errorf("%s: %q is shown: %q", name, tc.not, got)
		}
	}
	streams, _, out, errOut := genericiooptions.NewTestIOStreams()
	if work(&cli.Terminal{Streams: streams}, 1200*time.Millisecond); out.String() != "done, <nil>\n" || errOut.Len() > 0 {
		t.Errorf("a pipe has %q, %q", out, errOut)
	}
}
