// Package soundcluster has the objects of a cluster in which Gatekeeper and oke-sign
// are installed correctly. Tests of commands that read such a cluster use them.
package soundcluster

import (
	_ "embed"
	"encoding/base64"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/pki"
)

// Enforced returns a constraint with the status that Gatekeeper writes after it has loaded
// and audited the constraint, in a sound cluster.
func Enforced(c *unstructured.Unstructured) *unstructured.Unstructured {
	c = c.DeepCopy()
	c.Object["status"] = map[string]any{
		"auditTimestamp": "2026-01-01T00:00:00Z", "totalViolations": int64(0),
		"byPod": []any{map[string]any{"id": "a", "enforced": true, "observedGeneration": c.GetGeneration(), "operations": []any{"webhook"}}},
	}
	return c
}

//go:embed cluster.yaml
var cluster string

// Objects returns the objects of a cluster that enforces the policy: the constraints
// allow key, and the provider answers under name.
func Objects(key, name string) ([]*unstructured.Unstructured, error) {
	authority, err := pki.NewAuthority("provider")
	if err != nil {
		return nil, err
	}
	pair, err := authority.Issue(pki.Leaf{Names: []string{name}, NotAfter: time.Now().Add(30 * time.Hour)})
	if err != nil {
		return nil, err
	}
	objects, err := manifest.Objects([]byte(os.Expand(cluster, func(name string) string {
		return map[string]string{
			"IMAGE_KEY":     key,
			"PROVIDER_CA":   base64.StdEncoding.EncodeToString(authority.PEM()),
			"PROVIDER_CERT": base64.StdEncoding.EncodeToString(pair.Cert),
		}[name]
	})))
	if err == nil {
		var guard *unstructured.Unstructured
		guard, err = manifest.Object(policies.NamespaceLabels)
		objects = append(objects, guard)
	}
	for _, kind := range policies.Kinds() {
		var text []byte
		if err == nil {
			text, err = policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
		}
		if err == nil {
			var template *unstructured.Unstructured
			if template, err = manifest.Object(text); err == nil {
				template.Object["status"] = map[string]any{"created": true}
				objects = append(objects, template)
			}
		}
	}
	return objects, err
}
