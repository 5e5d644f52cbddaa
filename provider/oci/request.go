package oci

import (
	"fmt"
	"net/http"
)

// Call says where a request goes.
type Call struct {
	Service   string // such as "artifacts"
	Operation string // such as "ListContainerImageSignatures"
	Method    string
	// Host comes from package image's table of regions, and never from outside.
	Host string
	// Path is the operation's path with the service's base path and the
	// placeholders of the SDK's request type, such as "/20160918/container/images/{imageId}".
	Path string
	// Repeatable says that sending the request twice does no more than once,
	// for methods other than GET.
	Repeatable bool
	// MaxAnswer is how many bytes an answer may have. Zero means 4 MiB.
	MaxAnswer int64
}

func (c Call) mayRepeat() bool { return c.Method == http.MethodGet || c.Repeatable }

// Malformed returns the error for an answer that lacks what OCI's API promises, or
// is about something else than was asked. The error names the call.
func (c Call) Malformed(format string, args ...any) error {
	return &failure{op: c.Operation, host: c.Host, err: fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))}
}
