package keyring

import (
	"context"
	"encoding/base64"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Signature is a signature record for people. It has the description and metadata of the
// signed message only if the signature verifies: otherwise anybody may have written them.
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

// SignatureOf verifies a record and describes it. If the verifier cannot look up the key,
// Holds is "unknown", and the error says why.
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
		// The signature verifies, so the message decodes and parses.
		text, _ := base64.StdEncoding.DecodeString(rec.Message)
		if m, err := signature.ParseMessage(text); err == nil {
			s.Description, s.Metadata = m.Description, m.Metadata
		}
	}
	return s, err
}
