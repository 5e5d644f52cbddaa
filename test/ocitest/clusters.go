package ocitest

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// okeCluster is a cluster of Container Engine. It has only what concerns the OKE
// image policy.
type okeCluster struct {
	born
	Region      string    `json:"region"`
	Compartment string    `json:"compartment"`
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Policy      okePolicy `json:"policy"`
	Work        string    `json:"work,omitempty"` // work request that changes it now
}

type okePolicy struct {
	Enabled bool     `json:"enabled"`
	Keys    []string `json:"keys"`
}

// clusterWork is a change of a cluster. It takes Config.Settle, and has its effect
// at the end.
type clusterWork struct {
	born
	Cluster string    `json:"cluster"`
	Policy  okePolicy `json:"policy"`
	Begins  time.Time `json:"begins"`
	Ends    time.Time `json:"ends"`
	Done    bool      `json:"done"`
}

func clusterRoutes() []route {
	const s = "containerengine"
	return []route{
		to(s, "GET", "/20180222/clusters", "containerengine.ListClusters", (*call).listClusters),
		to(s, "GET", "/20180222/clusters/{id}", "containerengine.GetCluster", (*call).getCluster),
		to(s, "PUT", "/20180222/clusters/{id}", "containerengine.UpdateCluster", (*call).updateCluster).with(202),
		to(s, "POST", "/20180222/clusters/{id}/kubeconfig/content", "containerengine.CreateKubeconfig", (*call).createKubeconfig),
		to(s, "GET", "/20180222/workRequests", "containerengine.ListWorkRequests", (*call).listClusterWork),
		to(s, "GET", "/20180222/workRequests/{id}/logs", "containerengine.ListWorkRequestLogs", (*call).listClusterWorkLogs),
		to(s, "GET", "/20180222/workRequests/{id}", "containerengine.GetWorkRequest", (*call).getClusterWork),
		to(s, "GET", "/20180222/workRequests/{id}/errors", "containerengine.ListWorkRequestErrors", (*call).listClusterWorkErrors),
	}
}

func (w *world) newCluster(region image.Region, compartmentID, name string, sw Switches) *okeCluster {
	c := &okeCluster{
		born:   w.birth(strings.Join([]string{"ocid1.cluster", region.Realm(), regionPart(region, sw), "aaaaaaaa" + w.unique(52)}, ".")),
		Region: region.ID(), Compartment: compartmentID, Name: name, Version: "v1.34.1", Policy: okePolicy{Keys: []string{}},
	}
	w.Clusters[c.ID] = c
	return c
}

// settled returns a cluster after the changes that have ended.
func (c *call) settled(cl *okeCluster) *okeCluster {
	if work := c.ClusterWork[cl.Work]; work != nil && !c.now().Before(work.Ends) {
		cl.Policy, cl.Work, work.Done = work.Policy, "", true
	}
	return cl
}

type clusterSummary struct {
	ID            string          `json:"id"`
	Name          string          `json:"name"`
	CompartmentID string          `json:"compartmentId"`
	Version       string          `json:"kubernetesVersion"`
	State         string          `json:"lifecycleState"`
	ImagePolicy   imagePolicyView `json:"imagePolicyConfig"`
	Type          string          `json:"type"`
}

type imagePolicyView struct {
	Enabled bool            `json:"isPolicyEnabled"`
	Keys    []policyKeyView `json:"keyDetails"`
}

type policyKeyView struct {
	KeyID string `json:"kmsKeyId"`
}

func (c *call) viewCluster(cl *okeCluster) clusterSummary {
	v := clusterSummary{
		ID: cl.ID, Name: cl.Name, CompartmentID: cl.Compartment, Version: cl.Version, State: "ACTIVE", Type: "ENHANCED_CLUSTER",
		ImagePolicy: imagePolicyView{Enabled: cl.Policy.Enabled, Keys: []policyKeyView{}},
	}
	if cl.Work != "" {
		v.State = "UPDATING"
	}
	for _, k := range cl.Policy.Keys {
		v.ImagePolicy.Keys = append(v.ImagePolicy.Keys, policyKeyView{k})
	}
	return v
}

func (c *call) listClusters() (any, error) {
	in, err := c.scope("CLUSTER_INSPECT")
	if err != nil {
		return nil, err
	}
	var found []*okeCluster
	for _, cl := range c.Clusters {
		if cl.Region == c.region.ID() && in(cl.Compartment) && exactly(c.query.Get("name"), cl.Name) {
			found = append(found, c.settled(cl))
		}
	}
	if err := sorted(c, found, func(cl *okeCluster) string { return cl.Name }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]clusterSummary, len(found))
	for i, cl := range found {
		items[i] = c.viewCluster(cl)
	}
	return items, nil
}

