// Package contain turns panics into errors where code runs on a goroutine of its
// own. Nothing else would stop such a panic, and the process would end for
// everybody: what one question cannot find out must stay that question's error.
package contain

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"
)

// PanicError says that something panicked. Its text leaves out the stack and what
// the code that panicked had to say, which may hold anything.
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

// Panic is deferred by a function whose panic is to become its error.
func Panic(err *error) {
	if value := recover(); value != nil {
		*err = &PanicError{Value: value, Stack: debug.Stack()}
	}
}

// Run calls do and returns its error, or its panic as one.
func Run(do func() error) (err error) {
	defer Panic(&err)
	return do()
}

// Unlogged returns the panic that err holds, for the first who asks for it: several
// wait for the same work, and each gets its error.
func Unlogged(err error) (*PanicError, bool) {
	e, ok := errors.AsType[*PanicError](err)
	return e, ok && e.logged.CompareAndSwap(false, true)
}
