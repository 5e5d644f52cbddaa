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

// writeTimeout is how long a client may take to read an answer. The answer is in memory
// until then.
const writeTimeout = 3 * time.Second

// HTTP returns a server for h with timeouts and size limits. HTTP/2 is off, because
// Gatekeeper speaks HTTP/1.1 and HTTP/2 adds attack surface.
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
	e := cmp.Or(h.endpoints[r.URL.Path], h.unknown)
	deadline := began.Add(e.timeout)
	limit(w, deadline)

	questions, reserved, refused := h.admit(w, r, deadline)
	defer reserved.release()
	if refused != nil {
		e.metrics.request(outcomeRefused, time.Since(began))
		h.refuse(w, r, refused)
		return
	}
	// From here on net/http reads ahead to notice when the caller leaves. A read
	// deadline would look like a caller that left, and end the connection.
	limit(w, time.Time{})

	defer h.watch(e.timeout)()
	conn := connOf(r)
	conn.busy()
	response := e.answer(r.Context(), questions, deadline)
	took := time.Since(began)
	conn.idle()
	outcome := outcomeAnswered
	if !h.write(w, r, response, deadline) {
		outcome = outcomeIncomplete
	}
	e.metrics.request(outcome, took)
}

// limit sets the time by which the request must have been read. The zero time removes it.
func limit(w http.ResponseWriter, deadline time.Time) {
	_ = http.NewResponseController(w).SetReadDeadline(deadline) // on a closed connection this fails, and the next read fails too
}

// refusal is the reason why a request is rejected, and the HTTP status.
type refusal struct {
	status int
	reason string
}

var errTooLarge = fmt.Errorf("more than %d bytes", maxBody)

// admit reads a request and returns its questions. It checks the caller and the path
// before it reads the body. The caller of admit releases the reservation.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request, deadline time.Time) ([]string, reservation, *refusal) {
	if h.authorize != nil {
		if err := h.authorize(r.TLS); err != nil {
			return nil, reservation{}, &refusal{http.StatusForbidden, err.Error()}
		}
	}
	connOf(r).accepted()
	if h.endpoints[r.URL.Path] == nil {
		paths := slices.Sorted(maps.Keys(h.endpoints))
		return nil, reservation{}, &refusal{http.StatusNotFound, "nothing is served here; questions go to one of " + strings.Join(paths, ", ")}
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, reservation{}, &refusal{http.StatusMethodNotAllowed, fmt.Sprintf("method %.20q: only POST asks a question", r.Method)}
	}
	if r.ContentLength > maxBody {
		return nil, reservation{}, malformed(errTooLarge)
	}
	body, reserved, refused := h.read(w, r, deadline)
	if refused != nil {
		return nil, reserved, refused
	}
	questions, err := decodeRequest(body)
	if err != nil {
		return nil, reserved, malformed(err)
	}
	return questions, reserved, nil
}

// malformed returns the refusal of a request that exceeds a limit or is not one of the
// protocol.
func malformed(err error) *refusal {
	if errors.Is(err, errTooLarge) || errors.Is(err, errTooManyKeys) || errors.Is(err, errKeyTooLong) {
		return &refusal{http.StatusRequestEntityTooLarge, "the request has " + err.Error()}
	}
	return &refusal{http.StatusBadRequest, "not a request of the external data protocol: " + oneLine(err.Error(), maxCause)}
}

// read returns a body of at most maxBody bytes. A slow sender can hold usualBody bytes of
// memory. For a larger body read reserves memory first, and the rest must arrive within a
// quarter of the remaining time.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, deadline time.Time) (string, reservation, *refusal) {
	body := h.buffer()
	defer h.recycle(body)
	in := http.MaxBytesReader(w, r.Body, maxBody)
	n, err := body.ReadFrom(io.LimitReader(in, usualBody-bytes.MinRead))
	var reserved reservation
	if err == nil && n == usualBody-bytes.MinRead {
		size := r.ContentLength
		if size < 0 {
			size = maxBody
		}
		var ok bool
		if reserved, ok = reserve(r.Context(), h.bodies, size, deadline); !ok {
			return "", reserved, &refusal{http.StatusServiceUnavailable, "busy with other large requests"}
		}
		limit(w, time.Now().Add(time.Until(deadline)/4))
		body.Grow(max(int(size-n), 0) + bytes.MinRead)
		_, err = body.ReadFrom(in)
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return "", reserved, malformed(errTooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "", reserved, &refusal{http.StatusRequestTimeout, "the body took longer than it may"}
	case err != nil:
		return "", reserved, &refusal{http.StatusBadRequest, "reading the body: " + oneLine(err.Error(), maxCause)}
	}
	return body.String(), reserved, nil
}

// buffer returns an empty buffer.
func (h *Handler) buffer() *encoder {
	if b, ok := h.buffers.Get().(*encoder); ok {
		return b
	}
	return &encoder{Buffer: *bytes.NewBuffer(make([]byte, 0, usualBody))}
}

// recycle makes a buffer available to the next request, unless the buffer is far larger
// than usual.
func (h *Handler) recycle(b *encoder) {
	if b.Cap() <= 4*usualBody {
		b.Reset()
		b.err = nil
		h.buffers.Put(b)
	}
}

// write sends an answer, and reports whether it answers all questions. A large answer
// reserves memory until the client has read it.
func (h *Handler) write(w http.ResponseWriter, r *http.Request, response Response, deadline time.Time) (complete bool) {
	body := h.buffer()
	defer h.recycle(body)
	var reserved reservation
	defer func() { reserved.release() }()
	grow := func() (ok bool) {
		reserved, ok = reserve(r.Context(), h.answers, maxAnswer, deadline)
		return ok
	}
	complete = body.encode(response, grow)
	if body.err != nil { // only a value without a JSON encoding causes this
		h.fail(w, refusal{http.StatusInternalServerError, "encoding the answer: " + oneLine(body.err.Error(), maxCause)})
		return false
	}
	reserved.shrink(int64(body.Cap()))
	send(w, http.StatusOK, body.Bytes())
	return complete
}

// refuse answers a rejected request and closes its connection.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, why *refusal) {
	h.log.Warn("request refused", "status", why.status, "reason", why.reason, "remote", r.RemoteAddr)
	// A caller that still sends when the connection closes may miss the answer.
	// Therefore the handler reads and drops the rest, up to a size and until the
	// deadline, except for callers without an accepted certificate.
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

// send writes a response. All responses of a Handler pass through send.
func send(w http.ResponseWriter, status int, body []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout)) // answering may have taken longer than that
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // this fails if the caller has left
}
