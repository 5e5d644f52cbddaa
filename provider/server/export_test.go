package server

import "github.com/oke-sign/oke-sign/provider/signature"

// The parsers, for the fuzz tests.
var DecodeRequest = decodeRequest

const (
	MaxBody        = maxBody
	MaxDropped     = maxDropped
	MaxKeys        = maxKeys
	MaxQuestion    = maxQuestion
	MaxSystemError = maxSystemError
)

func ParseQuestion(key string) (image string, allowed []signature.KeyID, err error) {
	q, err := parseQuestion(key)
	return q.image, q.allowed, err
}

func ParseScanQuestion(key string) (image string, err error) {
	q, err := parseScanQuestion(key)
	return q.image, err
}
