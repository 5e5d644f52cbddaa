package policy

import "k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

// Lagging returns the part of Gatekeeper that does not enforce the current
// constraint. It looks only at the asked Pods.
func Lagging(o *unstructured.Unstructured, asked []string) string { return lagging(o, asked) }
