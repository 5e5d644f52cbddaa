package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Record reads one signature record of the image ref in full. Lists leave out who made
// the record, and no verdict depends on that.
func (c *Client) Record(ctx context.Context, ref image.Reference, id string) (signature.Record, error) {
	if _, err := c.Tenancy(ctx, ref); err != nil {
		return signature.Record{}, err
	}
	if !strings.HasPrefix(id, "ocid1.containerimagesignature.") || !oci.Segment(id) {
		return signature.Record{}, fmt.Errorf("not the OCID of a signature: %.100q", id)
	}
	get := call(ref, "GetContainerImageSignature", http.MethodGet, "/container/imageSignatures/{imageSignatureId}")
	var found summary
	_, err := c.who.Do(ctx, get, artifacts.GetContainerImageSignatureRequest{ImageSignatureId: common.String(id)}, &found)
	if oci.IsNotFound(err) {
		return signature.Record{}, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return signature.Record{}, err
	}
	rec, err := found.record(get)
	if err != nil {
		return signature.Record{}, err
	}
	if rec.ID != id {
		return signature.Record{}, get.Malformed("asked for signature %s, got %.100q", id, rec.ID)
	}
	return rec, nil
}
