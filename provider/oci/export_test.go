package oci

import (
	"context"
	"net/http/httputil"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
)

// RefusedByProxy returns the error of a call that a proxy rejected.
func RefusedByProxy(status int) error { return &proxyRefusal{proxy: "proxy:3128", status: status} }

// Explained returns the error of a call with its own timeout whose connection ended
// with err.
func Explained(ctx context.Context, err error) error { return explain(ctx, &brokenError{err}, 0) }

// Limiters bound the calls to each host, for tests with their own clock.
type Limiters = limiters

func NewLimiters(limit int) *Limiters { return &limiters{limit: limit} }

func (ls *limiters) Acquire(ctx context.Context, delayed func(context.Context, error)) (func(), error) {
	return ls.acquire(ctx, "host", delayed)
}

func (ls *limiters) Heard(err error) { ls.heard("host", err) }

// Refusal returns an error answer of OCI.
func Refusal(status int, retryAfter time.Duration) *Error {
	return &Error{Operation: "Get", Host: "host", Status: status, Code: "Code", RequestID: "id", retryAfter: retryAfter}
}

// RetryAfter returns the wait that an answer with this header asks for, at a time.
var RetryAfter = retryAfter

// Waits reports whether a call with this context is repeated after an answer that
// asks for this wait.
func Waits(ctx context.Context, after time.Duration) bool {
	return pause(ctx, pauseAfter(Refusal(429, after), 1))
}

// Sent returns a call as it is sent to OCI, byte for byte.
func Sent(ctx context.Context, c *Client, call Call, request common.OCIRequest) (string, error) {
	req, err := c.build(ctx, call, request)
	if err != nil {
		return "", err
	}
	text, err := httputil.DumpRequestOut(req, true)
	return string(text), err
}
