package ociauth

import "errors"

// IsUnvouched reports whether New failed because the cluster, or the instance's
// metadata service, did not vouch for this process. It may in a moment, so that New
// is worth another try.
func IsUnvouched(err error) bool {
	_, ok := errors.AsType[*unvouchedError](err)
	return ok
}

type unvouchedError struct{ err error }

func (e *unvouchedError) Error() string { return e.err.Error() }

func (e *unvouchedError) Unwrap() error { return e.err }

// IsNoConfig reports whether New failed because there is no configuration file.
func IsNoConfig(err error) bool {
	_, ok := errors.AsType[*noConfigError](err)
	return ok
}

type noConfigError struct{ err error }

func (e *noConfigError) Error() string { return e.err.Error() }

func (e *noConfigError) Unwrap() error { return e.err }
