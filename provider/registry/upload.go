package registry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Upload is a signature to attach to an image.
type Upload struct {
	Reference  image.Reference // says in which region the image is
	Image      Image           // as Client.Image found it
	KeyID      signature.KeyID
	KeyVersion signature.KeyVersionID
	Algorithm  signature.Algorithm
	Message    []byte // the bytes that were signed
	Signature  []byte
}

// Upload attaches a signature to an image and returns the signature record that OCI made.
// It does not verify the signature; the caller has done so.
func (c *Client) Upload(ctx context.Context, up Upload) (signature.Record, error) {
	if _, err := c.Tenancy(ctx, up.Reference); err != nil {
		return signature.Record{}, err
	}
	to := call(up.Reference, "CreateContainerImageSignature", http.MethodPost, "/container/imageSignatures")
	to.Repeatable = true // the retry token makes OCI do it once
	details := artifacts.CreateContainerImageSignatureDetails{
		CompartmentId:    common.String(up.Image.CompartmentID),
		ImageId:          common.String(up.Image.ID),
		KmsKeyId:         common.String(up.KeyID.String()),
		KmsKeyVersionId:  common.String(up.KeyVersion.String()),
		Message:          common.String(base64.StdEncoding.EncodeToString(up.Message)),
		Signature:        common.String(base64.StdEncoding.EncodeToString(up.Signature)),
		SigningAlgorithm: artifacts.CreateContainerImageSignatureDetailsSigningAlgorithmEnum(up.Algorithm),
	}
	var made summary
	_, err := c.who.Do(ctx, to, artifacts.CreateContainerImageSignatureRequest{
		CreateContainerImageSignatureDetails: details,
		OpcRetryToken:                        common.String(rand.Text()),
	}, &made)
	if err != nil {
		return signature.Record{}, fmt.Errorf("uploading the signature: %w", err)
	}
	rec, err := made.record(to)
	if err != nil {
		return signature.Record{}, fmt.Errorf("uploading the signature: %w", err)
	}
	if rec.ImageID != up.Image.ID || rec.Message != *details.Message || rec.Signature != *details.Signature ||
		rec.KeyID != up.KeyID.String() || rec.KeyVersionID != up.KeyVersion.String() || rec.Algorithm != string(up.Algorithm) {
		return signature.Record{}, fmt.Errorf("uploading the signature: %w",
			to.Malformed("the record %.100q is not the one that was uploaded", rec.ID))
	}
	return rec, nil
}
