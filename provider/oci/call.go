package oci

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/contain"
)

const maxAtOnce = 3 // requests for one answer

// Do sends a request of the SDK and decodes the JSON of the answer. If OCI refuses
// the request, the error is an [*Error]. Do repeats throttled and failed attempts a
// few times, and starts another attempt beside one that gets no answer. It does so
// only within the caller's deadline, and only for calls that may be sent twice.
func (c *Client) Do(ctx context.Context, call Call, request common.OCIRequest, answer any) (http.Header, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, lateError{c.cfg.Timeout})
	defer cancel()
	var before error
	for n := 1; ; n++ {
		header, err := c.hedge(ctx, call, request, answer)
		if err == nil {
			return header, nil
		}
		if before != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("%w; before that: %w", err, before)
		}
		if n == maxAttempts || !call.mayRepeat() || !worthRepeating(ctx, err) {
			return nil, err
		}
		c.delayed(ctx, err)
		if !pause(ctx, pauseAfter(err, n)) {
			return nil, err
		}
		before = err
	}
}

// errOvertaken ends the attempts that are slower than another one.
var errOvertaken = fmt.Errorf("another attempt was faster: %w", context.Canceled)

// hedge sends the request, and sends it again while no answer comes: a connection
// may be dead or a server may hang, and nothing reports that. The first answer
// counts. hedge cancels the other attempts.
func (c *Client) hedge(ctx context.Context, call Call, request common.OCIRequest, answer any) (http.Header, error) {
	release, err := c.limiters.acquire(ctx, call.Host, c.delayed)
	if err != nil {
		return nil, &failure{op: call.Operation, host: call.Host, err: err}
	}
	var sent sync.WaitGroup
	defer sent.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errOvertaken)
	type reply struct {
		header http.Header
		err    error
	}
	replies := make(chan reply, maxAtOnce)
	var read atomic.Bool
	send := func(release func()) {
		sent.Go(func() {
			defer release()
			var got reply
			got.err = contain.Run(func() (err error) {
				got.header, err = c.attempt(ctx, call, request, func(body []byte) error {
					if !read.CompareAndSwap(false, true) {
						return errOvertaken
					}
					return contain.Run(func() error { return decode(body, answer) })
				})
				return err
			})
			replies <- got
		})
	}
	send(release)
	slow := time.NewTicker(c.cfg.HedgeAfter)
	defer slow.Stop()
	for ticks, running, total := 1, 1, 1; ; ticks++ {
		select {
		case got := <-replies:
			// A broken connection says nothing while another attempt runs. After this
			// returns, no attempt may write to answer.
			running--
			if running == 0 || got.err == nil || !isBroken(got.err) && read.CompareAndSwap(false, true) {
				return got.header, got.err
			}
			continue
		case <-slow.C:
		}
		release()
		c.delayed(ctx, &failure{op: call.Operation, host: call.Host, err: fmt.Errorf("no answer in the first %s", time.Duration(ticks)*c.cfg.HedgeAfter)})
		if total == maxAtOnce || !call.mayRepeat() {
			continue
		}
		if another, ok := c.limiters.spare(call.Host); ok {
			// Other idle connections are as old as this one and may be dead too.
			c.transport.CloseIdleConnections()
			release = another
			send(release)
			running++
			total++
		}
	}
}

// attempt sends the request once. It builds and signs the request again each time:
// OCI rejects a date older than five minutes, and wants another request id each
// time.
func (c *Client) attempt(ctx context.Context, call Call, request common.OCIRequest, read func([]byte) error) (header http.Header, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.AttemptTimeout, lateError{c.cfg.AttemptTimeout})
	defer cancel()
	began := time.Now()
	defer func() {
		c.limiters.heard(call.Host, err)
		if c.cfg.Observe != nil {
			c.cfg.Observe(Attempt{call.Service, call.Operation, outcome(ctx, err), time.Since(began)})
		}
	}()
	fail := func(err error) (http.Header, error) {
		return nil, &failure{op: call.Operation, host: call.Host, err: explain(ctx, err, time.Since(began))}
	}
	req, err := c.build(ctx, call, request)
	if err != nil {
		return fail(err)
	}
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return fail(&brokenError{err})
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	AddRequests(ctx, requestID(res.Header))
	if res.StatusCode == http.StatusUnauthorized {
		c.id.Refused()
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, c.refusal(call, res)
	}
	body, err := ReadBody(res.Body, cmp.Or(call.MaxAnswer, maxAnswer))
	if err != nil {
		return fail(err)
	}
	if err := read(body); errors.Is(err, errOvertaken) {
		return fail(err)
	} else if err != nil {
		return nil, call.Malformed("%d bytes of %.40q: %w", len(body), res.Header.Get("Content-Type"), err)
	}
	return res.Header, nil
}

// refusal returns the error of an answer whose status is not a success.
func (c *Client) refusal(call Call, res *http.Response) error {
	err := ReadRefusal(call, res)
	if e, ok := errors.AsType[*Error](err); ok {
		e.Identity, e.AuthKind = c.id.Name, c.id.AuthKind
	}
	return err
}

// delayed reports why a call takes longer, while the call continues.
func (c *Client) delayed(ctx context.Context, err error) {
	if c.cfg.OnDelay != nil {
		c.cfg.OnDelay(ctx, err)
	}
}

// build makes the HTTP request. It overwrites the host that the SDK chose.
func (c *Client) build(ctx context.Context, call Call, request common.OCIRequest) (*http.Request, error) {
	made, err := request.HTTPRequest(call.Method, call.Path, nil, nil)
	if err != nil {
		return nil, err
	}
	req := made.WithContext(ctx)
	req.URL.Scheme, req.URL.Host, req.Host = "https", call.Host, ""
	// The callers have checked the parts of the path. This is the last line of
	// defense: a path that a server could read in two ways is not sent.
	if path := req.URL.EscapedPath(); path != req.URL.Path || strings.Contains(path+"/", "/../") || strings.Contains(path+"/", "/./") {
		return nil, fmt.Errorf("not a path that may be sent: %.120q", path)
	}
	req.Header.Set("User-Agent", UserAgent)
	if err := c.id.Sign(ctx, req); err != nil {
		return nil, err
	}
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	// The SDK's body can be read only once. Go's transport must be able to send it
	// again on a new connection when an idle one turns out to be closed.
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
	if call.Repeatable {
		req.Header["Idempotency-Key"] = nil // for Go's transport, which does not send it
	}
	return req, nil
}

// outcome names the end of an attempt, for metrics.
func outcome(ctx context.Context, err error) string {
	e, refused := errors.AsType[*Error](err)
	switch {
	case err == nil:
		return "ok"
	case refused && e.Status == http.StatusTooManyRequests:
		return "throttled"
	case refused && e.Status >= 500:
		return "failing"
	case refused:
		return "refused"
	case IsMalformed(err):
		return "malformed"
	case errors.Is(ctx.Err(), context.Canceled):
		return "canceled"
	case errors.Is(err, context.DeadlineExceeded):
		return "late"
	default:
		return "unreachable"
	}
}
