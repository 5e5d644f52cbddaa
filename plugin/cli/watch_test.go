package cli_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// A watch repeats a command until an interrupt. Its outcome is that of the last whole run.
func TestWatch(t *testing.T) {
	for name, tc := range map[string]struct {
		outcomes []error // of the runs
		slow     int     // the run that takes until the interrupt; none if 0
		stop     time.Duration
		runs     int
		want     error
	}{
		"the last run decides":         {[]error{cli.ErrNo, nil, cli.ErrNo}, 0, 12 * time.Second, 3, cli.ErrNo},
		"a yes in the end":             {[]error{cli.ErrNo, nil}, 0, 7 * time.Second, 2, nil},
		"an interrupt breaks a run":    {[]error{cli.ErrNo, errors.New("interrupted")}, 2, 7 * time.Second, 1, cli.ErrNo},
		"an interrupt of the first":    {[]error{cli.ErrInterrupted}, 1, time.Second, 1, cli.ErrInterrupted},
		"wrong use is not repeated":    {[]error{cli.Usage("wrong", "hint")}, 0, time.Hour, 1, cli.Usage("wrong", "hint")},
		"a failure may pass, so it is": {[]error{cli.ErrFailed, nil}, 0, 7 * time.Second, 2, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), tc.stop)
			defer cancel()
			streams, _, out, _ := genericiooptions.NewTestIOStreams()
			terminal := &cli.Terminal{Streams: streams}
			runs := 0
			err := cli.Watch(ctx, terminal, func(ctx context.Context) error {
				runs++
				if runs == tc.slow {
					<-ctx.Done()
				}
				_, _ = fmt.Fprintf(terminal.Streams.Out, "run %d\n", runs)
				return tc.outcomes[runs-1]
			})
			if fmt.Sprint(err) != fmt.Sprint(tc.want) || strings.Count(out.String(), "run ") != tc.runs {
				t.Errorf("%s: got %v after %q, want %v after %d runs", name, err, out, tc.want, tc.runs)
			}
		})
	}
}

// At a terminal a run replaces the one before, and knows the width of the terminal.
func TestWatchAtATerminal(t *testing.T) {
	tty, shown := screen(t, 40)
	terminal := &cli.Terminal{Streams: genericiooptions.IOStreams{In: tty, Out: tty, ErrOut: tty}}
	ctx, cancel := context.WithCancel(t.Context())
	err := cli.Watch(ctx, terminal, func(context.Context) error {
		terminal.Remark("before")
		d := cli.Document{Columns: []cli.Column{{Name: "why"}}, Sections: []cli.Section{{Rows: [][]string{{strings.Repeat("word ", 12)}}}}}
		err := (&cli.Output{Format: "table"}).Print(terminal.Streams.Out, d)
		cancel()
		return err
	})
	const want = "\x1b[H\x1b[2Jbefore\nWHY\nword word word word word word word\nword word word word word\n"
	if got := shown(); err != nil || got != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}
