package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/containerregistry"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// maxToken bounds a token of OCI Registry. Real ones have one or two thousand bytes.
const maxToken = 16 << 10

// AccessToken returns a token with which container tools sign in to OCI Registry in a
// region with this identity. The user name is BEARER_TOKEN. The token is a secret, and
// OCI chooses how long it is valid.
func (c *Client) AccessToken(ctx context.Context, in image.Region) (string, error) {
	call := oci.Call{
		Service: "containerregistry", Operation: "GetAccessToken", Method: http.MethodGet, Path: "/20180419/docker/token",
		Host: "ocir." + in.ID() + ".oci." + in.Domain(), MaxAnswer: 64 << 10,
	}
	var answer containerregistry.AccessToken
	_, err := c.who.Do(ctx, call, containerregistry.GetAccessTokenRequest{}, &answer)
	token := deref(answer.Token)
	if err == nil && (token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' })) {
		err = call.Malformed("a token of %d bytes that no tool could take", len(token)) // never the token itself
	}
	if err != nil {
		return "", fmt.Errorf("getting a token for OCI Registry: %w", err)
	}
	return token, nil
}
