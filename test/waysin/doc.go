// Package waysin says which requests of a Kubernetes API can bring an image to a
// node, or change whether an image policy looks at it.
//
// It asks the API server itself: discovery lists every resource and subresource with
// its verbs, and the OpenAPI documents say what the body of each request may hold. A
// kind that a later Kubernetes adds is found by the shape of its schema, so a test
// that attacks every way notices when a way is new.
//
// A schema shows what a body can hold. It does not show what a controller does with
// plain text: that no controller reads a Pod template from a ConfigMap or from an
// annotation is knowledge of Kubernetes, which this package takes for granted.
package waysin
