package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// Check decides whether the image that ref pins is signed by one of the allowed
// keys. A verdict, whichever way it went, is an answer; an error is the lack of
// one. It should return soon after ctx ends, and may leave work behind that
// makes the next answer faster. It is called by many goroutines at once.
type Check func(ctx context.Context, ref image.Reference, allowed []signature.KeyID) (verdict.Verdict, error)

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
func (h *handler) decide(ctx context.Context, keys []string, deadline time.Time) Response {
	distinct := unique(keys)
	outcomes := make([]outcome, len(distinct))
	var rest []pending
	for n, key := range distinct {
		p := pending{n: n, key: key, began: time.Now()}
		if o, settled := h.begin(ctx, &p); settled {
			outcomes[n] = o
		} else {
			outcomes[n] = outcome{image: p.image, err: h.spent}
			rest = append(rest, p)
		}
	}
	if len(rest) > 0 {
		h.check(ctx, rest, outcomes, deadline)
	}

	response := Response{Items: make([]Item, 0, len(distinct))}
	var missing []string
	late := false
	for _, o := range outcomes {
		if o.err != nil {
			late = h.metrics.undecided(o.err) || late
			missing = append(missing, line(o.image, o.err))
		} else {
			response.Items = append(response.Items, o.item)
		}
	}
	if late {
		h.metrics.overruns.Inc()
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
func (h *handler) begin(ctx context.Context, p *pending) (o outcome, settled bool) {
	var err error
	if p.question, err = parseQuestion(p.key); err != nil {
		h.metrics.notAQuestion()
		why := oneLine(err.Error(), maxCause)
		h.Log.Warn("not a question", "error", why)
		return outcome{item: Item{Key: p.key, Error: "not a question: " + why}}, true
	}
	if p.ref, err = image.Parse(p.image); err != nil {
		return h.decided(ctx, p, verdict.Verdict{Reason: verdict.NotOCIRegistry, Detail: err.Error()}, nil), true
	}
	v, known, err := h.known(ctx, p)
	if !known && err == nil {
		return outcome{}, false
	}
	return h.decided(ctx, p, v, err), true
}

// check has all of rest looked into, and puts what comes of it in time among the
// outcomes.
func (h *handler) check(ctx context.Context, rest []pending, outcomes []outcome, deadline time.Time) {
	ctx, cancel := context.WithDeadlineCause(ctx, deadline.Add(-h.Budget/20), h.spent)
	defer cancel()
	type numbered struct {
		n int
		outcome
	}
	done := make(chan numbered, len(rest)) // room for all: no check ever waits to report
	var next atomic.Int64
	for range min(h.Parallel, len(rest)) {
		go func() {
			for i := int(next.Add(1)) - 1; i < len(rest); i = int(next.Add(1)) - 1 {
				p := &rest[i]
				v, err := h.verdict(ctx, p)
				done <- numbered{p.n, h.decided(ctx, p, v, err)}
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

// decided counts and logs what became of a question.
func (h *handler) decided(ctx context.Context, p *pending, v verdict.Verdict, err error) outcome {
	took := time.Since(p.began)
	if err == nil {
		v, err = h.sound(p.question, v)
	}
	if err != nil {
		h.Log.Warn("no decision", "image", p.image, "error", oneLine(err.Error(), maxCause), "duration", readable(took))
		return outcome{image: p.image, err: err}
	}
	h.metrics.decided(v, took)
	h.log(ctx, p.question, v, took)
	return outcome{item: Item{Key: p.key, Value: v}, image: p.image}
}

// log writes the line of one decision. A record without a caller spares finding
// out which line of this file it was, at every decision.
func (h *handler) log(ctx context.Context, q question, v verdict.Verdict, took time.Duration) {
	if !h.Log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 9)
	attrs = append(attrs, slog.String("image", q.image), slog.String("verdict", word(v.Signed)), slog.String("reason", string(v.Reason)),
		slog.String("allowed", list(q.allowed)), slog.String("age", readable(v.Age)), slog.String("duration", readable(took)))
	for _, more := range [...]slog.Attr{slog.String("key", v.Key), slog.String("detail", v.Detail), slog.String("ociRequests", v.Requests)} {
		if more.Value.String() != "" {
			attrs = append(attrs, more)
		}
	}
	r := slog.NewRecord(time.Now(), slog.LevelInfo, "decision", 0)
	r.AddAttrs(attrs...)
	_ = h.Log.Handler().Handle(ctx, r) // as slog.Logger does
}

// list is the keys in one line.
func list(keys []signature.KeyID) string {
	if len(keys) == 1 {
		return keys[0].String()
	}
	ids := make([]string, len(keys))
	for i, id := range keys {
		ids[i] = id.String()
	}
	return strings.Join(ids, " ")
}

// known asks Known. A panic below is one question without an answer, not the end
// of the process.
func (h *handler) known(ctx context.Context, p *pending) (v verdict.Verdict, known bool, err error) {
	defer h.contain(p.image, &err)
	v, known = h.Known(ctx, p.ref, p.allowed)
	return v, known, nil
}

// verdict asks Check.
func (h *handler) verdict(ctx context.Context, p *pending) (v verdict.Verdict, err error) {
	defer h.contain(p.image, &err)
	if ctx.Err() != nil {
		return verdict.Verdict{}, context.Cause(ctx)
	}
	return h.Check(ctx, p.ref, p.allowed)
}

// contain is deferred around what might panic.
func (h *handler) contain(image string, err *error) {
	if p := recover(); p != nil {
		h.Log.Error("panic while deciding", "image", image, "panic", p, "stack", string(debug.Stack()))
		*err = errPanic
	}
}

// sound holds an answer against the question: a yes must name a key that was
// asked for.
func (h *handler) sound(q question, v verdict.Verdict) (verdict.Verdict, error) {
	byAllowed := slices.ContainsFunc(q.allowed, func(id signature.KeyID) bool { return id.String() == v.Key })
	if v.Signed != (v.Reason == verdict.Signed) || v.Signed && !byAllowed || !h.metrics.hasReason(v.Reason) {
		return verdict.Verdict{}, fmt.Errorf("internal error: a verdict that contradicts itself (signed %v, reason %q, key %q)", v.Signed, v.Reason, v.Key)
	}
	if !v.Signed && v.Kept > 0 {
		v.Detail += fmt.Sprintf(" (asked again after %s plus Gatekeeper's cache)", v.Kept)
	}
	return v, nil
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

func word(signed bool) string {
	if signed {
		return "signed"
	}
	return "not-signed"
}
