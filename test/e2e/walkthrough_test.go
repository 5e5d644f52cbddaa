package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oke-sign/oke-sign/policies"
)

// nginx returns the Deployment of Oracle's walk-through.
func nginx(name, image string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
spec:
  selector:
    matchLabels:
      app: %[1]s
  replicas: 3
  template:
    metadata:
      labels:
        app: %[1]s
    spec:
      containers:
      - name: nginx
        image: %s
        ports:
        - containerPort: 80
      imagePullSecrets:
      - name: ocirsecret
`, name, image)
}

// TestWalkThrough follows Oracle's walk-through: an unsigned image is deployed and does
// not run, and a signed one runs.
func TestWalkThrough(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.enforce(t, append(standard(signedBy("", imageKey)), constraint{kind: policies.ImageDigests, on: pods})...)

	s.apply(t, nginx("unsigned-nginx", dockerHub)).succeeds(t).
		says(t, "deployment.apps/unsigned-nginx created", "Warning: ", "containers/nginx: not-oci-registry: ")
	unsigned := s.push(t, "unsigned")
	s.apply(t, nginx("unsigned-scan-test", unsigned)).succeeds(t).
		says(t, "deployment.apps/unsigned-scan-test created", "Warning: ", "containers/nginx: unsigned: ", unsigned)
	s.fails(t, "ReplicaSet", "unsigned-nginx-", "containers/nginx: not-oci-registry: ", "containers/nginx: no-digest: ")
	s.fails(t, "ReplicaSet", "unsigned-scan-test-", "containers/nginx: unsigned: ")

	image := s.push(t, "scan-test")
	okeSign(t, "sign", byTag(image), "--resolve", "--key", "image-key", "--description", "image-sign demo").succeeds(t)
	okeSign(t, "signatures", byTag(image)).succeeds(t).says(t, "image-sign demo", image[strings.Index(image, "@")+1:])
	okeSign(t, "verify", image, "--key", imageKey.ID).succeeds(t).says(t, "signed")
	r := s.apply(t, nginx("signed-nginx", image)).succeeds(t).says(t, "deployment.apps/signed-nginx created")
	if w := r.warnings(); len(w) > 0 {
		t.Errorf("warnings %q; want none", w)
	}
	s.ready(t, soon, "signed-nginx", "3/3")
	s.ready(t, soon, "unsigned-nginx", "0/3")
	s.ready(t, soon, "unsigned-scan-test", "0/3")

	// After signing, the Deployment comes up without another action. Its denial
	// expires after a minute, and its controller retries up to a minute later.
	okeSign(t, "sign", unsigned, "--key", "image-key").succeeds(t)
	s.ready(t, 4*time.Minute, "unsigned-scan-test", "3/3")
}

// ready waits until kubectl shows that many ready Pods of a Deployment.
func (s space) ready(t *testing.T, within time.Duration, deployment, want string) {
	t.Helper()
	eventually(t, within, deployment+" is "+want, func() error {
		got := strings.Fields(s.kubectl(t, "get", "deployment", deployment, "--no-headers").succeeds(t).stdout)
		if len(got) < 2 || got[1] != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}
