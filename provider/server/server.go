// Package server answers Gatekeeper's external data requests over HTTP: which of
// these images are signed by a key that the policy allows, what do scans say of
// them, and which digests do these tags have now?
//
// It decodes, bounds, fans out, keeps the time and encodes; what is signed, and
// what was found, is decided by those it is given. It trusts nobody: whatever
// arrives is bounded before it is read and read strictly, and whatever does not
// end in a verdict or a report ends in an answer that admits nothing.
//
// What becomes of a question depends on what Gatekeeper does with the answer. It
// keeps items, values and errors alike, for minutes, and never keeps a
// systemError. Therefore:
//
//   - a verdict, yes or no, is the value of an item;
//   - a key that is no question is an item with an error: it can never be
//     answered, however often it is asked;
//   - what could not be found out (OCI throttles, is slow, is down, the budget is
//     spent, the code panicked) is left out of the items and named in
//     systemError, so that nothing of it is remembered;
//   - a request that is refused as a whole has no items, a systemError that says
//     why, and a status from 400 on. Gatekeeper looks at the systemError only.
//
// The package knows nothing of OCI, caches or certificates, and does not
// terminate TLS.
package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// Where questions are posted: about signatures, and about scans.
const (
	SignaturesPath = "/v1/signatures"
	ScansPath      = "/v1/scans"
)

// Config says how Handler answers. Check is required.
type Config struct {
	// Check decides; see its type.
	Check Check
	// Known is asked first, and says at once what Check would if it knows it. If
	// nil, nothing is ever known.
	Known func(ctx context.Context, ref image.Reference, allowed []signature.KeyID) (verdict.Verdict, bool)
	// Authorize says whether the caller behind a connection may ask, and its
	// error why not. It runs on every request, before the body is read. Nil:
	// whoever can connect may ask.
	Authorize func(*tls.ConnectionState) error
	// Budget is the time for one request, from its headers to its answer; 1.3 s
	// if zero. It must be shorter than the time-out of Gatekeeper's Provider
	// object, which drops everything that comes later.
	Budget time.Duration
	// Parallel is how many questions of one request are looked into at a time;
	// 16 if zero.
	Parallel int
	// Requests is how many requests Check works for at a time; 256 if zero, more than
	// the 192 that three replicas of Gatekeeper send by the values shipped. Further
	// ones wait within their budget. What Known answers waits for none of them.
	Requests int
	// Log gets one line for each decision; discarded if nil.
	Log *slog.Logger
	// Metrics is where the handler registers its metrics; none if nil.
	Metrics prometheus.Registerer
	// Scans are answered beside signatures, and nothing that either waits for is
	// taken from the other.
	Scans Scans
	// Digests are put in the place of tags beside both, in the same way.
	Digests Digests
}

// Scans says how questions about scans are answered.
type Scans struct {
	// Check says what scans say of an image. If nil, nobody may ask.
	Check func(context.Context, image.Reference) (vulnreport.Report, error)
	// Known is asked first, and says at once what Check would if it knows it. If
	// nil, nothing is ever known.
	Known func(context.Context, image.Reference) (vulnreport.Report, bool)
	// Budget is the time for one request; 0.3 s if zero.
	Budget time.Duration
	// Parallel is how many questions of one request are looked into at a time; 16
	// if zero.
	Parallel int
	// Requests is how many requests Check works for at a time; 64 if zero.
	Requests int
}

// Questions is the handler of questions.
type Questions struct {
	authorize func(*tls.ConnectionState) error
	log       *slog.Logger
	lanes     map[string]*lane // by path
	buffers   sync.Pool        // of *answer, for bodies as well
	bodies    *semaphore.Weighted
	answers   *semaphore.Weighted
	stuck     atomic.Int64 // requests that should have been answered long ago
}

// stuckAfter is how long after its budget a request must still be without an
// answer before something here, and nothing outside, has to be wrong.
const stuckAfter = 30 * time.Second

// Alive is an error if requests are without an answer long after their time. The
// budget ends whatever OCI does, so only a new start can help then.
func (h *Questions) Alive() error {
	if n := h.stuck.Load(); n > 0 {
		return fmt.Errorf("stuck: %d requests without an answer %s after their time", n, stuckAfter)
	}
	return nil
}

