package ociauth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/contain"
)

const (
	maxAnswer   = 4 << 20
	maxRefusal  = 64 << 10
	maxAttempts = 5
	maxAtOnce   = 3 // requests for one answer
	firstPause  = 100 * time.Millisecond
	// leastTime is what an attempt needs to have a chance: with less than that
	// left it is better to say now what was wrong.
	leastTime = 20 * time.Millisecond
	userAgent = "oke-sign"
)

// Call says where a request goes.
type Call struct {
	Service   string // such as "artifacts"
	Operation string // such as "ListContainerImageSignatures"
	Method    string
	// Host is derived from package image's table of regions by who makes the
	// call, and from nothing that came from outside.
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

// Do sends a request of the SDK's and decodes the JSON of the answer. A refusal
// is an [*Error]. Throttled and failed attempts are repeated a few times, and one
// that gets no answer is joined by another, as long as the caller's deadline
// allows and nothing could be done twice by it.
func (p *Principal) Do(ctx context.Context, call Call, request common.OCIRequest, answer any) (http.Header, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.Timeout, lateError{p.cfg.Timeout})
	defer cancel()
	var before error
	for n := 1; ; n++ {
		header, err := p.ask(ctx, call, request, answer)
		if err == nil {
			return header, nil
		}
		if before != nil && ctx.Err() != nil {
			return nil, fmt.Errorf("%w; before that: %w", err, before)
		}
		if n == maxAttempts || !call.mayRepeat() || !worthRepeating(ctx, err) {
			return nil, err
		}
		p.trouble(ctx, err)
		if !pause(ctx, pauseAfter(err, n)) {
			return nil, err
		}
		before = err
	}
}

// errOvertaken ends the attempts that another was faster than.
var errOvertaken = fmt.Errorf("another attempt was faster: %w", context.Canceled)