func (c *call) findCluster(permission string) (*okeCluster, error) {
	cl, ok := c.Clusters[c.path["id"]]
	if !ok || cl.Region != c.region.ID() {
		return nil, notFound("no cluster " + c.path["id"])
	}
	return c.settled(cl), c.need(permission, cl.Compartment, "target.cluster.id", cl.ID)
}

func (c *call) getCluster() (any, error) {
	cl, err := c.findCluster("CLUSTER_READ")
	if err != nil {
		return nil, err
	}
	return c.tagged(c.viewCluster(cl))
}

// updateCluster changes the OKE image policy. A change replaces the whole policy.
func (c *call) updateCluster() (any, error) {
	cl, err := c.findCluster("CLUSTER_UPDATE")
	if err != nil {
		return nil, err
	}
	var in struct {
		ImagePolicyConfig *struct {
			IsPolicyEnabled bool
			KeyDetails      []struct{ KmsKeyID string }
		}
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.ImagePolicyConfig == nil {
		return nil, invalid("the emulator changes imagePolicyConfig only")
	}
	if err := c.ifMatch(c.viewCluster(cl)); err != nil {
		return nil, err
	}
	if cl.Work != "" {
		return nil, conflict("IncorrectState", "The cluster is UPDATING.")
	}
	policy := okePolicy{Enabled: in.ImagePolicyConfig.IsPolicyEnabled, Keys: []string{}}
	for _, k := range in.ImagePolicyConfig.KeyDetails {
		if !strings.HasPrefix(k.KmsKeyID, "ocid1.key.") {
			return nil, invalid("kmsKeyId: %.80q is no key", k.KmsKeyID)
		}
		if known := c.Keys[k.KmsKeyID]; known != nil && known.Shape.Algorithm == "ECDSA" && c.sw.ClusterKeys == "RSA" {
			return nil, invalid("kmsKeyId: %.120q is a key of algorithm %s", k.KmsKeyID, known.Shape.Algorithm)
		}
		policy.Keys = append(policy.Keys, k.KmsKeyID)
	}
	if len(policy.Keys) > 5 {
		return nil, invalid("keyDetails: at most five keys")
	}
	region := parseRegion(cl.Region)
	settle := c.cloud.cfg.Settle
	work := &clusterWork{
		born:    c.birth(strings.Join([]string{"ocid1.clustersworkrequest", region.Realm(), regionPart(region, c.sw), "aaaaaaaa" + c.unique(52)}, ".")),
		Cluster: cl.ID, Policy: policy, Begins: c.now().Add(settle / 3), Ends: c.now().Add(settle),
	}
	c.ClusterWork[work.ID] = work
	cl.Work = work.ID
	c.out.Set("Opc-Work-Request-Id", work.ID)
	return nil, nil
}

func (c *call) findClusterWork() (*clusterWork, *okeCluster, error) {
	work, ok := c.ClusterWork[c.path["id"]]
	if !ok {
		return nil, nil, notFound("no work request " + c.path["id"])
	}
	cl := c.settled(c.Clusters[work.Cluster])
	return work, cl, c.need("CLUSTER_WORK_REQUEST_READ", cl.Compartment)
}

func (c *call) getClusterWork() (any, error) {
	work, cl, err := c.findClusterWork()
	if err != nil {
		return nil, err
	}
	return c.viewClusterWork(work, cl), nil
}

// viewClusterWork shows the current progress of a cluster's change.
func (c *call) viewClusterWork(work *clusterWork, cl *okeCluster) map[string]any {
	status := "ACCEPTED"
	v := map[string]any{
		"id": work.ID, "operationType": "CLUSTER_UPDATE", "compartmentId": cl.Compartment, "timeAccepted": stamp(work.Created),
		"resources": []map[string]string{{"actionType": "UPDATED", "entityType": "cluster", "identifier": cl.ID}},
	}
	switch now := c.now(); {
	case work.Done:
		status = "SUCCEEDED"
		v["timeStarted"], v["timeFinished"] = stamp(work.Begins), stamp(work.Ends)
	case !now.Before(work.Begins):
		status = "IN_PROGRESS"
		v["timeStarted"] = stamp(work.Begins)
	}
	v["status"] = status
	return v
}

// listClusterWork lists the changes of a compartment's clusters, or of one cluster.
func (c *call) listClusterWork() (any, error) {
	in, err := c.scope("CLUSTER_WORK_REQUEST_INSPECT")
	if err != nil {
		return nil, err
	}
	q := maps.Clone(c.query)
	switch q.Get("sortBy") {
	case "TIME_ACCEPTED": // what other services call by another name
		q.Set("sortBy", "TIMECREATED")
	case "TIMECREATED", "NAME", "DISPLAYNAME":
		return nil, invalid("sortBy: %q", q.Get("sortBy"))
	}
	c.query = q
	var found []*clusterWork
	views := map[string]any{}
	for _, work := range c.ClusterWork {
		cl := c.Clusters[work.Cluster]
		if cl == nil || cl.Region != c.region.ID() || !in(cl.Compartment) || !exactly(q.Get("clusterId"), cl.ID) || !exactly(q.Get("resourceId"), cl.ID) {
			continue
		}
		v := c.viewClusterWork(work, c.settled(cl))
		if states := q["status"]; len(states) == 0 || slices.Contains(states, v["status"].(string)) {
			found, views[work.ID] = append(found, work), v
		}
	}
	if err := sorted(c, found, func(w *clusterWork) string { return w.ID }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]any, len(found))
	for i, work := range found {
		items[i] = views[work.ID]
	}
	return items, nil
}

