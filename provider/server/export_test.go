package server

import (
	"context"
	"net"
	"time"

	"github.com/oke-sign/oke-sign/provider/signature"
)

// The parsers, for the fuzz tests.
var DecodeRequest = decodeRequest

const (
	MaxBody        = maxBody
	MaxDropped     = maxDropped
	MaxKeys        = maxKeys
	MaxQuestion    = maxQuestion
	MaxSystemError = maxSystemError
	MaxAnswer      = maxAnswer
	MaxValue       = maxValue
	UsualAnswer    = usualAnswer
)

func ParseQuestion(key string) (image string, allowed []signature.KeyID, err error) {
	q, err := parseSignatureQuestion(key)
	return q.image, q.allowed.Keys(), err
}

// AtLeast returns how many keys a question asks for; 0 if it is not a question.
func AtLeast(key string) int {
	q, err := parseSignatureQuestion(key)
	if err != nil {
		return 0
	}
	return q.allowed.AtLeast()
}

func ParseScanQuestion(key string) (image string, err error) {
	q, err := parseScanQuestion(key)
	return q.image, err
}

func ParseDigestQuestion(key string) (image string, err error) {
	q, err := parseDigestQuestion(key)
	return q.image, err
}

// Encode writes an answer into available room, and counts the times that it took
// more room.
func Encode(r Response) (text []byte, complete bool, grown int) {
	var a encoder
	complete = a.encode(r, func() bool { grown++; return true })
	return a.Bytes(), complete, grown
}

// Answering makes a handler answer all questions for signatures with a response.
func (h *Handler) Answering(r Response) {
	h.endpoints[SignaturesPath].answer = func(context.Context, []string, time.Time) Response { return r }
}

// ValidReplacement validates the answer to a question for a digest.
func ValidReplacement(question, answer string) error {
	_, err := validReplacement(subject{image: question}, replacement{image: answer})
	return err
}

// SystemError and OneLine form the texts about questions without an answer.
var (
	SystemError = systemError
	OneLine     = oneLine
)

// Backlogged reports whether the kernel holds a connection that the listener has not
// accepted yet.
var Backlogged = backlogged

// Accepted records that the certificate of a connection's client was accepted.
func Accepted(c net.Conn) { c.(*conn).accepted() }

// Waiting returns how many connections wait for their clients.
func (l *Listener) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown.Len() + l.known.Len()
}
