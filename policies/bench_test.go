package policies_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
	"github.com/oke-sign/oke-sign/policies"
)

// minimal requires only a digest of any kind anywhere in the reference, in containers, init
// containers and ephemeral containers. Other projects have such policies, and no policy on
// digests can cost less.
const minimal = `
apiVersion: templates.gatekeeper.sh/v1
kind: ConstraintTemplate
metadata: {name: minimal}
spec:
  crd: {spec: {names: {kind: Minimal}, validation: {legacySchema: false, openAPIV3Schema: {type: object}}}}
  targets:
    - target: admission.k8s.gatekeeper.sh
      code:
        - engine: Rego
          source:
            version: v1
            rego: |
              package minimal
              violation contains {"msg": msg} if {
                some container in input.review.object.spec.containers
                undigested(container)
                msg := sprintf("container %v: no digest: %v", [container.name, container.image])
              }
              violation contains {"msg": msg} if {
                some container in input.review.object.spec.initContainers
                undigested(container)
                msg := sprintf("init container %v: no digest: %v", [container.name, container.image])
              }
              violation contains {"msg": msg} if {
                some container in input.review.object.spec.ephemeralContainers
                undigested(container)
                msg := sprintf("ephemeral container %v: no digest: %v", [container.name, container.image])
              }
              undigested(container) if {
                not exempt(container)
                not regex.match("@[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+", container.image)
              }
              exempt(container) if {
                some prefix in object.get(object.get(input, "parameters", {}), "exemptImages", [])
                startswith(container.image, prefix)
              }
`

// BenchmarkReview measures the policies in their engine, for a Pod with ten images and with the
// provider's answers in the cache. The templates take turns, so that other load on the machine
// affects all of them. Compare the medians.
func BenchmarkReview(b *testing.B) {
	p := gatekeepertest.Start(b, gatekeepertest.Each(func(string) any { return signed }))
	object := pod(nil)
	containers := make([]any, 10)
	for i := range containers {
		containers[i] = map[string]any{"name": fmt.Sprintf("c%d", i), "image": fmt.Sprintf("iad.ocir.io/ns/repo%d@sha256:%064d", i, i)}
	}
	object.Object["spec"] = map[string]any{"containers": containers}
	template := func(kind string) []byte {
		text, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
		if err != nil {
			b.Fatal(err)
		}
		return text
	}
	templates := []struct {
		kind, parameters string
		template         []byte
		engine           *gatekeeper.Engine
		took             []time.Duration
	}{
		{kind: "Minimal", parameters: `{}`, template: []byte(minimal)},
		{kind: policies.ImageDigests, parameters: `{}`, template: template(policies.ImageDigests)},
		{kind: policies.SignedImages, parameters: `{"keys": ["` + keyA + `"]}`, template: template(policies.SignedImages)},
		{kind: policies.BreakGlass, parameters: `{}`, template: template(policies.BreakGlass)},
	}
	for i := range templates {
		c := &templates[i]
		e, err := gatekeeper.New(gatekeeper.Config{Certificate: p.Certificate, Key: p.Key, Memory: time.Hour})
		if err != nil {
			b.Fatal(err)
		}
		defer e.Close()
		for _, err := range []error{
			e.AddProvider(gatekeeper.Provider{Name: "oke-sign", URL: p.URL, CABundle: p.CA, Timeout: 2 * time.Second}),
			e.AddTemplate(b.Context(), c.template),
			e.AddConstraint(b.Context(), []byte(constraint(c.kind, "c", "deny", c.parameters))),
		} {
			if err != nil {
				b.Fatal(err)
			}
		}
		c.engine = e
	}
	for b.Loop() {
		for i := range templates {
			c := &templates[i]
			began := time.Now()
			d, err := c.engine.Review(b.Context(), create(object))
			c.took = append(c.took, time.Since(began))
			if err != nil || !d.Allowed() {
				b.Fatal(d, err)
			}
		}
	}
	for _, c := range templates {
		slices.Sort(c.took)
		var sum time.Duration
		for _, took := range c.took {
			sum += took
		}
		median := c.took[len(c.took)/2]
		b.ReportMetric(float64(sum.Microseconds())/float64(len(c.took)), c.kind+"_mean-us")
		b.ReportMetric(float64(median.Microseconds()), c.kind+"_median-us")
		b.ReportMetric(float64(median)/float64(templates[0].took[len(c.took)/2]), c.kind+"_to_minimal-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkImages measures whether the time for an object is linear in the number of its
// images. A quadratic policy takes 25 times as long for each of 250 images as for each of 10.
// All answers are in the cache. A denied image costs most, since its violation has a detail.
func BenchmarkImages(b *testing.B) {
	for _, denied := range []bool{false, true} {
		verdict, outcome := any(signed), "admitted"
		if denied {
			verdict, outcome = unsigned, "denied"
		}
		p := gatekeepertest.Start(b, gatekeepertest.Each(func(string) any { return verdict }))
		for _, kind := range kinds {
			e, err := gatekeeper.New(gatekeeper.Config{Certificate: p.Certificate, Key: p.Key, Memory: time.Hour})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			text, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
			if err != nil {
				b.Fatal(err)
			}
			parameters := map[string]string{
				policies.SignedImages: `{"keys": ["` + keyA + `"]}`, policies.ScannedImages: `{}`,
				policies.ImageDigests: `{}`, policies.BreakGlass: `{"requireDigest": true}`,
			}[kind]
			for _, err := range []error{
				e.AddProvider(gatekeeper.Provider{Name: "oke-sign", URL: p.URL, CABundle: p.CA, Timeout: 2 * time.Second}),
				e.AddProvider(gatekeeper.Provider{Name: "oke-sign-scans", URL: p.URL, CABundle: p.CA, Timeout: 2 * time.Second}),
				e.AddTemplate(b.Context(), text),
				e.AddConstraint(b.Context(), []byte(constraint(kind, "c", "deny", parameters))),
			} {
				if err != nil {
					b.Fatal(err)
				}
			}
			for _, n := range []int{10, 100, 250} {
				b.Run(fmt.Sprintf("%s/%s/%d", kind, outcome, n), func(b *testing.B) {
					request := create(podWithImages(n, denied, kind))
					for b.Loop() {
						d, err := e.Review(b.Context(), request)
						if err != nil || len(d.Denied) != map[bool]int{true: n}[denied] {
							b.Fatal(len(d.Denied), err)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "us/image")
				})
			}
		}
	}
}

// podWithImages returns a Pod with n images. They have tags if the policy denies those.
func podWithImages(n int, denied bool, kind string) *unstructured.Unstructured {
	images := make([]string, n)
	for i := range images {
		images[i] = fmt.Sprintf("iad.ocir.io/ns/repo%d@sha256:%064d", i, i)
		if denied && (kind == policies.ImageDigests || kind == policies.BreakGlass) {
			images[i] = fmt.Sprintf("iad.ocir.io/ns/repo%d:1", i)
		}
	}
	if kind == policies.BreakGlass {
		return pod(breakGlass, images...)
	}
	return pod(nil, images...)
}
