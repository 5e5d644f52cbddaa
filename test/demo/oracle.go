package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"
)

// oracleCloud is OCI as others than oke-sign use it: Oracle's own SDK, a registry
// client, and what somebody with bad intentions can do with both.
type oracleCloud struct {
	address  string       // of the emulator
	local    *http.Client // to its own pages
	cloud    *http.Client // to OCI's hosts
	keychain authn.Authenticator
	config   common.ConfigurationProvider
}

func connect(address, home string) (*oracleCloud, error) {
	proxy, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(home, "ca.pem")) //nolint:gosec // of our own directory
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the emulator's CA is not PEM")
	}
	config, err := common.ConfigurationProviderFromFileWithProfile(filepath.Join(home, "config"), "DEFAULT", "")
	if err != nil {
		return nil, err
	}
	login, err := dockerLogin(filepath.Join(home, "docker", "config.json"))
	if err != nil {
		return nil, err
	}
	return &oracleCloud{
		address:  address,
		local:    &http.Client{Transport: &http.Transport{}},
		cloud:    &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}},
		keychain: login,
		config:   config,
	}, nil
}

// push stores a random image in a new repository, under the tag v1, and returns
// its digest.
func (c *oracleCloud) push(ctx context.Context, vault vaultOf, repository string) (string, error) {
	if err := c.newRepository(ctx, vault.CompartmentID, repository); err != nil {
		return "", err
	}
	img, err := random.Image(256, 1)
	if err != nil {
		return "", err
	}
	return c.pushImage(ctx, registry+repository+":v1", img)
}

func (c *oracleCloud) newRepository(ctx context.Context, compartment, repository string) error {
	repositories, err := artifacts.NewArtifactsClientWithConfigurationProvider(c.config)
	if err != nil {
		return err
	}
	repositories.HTTPClient = c.cloud
	_, err = repositories.CreateContainerRepository(ctx, artifacts.CreateContainerRepositoryRequest{
		CreateContainerRepositoryDetails: artifacts.CreateContainerRepositoryDetails{CompartmentId: &compartment, DisplayName: &repository},
	})
	return err
}

func (c *oracleCloud) pushImage(ctx context.Context, reference string, img v1.Image) (string, error) {
	tag, err := name.NewTag(reference)
	if err != nil {
		return "", err
	}
	if err := remote.Write(tag, img, remote.WithContext(ctx), remote.WithTransport(c.cloud.Transport), remote.WithAuth(c.keychain)); err != nil {
		return "", fmt.Errorf("pushing %s: %w", reference, err)
	}
	digest, err := img.Digest()
	return digest.String(), err
}

// copyTo stores the image of a reference in a new repository as well and returns
// its digest.
func (c *oracleCloud) copyTo(ctx context.Context, vault vaultOf, from, repository string) (string, error) {
	if err := c.newRepository(ctx, vault.CompartmentID, repository); err != nil {
		return "", err
	}
	ref, err := name.ParseReference(from)
	if err != nil {
		return "", err
	}
	img, err := remote.Image(ref, remote.WithContext(ctx), remote.WithTransport(c.cloud.Transport), remote.WithAuth(c.keychain))
	if err != nil {
		return "", fmt.Errorf("pulling %s: %w", from, err)
	}
	return c.pushImage(ctx, registry+repository+":v1", img)
}

