package ocitest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/containerengine"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

const identityAPI = "https://identity.us-ashburn-1.oci.oraclecloud.com/20160918/"

// A user's auth token is a password for OCI Registry until it is deleted. Only one
// answer shows it.
func TestAuthTokens(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	user, other := tenancy.Admin(), tenancy.NewUser("other", "Administrators")
	config := common.CustomProfileConfigProvider(user.ConfigFile(), ocitest.ProfileDefault)
	image := tenancy.NewImage("web", "v1")
	ref, err := name.ParseReference(image.Ref())
	if err != nil {
		t.Fatal(err)
	}
	pulls := func(password string) bool {
		_, err := remote.Head(ref, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: tenancy.Namespace + "/admin", Password: password})))
		return err == nil
	}
	of := func(u *ocitest.User) string { return identityAPI + "users/" + u.ID + "/authTokens" }
	post := func() *http.Request {
		return signed(t, config, newRequest(t, "POST", of(user), `{"description":"pull secret"}`))
	}
	var made struct{ ID, Token string }
	receive(t, post(), &made)
	if !pulls(made.Token) || pulls(made.Token+"x") || pulls("") {
		t.Error("the token does not log in, or another one does")
	}
	receive(t, post(), &struct{}{})
	if status, code, _ := send(t, post()); status != 400 || code != "LimitExceeded" {
		t.Errorf("a third: %d %s", status, code)
	}
	if status, _, _ := send(t, signed(t, config, newRequest(t, "POST", of(other), `{"description":"x"}`))); status != 404 {
		t.Errorf("for another user: %d", status)
	}
	var list []struct{ ID, Token string }
	receive(t, signed(t, config, newRequest(t, "GET", of(user), "")), &list)
	if len(list) != 2 || list[0].ID != made.ID || list[0].Token != "" {
		t.Errorf("listed %v, want two without the token itself", list)
	}
	if status, _, why := send(t, signed(t, config, newRequest(t, "DELETE", of(user)+"/"+made.ID, ""))); status != 204 || pulls(made.Token) {
		t.Errorf("deletion: %d (%s); the token still logs in: %t", status, why, pulls(made.Token))
	}
	if strings.Contains(string(cloud.State()), made.Token) {
		t.Error("the state shows an auth token")
	}
}

// The walk-through also reads and changes other settings of a cluster.
func TestClusterWalkThrough(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	cluster := tenancy.NewCluster("demo", "")
	vault := tenancy.NewVault("vault", "")
	client, err := containerengine.NewContainerEngineClientWithConfigurationProvider(common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault))
	if err != nil {
		t.Fatal(err)
	}
	set := func(key string) (containerengine.UpdateClusterResponse, error) {
		return client.UpdateCluster(t.Context(), containerengine.UpdateClusterRequest{ClusterId: &cluster.ID, UpdateClusterDetails: containerengine.UpdateClusterDetails{
			ImagePolicyConfig: &containerengine.UpdateImagePolicyConfigDetails{IsPolicyEnabled: common.Bool(true), KeyDetails: []containerengine.KeyDetails{{KmsKeyId: &key}}},
		}})
	}
	updated, err := set(vault.NewKey("rsa", ocitest.RSA2048).ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := set(vault.NewKey("ec", ocitest.P256).ID); (err == nil) != (tenancy.Switches().ClusterKeys == "any") {
		t.Errorf("an ECDSA key in the policy: %v", err)
	}
	var work []containerengine.WorkRequestSummary
	for page := (*string)(nil); ; {
		got, err := client.ListWorkRequests(t.Context(), containerengine.ListWorkRequestsRequest{CompartmentId: &tenancy.ID, ClusterId: &cluster.ID, Page: page,
			SortBy: containerengine.ListWorkRequestsSortByTimeAccepted, SortOrder: containerengine.ListWorkRequestsSortOrderAsc})
		if err != nil {
			t.Fatal(err)
		}
		work = append(work, got.Items...)
		if page = got.OpcNextPage; page == nil {
			break
		}
	}
	if len(work) == 0 || *work[0].Id != *updated.OpcWorkRequestId || work[0].Status != containerengine.WorkRequestStatusSucceeded {
		t.Errorf("work requests %v", work)
	}
	logs, err := client.ListWorkRequestLogs(t.Context(), containerengine.ListWorkRequestLogsRequest{CompartmentId: &tenancy.ID, WorkRequestId: updated.OpcWorkRequestId})
	if err != nil || len(logs.Items) != 2 {
		t.Errorf("logs %v, %v", logs.Items, err)
	}
	content, err := client.CreateKubeconfig(t.Context(), containerengine.CreateKubeconfigRequest{ClusterId: &cluster.ID,
		CreateClusterKubeconfigContentDetails: containerengine.CreateClusterKubeconfigContentDetails{TokenVersion: common.String("2.0.0")}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(content.Content)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	now := config.Contexts[config.CurrentContext]
	if now == nil || config.Clusters[now.Cluster] == nil || len(config.Clusters[now.Cluster].CertificateAuthorityData) == 0 {
		t.Fatalf("kubeconfig %s", text)
	}
	if exec := config.AuthInfos[now.AuthInfo].Exec; exec == nil || exec.Command != "oci" || !strings.Contains(strings.Join(exec.Args, " "), "--cluster-id "+cluster.ID) {
		t.Errorf("kubeconfig %s", text)
	}
}

// Identifiers, tags and etags have the form in which the walk-through prints them.
func TestIdentifiersOfTheWalkThrough(t *testing.T) {
	t.Parallel()
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	key := tenancy.NewVault("vault", "").NewKey("key", ocitest.RSA2048)
	if !regexp.MustCompile(`^ocid1\.key\.oc1\.[a-z0-9-]+\.[a-z0-9]{13}\.ab[a-z0-9]{58}$`).MatchString(key.ID) {
		t.Errorf("key %s", key.ID)
	}
	form := regexp.MustCompile(`^ocid1\.keyversion\.oc1\.[a-z0-9-]+\.[a-z0-9]{13}\.[a-z0-9]{13}\.ab[a-z0-9]{58}$`)
	if tenancy.Switches().KeyVersionOCID == "vault" && !form.MatchString(key.Version()) {
		t.Errorf("key version %s", key.Version())
	}
	config := common.CustomProfileConfigProvider(tenancy.Admin().ConfigFile(), ocitest.ProfileDefault)
	req := signed(t, config, newRequest(t, "POST", "https://vss-cp-api.us-ashburn-1.oci.oraclecloud.com/20210215/containerScanRecipes",
		`{"compartmentId":"`+tenancy.ID+`","displayName":"scan-recipe","scanSettings":{"scanLevel":"STANDARD"}}`))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var recipe struct {
		DefinedTags map[string]map[string]string
	}
	if err := json.NewDecoder(res.Body).Decode(&recipe); err != nil {
		t.Fatal(err)
	}
	tags := recipe.DefinedTags["Oracle-Tags"]
	if tags["CreatedBy"] != "oracleidentitycloudservice/admin" || !regexp.MustCompile(`^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$`).MatchString(tags["CreatedOn"]) {
		t.Errorf("defined tags %v", recipe.DefinedTags)
	}
	if etag := res.Header.Get("Etag"); !regexp.MustCompile(`^[0-9a-f]{64}$`).MatchString(etag) {
		t.Errorf("etag %q", etag)
	}
}
