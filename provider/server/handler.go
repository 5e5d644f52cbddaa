package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/fair"
	"github.com/oke-sign/oke-sign/provider/image"
)

// handler answers the questions of one endpoint with values of A.
type handler[A any] struct {
	parse func(question string) (subject, error)
	// otherRegistry answers about an image that is not of OCI Registry.
	otherRegistry func(subject, error) A
	// cached answers a question that takes no call; check answers all others.
	cached func(context.Context, *question) (A, bool)
	check  func(context.Context, *question) (A, error)
	// validate returns an error if an answer contradicts itself or its question.
	validate func(subject, A) (A, error)
	value    func(A) any                                 // what to write for A; nil writes A
	count    func(A)                                     // in the metrics
	attrs    func(subject, A, time.Duration) []slog.Attr // of the log line
	message  string                                      // of the log line
	trace    func(context.Context) (context.Context, func() string)
	log      *slog.Logger
	metrics  *endpointMetrics

	limits Limits
	slots  chan struct{} // one for each request with checks under way
	late   error         // after the timeout
}

// endpoint serves one path.
type endpoint struct {
	path    string
	timeout time.Duration
	metrics *endpointMetrics
	answer  func(ctx context.Context, questions []string, deadline time.Time) Response
}

// serve returns the endpoint at a path whose questions h answers.
func serve[A any](path string, cfg Config, limits Limits, h handler[A]) *endpoint {
	h.trace, h.log, h.limits = cfg.Trace, cfg.Log, limits
	h.slots = make(chan struct{}, limits.Requests)
	h.late = fmt.Errorf("%w within %s, the time for one request; it is still being asked", errTimeout, limits.Timeout)
	return &endpoint{path: path, timeout: limits.Timeout, metrics: h.metrics, answer: h.answer}
}

// question is one key of a request.
type question struct {
	subject
	key         string // as Gatekeeper sent it
	ref         image.Reference
	img         image.Pinned // zero if ref has no digest
	n           int          // its index among the distinct questions of the request
	began       time.Time
	ociRequests string // ids of the calls that its check made
}

// outcome is the result of one question.
type outcome struct {
	n     int // the question's index
	item  Item
	err   error  // why there is no item
	image string // that err is about
}

// answer answers all keys of a request, each distinct key once. It takes cached answers
// first and checks the other questions in parallel. At the deadline it returns the answers
// that it has.
func (h *handler[A]) answer(ctx context.Context, keys []string, deadline time.Time) Response {
	distinct := unique(keys)
	outcomes := make([]outcome, len(distinct))
	var rest []*question
	for n, key := range distinct {
		q := &question{key: key, n: n, began: time.Now()}
		a, settled, err := h.settle(ctx, q)
		if settled || err != nil {
			outcomes[n] = h.finish(ctx, q, a, err)
			continue
		}
		outcomes[n] = outcome{err: h.late, image: q.image}
		rest = append(rest, q)
	}
	if len(rest) > 0 {
		h.checkAll(ctx, rest, outcomes, deadline)
	}
	return h.respond(outcomes)
}

// settle parses a question, and answers it if that takes no call of OCI.
func (h *handler[A]) settle(ctx context.Context, q *question) (a A, settled bool, err error) {
	defer contain.Panic(&err)
	if q.subject, err = h.parse(q.key); err != nil {
		return a, false, &malformedError{err}
	}
	if q.ref, err = image.Parse(q.image); err != nil {
		return h.otherRegistry(q.subject, err), true, nil
	}
	q.img, _ = q.ref.Pinned()
	a, settled = h.cached(ctx, q)
	return a, settled, nil
}

