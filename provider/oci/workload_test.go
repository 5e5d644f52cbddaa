package oci_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oracle/oci-go-sdk/v65/artifacts"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// TestServiceAccountTokenStaysInTheCluster reads calls in the form in which they are
// sent. One function builds all of them, and a signature is their only credential.
// GO-2026-5268, CVE-2026-41323, CVE-2026-40868: a service account's token in a call
// that users can direct.
func TestServiceAccountTokenStaysInTheCluster(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	w := tenancy.NewCluster("prod", "").NewWorkload("oke-sign", "oke-sign")
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{
		Kind: ociauth.KindOKEWorkloadIdentity, Region: "us-ashburn-1",
		Workload: ociauth.Workload{KubernetesHost: w.Host, Dir: w.Dir},
	})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(filepath.Join(w.Dir, "token"))
	if err != nil || len(secret) < 100 {
		t.Fatalf("a service account's token of %d bytes: %v", len(secret), err)
	}
	image := "iad.ocir.io/" + tenancy.Namespace + "/app:v1"
	for name, call := range map[string]struct {
		oci.Call
		request common.OCIRequest
	}{
		"a list": {oci.Call{Method: http.MethodGet, Host: host, Path: "/20160918/container/imageSignatures"},
			artifacts.ListContainerImageSignaturesRequest{CompartmentId: common.String(tenancy.ID), RepositoryName: common.String("app")}},
		"a look-up with a body": {oci.Call{Method: http.MethodPost, Host: host, Path: "/20160918/container/images/actions/lookupImageByUri", Repeatable: true},
			artifacts.LookupContainerImageByUriRequest{LookupContainerImageByUriDetails: artifacts.LookupContainerImageByUriDetails{ImageUri: common.String(image)}}},
		"a key": {oci.Call{Method: http.MethodGet, Host: "v-management.kms.us-ashburn-1.oraclecloud.com", Path: "/20180608/keys/{keyId}"},
			keymanagement.GetKeyRequest{KeyId: common.String("ocid1.key.oc1.iad.v.k")}},
	} {
		t.Run(name, func(t *testing.T) {
			sent, err := oci.Sent(t.Context(), who, call.Call, call.request)
			if err != nil {
				t.Fatal(err)
			}
			head, _, _ := strings.Cut(sent, "\r\n\r\n")
			if strings.Contains(sent, strings.TrimSpace(string(secret))) || strings.Contains(sent, "Bearer") {
				t.Error("the service account's token goes to OCI")
			}
			if n := strings.Count(strings.ToLower(head), "\r\nauthorization:"); n != 1 || !strings.Contains(head, "\r\nAuthorization: Signature ") {
				t.Errorf("%d Authorization headers, want one with a signature:\n%s", n, head)
			}
			for _, other := range []string{"cookie:", "proxy-authorization:", "x-auth"} {
				if strings.Contains(strings.ToLower(head), "\r\n"+other) {
					t.Errorf("a header %s goes to OCI", other)
				}
			}
		})
	}
}
