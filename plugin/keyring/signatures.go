package keyring

import (
	"context"
	"encoding/base64"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Signature is a record. Description and metadata are told of a message
// only once its signature has been verified: before, they are anybody's.
type Signature struct {
	ID          string `json:"id"`
	Holds       string `json:"holds"` // yes, no, unknown
	Reason      string `json:"reason,omitempty"`
	Detail      string `json:"detail,omitempty"`
	Key         string `json:"key"`
	KeyName     string `json:"keyName,omitempty"`
	KeyVersion  string `json:"keyVersion"`
	Algorithm   string `json:"algorithm"`
	SignedAt    string `json:"signedAt,omitempty"`
	SignedBy    string `json:"signedBy,omitempty"`
	Description string `json:"description,omitempty"`
	Metadata    string `json:"metadata,omitempty"`
}

// SignatureOf is one record, and what there is to say about it. A key that cannot be
// asked for leaves this record unknown, and the others as they are; the error
// says why.
func SignatureOf(ctx context.Context, e *RecordVerifier, ref image.Reference, rec signature.Record) (Signature, error) {
	s := Signature{
		ID: rec.ID, Key: rec.KeyID, KeyVersion: rec.KeyVersionID, Algorithm: rec.Algorithm,
		SignedAt: cli.Timestamp(rec.TimeCreated),
	}
	verdict, key, err := e.Verify(ctx, ref, rec)
	s.KeyName = key.Name
	switch {
	case err != nil:
		err = cli.StopCause(ctx, err)
		s.Holds, s.Detail = "unknown", cli.Clip(err.Error(), 400)
	case !verdict.Signed():
		s.Holds, s.Reason, s.Detail = "no", string(verdict.Reason), verdict.Detail
	default:
		s.Holds = "yes"
		// It has just been verified, so it decodes and parses.
		text, _ := base64.StdEncoding.DecodeString(rec.Message)
		if m, err := signature.ParseMessage(text); err == nil {
			s.Description, s.Metadata = m.Description, m.Metadata
		}
	}
	return s, err
}
