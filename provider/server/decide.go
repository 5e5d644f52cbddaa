package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/provider/contain"
	"github.com/oke-sign/oke-sign/provider/fair"
	"github.com/oke-sign/oke-sign/provider/image"
)

// Sizes of what is said about questions that were not answered, in bytes.
const (
	maxSystemError = 1 << 10
	maxCause       = 600 // OCI's request id comes last in its errors
	maxImageShown  = 256
)

var (
	errBudgetSpent = errors.New("no answer from OCI")
	errPanic       = errors.New("internal error, see the provider's log")
)

// topic is what the questions of one path are about, and how they are answered
// with values of A.
type topic[A any] struct {
	parse func(key string) (question, error)
	// foreign answers about an image that is not one of OCI Registry.
	foreign func(question, error) A
	known   func(context.Context, *pending) (A, bool)
	check   func(context.Context, *pending) (A, error)
	// sound holds an answer against its question.
	sound   func(question, A) (A, error)
	count   func(A) // in the metrics
	message string  // of its line in the log
	attrs   func(question, A, time.Duration) []slog.Attr
}

// decider answers the questions of requests.
type decider[A any] struct {
	topic[A]
	budget   time.Duration
	parallel int
	slots    chan struct{} // one for each request that check works for
	spent    error         // says that the budget is
	log      *slog.Logger
	metrics  *metrics
}

// outcome is what became of one question.
type outcome struct {
	item  Item
	image string
	err   error // why there is no item
}

// decide answers all keys, each distinct one decided once: what is known at
// once, and the rest by Check side by side. Checks are told to stop shortly
// before the deadline, so that they can still say how far they came; at the
// deadline the answer is made from what is there, and a check that did not
// listen goes on without anybody waiting for it.
func (d *decider[A]) decide(ctx context.Context, keys []string, deadline time.Time) Response {
	distinct := unique(keys)
	outcomes := make([]outcome, len(distinct))
	var rest []pending
	for n, key := range distinct {
		p := pending{n: n, key: key, began: time.Now()}
		if o, settled := d.begin(ctx, &p); settled {
			outcomes[n] = o
		} else {
			outcomes[n] = outcome{image: p.image, err: d.spent}
			rest = append(rest, p)
		}
	}
	if len(rest) > 0 {
		d.look(ctx, rest, outcomes, deadline)
	}

	response := Response{Items: make([]Item, 0, len(distinct))}
	var missing []string
	late := false
	for _, o := range outcomes {
		if o.err != nil {
			late = d.metrics.undecided(o.err) || late
			missing = append(missing, line(o.image, o.err))
		} else {
			response.Items = append(response.Items, o.item)
		}
	}
	if late {
		d.metrics.overruns.Inc()
	}
	response.SystemError = systemError(missing)
	return response
}

// pending is a question that Check has to look into.
type pending struct {
	question
	n     int // which it is
	key   string
	ref   image.Reference
	began time.Time
}

// begin reads one question and answers it, or leaves it to Check.
func (d *decider[A]) begin(ctx context.Context, p *pending) (o outcome, settled bool) {
	var err error
	if p.question, err = d.parse(p.key); err != nil {
		d.metrics.notAQuestion()
		why := oneLine(err.Error(), maxCause)
		d.log.Warn("not a question", "error", why)
		return outcome{item: Item{Key: p.key, Error: "not a question: " + why}}, true
	}
	if p.ref, err = image.Parse(p.image); err != nil {
		return d.decided(ctx, p, d.foreign(p.question, err), nil), true
	}
	v, known, err := d.knows(ctx, p)
	if !known && err == nil {
		return outcome{}, false
	}
	return d.decided(ctx, p, v, err), true
}

