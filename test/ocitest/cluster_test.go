package ocitest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/common/auth"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// The SDK's own way to a workload's token, unmodified.
func TestWorkload(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	w := tenancy.NewUser("pod").NewWorkload()
	t.Setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "2.2")
	t.Setenv("OCI_RESOURCE_PRINCIPAL_REGION", "us-ashburn-1")
	t.Setenv("OCI_KUBERNETES_SERVICE_ACCOUNT_CERT_PATH", filepath.Join(w.Dir, "ca.crt"))
	t.Setenv("KUBERNETES_SERVICE_HOST", w.Host)
	tokens := auth.NewDefaultServiceAccountTokenProvider().WithSaTokenPath(filepath.Join(w.Dir, "token"))
	config, err := auth.OkeWorkloadIdentityConfigurationProviderWithServiceAccountTokenProvider(tokens)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := config.TenancyOCID(); err != nil || got != tenancy.ID {
		t.Errorf("its tenancy is %s, %v; want %s", got, err, tenancy.ID)
	}
	got, err := clientsOf(t, config).storage.GetNamespace(t.Context(), objectstorage.GetNamespaceRequest{})
	if err != nil || *got.Value != tenancy.Namespace {
		t.Errorf("got %v, %v", got.Value, err)
	}
	old, err := os.ReadFile(filepath.Join(w.Dir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	w.Rotate()
	if err := os.WriteFile(filepath.Join(w.Dir, "token"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	if config, err := auth.OkeWorkloadIdentityConfigurationProviderWithServiceAccountTokenProvider(tokens); err == nil {
		if id, err := config.KeyID(); err == nil {
			t.Errorf("a token that does not hold was taken: %s", id)
		}
	}
}

// An instance and a resource as Oracle's own client is one.
func TestInstanceAndResource(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	i := tenancy.Admin().NewInstance()
	t.Setenv("OCI_METADATA_BASE_URL", i.MetadataURL)
	instance, err := auth.InstancePrincipalConfigurationProvider()
	if err != nil {
		t.Fatal(err)
	}
	r := tenancy.Admin().NewResource(time.Hour)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_VERSION", "2.2")
	t.Setenv("OCI_RESOURCE_PRINCIPAL_RPST", r.Token)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_PRIVATE_PEM", r.Key)
	t.Setenv("OCI_RESOURCE_PRINCIPAL_REGION", r.Region)
	resource, err := auth.ResourcePrincipalConfigurationProvider()
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]common.ConfigurationProvider{"instance": instance, "resource": resource} {
		if got, err := config.TenancyOCID(); err != nil || got != tenancy.ID {
			t.Errorf("%s: of tenancy %s, %v", name, got, err)
		}
		got, err := clientsOf(t, config).storage.GetNamespace(t.Context(), objectstorage.GetNamespaceRequest{})
		if err != nil || *got.Value != tenancy.Namespace {
			t.Errorf("%s: got %v, %v", name, got.Value, err)
		}
	}
	if n := tenancy.Calls()["auth.FederateX509"]; n != 1 {
		t.Errorf("%d exchanges", n)
	}
}