// checkAll checks questions in parallel and stores the outcomes that arrive in time.
//
// The context of the checks ends shortly before the deadline, so that they can still
// return what they found. A check that does not stop continues, and nobody waits for it.
func (h *handler[A]) checkAll(ctx context.Context, questions []*question, outcomes []outcome, deadline time.Time) {
	if err := h.enter(ctx, deadline); err != nil {
		for _, q := range questions {
			outcomes[q.n].err = err
		}
		return
	}
	defer func() { <-h.slots }()
	ctx, cancel := context.WithDeadlineCause(fair.Request(ctx), deadline.Add(-h.limits.Timeout/20), h.late)
	defer cancel()
	done := make(chan outcome, len(questions)) // room for all, so that no check waits to report
	var next atomic.Int64
	for range min(h.limits.Parallel, len(questions)) {
		go func() {
			for i := int(next.Add(1)) - 1; i < len(questions); i = int(next.Add(1)) - 1 {
				q := questions[i]
				a, err := h.checkOne(ctx, q)
				done <- h.finish(ctx, q, a, err)
			}
		}()
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for range questions {
		select {
		case o := <-done:
			outcomes[o.n] = o
		case <-timer.C:
			return
		}
	}
}

// enter waits for a slot.
func (h *handler[A]) enter(ctx context.Context, deadline time.Time) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(time.Until(deadline))
	defer wait.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-wait.C:
		return fmt.Errorf("%w: %d other requests wait for it", errTimeout, cap(h.slots))
	case <-ctx.Done():
		return fmt.Errorf("the caller has gone: %w", ctx.Err())
	}
}

// checkOne checks one question, unless the time is over.
func (h *handler[A]) checkOne(ctx context.Context, q *question) (a A, err error) {
	defer contain.Panic(&err)
	if ctx.Err() != nil {
		return a, context.Cause(ctx)
	}
	ctx, ids := h.trace(ctx)
	a, err = h.check(ctx, q)
	q.ociRequests = ids()
	return a, err
}

// finish counts and logs the outcome of a question. A panic leaves only this question
// without an answer; the request and the process continue.
func (h *handler[A]) finish(ctx context.Context, q *question, a A, err error) outcome {
	if err == nil {
		a, err = h.accept(ctx, q, a)
	}
	if err == nil {
		item := Item{Key: q.key, Value: a}
		if h.value != nil {
			item.Value = h.value(a)
		}
		return outcome{n: q.n, item: item}
	}
	if malformed, ok := errors.AsType[*malformedError](err); ok {
		h.metrics.malformed.Inc()
		h.log.Warn("not a question", "error", malformed.cause())
		return outcome{n: q.n, item: Item{Key: q.key, Error: malformed.Error()}}
	}
	if panicked, ok := contain.Unlogged(err); ok {
		h.log.Error("panic while deciding", "image", q.image, "panic", panicked.Value, "stack", string(panicked.Stack))
	}
	if _, ok := errors.AsType[*contain.PanicError](err); ok {
		err = errPanic
	}
	h.log.Warn("no decision", "image", q.image, "error", oneLine(err.Error(), maxCause), "duration", readable(time.Since(q.began)))
	return outcome{n: q.n, err: err, image: q.image}
}

// accept validates, counts and logs an answer.
func (h *handler[A]) accept(ctx context.Context, q *question, a A) (valid A, err error) {
	defer contain.Panic(&err)
	if valid, err = h.validate(q.subject, a); err != nil {
		return valid, err
	}
	took := time.Since(q.began)
	h.metrics.took.Observe(took.Seconds())
	h.count(valid)
	if h.log.Enabled(ctx, slog.LevelInfo) {
		// A log record without a caller saves the search for this line of code in each
		// call.
		r := slog.NewRecord(q.began.Add(took), slog.LevelInfo, h.message, 0)
		r.AddAttrs(h.attrs(q.subject, valid, took)...)
		if q.ociRequests != "" {
			r.AddAttrs(slog.String("ociRequests", q.ociRequests))
		}
		_ = h.log.Handler().Handle(ctx, r) // as slog.Logger does
	}
	return valid, nil
}

// respond makes the response, and counts the questions without an answer.
func (h *handler[A]) respond(outcomes []outcome) Response {
	response := Response{Items: make([]Item, 0, len(outcomes))}
	var missing []string
	late := false
	for _, o := range outcomes {
		if o.err == nil {
			response.Items = append(response.Items, o.item)
			continue
		}
		late = h.metrics.failed(o.err) || late
		missing = append(missing, oneLine(o.image, maxImageShown)+": "+oneLine(o.err.Error(), maxCause))
	}
	if late {
		h.metrics.late.Inc()
	}
	response.SystemError = systemError(missing)
	return response
}

// unique removes repeated keys, which Gatekeeper does not remove.
func unique(keys []string) []string {
	seen := make(map[string]struct{}, len(keys))
	distinct := make([]string, 0, len(keys))
	for _, key := range keys {
		if _, again := seen[key]; !again {
			seen[key] = struct{}{}
			distinct = append(distinct, key)
		}
	}
	return distinct
}
