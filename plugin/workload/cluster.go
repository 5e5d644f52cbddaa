package workload

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/pager"
)

// EachObject lists objects page by page, and calls f for each.
func EachObject(ctx context.Context, client dynamic.Interface, of schema.GroupVersionResource, namespace string, options metav1.ListOptions, f func(*unstructured.Unstructured) error) error {
	objects := client.Resource(of).Namespace(namespace)
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return objects.List(ctx, options)
	})
	pages.PageSize = pageSize
	err := pages.EachListItem(ctx, options, func(o runtime.Object) error {
		object, err := meta.Accessor(o)
		if object, ok := object.(*unstructured.Unstructured); ok && err == nil {
			return f(object)
		}
		return errors.Join(err, fmt.Errorf("%T is no object", o))
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", of.Resource, err)
	}
	return nil
}

// Templated returns the resources of workloads from whose templates controllers make Pods.
// Objects that another workload makes, such as ReplicaSets, are not among them.
func Templated() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "statefulsets"},
		{Group: "apps", Version: "v1", Resource: "daemonsets"},
		{Group: "batch", Version: "v1", Resource: "cronjobs"},
	}
}
