package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/pflag"
)

// watchInterval is the pause between two runs of --watch.
const watchInterval = 5 * time.Second

// BindWatch adds --watch.
func BindWatch(flags *pflag.FlagSet, watch *bool) {
	flags.BoolVarP(watch, "watch", "w", false, "Repeat every "+watchInterval.String()+" until an interrupt; the exit code is that of the last run.")
}

// Watch repeats a command until ctx ends, and returns the outcome of the last run. At a
// terminal each run replaces the one before. Elsewhere the runs follow each other.
func Watch(ctx context.Context, t *Terminal, run func(context.Context) error) error {
	streams := t.Streams
	defer func() { t.Streams, t.Bar.off = streams, false }()
	var last error
	for runs := 0; ; runs++ {
		out, errOut := newHeld(streams.Out), newHeld(streams.ErrOut)
		if isTerminal(streams.Out) && isTerminal(streams.ErrOut) {
			errOut.text = out.text // both are shown in the order in which they are written
		}
		t.Streams.Out, t.Streams.ErrOut, t.Bar.off = out, errOut, true
		err := run(ctx)
		wrong := (*UsageError)(nil)
		if ctx.Err() != nil && runs > 0 {
			return last // the interrupt broke this run off
		}
		t.Streams = streams
		if isTerminal(streams.Out) {
			_, _ = io.WriteString(streams.Out, clearScreen)
		}
		if err := errors.Join(out.flush(), errOut.flush()); err != nil {
			return err
		}
		if last = err; ctx.Err() != nil || errors.As(err, &wrong) {
			return last
		}
		t.Remark("every %s, last at %s; Ctrl-C ends", watchInterval, Timestamp(time.Now()))
		timer := time.NewTimer(watchInterval)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return last
		}
	}
}

// clearScreen has a terminal clear itself, and write from the top.
const clearScreen = "\x1b[H\x1b[2J"

// held holds back what is written to a stream, but passes for the stream's terminal.
type held struct {
	to   io.Writer
	text *bytes.Buffer
}

func newHeld(to io.Writer) *held { return &held{to, new(bytes.Buffer)} }

func (h *held) Write(b []byte) (int, error) { return h.text.Write(b) }

// Fd returns the stream's descriptor, from which the width of a terminal is known.
func (h *held) Fd() uintptr { return descriptor(h.to) }

func (h *held) flush() error {
	_, err := h.text.WriteTo(h.to)
	return err
}
