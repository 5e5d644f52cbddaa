package vault

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// Vault reads a vault of the identity's region.
func (c *Client) Vault(ctx context.Context, id string) (Vault, error) {
	if !oci.Segment(id) {
		return Vault{}, fmt.Errorf("not the OCID of a vault: %.120q", id)
	}
	call := c.vaults("GetVault", http.MethodGet, "/vaults/{vaultId}")
	var got keymanagement.Vault
	if _, err := c.who.Do(ctx, call, keymanagement.GetVaultRequest{VaultId: common.String(id)}, &got); err != nil {
		return Vault{}, fmt.Errorf("reading vault %s: %w", signature.Short(id), notFound(err))
	}
	v, err := readVault(call, got)
	if err == nil && v.ID != id {
		err = call.Malformed("asked for vault %s, got %.120q", id, v.ID)
	}
	return v, err
}

// CreateVault starts to create a vault in the identity's region, of the type that shares
// its hardware with other vaults. The vault is usable when its State is ACTIVE, after one
// or two minutes.
func (c *Client) CreateVault(ctx context.Context, name, compartment string) (Vault, error) {
	call := c.vaults("CreateVault", http.MethodPost, "/vaults")
	call.Repeatable = true // the retry token makes OCI do it once
	var got keymanagement.Vault
	_, err := c.who.Do(ctx, call, keymanagement.CreateVaultRequest{
		CreateVaultDetails: keymanagement.CreateVaultDetails{
			CompartmentId: common.String(compartment),
			DisplayName:   common.String(name),
			VaultType:     keymanagement.CreateVaultDetailsVaultTypeDefault,
		},
		OpcRetryToken: common.String(rand.Text()),
	}, &got)
	if err != nil {
		return Vault{}, fmt.Errorf("creating vault %s: %w", name, notFound(err))
	}
	return readVault(call, got)
}

func readVault(call oci.Call, got keymanagement.Vault) (Vault, error) {
	v := Vault{
		ID: deref(got.Id), Name: oci.Text(got.DisplayName), CompartmentID: deref(got.CompartmentId),
		State:              string(got.LifecycleState),
		ManagementEndpoint: deref(got.ManagementEndpoint), CryptoEndpoint: deref(got.CryptoEndpoint),
	}
	if got.TimeCreated != nil {
		v.TimeCreated = got.TimeCreated.Time
	}
	if !oci.Segment(v.ID) || v.State == "" {
		return Vault{}, call.Malformed("a vault with the id %.120q and the state %.40q", v.ID, v.State)
	}
	return v, nil
}

// NewKey describes a key to create.
type NewKey struct {
	Name          string
	CompartmentID string
	Bits          int    // of an RSA key: 2048, 3072 or 4096
	Protection    string // HSM or SOFTWARE
}

// CreateKey starts to create an RSA key in a vault. The key is usable when its State is
// ENABLED, after some seconds.
func (c *Client) CreateKey(ctx context.Context, in Vault, key NewKey) (Key, error) {
	endpoint, err := ParseEndpoint(c.who.Region(), in.ManagementEndpoint)
	if err != nil {
		return Key{}, err
	}
	call := oci.Call{
		Service: "keymanagement", Operation: "CreateKey", Method: http.MethodPost,
		Host: endpoint.host(management), Path: basePath + "/keys",
		Repeatable: true, // the retry token makes OCI do it once
	}
	var got keymanagement.Key
	_, err = c.who.Do(ctx, call, keymanagement.CreateKeyRequest{
		CreateKeyDetails: keymanagement.CreateKeyDetails{
			CompartmentId:  common.String(key.CompartmentID),
			DisplayName:    common.String(key.Name),
			KeyShape:       &keymanagement.KeyShape{Algorithm: keymanagement.KeyShapeAlgorithmRsa, Length: common.Int(key.Bits / 8)},
			ProtectionMode: keymanagement.CreateKeyDetailsProtectionModeEnum(key.Protection),
		},
		OpcRetryToken: common.String(rand.Text()),
	}, &got)
	if err != nil {
		return Key{}, fmt.Errorf("creating key %s in vault %s: %w", key.Name, in.Name, notFound(err))
	}
	id, err := signature.ParseKeyID(deref(got.Id))
	if err != nil {
		return Key{}, call.Malformed("%w", err)
	}
	return readKey(call, id, got)
}