// watch counts a request as stuck from a while after its budget until its end,
// which the caller has to tell.
func (h *Questions) watch(budget time.Duration) (ended func()) {
	late := time.AfterFunc(budget+stuckAfter, func() { h.stuck.Add(1) })
	return func() {
		if !late.Stop() {
			h.stuck.Add(-1)
		}
	}
}

// lane is one path with what its requests share.
type lane struct {
	path    string
	budget  time.Duration
	metrics *metrics
	decide  func(ctx context.Context, keys []string, deadline time.Time) Response
}

// Handler answers POST requests on SignaturesPath, ScansPath and DigestsPath, and everything
// else in the protocol's own form with a systemError.
func Handler(cfg Config) *Questions {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Questions{
		authorize: cfg.Authorize, log: cfg.Log, lanes: make(map[string]*lane),
		bodies: semaphore.NewWeighted(roomForBodies), answers: semaphore.NewWeighted(roomForAnswers),
	}
	h.lanes[SignaturesPath] = signatures(cfg)
	if cfg.Scans.Check != nil {
		h.lanes[ScansPath] = scans(cfg)
	}
	if cfg.Digests.Digest != nil {
		h.lanes[DigestsPath] = digests(cfg)
	}
	return h
}

// open makes a lane of a decider for one path.
func open[A any](path string, requests int, d *decider[A]) *lane {
	d.spent = fmt.Errorf("%w within %s, the time for one request; it is still being asked", errBudgetSpent, d.budget)
	d.slots = make(chan struct{}, requests)
	return &lane{path: path, budget: d.budget, metrics: d.metrics, decide: d.decide}
}

// writeTimeout is how long a client may take to read an answer, which is held in
// memory as long.
const writeTimeout = 3 * time.Second

// HTTP serves h within limits of time and size that no caller of this service
// needs to exceed. HTTP/2 stays off: Gatekeeper speaks HTTP/1.1, and what is not
// spoken cannot be abused.
func HTTP(h http.Handler) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute, // Gatekeeper's client drops idle connections after 90 s
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withConn,
	}
}

// refusal is why a request is not answered at all, with the status that fits.
type refusal struct {
	status int
	reason string
}

func (h *Questions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	l := cmp.Or(h.lanes[r.URL.Path], h.lanes[SignaturesPath])
	deadline := began.Add(l.budget)
	conn := http.NewResponseController(w)
	limit(conn, deadline)

	keys, held, refused := h.admit(w, r, l, deadline)
	defer held.release()
	if refused != nil {
		h.log.Warn("request refused", "status", refused.status, "reason", refused.reason, "remote", r.RemoteAddr)
		l.metrics.request("refused", time.Since(began))
		// A caller that is still sending when the connection ends may miss the
		// answer, so what it has yet to send is taken in and dropped, up to a
		// size and no longer than the deadline; not a stranger's, though.
		if refused.status != http.StatusForbidden {
			_, _ = io.CopyN(io.Discard, r.Body, maxDropped)
		}
		w.Header().Set("Connection", "close")
		h.refuse(w, *refused)
		return
	}
	// From here on net/http reads ahead, to notice when the caller leaves. Out of
	// time it would take the caller for gone, with all that is still to come on
	// this connection.
	limit(conn, time.Time{})

	defer h.watch(l.budget)()
	place := connOf(r)
	place.decides()
	answer := l.decide(r.Context(), keys, deadline)
	took := time.Since(began)
	place.waits()
	outcome := "answered"
	if !h.write(w, r, answer, deadline) {
		outcome = "incomplete"
	}
	l.metrics.request(outcome, took)
}

