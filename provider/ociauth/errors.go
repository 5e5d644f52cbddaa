package ociauth

import "errors"

// IsUnvouched reports whether SignIn failed because a service did not issue a token:
// the cluster, the instance's metadata service, the auth service or the identity domain.
// Another try may succeed.
func IsUnvouched(err error) bool {
	_, ok := errors.AsType[*unvouchedError](err)
	return ok
}

type unvouchedError struct{ err error }

func (e *unvouchedError) Error() string { return e.err.Error() }

func (e *unvouchedError) Unwrap() error { return e.err }

// IsExpired reports whether err is about a token that expired by its own claim.
func IsExpired(err error) bool { return errors.Is(err, errExpired) }

// IsNoConfig reports whether SignIn failed because the configuration file does not exist.
func IsNoConfig(err error) bool {
	_, ok := errors.AsType[*noConfigError](err)
	return ok
}

type noConfigError struct{ err error }

func (e *noConfigError) Error() string { return e.err.Error() }

func (e *noConfigError) Unwrap() error { return e.err }
