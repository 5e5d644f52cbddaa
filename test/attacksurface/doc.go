// Package attacksurface lists the requests of a Kubernetes API that can bring an
// image to a node. It also lists those that can change whether an image policy
// applies.
//
// The API server is the source: discovery lists every resource and subresource with its
// verbs, and the OpenAPI documents describe the body of each request. A kind that a
// later Kubernetes adds is recognised by the shape of its schema. So a test that
// attacks every request fails when a new one appears.
//
// A schema shows what a body can hold. It does not show what a controller does with
// plain text. The package assumes that no controller reads a Pod template from a
// ConfigMap or from an annotation.
package attacksurface
