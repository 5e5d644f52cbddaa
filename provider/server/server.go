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
	"encoding/json"
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

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/scan"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// Where questions are posted: about signatures, and about scans.
const (
	Path      = "/v1/signatures"
	ScansPath = "/v1/scans"
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
	// Requests is how many requests are read and decided at a time; 128 if zero.
	// Further ones wait within their budget. It bounds the memory that bodies and
	// answers take.
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
	Check func(context.Context, image.Reference) (scan.Report, error)
	// Known is asked first, and says at once what Check would if it knows it. If
	// nil, nothing is ever known.
	Known func(context.Context, image.Reference) (scan.Report, bool)
	// Budget is the time for one request; 0.3 s if zero.
	Budget time.Duration
	// Parallel is how many questions of one request are looked into at a time; 16
	// if zero.
	Parallel int
	// Requests is how many requests are read and decided at a time; 64 if zero.
	Requests int
}

// Questions is the handler of questions.
type Questions struct {
	authorize func(*tls.ConnectionState) error
	log       *slog.Logger
	lanes     map[string]*lane // by path
	buffers   sync.Pool        // of *bytes.Buffer, for bodies and answers
	stuck     atomic.Int64     // requests that should have been answered long ago
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
	slots   chan struct{}
	metrics *metrics
	decide  func(ctx context.Context, keys []string, deadline time.Time) Response
}

// Handler answers POST requests on Path, ScansPath and DigestsPath, and everything
// else in the protocol's own form with a systemError.
func Handler(cfg Config) *Questions {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Questions{authorize: cfg.Authorize, log: cfg.Log, lanes: make(map[string]*lane)}
	h.lanes[Path] = signatures(cfg)
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
	return &lane{path: path, budget: d.budget, slots: make(chan struct{}, requests), metrics: d.metrics, decide: d.decide}
}

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
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       2 * time.Minute, // Gatekeeper's client drops idle connections after 90 s
		MaxHeaderBytes:    16 << 10,
	}
}

// refusal is why a request is not answered at all, with the status that fits.
type refusal struct {
	status int
	reason string
}

func (h *Questions) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	l := cmp.Or(h.lanes[r.URL.Path], h.lanes[Path])
	deadline := began.Add(l.budget)
	conn := http.NewResponseController(w)
	limit(conn, deadline)

	keys, refused := h.admit(w, r, l, deadline)
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
		h.write(w, refused.status, Response{SystemError: "oke-sign-provider: " + refused.reason})
		return
	}
	defer l.release()
	// From here on net/http reads ahead, to notice when the caller leaves. Out of
	// time it would take the caller for gone, with all that is still to come on
	// this connection.
	limit(conn, time.Time{})

	defer h.watch(l.budget)()
	answer := l.decide(r.Context(), keys, deadline)
	outcome := "answered"
	if answer.SystemError != "" {
		outcome = "incomplete"
	}
	l.metrics.request(outcome, time.Since(began))
	h.write(w, http.StatusOK, answer)
}

// admit takes the request in step by step, each of which may refuse it: who asks
// and where before anything is read, then the body, then what it says. Without a
// refusal the caller owes a release.
func (h *Questions) admit(w http.ResponseWriter, r *http.Request, l *lane, deadline time.Time) ([]string, *refusal) {
	if h.authorize != nil {
		if err := h.authorize(r.TLS); err != nil {
			return nil, &refusal{http.StatusForbidden, err.Error()}
		}
	}
	if r.URL.Path != l.path {
		paths := slices.Sorted(maps.Keys(h.lanes))
		return nil, &refusal{http.StatusNotFound, "nothing is served here; questions go to one of " + strings.Join(paths, ", ")}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, &refusal{http.StatusMethodNotAllowed, fmt.Sprintf("method %.20q: only POST asks a question", r.Method)}
	}
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}

	if refused := l.enter(r, deadline); refused != nil {
		return nil, refused
	}
	body, refused := h.read(w, r)
	if refused == nil {
		var req ProviderRequest
		if req, refused = decode(body); refused == nil {
			return req.Request.Keys, nil
		}
	}
	l.release()
	return nil, refused
}

// enter waits for one of the slots.
func (l *lane) enter(r *http.Request, deadline time.Time) *refusal {
	select {
	case l.slots <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(time.Until(deadline))
	defer wait.Stop()
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-wait.C:
		return &refusal{http.StatusServiceUnavailable, fmt.Sprintf("busy with %d other requests", cap(l.slots))}
	case <-r.Context().Done():
		return &refusal{http.StatusServiceUnavailable, "the caller has gone"}
	}
}

func (l *lane) release() { <-l.slots }

// limit sets the time by which the request must have been read; zero lifts it.
func limit(conn *http.ResponseController, deadline time.Time) {
	_ = conn.SetReadDeadline(deadline) // it fails on a closed connection, and so does the next read
}

// read takes at most maxBody bytes.
func (h *Questions) read(w http.ResponseWriter, r *http.Request) (string, *refusal) {
	body := h.buffer()
	defer h.recycle(body)
	_, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return "", tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", &refusal{http.StatusRequestTimeout, "the body took longer than the whole request may"}
	case err != nil:
		return "", &refusal{http.StatusBadRequest, "reading the body: " + oneLine(err.Error(), maxCause)}
	}
	return body.String(), nil
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

func (h *Questions) buffer() *bytes.Buffer {
	if b, ok := h.buffers.Get().(*bytes.Buffer); ok {
		return b
	}
	return bytes.NewBuffer(make([]byte, 0, usualBody))
}

// recycle keeps a buffer for the next request, unless this one was far larger than
// requests are.
func (h *Questions) recycle(b *bytes.Buffer) {
	if b.Cap() <= 4*usualBody {
		b.Reset()
		h.buffers.Put(b)
	}
}

// write is the one place that answers.
func (h *Questions) write(w http.ResponseWriter, status int, response Response) {
	response.Idempotent = true
	body := h.buffer()
	defer h.recycle(body)
	if err := json.NewEncoder(body).Encode(ProviderResponse{APIVersion: apiVersion, Kind: kindResponse, Response: response}); err != nil {
		// Only a verdict that does not encode leads here; the answer without
		// items always does.
		h.write(w, http.StatusInternalServerError, Response{SystemError: "encoding the answer: " + oneLine(err.Error(), maxCause)})
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(body.Len()))
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // it fails when the caller has left; nobody is there to be told
}
