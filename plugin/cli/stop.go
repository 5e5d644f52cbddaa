package cli

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// WithTimeout bounds a command's work by --timeout.
func (t *Terminal) WithTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.Timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, t.Timeout, timeoutError{t.Timeout})
}

// timeoutError is the end of --timeout.
type timeoutError struct{ after time.Duration }

func (e timeoutError) Error() string { return fmt.Sprintf("not done within --timeout %s", e.after) }

// Is reports that a timeoutError is a context.DeadlineExceeded.
func (e timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// StopCause says of an error that came of stopping everything why that was done.
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

// stopped reports whether an error says no more than that everything was stopped.
func stopped(err error) bool {
	var shared sharedError
	if errors.As(err, &shared) {
		err = shared.error
	}
	_, late := err.(timeoutError)        //nolint:errorlint // one that wraps it says more
	return late || err == ErrInterrupted //nolint:errorlint // the same
}
