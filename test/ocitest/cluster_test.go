package ocitest_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/common/auth"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

// The SDK's unmodified client signs in as a workload.
func TestWorkload(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	w := tenancy.NewCluster("prod", "").NewWorkload("apps", "pod")
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
			t.Errorf("an invalid service account token was accepted: %s", id)
		}
	}
}

// Oracle's own client signs in as an instance and as a resource.
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

// vouched is a workload with a key of the test. Its token comes from the emulator's
// page for clusters.
type vouched struct {
	common.ConfigurationProvider
	token string
	key   *rsa.PrivateKey
}

func (v vouched) KeyID() (string, error)                  { return v.token, nil }
func (v vouched) PrivateRSAKey() (*rsa.PrivateKey, error) { return v.key, nil }

func vouch(t *testing.T, tenancy, cluster, namespace, account string) vouched {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	status, answer := askForWorkload(t, map[string]string{"cluster": cluster, "namespace": namespace, "serviceAccount": account, "podKey": podKey(t, &key.PublicKey)})
	var text string
	if err := json.Unmarshal(answer, &text); status != http.StatusOK || err != nil {
		t.Fatalf("%d %s", status, answer)
	}
	inner, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	var in struct{ Token string }
	if err := json.Unmarshal(inner, &in); err != nil {
		t.Fatalf("%s: %v", inner, err)
	}
	return vouched{common.NewRawConfigurationProvider(tenancy, "nobody", "us-ashburn-1", "none", "", nil), in.Token, key}
}

func podKey(t *testing.T, public any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func askForWorkload(t *testing.T, in any) (int, []byte) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(newRequest(t, "POST", cloud.URL()+"/_emulator/workloads", string(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}

// A workload has the rights of statements about workloads. It has no rights of
// users, groups or other workloads.
func TestWorkloadRights(t *testing.T) {
	t.Parallel()
	const all = " to manage all-resources in tenancy"
	of := func(cluster, namespace, account string) string {
		return "Allow any-user" + all + " where all {request.principal.type = 'workload', request.principal.namespace = '" + namespace +
			"', request.principal.service_account = '" + account + "', request.principal.cluster_id = '" + cluster + "'}"
	}
	for name, test := range map[string]struct {
		statement func(cluster, other string) string
		want      bool
	}{
		"no statement":        {func(string, string) string { return "" }, false},
		"its own":             {func(c, _ string) string { return of(c, "apps", "pod") }, true},
		"another account's":   {func(c, _ string) string { return of(c, "apps", "other") }, false},
		"another namespace's": {func(c, _ string) string { return of(c, "other", "pod") }, false},
		"of another cluster":  {func(_, o string) string { return of(o, "apps", "pod") }, false},
		"any workload's": {func(string, string) string {
			return "Allow any-user" + all + " where request.principal.type = 'workload'"
		}, true},
		"a cluster's": {func(string, string) string {
			return "Allow any-user" + all + " where request.principal.type = 'cluster'"
		}, false},
		"any user's, except one":       {func(string, string) string { return "Allow any-user" + all + " where request.user.id != 'x'" }, false},
		"a user's, with the same name": {func(string, string) string { return "Allow user 'workload apps/pod'" + all }, false},
		"a user's, with the same OCID": {func(c, _ string) string { return "Allow user id '" + c + "/apps/pod'" + all }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{Switches: with(func(s *ocitest.Switches) { s.ListDenied = "404" })})
			cluster, other := tenancy.NewCluster("prod", tenancy.NewCompartment("in", "")), tenancy.NewCluster("other", "")
			if s := test.statement(cluster.ID, other.ID); s != "" {
				tenancy.Allow(s)
			}
			c := clientsOf(t, vouch(t, tenancy.ID, cluster.ID, "apps", "pod"))
			got, err := c.storage.GetNamespace(t.Context(), objectstorage.GetNamespaceRequest{})
			if err != nil || *got.Value != tenancy.Namespace {
				t.Errorf("its namespace, which every caller may read: %v, %v", got.Value, err)
			}
			want := "NotAuthorizedOrNotFound"
			if test.want {
				want = ""
			}
			_, err = c.artifacts.ListContainerImages(t.Context(), artifacts.ListContainerImagesRequest{CompartmentId: &tenancy.ID})
			if got := code(t, err); got != want {
				t.Errorf("listing images: code %q, want %q", got, want)
			}
		})
	}
}

// The page says why it rejects a workload.
func TestWorkloadsRejected(t *testing.T) {
	t.Parallel()
	cluster := cloud.NewTenancy(t, ocitest.TenancyConfig{}).NewCluster("prod", "").ID
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := podKey(t, &key.PublicKey)
	for name, test := range map[string]struct {
		cluster, namespace, account, podKey, says string
	}{
		"another tenancy's cluster": {"ocid1.cluster.oc1.iad.aaaa", "apps", "pod", good, "in a cluster"},
		"no namespace":              {cluster, "", "pod", good, "no service account"},
		"no account":                {cluster, "apps", "", good, "no service account"},
		"no key":                    {cluster, "apps", "pod", "", "podKey is no PEM"},
		"half a key":                {cluster, "apps", "pod", "-----BEGIN PUBLIC KEY-----\naGVsbG8=\n-----END PUBLIC KEY-----\n", "podKey: "},
		"another key than RSA":      {cluster, "apps", "pod", podKey(t, &small.PublicKey), "no RSA key"},
	} {
		status, answer := askForWorkload(t, map[string]string{"cluster": test.cluster, "namespace": test.namespace, "serviceAccount": test.account, "podKey": test.podKey})
		if status != http.StatusBadRequest || !strings.Contains(string(answer), test.says) {
			t.Errorf("%s: %d %s, want 400 and %q", name, status, answer, test.says)
		}
	}
	if status, answer := askForWorkload(t, map[string]string{"user": "admin"}); status != http.StatusBadRequest || !strings.Contains(string(answer), "unknown field") {
		t.Errorf("%d %s", status, answer)
	}
}
