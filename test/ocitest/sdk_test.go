package ocitest_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/identity"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { ocitest.Main(m, &cloud) }

// clients are the SDK's own clients, made from a profile in the usual way.
type clients struct {
	tb        testing.TB
	config    common.ConfigurationProvider
	artifacts artifacts.ArtifactsClient
	identity  identity.IdentityClient
	storage   objectstorage.ObjectStorageClient
	vaults    keymanagement.KmsVaultClient
}

func newClients(tb testing.TB, u *ocitest.User) *clients {
	tb.Helper()
	return clientsOf(tb, common.CustomProfileConfigProvider(u.ConfigFile(), ocitest.ProfileDefault))
}

func clientsOf(tb testing.TB, config common.ConfigurationProvider) *clients {
	tb.Helper()
	c := &clients{tb: tb, config: config}
	var errs [4]error
	c.artifacts, errs[0] = artifacts.NewArtifactsClientWithConfigurationProvider(config)
	c.identity, errs[1] = identity.NewIdentityClientWithConfigurationProvider(config)
	c.storage, errs[2] = objectstorage.NewObjectStorageClientWithConfigurationProvider(config)
	c.vaults, errs[3] = keymanagement.NewKmsVaultClientWithConfigurationProvider(config)
	if err := errors.Join(errs[:]...); err != nil {
		tb.Fatal(err)
	}
	once := common.NoRetryPolicy()
	for _, b := range []*common.BaseClient{&c.artifacts.BaseClient, &c.identity.BaseClient, &c.storage.BaseClient, &c.vaults.BaseClient} {
		b.Configuration.RetryPolicy = &once
		b.Configuration.CircuitBreaker = nil
	}
	return c
}

// management and crypto return the clients of one vault. As in the SDK's examples,
// their endpoints come from GetVault.
func (c *clients) management(v *ocitest.Vault) keymanagement.KmsManagementClient {
	c.tb.Helper()
	m, err := keymanagement.NewKmsManagementClientWithConfigurationProvider(c.config, *c.vault(v).ManagementEndpoint)
	if err != nil {
		c.tb.Fatal(err)
	}
	return m
}

func (c *clients) crypto(v *ocitest.Vault) keymanagement.KmsCryptoClient {
	c.tb.Helper()
	m, err := keymanagement.NewKmsCryptoClientWithConfigurationProvider(c.config, *c.vault(v).CryptoEndpoint)
	if err != nil {
		c.tb.Fatal(err)
	}
	return m
}

func (c *clients) vault(v *ocitest.Vault) keymanagement.Vault {
	c.tb.Helper()
	got, err := c.vaults.GetVault(context.Background(), keymanagement.GetVaultRequest{VaultId: &v.ID})
	if err != nil {
		c.tb.Fatal(err)
	}
	return got.Vault
}

// code returns the code of OCI's error, or "" without an error.
func code(tb testing.TB, err error) string {
	tb.Helper()
	if err == nil {
		return ""
	}
	failure, ok := common.IsServiceError(err)
	if !ok {
		tb.Fatalf("not an answer of OCI: %v", err)
	}
	if failure.GetOpcRequestID() == "" {
		tb.Errorf("no opc-request-id with %v", err)
	}
	return failure.GetCode()
}

func publicKey(tb testing.TB, text string) *rsa.PublicKey {
	tb.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		tb.Fatalf("no PEM: %q", text)
	}
	if block.Type == "RSA PUBLIC KEY" {
		k, err := x509.ParsePKCS1PublicKey(block.Bytes)
		if err != nil {
			tb.Fatal(err)
		}
		return k
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return k.(*rsa.PublicKey)
}