// listClusterWorkLogs lists what a change has done so far.
func (c *call) listClusterWorkLogs() (any, error) {
	work, _, err := c.findClusterWork()
	if err != nil {
		return nil, err
	}
	items := []map[string]string{}
	add := func(at time.Time, text string) {
		if work.Done || !c.now().Before(at) {
			items = append(items, map[string]string{"message": text, "timestamp": stamp(at)})
		}
	}
	add(work.Begins, "Updating the image verification policy of the cluster.")
	add(work.Ends, "Updated the image verification policy of the cluster.")
	return items, nil
}

// createKubeconfig writes a kubeconfig with which kubectl signs in to a cluster by
// Oracle's command line. No API server runs at the address.
func (c *call) createKubeconfig() (any, error) {
	cl, err := c.findCluster("CLUSTER_USE")
	if err != nil {
		return nil, err
	}
	var in struct{ TokenVersion, Endpoint string }
	if len(c.body) > 0 {
		if err := c.decode(&in); err != nil {
			return nil, err
		}
	}
	if err := oneOf("endpoint", in.Endpoint, "LEGACY_KUBERNETES", "PUBLIC_ENDPOINT", "PRIVATE_ENDPOINT", "VCN_HOSTNAME"); err != nil {
		return nil, err
	}
	if err := oneOf("tokenVersion", in.TokenVersion, "2.0.0"); err != nil {
		return nil, err
	}
	short := "c" + cl.ID[len(cl.ID)-10:]
	return yamlFile(fmt.Sprintf(`---
apiVersion: v1
kind: Config
clusters:
- name: cluster-%[1]s
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: %[2]s
users:
- name: user-%[1]s
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: oci
      args:
      - ce
      - cluster
      - generate-token
      - --cluster-id
      - %[3]s
      - --region
      - %[4]s
      env: []
contexts:
- name: context-%[1]s
  context:
    cluster: cluster-%[1]s
    user: user-%[1]s
current-context: context-%[1]s
`, short, base64.StdEncoding.EncodeToString(c.cloud.ca.pem()), cl.ID, cl.Region)), nil
}

func (c *call) listClusterWorkErrors() (any, error) {
	if _, _, err := c.findClusterWork(); err != nil {
		return nil, err
	}
	return []any{}, nil
}

// Cluster is an OKE cluster.
type Cluster struct {
	ID string

	tenancy *Tenancy
	c       *okeCluster
}

// NewCluster makes a cluster in a compartment, or in the root if compartmentID is
// empty. Its OKE image policy is off.
func (t *Tenancy) NewCluster(name, compartmentID string) *Cluster {
	if compartmentID == "" {
		compartmentID = t.ID
	}
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	cl := c.world.newCluster(t.Region, compartmentID, name, c.switches(c.world, compartmentID))
	return &Cluster{cl.ID, t, cl}
}

// SetImagePolicy changes the cluster's OKE image policy at once, as another
// administrator would.
func (c *Cluster) SetImagePolicy(enabled bool, keys ...string) {
	c.tenancy.cloud.mu.Lock()
	defer c.tenancy.cloud.mu.Unlock()
	c.c.Policy = okePolicy{enabled, append([]string{}, keys...)}
}

// ImagePolicy returns the OKE image policy that the cluster enforces now.
func (c *Cluster) ImagePolicy() (enabled bool, keys []string) {
	c.tenancy.cloud.mu.Lock()
	defer c.tenancy.cloud.mu.Unlock()
	return c.c.Policy.Enabled, slices.Clone(c.c.Policy.Keys)
}
