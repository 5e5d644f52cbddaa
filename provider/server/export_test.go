package server

import (
	"net"

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
)

func ParseQuestion(key string) (image string, allowed []signature.KeyID, err error) {
	q, err := parseSignatureQuestion(key)
	return q.image, q.allowed.Keys(), err
}

func ParseScanQuestion(key string) (image string, err error) {
	q, err := parseScanQuestion(key)
	return q.image, err
}

func ParseDigestQuestion(key string) (image string, err error) {
	q, err := parseDigestQuestion(key)
	return q.image, err
}

// Encode writes an answer for which there is room.
func Encode(r Response) (text []byte, complete bool) {
	var a encoder
	complete = a.encode(r, func() bool { return true })
	return a.Bytes(), complete
}

// Accepted notes that the certificate of a connection's client was accepted.
func Accepted(c net.Conn) { c.(*conn).accepted() }

// Waiting is how many connections wait for their clients.
func (l *Listener) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unknown.Len() + l.known.Len()
}
