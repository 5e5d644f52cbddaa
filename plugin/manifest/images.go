package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Image is a place in a Pod that names an image, and the reference there.
type Image struct {
	Field string // containers, initContainers, ephemeralContainers or volumes
	Name  string // of the container or volume; its index if it has none
	Ref   string // as written
}

// Place returns the place in the form of denials: "initContainers/wait".
func (i Image) Place() string { return i.Field + "/" + i.Name }

var containerFields = []string{"initContainers", "containers", "ephemeralContainers"}

// Images returns the images that an object brings to nodes, in their order in the
// object: those in its spec, or in its Pod templates. It reads objects by their
// shape, as the policies do. An object without Pods has no images. A field that
// should be a list, and a container without an image, are errors.
func Images(object *unstructured.Unstructured) ([]Image, error) {
	found, err := places(object.Object)
	if err != nil {
		return nil, err
	}
	images := make([]Image, len(found))
	for i, p := range found {
		if p.Ref == "" {
			return nil, fmt.Errorf("%s names no image", p.Place())
		}
		images[i] = p.Image
	}
	return images, nil
}

// place is a place in an object that may name an image. If it names none, the
// reference is empty.
type place struct {
	Image
	path []any // from the object: field names and item numbers
}

func places(object map[string]any) ([]place, error) {
	var found []place
	for _, t := range append([]template{{nil, object}}, templates(object)...) {
		spec, ok := t.pod["spec"].(map[string]any)
		if !ok || !holdsContainers(spec) {
			continue
		}
		for _, field := range append(containerFields, "volumes") {
			list, ok := spec[field].([]any)
			if !ok && spec[field] != nil {
				return nil, fmt.Errorf("%s must be a list", field)
			}
			for i, item := range list {
				p := place{Image{Field: field, Name: strconv.Itoa(i)}, below(t.path, "spec", field, i, "image")}
				holder, ok := item.(map[string]any)
				if !ok {
					return nil, fmt.Errorf("%s must be an object", p.Place())
				}
				if name, ok := holder["name"].(string); ok {
					p.Name = name
				}
				ref := holder["image"]
				if field == "volumes" {
					if ref == nil {
						continue
					}
					volume, ok := ref.(map[string]any)
					if !ok {
						return nil, fmt.Errorf("%s names no image", p.Place())
					}
					ref, p.path = volume["reference"], below(p.path, "reference")
				}
				if p.Ref, ok = ref.(string); !ok && ref != nil {
					return nil, fmt.Errorf("%s names no image", p.Place())
				}
				found = append(found, p)
			}
		}
	}
	return found, nil
}

// Overlooked returns a field with a list of containers that Images does not read,
// such as "spec.headGroupSpec.template.spec.containers". Workloads of other projects
// may have Pod templates in any field. It returns the first such field by name, or
// "".
func Overlooked(object *unstructured.Unstructured) string {
	var read [][]any
	for _, t := range append([]template{{nil, object.Object}}, templates(object.Object)...) {
		for _, field := range containerFields {
			read = append(read, below(t.path, "spec", field))
		}
	}
	var all []string
	var walk func(value any, path []any)
	walk = func(value any, path []any) {
		switch value := value.(type) {
		case map[string]any:
			for field, v := range value {
				at := below(path, field)
				isRead := func(path []any) bool { return slices.Equal(path, at) }
				if slices.Contains(containerFields, field) && namesImages(v) && !slices.ContainsFunc(read, isRead) {
					all = append(all, dotted(at))
				}
				walk(v, at)
			}
		case []any:
			for i, v := range value {
				walk(v, below(path, i))
			}
		}
	}
	walk(object.Object, nil)
	if len(all) == 0 {
		return ""
	}
	return slices.Min(all)
}

// namesImages reports whether a value is a list with an image in one of its items.
func namesImages(value any) bool {
	list, _ := value.([]any)
	return slices.ContainsFunc(list, func(item any) bool {
		container, _ := item.(map[string]any)
		return container["image"] != nil
	})
}

func dotted(path []any) string {
	steps := make([]string, len(path))
	for i, step := range path {
		steps[i] = fmt.Sprint(step)
	}
	return strings.Join(steps, ".")
}

// below returns a copy of path with more steps.
func below(path []any, steps ...any) []any { return append(slices.Clip(path), steps...) }

func holdsContainers(spec map[string]any) bool {
	for _, field := range containerFields {
		if spec[field] != nil {
			return true
		}
	}
	return false
}

// Pods returns the Pods that a workload creates, as they would be sent: with the
// metadata of the template, and in the workload's namespace. A Pod creates none.
func Pods(object *unstructured.Unstructured) []*unstructured.Unstructured {
	var pods []*unstructured.Unstructured
	for _, t := range templates(object.Object) {
		spec, ok := t.pod["spec"].(map[string]any)
		if _, contains := spec["containers"]; !ok || !contains {
			continue
		}
		pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": spec}}
		if metadata, ok := t.pod["metadata"].(map[string]any); ok {
			pod.Object["metadata"] = maps.Clone(metadata)
		}
		pod.SetName(object.GetName() + "-pod")
		pod.SetNamespace(object.GetNamespace())
		pods = append(pods, pod)
	}
	return pods
}

// template is a Pod template and its path in the object.
type template struct {
	path []any
	pod  map[string]any
}

// templates returns the Pod templates of an object, in the fields of Kubernetes and
// of its extensions.
func templates(object map[string]any) []template {
	var found []template
	add := func(from map[string]any, path []any, fields ...string) {
		pod, _, _ := unstructured.NestedFieldNoCopy(from, fields...)
		if pod, ok := pod.(map[string]any); ok {
			for _, field := range fields {
				path = below(path, field)
			}
			found = append(found, template{path, pod})
		}
	}
	add(object, nil, "template")
	add(object, nil, "spec", "template")
	add(object, nil, "spec", "jobTemplate", "spec", "template")
	jobs, _, _ := unstructured.NestedFieldNoCopy(object, "spec", "replicatedJobs") // JobSet
	if jobs, ok := jobs.([]any); ok {
		for i, job := range jobs {
			if job, ok := job.(map[string]any); ok {
				add(job, []any{"spec", "replicatedJobs", i}, "template", "spec", "template")
			}
		}
	}
	return found
}

// PodMetadata returns the path of the metadata that the Pods get: that of a Pod, or
// that of a workload's template. An object with several templates, or with none, has
// no such path.
func PodMetadata(object *unstructured.Unstructured) ([]string, bool) {
	if spec, ok := object.Object["spec"].(map[string]any); ok && holdsContainers(spec) {
		return []string{"metadata"}, true
	}
	found := templates(object.Object)
	if len(found) != 1 {
		return nil, false
	}
	var path []string
	for _, step := range below(found[0].path, "metadata") {
		field, ok := step.(string)
		if !ok {
			return nil, false
		}
		path = append(path, field)
	}
	return path, true
}
