package manifest

import (
	"fmt"
	"maps"
	"strconv"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Image is a place in a pod that names an image, and what stands there.
type Image struct {
	Field string // containers, initContainers, ephemeralContainers or volumes
	Name  string // of the container or volume; its index if it has none
	Ref   string // as written
}

// Place is the image's place in words, as denials name it: "initContainers/wait".
func (i Image) Place() string { return i.Field + "/" + i.Name }

var containerFields = []string{"initContainers", "containers", "ephemeralContainers"}

// Images are the images that an object brings to nodes, by its own spec or by the
// templates of pods in it, in the order in which they stand there. Objects are
// read by their shape, as the policies read them; one without pods has none. A
// list that is none, and a container without an image, are errors.
func Images(object *unstructured.Unstructured) ([]Image, error) {
	var found []Image
	for _, pod := range append([]map[string]any{object.Object}, templates(object)...) {
		spec, ok := pod["spec"].(map[string]any)
		if !ok || !holdsContainers(spec) {
			continue
		}
		for _, field := range append(containerFields, "volumes") {
			list, ok := spec[field].([]any)
			if !ok && spec[field] != nil {
				return nil, fmt.Errorf("%s must be a list", field)
			}
			for i, item := range list {
				image := Image{Field: field, Name: strconv.Itoa(i)}
				holder, ok := item.(map[string]any)
				if !ok {
					return nil, fmt.Errorf("%s must be an object", image.Place())
				}
				if name, ok := holder["name"].(string); ok {
					image.Name = name
				}
				ref := holder["image"]
				if field == "volumes" {
					if ref == nil {
						continue
					}
					volume, _ := ref.(map[string]any)
					ref = volume["reference"]
				}
				if image.Ref, ok = ref.(string); !ok || image.Ref == "" {
					return nil, fmt.Errorf("%s names no image", image.Place())
				}
				found = append(found, image)
			}
		}
	}
	return found, nil
}

func holdsContainers(spec map[string]any) bool {
	for _, field := range containerFields {
		if spec[field] != nil {
			return true
		}
	}
	return false
}

// Pods are the Pods that a workload makes, each as it would be sent: with the
// metadata of its template, and in the workload's namespace. A Pod makes none.
func Pods(object *unstructured.Unstructured) []*unstructured.Unstructured {
	var pods []*unstructured.Unstructured
	for _, template := range templates(object) {
		spec, ok := template["spec"].(map[string]any)
		if _, contains := spec["containers"]; !ok || !contains {
			continue
		}
		pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": spec}}
		if metadata, ok := template["metadata"].(map[string]any); ok {
			pod.Object["metadata"] = maps.Clone(metadata)
		}
		pod.SetName(object.GetName() + "-pod")
		pod.SetNamespace(object.GetNamespace())
		pods = append(pods, pod)
	}
	return pods
}

// templates are the templates of pods in an object, wherever Kubernetes and what
// extends it keep them.
func templates(object *unstructured.Unstructured) []map[string]any {
	var found []map[string]any
	add := func(from map[string]any, path ...string) {
		template, _, _ := unstructured.NestedFieldNoCopy(from, path...)
		if template, ok := template.(map[string]any); ok {
			found = append(found, template)
		}
	}
	add(object.Object, "template")
	add(object.Object, "spec", "template")
	add(object.Object, "spec", "jobTemplate", "spec", "template")
	jobs, _, _ := unstructured.NestedFieldNoCopy(object.Object, "spec", "replicatedJobs") // JobSet
	if jobs, ok := jobs.([]any); ok {
		for _, job := range jobs {
			if job, ok := job.(map[string]any); ok {
				add(job, "template", "spec", "template")
			}
		}
	}
	return found
}
