package ociclient

import (
	"context"
	"encoding/base64"

	"github.com/oracle/oci-go-sdk/v65/keymanagement"
)

// Key is a key of OCI Vault and its current version.
type Key struct{ Name, ID, Version string }

// Vault is a vault with its endpoints.
type Vault struct{ ID, CompartmentID, ManagementEndpoint, CryptoEndpoint string }

// Vault finds a vault by its OCID.
func (c *Cloud) Vault(ctx context.Context, id string) (Vault, error) {
	vaults, err := keymanagement.NewKmsVaultClientWithConfigurationProvider(c.config)
	if err != nil {
		return Vault{}, err
	}
	vaults.HTTPClient = c.oci
	response, err := vaults.GetVault(ctx, keymanagement.GetVaultRequest{VaultId: &id})
	if err != nil {
		return Vault{}, err
	}
	return Vault{id, *response.CompartmentId, *response.ManagementEndpoint, *response.CryptoEndpoint}, nil
}

// NewKey makes an RSA key of 2048 bits.
func (c *Cloud) NewKey(ctx context.Context, vault Vault, name string) (Key, error) {
	keys, err := c.management(vault)
	if err != nil {
		return Key{}, err
	}
	length := 256
	response, err := keys.CreateKey(ctx, keymanagement.CreateKeyRequest{CreateKeyDetails: keymanagement.CreateKeyDetails{
		CompartmentId: &vault.CompartmentID, DisplayName: &name,
		KeyShape: &keymanagement.KeyShape{Algorithm: keymanagement.KeyShapeAlgorithmRsa, Length: &length},
	}})
	if err != nil {
		return Key{}, err
	}
	return Key{name, *response.Id, *response.CurrentKeyVersion}, nil
}

// Key finds a key by its OCID.
func (c *Cloud) Key(ctx context.Context, vault Vault, id string) (Key, error) {
	keys, err := c.management(vault)
	if err != nil {
		return Key{}, err
	}
	response, err := keys.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: &id})
	if err != nil {
		return Key{}, err
	}
	return Key{*response.DisplayName, id, *response.CurrentKeyVersion}, nil
}

// DisableKey disables a key.
func (c *Cloud) DisableKey(ctx context.Context, vault Vault, k Key) error {
	keys, err := c.management(vault)
	if err != nil {
		return err
	}
	_, err = keys.DisableKey(ctx, keymanagement.DisableKeyRequest{KeyId: &k.ID})
	return err
}

// Sign signs any text with a key and any algorithm, and returns the signature in
// base64.
func (c *Cloud) Sign(ctx context.Context, vault Vault, k Key, algorithm, text string) (string, error) {
	crypto, err := c.crypto(vault)
	if err != nil {
		return "", err
	}
	message := base64.StdEncoding.EncodeToString([]byte(text))
	response, err := crypto.Sign(ctx, keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{
		KeyId: &k.ID, KeyVersionId: &k.Version, Message: &message,
		SigningAlgorithm: keymanagement.SignDataDetailsSigningAlgorithmEnum(algorithm),
	}})
	if err != nil {
		return "", err
	}
	return *response.Signature, nil
}

// Verify does what `oci artifacts container image-signature get-verify` does with a
// signature record. OCI Vault verifies the signature over the message, and nobody
// reads the message.
func (c *Cloud) Verify(ctx context.Context, vault Vault, r Record) (bool, error) {
	crypto, err := c.crypto(vault)
	if err != nil {
		return false, err
	}
	response, err := crypto.Verify(ctx, keymanagement.VerifyRequest{VerifyDataDetails: keymanagement.VerifyDataDetails{
		KeyId: &r.KeyID, KeyVersionId: &r.KeyVersionID, Message: &r.Message, Signature: &r.Signature,
		SigningAlgorithm: keymanagement.VerifyDataDetailsSigningAlgorithmEnum(r.Algorithm),
	}})
	if err != nil {
		return false, err
	}
	return response.IsSignatureValid != nil && *response.IsSignatureValid, nil
}

func (c *Cloud) management(vault Vault) (keymanagement.KmsManagementClient, error) {
	client, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, vault.ManagementEndpoint)
	client.HTTPClient = c.oci
	return client, err
}

func (c *Cloud) crypto(vault Vault) (keymanagement.KmsCryptoClient, error) {
	client, err := keymanagement.NewKmsCryptoClientWithConfigurationProvider(c.config, vault.CryptoEndpoint)
	client.HTTPClient = c.oci
	return client, err
}