// look has all of rest looked into, and puts what comes of it in time among the
// outcomes.
func (d *decider[A]) look(ctx context.Context, rest []pending, outcomes []outcome, deadline time.Time) {
	if err := d.enter(ctx, deadline); err != nil {
		for _, p := range rest {
			outcomes[p.n].err = err
		}
		return
	}
	defer func() { <-d.slots }()
	ctx, cancel := context.WithDeadlineCause(fair.Request(ctx), deadline.Add(-d.budget/20), d.spent)
	defer cancel()
	type numbered struct {
		n int
		outcome
	}
	done := make(chan numbered, len(rest)) // room for all: no check ever waits to report
	var next atomic.Int64
	for range min(d.parallel, len(rest)) {
		go func() {
			for i := int(next.Add(1)) - 1; i < len(rest); i = int(next.Add(1)) - 1 {
				p := &rest[i]
				v, err := d.find(ctx, p)
				done <- numbered{p.n, d.decided(ctx, p, v, err)}
			}
		}()
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for range rest {
		select {
		case got := <-done:
			outcomes[got.n] = got.outcome
		case <-timer.C:
			return
		}
	}
}

// enter waits for one of the slots.
func (d *decider[A]) enter(ctx context.Context, deadline time.Time) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(time.Until(deadline))
	defer wait.Stop()
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-wait.C:
		return fmt.Errorf("%w: %d other requests wait for it", errBudgetSpent, cap(d.slots))
	case <-ctx.Done():
		return fmt.Errorf("the caller has gone: %w", ctx.Err())
	}
}

// decided counts and logs what became of a question. A panic, here or below, is one
// question without an answer, not the end of the request or of the process.
func (d *decider[A]) decided(ctx context.Context, p *pending, v A, err error) outcome {
	took := time.Since(p.began)
	if err == nil {
		err = contain.Run(func() (err error) {
			if v, err = d.sound(p.question, v); err == nil {
				d.metrics.answers.Observe(took.Seconds())
				d.count(v)
				d.write(ctx, p, v, took)
			}
			return err
		})
	}
	if err == nil {
		return outcome{item: Item{Key: p.key, Value: v}, image: p.image}
	}
	if panicked, ok := contain.Unlogged(err); ok {
		d.log.Error("panic while deciding", "image", p.image, "panic", panicked.Value, "stack", string(panicked.Stack))
	}
	if _, ok := errors.AsType[*contain.PanicError](err); ok {
		err = errPanic
	}
	d.log.Warn("no decision", "image", p.image, "error", oneLine(err.Error(), maxCause), "duration", readable(took))
	return outcome{image: p.image, err: err}
}

// write writes the line of one decision. A record without a caller spares finding
// out which line of this file it was, at every decision.
func (d *decider[A]) write(ctx context.Context, p *pending, v A, took time.Duration) {
	if !d.log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	r := slog.NewRecord(p.began.Add(took), slog.LevelInfo, d.message, 0)
	r.AddAttrs(d.attrs(p.question, v, took)...)
	_ = d.log.Handler().Handle(ctx, r) // as slog.Logger does
}

// knows asks what is known.
func (d *decider[A]) knows(ctx context.Context, p *pending) (v A, known bool, err error) {
	defer contain.Panic(&err)
	v, known = d.known(ctx, p)
	return v, known, nil
}

// find asks what has to be found out.
func (d *decider[A]) find(ctx context.Context, p *pending) (v A, err error) {
	defer contain.Panic(&err)
	if ctx.Err() != nil {
		return v, context.Cause(ctx)
	}
	return d.check(ctx, p)
}

// again is added to the detail of a denial that is remembered.
func again(kept time.Duration) string {
	return fmt.Sprintf(" (asked again after %s plus Gatekeeper's cache)", kept)
}

// unique keeps the first of equal keys: Gatekeeper does not.
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

func line(image string, cause error) string {
	return oneLine(image, maxImageShown) + ": " + oneLine(cause.Error(), maxCause)
}

// systemError joins the lines as far as maxSystemError allows, and says how many
// are left out: Rego puts the whole of it into a denial that people read.
func systemError(lines []string) string {
	const more = "\nand %d more"
	var b strings.Builder
	for i, l := range lines {
		room := maxSystemError - b.Len() - 1
		if rest := len(lines) - i - 1; rest > 0 {
			room -= len(fmt.Sprintf(more, rest))
		}
		if len(l) > room {
			fmt.Fprintf(&b, more, len(lines)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l)
	}
	return b.String()
}

// oneLine bounds a text that came from outside, and makes it printable: whoever
// wrote it may have thought of the terminal that it ends up on.
func oneLine(s string, most int) string {
	cut := len(s) > most
	if cut {
		s = strings.ToValidUTF8(s[:most-len("…")], "")
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r), r == utf8.RuneError:
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}

// readable is a duration as people write it; JSON would have nanoseconds.
func readable(d time.Duration) string { return d.Round(time.Microsecond).String() }
