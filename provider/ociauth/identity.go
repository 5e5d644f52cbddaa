package ociauth

import (
	"context"
	"crypto/rsa"
	"fmt"
	"net/http"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/common"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// credential signs one request. Each request gets the credential of the moment, so that
// a token that was renewed on disk counts at once.
type credential struct {
	keyID string
	key   *rsa.PrivateKey
	// delegation is the token of the user to act for, or empty. It is sent and signed
	// with each request, and never logged.
	delegation string
}

var _ common.KeyProvider = credential{}

func (c credential) KeyID() (string, error) { return c.keyID, nil }

func (c credential) PrivateRSAKey() (*rsa.PrivateKey, error) { return c.key, nil }

// delegationHeader carries the token of the user that an instance acts for.
const delegationHeader = "opc-obo-token"

// sign signs a request of an OCI service. It signs the delegation token too, as
// Oracle's SDKs do, so that nobody on the way can remove the token.
func (c credential) sign(req *http.Request) error {
	if c.delegation == "" {
		return common.DefaultRequestSigner(c).Sign(req)
	}
	req.Header.Set(delegationHeader, c.delegation)
	generic := append(common.DefaultGenericHeaders(), delegationHeader)
	return common.RequestSigner(c, generic, common.DefaultBodyHeaders()).Sign(req)
}

// signer returns the function that signs requests with the credential of the moment.
func signer(identify func(context.Context) (credential, error)) func(context.Context, *http.Request) error {
	return func(ctx context.Context, req *http.Request) error {
		id, err := identify(ctx)
		if err != nil {
			return err
		}
		return id.sign(req)
	}
}

// locate sets the tenancy and the region of an identity. It rejects a region of
// another realm than the tenancy's, and a region that package image does not know:
// it has no hosts that could be trusted.
func locate(id oci.Identity, tenancy, region string) (oci.Identity, error) {
	if !oci.IsOCID(tenancy, "tenancy") {
		return oci.Identity{}, fmt.Errorf("tenancy is not the OCID of a tenancy: %.80q", tenancy)
	}
	at, err := image.ParseRegion(strings.ToLower(region))
	if err != nil {
		return oci.Identity{}, err
	}
	if realm := strings.Split(tenancy, ".")[2]; realm != at.Realm() {
		return oci.Identity{}, fmt.Errorf("the tenancy is in realm %s and region %s in realm %s", realm, at, at.Realm())
	}
	id.Tenancy, id.Region = tenancy, at
	return id, nil
}
