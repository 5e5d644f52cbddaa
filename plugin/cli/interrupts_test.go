package cli_test

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// Signals end the context, except an interrupt while an editor has the terminal.
func TestInterrupts(t *testing.T) {
	for name, tc := range map[string]struct {
		signals []syscall.Signal
		held    bool
		release bool
		ends    bool
	}{
		"an interrupt":                         {[]syscall.Signal{syscall.SIGINT}, false, false, true},
		"a request to end":                     {[]syscall.Signal{syscall.SIGTERM}, false, false, true},
		"an interrupt for the editor":          {[]syscall.Signal{syscall.SIGINT, syscall.SIGINT}, true, false, false},
		"a request to end, while it is open":   {[]syscall.Signal{syscall.SIGINT, syscall.SIGTERM}, true, false, true},
		"an interrupt after the editor closed": {[]syscall.Signal{syscall.SIGINT}, true, true, true},
	} {
		var i cli.Interrupts
		ctx, stop := i.Context(t.Context())
		if tc.held {
			if release := i.Hold(); tc.release {
				release()
			}
		}
		for _, s := range tc.signals {
			if err := syscall.Kill(os.Getpid(), s); err != nil {
				t.Fatal(err)
			}
		}
		// No event shows that a signal was ignored, so the test waits a fixed time.
		patience := 10 * time.Second
		if !tc.ends {
			patience = 100 * time.Millisecond
		}
		timer := time.NewTimer(patience)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		if (ctx.Err() != nil) != tc.ends {
			t.Errorf("%s: %v", name, ctx.Err())
		}
		timer.Stop()
		stop()
		if ctx.Err() == nil {
			t.Errorf("%s: the context outlives its command", name)
		}
	}
	var none *cli.Interrupts
	none.Hold()() // without signals there is nothing to hold

	parent, cancel := context.WithCancel(t.Context())
	ctx, stop := new(cli.Interrupts).Context(parent)
	defer stop()
	cancel()
	<-ctx.Done()
}
