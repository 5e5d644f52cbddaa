package registry

import (
	"errors"
)

// ErrNotFound means that OCI has no such image, or that this identity may not read it.
// OCI does not say which.
var ErrNotFound = errors.New("no such image, or this identity may not read it")

// ErrNotCovered means that an image is of no tenancy that the Client may ask about.
var ErrNotCovered = errors.New("its namespace is of no tenancy that was configured")