// TestSigningWithTheSDK does what oci-cli's sign-upload and get-verify do, with the
// Go SDK's unmodified clients.
func TestSigningWithTheSDK(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	c := newClients(t, tenancy.Admin())
	vault := tenancy.NewVault("image-vault", "")
	key := vault.NewKey("image-key", ocitest.RSA2048)
	image := tenancy.NewImage("project01/web", "v1", "latest")

	got, err := c.artifacts.GetContainerImage(ctx, artifacts.GetContainerImageRequest{ImageId: &image.ID})
	if err != nil {
		t.Fatal(err)
	}
	if *got.Digest != image.Digest || *got.RepositoryName != "project01/web" {
		t.Errorf("image %s of %s, want %s of project01/web", *got.Digest, *got.RepositoryName, image.Digest)
	}

	message := base64.StdEncoding.EncodeToString([]byte(`{"description":"","imageDigest":"` + image.Digest + `","kmsKeyId":"` + key.ID +
		`","kmsKeyVersionId":"` + key.Version() + `","metadata":"","region":"us-ashburn-1","repositoryName":"project01/web","signingAlgorithm":"SHA_256_RSA_PKCS_PSS"}`))
	crypto := c.crypto(vault)
	signed, err := crypto.Sign(ctx, keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{
		Message: &message, KeyId: &key.ID, KeyVersionId: common.String(key.Version()),
		SigningAlgorithm: keymanagement.SignDataDetailsSigningAlgorithmSha256RsaPkcsPss, MessageType: keymanagement.SignDataDetailsMessageTypeRaw,
	}})
	if err != nil {
		t.Fatal(err)
	}
	created, err := c.artifacts.CreateContainerImageSignature(ctx, artifacts.CreateContainerImageSignatureRequest{
		CreateContainerImageSignatureDetails: artifacts.CreateContainerImageSignatureDetails{
			CompartmentId: got.CompartmentId, ImageId: &image.ID, KmsKeyId: &key.ID, KmsKeyVersionId: common.String(key.Version()),
			Message: &message, Signature: signed.Signature,
			SigningAlgorithm: "SHA_256_RSA_PKCS_PSS",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	last10 := func(s string) string { return s[len(s)-10:] }
	wantName := strings.Join([]string{last10(key.ID), last10(key.Version()), "SHA_256_RSA_PKCS_PSS", last10(*created.Id)}, "::")
	if *created.DisplayName != wantName {
		t.Errorf("display name %s, want %s", *created.DisplayName, wantName)
	}

	items := listSignatures(t, c, artifacts.ListContainerImageSignaturesRequest{
		CompartmentId: &tenancy.ID, CompartmentIdInSubtree: common.Bool(true), RepositoryName: got.RepositoryName, ImageDigest: got.Digest,
	})
	if len(items) != 1 || *items[0].Id != *created.Id || *items[0].Message != message {
		t.Fatalf("listed %v, want the new signature", items)
	}
	verified, err := crypto.Verify(ctx, keymanagement.VerifyRequest{VerifyDataDetails: keymanagement.VerifyDataDetails{
		KeyId: items[0].KmsKeyId, KeyVersionId: items[0].KmsKeyVersionId, Signature: items[0].Signature, Message: items[0].Message,
		SigningAlgorithm: keymanagement.VerifyDataDetailsSigningAlgorithmSha256RsaPkcsPss,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !*verified.IsSignatureValid {
		t.Error("the vault rejects its own signature")
	}

	management := c.management(vault)
	versions, err := management.ListKeyVersions(ctx, keymanagement.ListKeyVersionsRequest{KeyId: &key.ID, Page: nil})
	if err != nil {
		t.Fatal(err)
	}
	_ = versions
	version, err := management.GetKeyVersion(ctx, keymanagement.GetKeyVersionRequest{KeyId: &key.ID, KeyVersionId: common.String(key.Version())})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(key.Public(), publicKey(t, *version.PublicKey), cmp.Comparer(func(a, b *rsa.PublicKey) bool { return a.Equal(b) })); diff != "" {
		t.Error(diff)
	}
}

// listSignatures reads all pages.
func listSignatures(tb testing.TB, c *clients, req artifacts.ListContainerImageSignaturesRequest) []artifacts.ContainerImageSignatureSummary {
	tb.Helper()
	var all []artifacts.ContainerImageSignatureSummary
	for {
		got, err := c.artifacts.ListContainerImageSignatures(context.Background(), req)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, got.Items...)
		if got.OpcNextPage == nil {
			return all
		}
		req.Page = got.OpcNextPage
	}
}
