package enforcement

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

// Names of Gatekeeper's chart that its code relies on.
const (
	WebhookConfiguration = "gatekeeper-validating-webhook-configuration"
	ValidationWebhook    = "validation.gatekeeper.sh"
	IgnoreLabel          = "admission.gatekeeper.sh/ignore"
)

// ActsAt reports whether a constraint takes an action, such as deny, at admission.
func ActsAt(c unstructured.Unstructured, what string) bool {
	action, _, _ := unstructured.NestedString(c.Object, "spec", "enforcementAction")
	if action != "scoped" {
		return cmp.Or(action, "deny") == what
	}
	scoped, _, _ := unstructured.NestedSlice(c.Object, "spec", "scopedEnforcementActions")
	for _, s := range scoped {
		s, _ := s.(map[string]any)
		points, _, _ := unstructured.NestedSlice(s, "enforcementPoints")
		for _, p := range points {
			p, _ := p.(map[string]any)
			if s["action"] == what && (p["name"] == "*" || p["name"] == ValidationWebhook) {
				return true
			}
		}
	}
	return false
}

// MatchesKind reports whether a constraint may match objects of a kind.
func MatchesKind(c unstructured.Unstructured, group, kind string) bool {
	list, _, _ := unstructured.NestedSlice(c.Object, "spec", "match", "kinds")
	if len(list) == 0 {
		return true
	}
	for _, item := range list {
		item, _ := item.(map[string]any)
		groups, _, _ := unstructured.NestedStringSlice(item, "apiGroups")
		kinds, _, _ := unstructured.NestedStringSlice(item, "kinds")
		if (len(groups) == 0 || slices.Contains(groups, "*") || slices.Contains(groups, group)) &&
			(len(kinds) == 0 || slices.Contains(kinds, "*") || slices.Contains(kinds, kind)) {
			return true
		}
	}
	return false
}

// ListConstraints lists the constraints of a kind. A kind that is not installed has no
// constraints.
func ListConstraints(ctx context.Context, s *connect.Session, kind string) ([]workload.Document, error) {
	list, err := List(ctx, s, Resource(kind))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing constraints of kind %s: %w", kind, err)
	}
	found := make([]workload.Document, len(list))
	for i := range list {
		found[i] = workload.Document{File: "the cluster", Object: &list[i]}
	}
	return found, nil
}

// List lists all objects of a kind, page by page.
func List(ctx context.Context, s *connect.Session, of schema.GroupVersionResource) ([]unstructured.Unstructured, error) {
	client, err := s.Kube.Objects()
	if err != nil {
		return nil, err
	}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.Resource(of).List(ctx, options)
	})
	var found []unstructured.Unstructured
	err = pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		if o, ok := o.(*unstructured.Unstructured); ok {
			found = append(found, *o)
		}
		return nil
	})
	return found, err
}

// Values of OKEScannedImages' parameter unknown: what happens to an image without a
// known scan.
const DenyUnknown, AllowUnknown = "Deny", "Allow"

// Resource returns the resource of a kind of constraints.
func Resource(kind string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: constraint.Group, Version: constraint.Version, Resource: constraint.Resource(kind)}
}

// Enforces reports whether a Pod of Gatekeeper answers the API server, by its entry in a
// status. The audit's Pod loads the same objects and denies nothing, and it is often the
// first to report them.
func Enforces(pod any) bool {
	of, _ := pod.(map[string]any)
	operations, said, _ := unstructured.NestedStringSlice(of, "operations")
	return !said || slices.Contains(operations, "webhook")
}
