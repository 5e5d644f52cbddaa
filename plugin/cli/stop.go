package cli

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// WithTimeout bounds a command's work by --timeout, and shows that the command works. The
// time that a person takes to answer a question does not count.
func (t *Terminal) WithTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopTicking := t.tick()
	if t.Timeout == 0 {
		return ctx, func() { stopTicking(); cancel(nil) }
	}
	c := &clock{left: t.Timeout, expire: func() { cancel(timeoutError{t.Timeout}) }}
	bounded := &timedContext{ctx, c, make(chan struct{})}
	context.AfterFunc(ctx, func() { close(bounded.done) })
	remove := t.clocks.add(c)
	c.run()
	return bounded, func() {
		stopTicking()
		remove()
		c.stop()
		cancel(nil)
		<-bounded.done
	}
}

// timedContext is a context with a deadline that moves while a clock stands still.
type timedContext struct {
	context.Context // ends when the clock has run down
	clock           *clock
	done            chan struct{}
}

// Deadline returns the time at which the clock runs down, if it does not stand still.
func (c *timedContext) Deadline() (time.Time, bool) { return c.clock.end(), true }

// Done returns another channel than the embedded context. With the same channel, the
// standard library would take that context for this one, and lose DeadlineExceeded.
func (c *timedContext) Done() <-chan struct{} { return c.done }

// Err returns context.DeadlineExceeded if the clock ran down.
func (c *timedContext) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	if late := (timeoutError{}); errors.As(context.Cause(c.Context), &late) {
		return context.DeadlineExceeded
	}
	return c.Context.Err()
}

// clock counts the time of --timeout down.
type clock struct {
	expire func()

	mu    sync.Mutex
	left  time.Duration
	began time.Time
	timer *time.Timer // nil while the clock stands still
}

func (c *clock) run() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.timer = time.Now(), time.AfterFunc(c.left, c.expire)
}

func (c *clock) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.left -= time.Since(c.began)
		c.timer = nil
	}
}

func (c *clock) end() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer == nil {
		return time.Now().Add(c.left)
	}
	return c.began.Add(c.left)
}

// clocks are the clocks of a command: a command bounds its steps one after the other, or
// one within another.
type clocks struct {
	mu     sync.Mutex
	all    map[*clock]bool
	paused bool
}

func (c *clocks) add(one *clock) (remove func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[*clock]bool)
	}
	c.all[one] = true
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.all, one)
	}
}

// pause stops all clocks until resume is called.
func (c *clocks) pause() (resume func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.paused = true
	for one := range c.all {
		one.stop()
	}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.paused = false
		for one := range c.all {
			one.run()
		}
	}
}

func (c *clocks) standStill() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paused
}

// timeoutError is the end of --timeout.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string { return fmt.Sprintf("not done within --timeout %s", e.after) }

// Is reports that a timeoutError is a context.DeadlineExceeded.
func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// StopCause returns the reason for a stop in place of an error that the stop caused.
func StopCause(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	why := ErrInterrupted
	var late timeoutError
	if errors.As(context.Cause(ctx), &late) {
		why = late
	}
	if err == ctx.Err() || err == context.Cause(ctx) { //nolint:errorlint // one that wraps it says more
		return why
	}
	return fmt.Errorf("%w: %w", why, err)
}

// stopped reports whether an error only says that the work was stopped.
func stopped(err error) bool {
	var shared sharedError
	if errors.As(err, &shared) {
		err = shared.error
	}
	_, late := err.(timeoutError)        //nolint:errorlint // one that wraps it says more
	return late || err == ErrInterrupted //nolint:errorlint // the same
}
