package server

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// writeTimeout is how long a client may take to read an answer. The answer stays in
// memory until then.
const writeTimeout = 3 * time.Second

// HTTP returns a server for h with limits of time and size that no caller of this
// service needs to exceed. HTTP/2 is off: Gatekeeper speaks HTTP/1.1, and nobody can
// abuse what is off.
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

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	e := cmp.Or(h.endpoints[r.URL.Path], h.elsewhere)
	deadline := began.Add(e.timeout)
	limit(w, deadline)

	questions, held, refused := h.admit(w, r, deadline)
	defer held.release()
	if refused != nil {
		e.metrics.request(outcomeRefused, time.Since(began))
		h.refuse(w, r, refused)
		return
	}
	// From here on net/http reads ahead to notice when the caller leaves. At a read
	// deadline it would take the caller for gone, and drop the connection's next
	// requests.
	limit(w, time.Time{})

	defer h.watch(e.timeout)()
	conn := connOf(r)
	conn.decides()
	response := e.answer(r.Context(), questions, deadline)
	took := time.Since(began)
	conn.waits()
	outcome := outcomeAnswered
	if !h.write(w, r, response, deadline) {
		outcome = outcomeIncomplete
	}
	e.metrics.request(outcome, took)
}

// limit sets the time by which the request must have been read; zero lifts it.
func limit(w http.ResponseWriter, deadline time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(deadline) // it fails on a closed connection, and so does the next read
}

// refusal is why a request gets no answers, with the status that fits.
type refusal struct {
	status int
	reason string
}

var errTooLarge = fmt.Errorf("more than %d bytes", maxBody)

// admit reads a request and returns its questions. It checks the caller and the path
// before it reads the body. The caller of admit releases the share.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request, deadline time.Time) ([]string, share, *refusal) {
	if h.authorize != nil {
		if err := h.authorize(r.TLS); err != nil {
			return nil, share{}, &refusal{http.StatusForbidden, err.Error()}
		}
	}
	connOf(r).accepted()
	if h.endpoints[r.URL.Path] == nil {
		paths := slices.Sorted(maps.Keys(h.endpoints))
		return nil, share{}, &refusal{http.StatusNotFound, "nothing is served here; questions go to one of " + strings.Join(paths, ", ")}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, share{}, &refusal{http.StatusMethodNotAllowed, fmt.Sprintf("method %.20q: only POST asks a question", r.Method)}
	}
	if r.ContentLength > maxBody {
		return nil, share{}, malformed(errTooLarge)
	}
	body, held, refused := h.read(w, r, deadline)
	if refused != nil {
		return nil, held, refused
	}
	questions, err := decodeRequest(body)
	if err != nil {
		return nil, held, malformed(err)
	}
	return questions, held, nil
}

// malformed returns the refusal of a request that is beyond a limit or not one of
// the protocol.
func malformed(err error) *refusal {
	if errors.Is(err, errTooLarge) || errors.Is(err, errTooManyKeys) || errors.Is(err, errKeyTooLong) {
		return &refusal{http.StatusRequestEntityTooLarge, "the request has " + err.Error()}
	}
	return &refusal{http.StatusBadRequest, "not a request of the external data protocol: " + oneLine(err.Error(), maxCause)}
}

// read returns a body of at most maxBody bytes. A slow sender makes it hold usualBody
// bytes of memory at most: beyond that, read takes a share of the room for bodies
// first, and the rest must arrive in a quarter of the time that is left.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, deadline time.Time) (string, share, *refusal) {
	body := h.buffer()
	defer h.recycle(body)
	in := http.MaxBytesReader(w, r.Body, maxBody)
	n, err := body.ReadFrom(io.LimitReader(in, usualBody-bytes.MinRead))
	var held share
	if n == usualBody-bytes.MinRead { // an error that came with the last of these bytes comes again
		size := r.ContentLength
		if size < 0 {
			size = maxBody
		}
		var ok bool
		if held, ok = take(r.Context(), h.bodies, size, deadline); !ok {
			return "", held, &refusal{http.StatusServiceUnavailable, "busy with other large requests"}
		}
		limit(w, time.Now().Add(time.Until(deadline)/4))
		body.Grow(max(int(size-n), 0) + bytes.MinRead)
		_, err = body.ReadFrom(in)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return "", held, malformed(errTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", held, &refusal{http.StatusRequestTimeout, "the body took longer than it may"}
	case err != nil:
		return "", held, &refusal{http.StatusBadRequest, "reading the body: " + oneLine(err.Error(), maxCause)}
	}
	return body.String(), held, nil
}

// buffer returns an empty buffer.
func (h *Handler) buffer() *encoder {
	if b, ok := h.buffers.Get().(*encoder); ok {
		return b
	}
	return &encoder{Buffer: *bytes.NewBuffer(make([]byte, 0, usualBody))}
}

// recycle keeps a buffer for the next request, unless this request was far larger
// than usual.
func (h *Handler) recycle(b *encoder) {
	if b.Cap() <= 4*usualBody {
		b.Reset()
		b.err = nil
		h.buffers.Put(b)
	}
}

// write sends an answer, and reports whether it answers all questions. A large
// answer takes a share of the room for answers until the client has read it.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, response Response, deadline time.Time) (complete bool) {
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
		h.fail(w, refusal{http.StatusInternalServerError, "encoding the answer: " + oneLine(body.err.Error(), maxCause)})
		return false
	}
	held.shrink(int64(body.Cap()))
	send(w, http.StatusOK, body.Bytes())
	return complete
}

// refuse answers a request that was not admitted, and ends its connection.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	h.log.Warn("request refused", "status", why.status, "reason", why.reason, "remote", r.RemoteAddr)
	// A caller that is still sending when the connection ends may miss the answer.
	// So the handler reads the rest and drops it, up to a size and until the
	// deadline. It does not do so for strangers.
	if why.status != http.StatusForbidden {
		_, _ = io.CopyN(io.Discard, r.Body, maxDropped)
	}
	w.Header().Set("Connection", "close")
	h.fail(w, *why)
}

// fail sends an answer without items.
func (h *Handler) fail(w http.ResponseWriter, why refusal) {
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