// ask sends the request, and sends it again while nothing comes back: a
// connection may be dead, or a server may hang, and nobody says so. What answers
// first counts, and the rest is given up.
func (p *Principal) ask(ctx context.Context, call Call, request common.OCIRequest, answer any) (http.Header, error) {
	release, err := p.hosts.acquire(ctx, call.Host, p.trouble)
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
				got.header, err = p.attempt(ctx, call, request, func(body []byte) error {
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
	overdue := time.NewTicker(p.cfg.Overdue)
	defer overdue.Stop()
	for ticks, under, total := 1, 1, 1; ; ticks++ {
		select {
		case got := <-replies:
			// While another is under way, a connection that broke says nothing, and
			// nothing may write to answer any more once this returns.
			under--
			if under == 0 || got.err == nil || !isBroken(got.err) && read.CompareAndSwap(false, true) {
				return got.header, got.err
			}
			continue
		case <-overdue.C:
		}
		release()
		p.trouble(ctx, &failure{op: call.Operation, host: call.Host, err: fmt.Errorf("no answer in the first %s", time.Duration(ticks)*p.cfg.Overdue)})
		if total == maxAtOnce || !call.mayRepeat() {
			continue
		}
		if another, ok := p.hosts.spare(call.Host); ok {
			// Idle connections as old as this one may be as dead.
			p.transport.CloseIdleConnections()
			release = another
			send(release)
			under++
			total++
		}
	}
}

// attempt sends the request once. It is built and signed anew each time, because
// OCI refuses a date older than five minutes and wants request ids to differ.
func (p *Principal) attempt(ctx context.Context, call Call, request common.OCIRequest, read func([]byte) error) (header http.Header, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.Attempt, lateError{p.cfg.Attempt})
	defer cancel()
	began := time.Now()
	defer func() {
		p.hosts.heard(call.Host, err)
		if p.cfg.Observe != nil {
			p.cfg.Observe(Attempt{call.Service, call.Operation, outcome(ctx, err), time.Since(began)})
		}
	}()
	fail := func(err error) (http.Header, error) {
		return nil, &failure{op: call.Operation, host: call.Host, err: explain(ctx, err, time.Since(began))}
	}
	req, err := p.build(ctx, call, request)
	if err != nil {
		return fail(err)
	}
	res, err := p.transport.RoundTrip(req)
	if err != nil {
		return fail(&brokenError{err})
	}
	defer res.Body.Close() //nolint:errcheck // only read from
	collect(ctx, res.Header)
	if res.StatusCode == http.StatusUnauthorized {
		p.refused()
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return nil, refusal(call, res)
	}
	body, err := readBody(res.Body, cmp.Or(call.MaxAnswer, maxAnswer))
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

// trouble tells whoever wants to know what is in the way of a call that goes on.
func (p *Principal) trouble(ctx context.Context, err error) {
	if p.cfg.Trouble != nil {
		p.cfg.Trouble(ctx, err)
	}
}

// build makes the HTTP request. Whatever the SDK thinks of hosts is overwritten.
func (p *Principal) build(ctx context.Context, call Call, request common.OCIRequest) (*http.Request, error) {
	made, err := request.HTTPRequest(call.Method, call.Path, nil, nil)
	if err != nil {
		return nil, err
	}
	req := made.WithContext(ctx)
	req.URL.Scheme, req.URL.Host, req.Host = "https", call.Host, ""
	// Who calls has checked what became a part of the path. This is the last
	// line: a path that a server could read in two ways is not sent.
	if path := req.URL.EscapedPath(); path != req.URL.Path || strings.Contains(path+"/", "/../") || strings.Contains(path+"/", "/./") {
		return nil, fmt.Errorf("not a path that may be sent: %.120q", path)
	}
	req.Header.Set("User-Agent", userAgent)
	id, err := p.identify(ctx)
	if err != nil {
		return nil, err
	}
	if err := id.sign(req); err != nil {
		return nil, err
	}
	if req.Body == nil || req.Body == http.NoBody {
		return req, nil
	}
	// The SDK leaves a body that can be read once. Go's transport must be able
	// to send it again on a fresh connection when an idle one turns out closed.
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Body, _ = req.GetBody()
	if call.Repeatable {
		req.Header["Idempotency-Key"] = nil // tells the transport, and is not sent
	}
	return req, nil
}

// refusal reads OCI's error, or says that there is something else in its place.
func refusal(call Call, res *http.Response) error {
	e := &Error{
		Operation: call.Operation, Host: call.Host, Status: res.StatusCode,
		RequestID:  requestID(res.Header),
		retryAfter: retryAfter(res.Header.Get("Retry-After"), time.Now()),
	}
	var told struct{ Code, Message string }
	body, err := readBody(res.Body, maxRefusal)
	switch {
	case res.StatusCode >= 300 && res.StatusCode <= 399:
		e.Message = "redirects are not followed"
	case err != nil || json.Unmarshal(body, &told) != nil || told.Code == "":
		e.Message = "no error of OCI's; something on the way may have answered"
	default:
		e.Code, e.Message = printable(told.Code, 60), printable(told.Message, 300)
	}
	if res.StatusCode == http.StatusUnauthorized {
		if at, err := http.ParseTime(res.Header.Get("Date")); err == nil {
			if off := time.Since(at).Round(time.Second); off.Abs() > 4*time.Minute {
				e.Hint = fmt.Sprintf("this machine's clock is %s off OCI's", off)
			}
		}
	}
	return e
}

func readBody(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, &brokenError{err}
	}
	if int64(len(body)) > limit {
		return nil, fmt.Errorf("%w: more than %d bytes", errMalformed, limit)
	}
	return body, nil
}

// decode reads JSON into answer; nil wants none. A bare null would leave answer
// as it is, and nothing would look like an answer with nothing in it.
func decode(body []byte, answer any) error {
	if answer == nil {
		return nil
	}
	if string(bytes.TrimSpace(body)) == "null" {
		return errors.New("JSON null")
	}
	return json.Unmarshal(body, answer)
}

func (c Call) mayRepeat() bool { return c.Method == http.MethodGet || c.Repeatable }

// worthRepeating says whether the next attempt may go better than the last.
func worthRepeating(ctx context.Context, err error) bool {
	if ctx.Err() != nil || IsMalformed(err) || NoSuchHost(err) {
		return false
	}
	if e, ok := errors.AsType[*Error](err); ok {
		switch e.Status {
		case http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	if _, ok := errors.AsType[*proxyRefusal](err); ok {
		return false
	}
	return isBroken(err)
}

func isBroken(err error) bool {
	_, broken := errors.AsType[*brokenError](err)
	return broken
}

// pauseAfter is how long to wait after the nth attempt: as long as OCI says, or
// twice as long as the last time, give or take half so that callers spread.
func pauseAfter(err error, n int) time.Duration {
	d := firstPause << (n - 1)
	d += rand.N(d) - d/2 //nolint:gosec // it only has to differ between callers
	if e, ok := errors.AsType[*Error](err); ok {
		d = max(d, e.retryAfter)
	}
	return d
}

// pause waits, unless the wait would leave no time for another attempt.
func pause(ctx context.Context, d time.Duration) bool {
	if end, ok := ctx.Deadline(); ok && time.Until(end) < d+leastTime {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// maxRetryAfter is the longest wait that OCI's answer can ask for. Nobody waits that
// long, and what is added to it does not overflow.
const maxRetryAfter = time.Hour

// retryAfter reads the header of that name: a number of seconds or a date. What is
// neither asks for nothing.
func retryAfter(s string, now time.Time) time.Duration {
	n, err := strconv.ParseUint(s, 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) { // then n is the largest number
		return time.Duration(min(n, uint64(maxRetryAfter/time.Second))) * time.Second //nolint:gosec // an hour at most
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter) // Sub saturates
	}
	return 0
}

// outcome names how an attempt ended, for metrics.
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