// admit takes the request in step by step, each of which may refuse it: who asks
// and where before anything is read, then the body, then what it says. The caller
// owes a release of the share.
func (h *Questions) admit(w http.ResponseWriter, r *http.Request, l *lane, deadline time.Time) ([]string, share, *refusal) {
	if h.authorize != nil {
		if err := h.authorize(r.TLS); err != nil {
			return nil, share{}, &refusal{http.StatusForbidden, err.Error()}
		}
	}
	connOf(r).accepted()
	if r.URL.Path != l.path {
		paths := slices.Sorted(maps.Keys(h.lanes))
		return nil, share{}, &refusal{http.StatusNotFound, "nothing is served here; questions go to one of " + strings.Join(paths, ", ")}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, share{}, &refusal{http.StatusMethodNotAllowed, fmt.Sprintf("method %.20q: only POST asks a question", r.Method)}
	}
	if r.ContentLength > maxBody {
		return nil, share{}, tooLarge()
	}
	body, held, refused := h.read(w, r, deadline)
	if refused != nil {
		return nil, held, refused
	}
	req, refused := decode(body)
	return req.Request.Keys, held, refused
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// limit sets the time by which the request must have been read; zero lifts it.
func limit(conn *http.ResponseController, deadline time.Time) {
	_ = conn.SetReadDeadline(deadline) // it fails on a closed connection, and so does the next read
}

// read takes at most maxBody bytes. Nothing but usualBody bytes of memory is held
// for a body that has yet to come; a larger one takes its share first, and then has
// to come at once.
func (h *Questions) read(w http.ResponseWriter, r *http.Request, deadline time.Time) (string, share, *refusal) {
	body := h.buffer()
	defer h.recycle(body)
	in := http.MaxBytesReader(w, r.Body, maxBody)
	n, err := body.ReadFrom(io.LimitReader(in, usualBody-bytes.MinRead))
	var held share
	if err == nil && n == usualBody-bytes.MinRead {
		size := r.ContentLength
		if size < 0 {
			size = maxBody
		}
		var ok bool
		if held, ok = take(r.Context(), h.bodies, size, deadline); !ok {
			return "", held, &refusal{http.StatusServiceUnavailable, "busy with other large requests"}
		}
		limit(http.NewResponseController(w), earlier(deadline, time.Now().Add(time.Until(deadline)/4)))
		body.Grow(max(int(size-n), 0) + bytes.MinRead)
		_, err = body.ReadFrom(in)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return "", held, tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", held, &refusal{http.StatusRequestTimeout, "the body took longer than it may"}
	case err != nil:
		return "", held, &refusal{http.StatusBadRequest, "reading the body: " + oneLine(err.Error(), maxCause)}
	}
	return body.String(), held, nil
}

func decode(body string) (ProviderRequest, *refusal) {
	req, err := decodeRequest(body)
	switch {
	case errors.Is(err, errTooManyKeys), errors.Is(err, errKeyTooLong):
		return ProviderRequest{}, &refusal{http.StatusRequestEntityTooLarge, "the request has " + err.Error()}
	case err != nil:
		return ProviderRequest{}, &refusal{http.StatusBadRequest, "not a request of the external data protocol: " + oneLine(err.Error(), maxCause)}
	}
	return req, nil
}

func tooLarge() *refusal {
	return &refusal{http.StatusRequestEntityTooLarge, "the request has more than " + strconv.Itoa(maxBody) + " bytes"}
}

func (h *Questions) buffer() *answer {
	if b, ok := h.buffers.Get().(*answer); ok {
		return b
	}
	return &answer{Buffer: *bytes.NewBuffer(make([]byte, 0, usualBody))}
}

// recycle keeps a buffer for the next request, unless this one was far larger than
// requests are.
func (h *Questions) recycle(b *answer) {
	if b.Cap() <= 4*usualBody {
		b.Reset()
		b.err = nil
		h.buffers.Put(b)
	}
}

// write answers, and reports whether all questions were. An answer that is large
// takes its share of memory until it has been read.
func (h *Questions) write(w http.ResponseWriter, r *http.Request, response Response, deadline time.Time) (complete bool) {
	body := h.buffer()
	defer h.recycle(body)
	var held share
	defer func() { held.release() }()
	grow := func() (ok bool) {
		held, ok = take(r.Context(), h.answers, maxAnswer, deadline)
		return ok
	}
	complete = body.encode(response, grow)
	if body.err != nil { // only a verdict that does not encode leads here
		h.refuse(w, refusal{http.StatusInternalServerError, "encoding the answer: " + oneLine(body.err.Error(), maxCause)})
		return false
	}
	held.shrink(int64(body.Cap()))
	send(w, http.StatusOK, body.Bytes())
	return complete
}

// refuse answers without items.
func (h *Questions) refuse(w http.ResponseWriter, why refusal) {
	body := h.buffer()
	defer h.recycle(body)
	body.encode(Response{SystemError: "oke-sign-provider: " + why.reason}, nil)
	send(w, why.status, body.Bytes())
}

// send is the one place that writes.
func send(w http.ResponseWriter, status int, body []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // deciding may have taken longer than that
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // it fails when the caller has left; nobody is there to be told
}
