package registry

import (
	"time"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// How many signature records of one image are read. Everybody who may push can add
// records, but only records that are newer than all others. So a flood of records cannot
// hide an honest signature that is among the newest or among the oldest.
const (
	newest   = 200
	oldest   = 50
	maxPages = 60
)

// Bounds for the fields of a signature record, in bytes. A signed message has at most
// 4096 bytes and a signature 512, both in base64. A field beyond its bound is read as
// empty, so that the record is counted and proves nothing.
const (
	maxMessage   = 6 << 10
	maxSignature = 1 << 10
	maxField     = 255
)

// summary has the fields of artifacts.ContainerImageSignatureSummary that are used. The
// tags, which are most of a record, are not read.
type summary struct {
	ID               string    `json:"id"`
	ImageID          string    `json:"imageId"`
	KeyID            string    `json:"kmsKeyId"`
	KeyVersionID     string    `json:"kmsKeyVersionId"`
	SigningAlgorithm string    `json:"signingAlgorithm"`
	Message          string    `json:"message"`
	Signature        string    `json:"signature"`
	LifecycleState   string    `json:"lifecycleState"`
	DisplayName      string    `json:"displayName"`
	CreatedBy        string    `json:"createdBy"`
	TimeCreated      time.Time `json:"timeCreated"`
}

// record returns the signature record that an answer shows. OCI's API promises an id and
// a state. A record without them is an error: it would prove nothing, and its image would
// count as unsigned for as long as the verdict is cached.
func (s summary) record(from oci.Call) (signature.Record, error) {
	if s.ID == "" || s.LifecycleState == "" {
		return signature.Record{}, from.Malformed("a signature without an id or a lifecycleState")
	}
	return signature.Record{
		ID: bounded(s.ID, maxField), ImageID: bounded(s.ImageID, maxField),
		KeyID: bounded(s.KeyID, maxField), KeyVersionID: bounded(s.KeyVersionID, maxField),
		Algorithm: bounded(s.SigningAlgorithm, maxField),
		Message:   bounded(s.Message, maxMessage), Signature: bounded(s.Signature, maxSignature),
		State:     bounded(s.LifecycleState, maxField),
		CreatedBy: bounded(s.CreatedBy, maxField), DisplayName: bounded(s.DisplayName, maxField),
		TimeCreated: s.TimeCreated,
	}, nil
}

func bounded(s string, limit int) string {
	if len(s) > limit {
		return ""
	}
	return s
}
