package workload

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/pager"

	"github.com/oke-sign/oke-sign/plugin/connect"
)

// pageSize is the number of objects of a list's page, as in kubectl.
const pageSize = 500

// RunningPods returns the running and pending Pods of a namespace, or of all namespaces if
// it is "". Each has only the fields that Slim keeps, because a cluster has thousands.
func RunningPods(ctx context.Context, s *connect.Session, namespace, selector string) ([]Document, error) {
	client, err := s.Kube.Objects()
	if err != nil {
		return nil, err
	}
	var found []Document
	err = EachObject(ctx, client, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, namespace, metav1.ListOptions{
		LabelSelector: selector,
		FieldSelector: "status.phase!=Succeeded,status.phase!=Failed",
	}, func(pod *unstructured.Unstructured) error {
		found = append(found, Document{Object: Slim(pod)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// needed are the fields of a Pod that decide about its images: for constraints, and for
// people.
var needed = map[string][]string{
	"metadata": {"name", "generateName", "namespace", "uid", "labels", "annotations", "ownerReferences", "creationTimestamp", "deletionTimestamp"},
	"spec":     {"initContainers", "containers", "ephemeralContainers", "volumes"},
	"status":   {"phase", "startTime", "initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"},
}

// Slim returns a Pod with the needed fields only, to save memory.
func Slim(pod *unstructured.Unstructured) *unstructured.Unstructured {
	small := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod"}}
	for part, fields := range needed {
		from, _ := pod.Object[part].(map[string]any)
		to := choose(from, fields...)
		for field, value := range to {
			list, ok := value.([]any)
			if !ok {
				continue
			}
			if field == "volumes" { // the volume of a Pod's token has a name that no other Pod has
				list = slices.DeleteFunc(list, imageless)
			}
			for i, item := range list {
				item, ok := item.(map[string]any)
				switch {
				case !ok: // stays, so that its reader fails
				case part == "spec":
					list[i] = choose(item, "name", "image")
				case part == "status":
					list[i] = choose(item, "name", "image", "imageID")
				}
			}
			to[field] = list
		}
		if len(to) > 0 {
			small.Object[part] = to
		}
	}
	if annotations := small.GetAnnotations(); annotations["kubectl.kubernetes.io/last-applied-configuration"] != "" {
		delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
		small.SetAnnotations(annotations)
	}
	return small
}

// imageless reports whether a volume has no image.
func imageless(volume any) bool {
	v, ok := volume.(map[string]any)
	return ok && v["image"] == nil
}

func choose(from map[string]any, fields ...string) map[string]any {
	to := make(map[string]any, len(fields))
	for _, field := range fields {
		if value, ok := from[field]; ok {
			to[field] = value
		}
	}
	return to
}

// between are the owners of Pods that mostly have an owner themselves. People know the
// latter.
var between = map[string]schema.GroupVersionResource{
	"ReplicaSet": {Group: "apps", Version: "v1", Resource: "replicasets"},
	"Job":        {Group: "batch", Version: "v1", Resource: "jobs"},
}

// Workloads returns the workload of each Pod: the Deployment, not its ReplicaSet, or the
// Pod itself if nothing controls it. If the user may not list ReplicaSets or Jobs, it
// returns these. The Pods are of the namespace, or of any namespace if it is "".
func Workloads(ctx context.Context, s *connect.Session, namespace string, pods []Document) ([]ObjectName, error) {
	found := make([]ObjectName, len(pods))
	wanted := make(map[string]map[ObjectName]ObjectName) // by kind
	for i, pod := range pods {
		found[i] = Controller(pod.Object)
		if of, ok := between[found[i].Kind]; ok && of.GroupVersion().String() == found[i].APIVersion {
			if wanted[found[i].Kind] == nil {
				wanted[found[i].Kind] = make(map[ObjectName]ObjectName)
			}
			wanted[found[i].Kind][found[i]] = found[i]
		}
	}
	if len(wanted) == 0 {
		return found, nil
	}
	config, err := s.Kube.ToRESTConfig()
	if err != nil {
		return nil, connect.Unreachable(err)
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, connect.Unreachable(err)
	}
	for kind, owners := range wanted {
		objects := client.Resource(between[kind]).Namespace(namespace)
		pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return objects.List(ctx, options)
		})
		pages.PageSize = pageSize
		err := pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
			object, ok := o.(*metav1.PartialObjectMetadata)
			if !ok {
				return fmt.Errorf("%T is no metadata", o)
			}
			object.SetGroupVersionKind(between[kind].GroupVersion().WithKind(kind))
			if of := NameOf(object); owners[of] == of {
				owners[of] = Controller(object)
			}
			return nil
		})
		if apierrors.IsForbidden(err) {
			s.Remark("you may not list %s: the workload of their Pods is shown as %s", between[kind].Resource, kind)
		} else if err != nil {
			return nil, fmt.Errorf("listing %s: %w", between[kind].Resource, err)
		}
	}
	for i, of := range found {
		if top, ok := wanted[of.Kind][of]; ok {
			found[i] = top
		}
	}
	return found, nil
}

// object is anything with a kind and metadata.
type object interface {
	metav1.Object
	GroupVersionKind() schema.GroupVersionKind
}
