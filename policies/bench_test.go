package policies_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/oke-sign/oke-sign/plugin/gate"
	"github.com/oke-sign/oke-sign/plugin/gate/gatetest"
	"github.com/oke-sign/oke-sign/policies"
)

// The Pod has ten images, and the provider's answers are remembered, so what is
// measured is the policy and the engine around it.
func BenchmarkReview(b *testing.B) {
	p := gatetest.Start(b, gatetest.Each(func(string) any { return map[string]any{"signed": true} }))
	containers := make([]string, 10)
	for i := range containers {
		containers[i] = fmt.Sprintf("{name: c%d, image: 'iad.ocir.io/ns/repo%d@sha256:%064d'}", i, i, i)
	}
	pod, err := gate.Object([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [" + strings.Join(containers, ", ") + "]}"))
	if err != nil {
		b.Fatal(err)
	}
	for kind, parameters := range map[string]string{
		policies.SignedImages: `{"keys": ["ocid1.key.oc1.iad.b5q4c5lnaahik.` + strings.Repeat("a", 60) + `"]}`,
		policies.ImageDigests: `{}`,
		policies.BreakGlass:   `{}`,
	} {
		b.Run(kind, func(b *testing.B) {
			e, err := gate.New(gate.Config{Certificate: p.Certificate, Key: p.Key, Memory: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			template, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
			if err != nil {
				b.Fatal(err)
			}
			for _, err := range []error{
				e.AddProvider(gate.Provider{Name: "oke-sign", URL: p.URL, CABundle: p.CA, Timeout: 2 * time.Second}),
				e.AddTemplate(b.Context(), template),
				e.AddConstraint(b.Context(), []byte(`{"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "`+kind+
					`", "metadata": {"name": "x"}, "spec": {"parameters": `+parameters+`}}`)),
			} {
				if err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				d, err := e.Review(b.Context(), gate.Request{Operation: admissionv1.Create, Object: pod})
				if err != nil || !d.Allowed() {
					b.Fatal(d, err)
				}
			}
		})
	}
}
