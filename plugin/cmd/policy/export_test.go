package policy

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// Lagging is the part of Gatekeeper, of which Pods are asked, that does not enforce a
// constraint as it is now.
func Lagging(o *unstructured.Unstructured, asked []string) string { return lagging(o, asked) }
