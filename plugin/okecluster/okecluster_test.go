package okecluster_test

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

var cloud *ocitest.Cloud

func TestMain(m *testing.M) { os.Exit(ocitest.Main(m, &cloud)) } //nolint:forbidigo // a test's main

func client(t *testing.T, user *ocitest.User) *okecluster.Client {
	t.Helper()
	who, err := ociauth.SignIn(t.Context(), ociauth.Config{ConfigFile: user.ConfigFile()})
	if err != nil {
		t.Fatal(err)
	}
	return okecluster.New(who)
}

func TestUpdate(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	made := tenancy.NewCluster("prod", "")
	key, err := signature.ParseKeyID(tenancy.NewVault("v", "").NewKey("k", ocitest.AES256).ID)
	if err != nil {
		t.Fatal(err)
	}
	id, err := okecluster.ParseID(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, tenancy.Admin())
	before, err := c.Cluster(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if before.Name != "prod" || before.State != "ACTIVE" || !before.Policy.Equal(okecluster.Policy{}) {
		t.Errorf("got %+v", before)
	}

	want := okecluster.Policy{Enabled: true, Keys: []signature.KeyID{key}}
	cloud.SetSettle(time.Hour)
	work, err := c.Update(t.Context(), before, want)
	cloud.SetSettle(0)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Work(t.Context(), id, work); err != nil || got.Status != "ACCEPTED" || got.Over() {
		t.Errorf("work under way: %+v, %v", got, err)
	}
	during, err := c.Cluster(t.Context(), id)
	if err != nil || during.State != "UPDATING" || during.Policy.Enabled {
		t.Errorf("during the update: %+v, %v", during, err)
	}
	// A policy that was read before another user's change cannot undo the change.
	if _, err := c.Update(t.Context(), before, okecluster.Policy{}); !errors.Is(err, okecluster.ErrChanged) {
		t.Errorf("an update of a changed policy: %v", err)
	}

	other := tenancy.NewCluster("other", "")
	other.SetImagePolicy(true, key.String())
	id, err = okecluster.ParseID(other.ID)
	if err != nil {
		t.Fatal(err)
	}
	now, err := c.Cluster(t.Context(), id)
	if err != nil || !now.Policy.Equal(want) {
		t.Fatalf("got %+v, %v", now, err)
	}
	// An update without keys differs from an update that does not mention keys.
	work, err = c.Update(t.Context(), now, okecluster.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Work(t.Context(), id, work); err != nil || got.Status != "ACCEPTED" && got.Status != "SUCCEEDED" {
		t.Errorf("got %+v, %v", got, err)
	}
	now, err = c.Cluster(t.Context(), id)
	if err != nil || !now.Policy.Equal(okecluster.Policy{}) {
		t.Errorf("got %+v, %v", now, err)
	}

	tenancy.Fault(ocitest.Fault{Kind: ocitest.Set, Operation: "containerengine.GetWorkRequest", Set: map[string]any{"status": "FAILED"}})
	tenancy.Fault(ocitest.Fault{Kind: ocitest.Body, Operation: "containerengine.ListWorkRequestErrors", Body: `[{"code":"Throttled","message":"later\u001b[2J"}]`})
	if got, err := c.Work(t.Context(), id, work); err != nil || !got.Failed() || len(got.Errors) != 1 || got.Errors[0] != "Throttled: later?[2J" {
		t.Errorf("got %+v, %v", got, err)
	}

	nobody := client(t, tenancy.NewUser("nobody"))
	if _, err := nobody.Cluster(t.Context(), id); !errors.Is(err, okecluster.ErrNotFound) {
		t.Errorf("without a right: %v", err)
	}
}

func TestParseID(t *testing.T) {
	for _, s := range []string{"ocid1.cluster.oc1.iad.aaaa", "ocid1.cluster.oc1.us-ashburn-1.aaaa", "ocid1.cluster.oc3.us-gov-ashburn-1.aaaa"} {
		if id, err := okecluster.ParseID(s); err != nil || id.String() != s {
			t.Errorf("%q: %v, %v", s, id, err)
		}
	}
	for _, s := range []string{"", "ocid1.cluster", "ocid1.cluster.oc1..aaaa", "ocid1.cluster.oc1.nowhere.aaaa", "ocid1.cluster.oc2.iad.aaaa", "ocid1.key.oc1.iad.aaaa",
		"ocid1.cluster.oc1.iad.", "ocid1.cluster.oc1.iad.a/../b", "ocid1.cluster.oc1.iad.a.b"} {
		if id, err := okecluster.ParseID(s); err == nil || id != (okecluster.ID{}) {
			t.Errorf("%q: %v, %v", s, id, err)
		}
	}
}
