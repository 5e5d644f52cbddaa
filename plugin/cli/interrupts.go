package cli

import (
	"context"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// Interrupts ends a context when a signal asks for it. The zero value is ready.
type Interrupts struct {
	held atomic.Bool
}

// Context returns a context that ends at the first signal, which asks to stop and to
// say what was done; the second kills. The function that it returns gives the signals
// back.
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

// Hold passes over interrupts until the function that it returns is called. A terminal
// sends them to all programs on it, and an editor takes Ctrl-C for a key as any other.
func (i *Interrupts) Hold() (release func()) {
	if i == nil {
		return func() {}
	}
	i.held.Store(true)
	return func() { i.held.Store(false) }
}
