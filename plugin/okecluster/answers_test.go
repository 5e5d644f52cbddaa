package okecluster_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/test/ocitest"
)

// TestBadAnswers rejects answers that are not about the cluster that was asked for.
func TestBadAnswers(t *testing.T) {
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	made := tenancy.NewCluster("prod", "")
	id, err := okecluster.ParseID(made.ID)
	if err != nil {
		t.Fatal(err)
	}
	c := client(t, tenancy.Admin())
	for name, set := range map[string]map[string]any{
		"another cluster":       {"id": "ocid1.cluster.oc1.iad.other"},
		"no state":              {"lifecycleState": ""},
		"a key without an OCID": {"imagePolicyConfig": map[string]any{"isPolicyEnabled": true, "keyDetails": []any{map[string]any{}}}},
		"a key that is no key":  {"imagePolicyConfig": map[string]any{"isPolicyEnabled": true, "keyDetails": []any{map[string]any{"kmsKeyId": "image-key"}}}},
	} {
		tenancy.Fault(ocitest.Fault{Kind: ocitest.Set, Operation: "containerengine.GetCluster", Set: set, Count: 1})
		if got, err := c.Cluster(t.Context(), id); !oci.IsMalformed(err) || got.Name != "" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	// A policy with one key too many is not sent, and neither is a change of a cluster
	// that nobody has read.
	key, err := signature.ParseKeyID("ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a")
	if err != nil {
		t.Fatal(err)
	}
	many := okecluster.Policy{Enabled: true, Keys: slices.Repeat([]signature.KeyID{key}, okecluster.MaxKeys+1)}
	for want, policy := range map[string]okecluster.Policy{"5 at most": many, "etag": {}} {
		if _, err := c.Update(t.Context(), okecluster.Cluster{ID: id}, policy); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := c.Cluster(t.Context(), okecluster.ID{}); err == nil {
		t.Error("no cluster was read")
	}
}
