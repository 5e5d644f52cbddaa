// Package manifest reads Kubernetes manifests strictly: the objects in a file, the
// Pods that come of them, and the images that those name. What it cannot read is
// an error and never passed over: behind it an image could hide.
package manifest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	yamlstream "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Object reads one Kubernetes object from YAML or JSON. A field that is there
// twice is an error, and so is a second document.
func Object(text []byte) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	raw, err := document(text)
	if err != nil {
		return nil, err
	}
	if err := object.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	return object, nil
}

// document is the one document of a text, as JSON. The reader that Kubernetes has
// stops at the end of the first and says nothing of what follows: behind a
// separator with a comment, for one, an object would go unseen.
func document(text []byte) ([]byte, error) {
	documents := yamlv3.NewDecoder(bytes.NewReader(text))
	for n := 0; ; n++ {
		err := documents.Decode(new(yamlv3.Node))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if n > 0 {
			return nil, errors.New("more than one document; what separates documents is a line with --- alone")
		}
	}
	return yaml.YAMLToJSONStrict(text)
}

// Objects reads all the objects of a file: documents of YAML or JSON, and lists,
// which are taken apart. Documents without content are left out.
func Objects(text []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	documents := yamlstream.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		part, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err == nil {
			objects, err = read(objects, part)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
}

func read(objects []*unstructured.Unstructured, text []byte) ([]*unstructured.Unstructured, error) {
	raw, err := document(text)
	if err != nil || string(raw) == "null" {
		return objects, err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	return unpacked(objects, object, 0)
}

// maxDepth bounds lists in lists.
const maxDepth = 10

func unpacked(objects []*unstructured.Unstructured, object *unstructured.Unstructured, depth int) ([]*unstructured.Unstructured, error) {
	if !object.IsList() {
		if object.GetKind() == "List" {
			return nil, errors.New("a list without items")
		}
		return append(objects, object), nil
	}
	if depth == maxDepth {
		return nil, errors.New("lists in lists, too many deep")
	}
	items, _, err := unstructured.NestedSlice(object.Object, "items")
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		fields, ok := item.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("item %d is no object", i)
		}
		inner := &unstructured.Unstructured{Object: fields}
		if inner.GetKind() == "" || inner.GetAPIVersion() == "" {
			return nil, fmt.Errorf("item %d has no apiVersion or kind", i)
		}
		if objects, err = unpacked(objects, inner, depth+1); err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
	}
	return objects, nil
}
