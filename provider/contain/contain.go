// Package contain turns panics of goroutines into errors. A panic that no goroutine
// recovers ends the process. With this package, it ends only the question that caused it.
package contain

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
)

// PanicError is the error of code that panicked. Its text contains neither the stack nor
// the value of the panic, because both may contain secrets.
type PanicError struct {
	Value any
	Stack []byte

	logged atomic.Bool
}

func (e *PanicError) Error() string {
	if own, ok := e.Value.(runtime.Error); ok {
		return fmt.Sprintf("internal error: panic: %v", own)
	}
	return fmt.Sprintf("internal error: panic with a value of type %T", e.Value)
}

// Panic stores a panic in *err. Defer it in a function with a named error result.
func Panic(err *error) {
	if value := recover(); value != nil {
		*err = &PanicError{Value: value, Stack: debug.Stack()}
	}
}

// Run calls do and returns its error. If do panics, Run returns a [PanicError].
func Run(do func() error) (err error) {
	defer Panic(&err)
	return do()
}

// Unlogged returns the PanicError in err, but only to its first caller. Several callers
// may wait for the same work and get the same error; one of them logs it.
func Unlogged(err error) (*PanicError, bool) {
	e, ok := errors.AsType[*PanicError](err)
	return e, ok && e.logged.CompareAndSwap(false, true)
}