// sign has a key of OCI Vault sign whatever text.
func (c *oracleCloud) sign(ctx context.Context, vault vaultOf, k keyOf, algorithm, text string) (string, error) {
	crypto, err := keymanagement.NewKmsCryptoClientWithConfigurationProvider(c.config, vault.CryptoEndpoint)
	if err != nil {
		return "", err
	}
	crypto.HTTPClient = c.cloud
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

// verifyAsOracle is what `oci artifacts container image-signature get-verify`
// does with a record: it has OCI Vault verify the signature over the message, and
// reads neither.
func (c *oracleCloud) verifyAsOracle(ctx context.Context, vault vaultOf, r record) (bool, error) {
	crypto, err := keymanagement.NewKmsCryptoClientWithConfigurationProvider(c.config, vault.CryptoEndpoint)
	if err != nil {
		return false, err
	}
	crypto.HTTPClient = c.cloud
	response, err := crypto.Verify(ctx, keymanagement.VerifyRequest{VerifyDataDetails: keymanagement.VerifyDataDetails{
		KeyId: &r.KeyID, KeyVersionId: &r.KeyVersionID, Message: &r.Message, Signature: &r.Signature,
		SigningAlgorithm: keymanagement.VerifyDataDetailsSigningAlgorithmEnum(r.Algorithm),
	}})
	if err != nil {
		return false, err
	}
	return response.IsSignatureValid != nil && *response.IsSignatureValid, nil
}

// keyOf and vaultOf are a key and its vault, as OCI names them.
type (
	keyOf   struct{ Name, ID, Version string }
	vaultOf struct{ ID, CompartmentID, ManagementEndpoint, CryptoEndpoint string }
)

// vault finds a vault by its OCID.
func (c *oracleCloud) vault(ctx context.Context, id string) (vaultOf, error) {
	vaults, err := keymanagement.NewKmsVaultClientWithConfigurationProvider(c.config)
	if err != nil {
		return vaultOf{}, err
	}
	vaults.HTTPClient = c.cloud
	response, err := vaults.GetVault(ctx, keymanagement.GetVaultRequest{VaultId: &id})
	if err != nil {
		return vaultOf{}, err
	}
	return vaultOf{id, *response.CompartmentId, *response.ManagementEndpoint, *response.CryptoEndpoint}, nil
}

// newKey makes an RSA key.
func (c *oracleCloud) newKey(ctx context.Context, vault vaultOf, name string) (keyOf, error) {
	keys, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, vault.ManagementEndpoint)
	if err != nil {
		return keyOf{}, err
	}
	keys.HTTPClient = c.cloud
	length := 256
	response, err := keys.CreateKey(ctx, keymanagement.CreateKeyRequest{CreateKeyDetails: keymanagement.CreateKeyDetails{
		CompartmentId: &vault.CompartmentID, DisplayName: &name,
		KeyShape: &keymanagement.KeyShape{Algorithm: keymanagement.KeyShapeAlgorithmRsa, Length: &length},
	}})
	if err != nil {
		return keyOf{}, err
	}
	return keyOf{name, *response.Id, *response.CurrentKeyVersion}, nil
}

// currentVersion fills in a key's current version.
func (c *oracleCloud) currentVersion(ctx context.Context, vault vaultOf, k *keyOf) error {
	keys, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, vault.ManagementEndpoint)
	if err != nil {
		return err
	}
	keys.HTTPClient = c.cloud
	response, err := keys.GetKey(ctx, keymanagement.GetKeyRequest{KeyId: &k.ID})
	if err != nil {
		return err
	}
	k.Version = *response.CurrentKeyVersion
	return nil
}

func (c *oracleCloud) disableKey(ctx context.Context, vault vaultOf, k keyOf) error {
	keys, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, vault.ManagementEndpoint)
	if err != nil {
		return err
	}
	keys.HTTPClient = c.cloud
	_, err = keys.DisableKey(ctx, keymanagement.DisableKeyRequest{KeyId: &k.ID})
	return err
}

// record is a signature record as the emulator's own pages take it.
type record struct {
	Image        string `json:"image,omitempty"`
	KeyID        string `json:"kmsKeyId,omitempty"`
	KeyVersionID string `json:"kmsKeyVersionId,omitempty"`
	Algorithm    string `json:"signingAlgorithm,omitempty"`
	Message      string `json:"message,omitempty"`
	Signature    string `json:"signature,omitempty"`
	State        string `json:"lifecycleState,omitempty"`
}

// attach puts a record onto an image past whatever the registry might check.
func (c *oracleCloud) attach(ctx context.Context, r record) error {
	return c.admin(ctx, http.MethodPost, "signatures", r, nil)
}

func dockerLogin(file string) (authn.Authenticator, error) {
	text, err := os.ReadFile(file) //nolint:gosec // of our own directory
	if err != nil {
		return nil, err
	}
	return loginOf(text)
}
