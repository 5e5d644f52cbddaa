package cli

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// Interrupts cancels a context when a signal arrives. The zero value is ready for
// use.
type Interrupts struct {
	held atomic.Bool
}

// Context returns a context that the first signal cancels: the program then stops
// and reports what it did. The second signal ends the process. The returned function
// stops the handling of signals.
func (i *Interrupts) Context(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer signal.Stop(signals)
		for {
			select {
			case s := <-signals:
				if s == os.Interrupt && i.held.Load() {
					continue
				}
				cancel()
				return
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-done
	}
}

// Hold ignores interrupts until the caller calls the returned function. A terminal
// sends Ctrl-C to all programs on it, but in an editor it is a key like any other.
func (i *Interrupts) Hold() (release func()) {
	if i == nil {
		return func() {}
	}
	i.held.Store(true)
	return func() { i.held.Store(false) }
}
