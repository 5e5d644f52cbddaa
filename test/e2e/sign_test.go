package e2e_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
)

// Images are signed and verified by the objects that run them, and by manifests before
// these objects exist.
func TestSignByThePlugin(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.enforce(t, standard(signedBy("", imageKey))...)
	unsigned := s.push(t, "unsigned")
	s.applyAll(t, workload("Deployment", "web", unsigned, nil)).succeeds(t)
	plugin := func(stdin string, args ...string) result {
		return run(context.Background(), stdin, "kubectl", append([]string{"oke-sign", "--namespace", s.name}, args...)...)
	}
	plugin("", "verify", "deployment/web-deployment").fails(t, "unsigned", "judged by the cluster's policy: OKESignedImages/"+s.name+"-deny")
	plugin("", "sign", "deployment/web-deployment", "--key", "release-key").succeeds(t)
	plugin("", "verify", "deployment/web-deployment").fails(t, "key-not-allowed")
	plugin("", "sign", "replicasets", "-l", "app=web-deployment", "--key", "image-key").succeeds(t)
	if r := plugin("", "signatures", "replicasets", "-A", "-l", "app=web-deployment", "-o", "json").succeeds(t); !strings.Contains(r.stdout, unsigned) {
		t.Errorf("the ReplicaSet is not found in all namespaces:\n%s%s", r.stdout, r.stderr)
	}
	plugin("", "sign", "deployments", "-l", "app=none", "--key", "image-key").fails(t, "no object found")
	plugin("", "verify", "deployment/web-deployment", "replicasets", "-l", "app=web-deployment").fails(t, "an object is named, and -l or -A would choose others")
	plugin("", "verify", "replicasets", "-l", "app=web-deployment").succeeds(t)
	var images []struct {
		Reference  string
		Signatures []struct{ Holds, Key string }
	}
	r := plugin("", "signatures", "deployment/web-deployment", "-o", "json").succeeds(t)
	if err := json.Unmarshal([]byte(r.stdout), &images); err != nil || len(images) != 1 || images[0].Reference != unsigned || len(images[0].Signatures) != 2 {
		t.Errorf("%v: %s", err, r.stdout)
	}

	// An image that was signed before the first question runs at once.
	next := s.push(t, "next")
	manifest, err := json.Marshal(workload("Deployment", "next", next, nil))
	if err != nil {
		t.Fatal(err)
	}
	plugin(string(manifest), "verify", "-f", "-").fails(t, "unsigned")
	plugin(string(manifest), "sign", "-f", "-", "--key", imageKey.ID).succeeds(t)
	plugin(string(manifest), "verify", "-f", "-").succeeds(t)
	if warned := s.apply(t, string(manifest)).succeeds(t).warnings(); len(warned) > 0 {
		t.Errorf("warnings: %q", warned)
	}
	s.ready(t, soon, "next-deployment", "1/1")
	plugin("", "keys", "list", "-o", "name").succeeds(t).says(t, imageKey.ID, releaseKey.ID)
	plugin("", "keys", "describe", "image-key").succeeds(t).says(t, imageKey.ID, "ENABLED")
}

// The OKE image policy works beside ours, and is imported into ours.
func TestClusterPolicyByThePlugin(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.enforce(t, standard(signedBy("", imageKey))...)
	clusters, err := cloud.Clusters(context.Background())
	if err != nil || clusters["demo"] == "" {
		t.Fatalf("no cluster of OKE: %v, %v", clusters, err)
	}
	policy := func(args ...string) result {
		return okeSign(t, append([]string{"cluster-policy", "--cluster", clusters["demo"]}, args...)...)
	}
	policy("set", "--key", imageKey.ID+","+releaseKey.ID, "--yes").succeeds(t)
	policy("enable", "--yes").succeeds(t)
	t.Cleanup(func() { policy("disable", "--yes").succeeds(t) })
	var is struct {
		Enabled bool
		Keys    []struct{ ID, Usable string }
	}
	r := policy("get", "-o", "json").succeeds(t)
	if err := json.Unmarshal([]byte(r.stdout), &is); err != nil || !is.Enabled || len(is.Keys) != 2 || is.Keys[0].Usable != "yes" {
		t.Errorf("%v: %s", err, r.stdout)
	}
	// Other tests cause other findings at the same time, but this one is always there.
	r = okeSign(t, "doctor", "--cluster", clusters["demo"])
	r.says(t, "OKE image policy", "on as well: a Pod must satisfy both")

	imported := policy("import", "--mode", "dryrun").succeeds(t)
	s.pipe(t, imported.stdout, "apply", "--dry-run=server", "-f", "-").succeeds(t).
		says(t, "okesignedimages.constraints.gatekeeper.sh/oke-cluster-policy created", "okeimagedigests.constraints.gatekeeper.sh/oke-cluster-policy created")
}
