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

// decide answers all keys, each distinct one decided once. Checks are told to
// stop shortly before the deadline, so that they can still say how far they
// came; at the deadline the answer is made from what is there, and a check that
// did not listen goes on without anybody waiting for it.
func (h *handler) decide(ctx context.Context, keys []string, deadline time.Time) Response {
	distinct := unique(keys)
	ctx, cancel := context.WithDeadlineCause(ctx, deadline.Add(-h.Budget/20), h.spent)
	defer cancel()

	type numbered struct {
		n int
		outcome
	}
	done := make(chan numbered, len(distinct)) // room for all: no check ever waits to report
	var next atomic.Int64
	for range min(h.Parallel, len(distinct)) {
		go func() {
			for n := int(next.Add(1)) - 1; n < len(distinct); n = int(next.Add(1)) - 1 {
				done <- numbered{n, h.answer(ctx, distinct[n])}
			}
		}()
	}

	outcomes := make([]*outcome, len(distinct))
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for range distinct {
		select {
		case got := <-done:
			outcomes[got.n] = &got.outcome
			continue
		case <-timer.C:
		}
		break
	}

	var response Response
	var missing []string
	for n, o := range outcomes {
		switch {
		case o == nil:
			h.metrics.undecided(h.spent)
			missing = append(missing, line(asked(distinct[n]), h.spent))
		case o.err != nil:
			h.metrics.undecided(o.err)
			missing = append(missing, line(o.image, o.err))
		default:
			response.Items = append(response.Items, o.item)
		}
	}
	response.SystemError = systemError(missing)
	return response
}

// answer decides one question and logs it. A panic below is one question
// without an answer, not the end of the process.
func (h *handler) answer(ctx context.Context, key string) (o outcome) {
	began := time.Now()
	q, err := parseQuestion(key)
	if err != nil {
		h.metrics.notAQuestion()
		why := oneLine(err.Error(), maxCause)
		h.Log.Warn("not a question", "error", why)
		return outcome{item: Item{Key: key, Error: "not a question: " + why}}
	}

	v, err := h.verdict(ctx, q)
	took := time.Since(began)
	if err != nil {
		h.Log.Warn("no decision", "image", q.image, "error", oneLine(err.Error(), maxCause), "duration", readable(took))
		return outcome{image: q.image, err: err}
	}
	h.metrics.decided(v, took)
	h.log(ctx, q.image, v, took)
	return outcome{item: Item{Key: key, Value: v}, image: q.image}
}

func (h *handler) log(ctx context.Context, image string, v verdict.Verdict, took time.Duration) {
	attrs := make([]slog.Attr, 0, 6)
	attrs = append(attrs, slog.String("image", image), slog.String("verdict", word(v.Signed)), slog.String("reason", string(v.Reason)))
	if v.Key != "" {
		attrs = append(attrs, slog.String("key", v.Key))
	}
	if v.Detail != "" {
		attrs = append(attrs, slog.String("detail", v.Detail))
	}
	h.Log.LogAttrs(ctx, slog.LevelInfo, "decision", append(attrs, slog.String("duration", readable(took)))...)
}

// verdict settles what is no image of OCI Registry, leaves the rest to Check, and
// holds its answer against the question: a yes must name a key that was asked for.
func (h *handler) verdict(ctx context.Context, q question) (v verdict.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			h.Log.Error("panic while deciding", "image", q.image, "panic", p, "stack", string(debug.Stack()))
			v, err = verdict.Verdict{}, errPanic
		}
	}()
	ref, err := image.Parse(q.image)
	if err != nil {
		return verdict.Verdict{Reason: verdict.NotOCIRegistry, Detail: err.Error()}, nil
	}
	if ctx.Err() != nil {
		return verdict.Verdict{}, context.Cause(ctx)
	}
	if v, err = h.Check(ctx, ref, q.allowed); err != nil {
		return verdict.Verdict{}, err
	}
	byAllowed := slices.ContainsFunc(q.allowed, func(id signature.KeyID) bool { return id.String() == v.Key })
	if v.Signed != (v.Reason == verdict.Signed) || v.Signed && !byAllowed || !slices.Contains(h.reasons, v.Reason) {
		return verdict.Verdict{}, fmt.Errorf("internal error: a verdict that contradicts itself (signed %v, reason %q, key %q)", v.Signed, v.Reason, v.Key)
	}
	if !v.Signed && v.Kept > 0 {
		v.Detail += fmt.Sprintf(" (checked again after %s)", v.Kept)
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

// asked is the image in a key, for messages only.
func asked(key string) string {
	q, err := parseQuestion(key)
	if err != nil {
		return "a key that is no question"
	}
	return q.image
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
