// Package manifest reads Kubernetes manifests strictly: the objects in a file, the
// Pods that they create, and the images of those Pods. Everything that it cannot
// read is an error, because an image could hide behind it.
package manifest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	yamlstream "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Object reads one Kubernetes object from YAML or JSON. A repeated field is an
// error, and so is a second document.
func Object(text []byte) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	if _, err := document(text, object.UnmarshalJSON); err != nil {
		return nil, err
	}
	return object, nil
}

// document decodes the only document of a text from JSON, and then makes its nodes.
// The nodes take the most memory. Kubernetes' own reader stops silently at the end
// of the first document. After a separator with a comment, for example, it would
// miss an object.
func document(text []byte, decode func(raw []byte) error) (*yamlv3.Node, error) {
	raw, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		if merged, ok := overridden(text); ok {
			raw, err = merged, nil
		}
	}
	if err == nil {
		err = decode(raw)
	}
	if err != nil {
		return nil, err
	}
	var root yamlv3.Node
	documents := yamlv3.NewDecoder(bytes.NewReader(text))
	if err := documents.Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch err := documents.Decode(new(yamlv3.Node)); {
	case err == nil:
		return nil, errors.New("more than one document; what separates documents is a line with --- alone")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	return &root, nil
}

// overridden reads a document in which later fields override merged ones (<<). The
// strict reader takes such fields for repeated ones. overridden rejects everything
// else that the strict reader rejects: if a field comes before the merged ones, or
// if two merged maps have the same field, readers of YAML differ.
func overridden(text []byte) ([]byte, bool) {
	raw, err := yaml.YAMLToJSON(text)
	var root yamlv3.Node
	if err != nil || yamlv3.Unmarshal(text, &root) != nil || !readAlike(&root) {
		return nil, false
	}
	return raw, true
}

// readAlike reports whether all readers find the same fields in a node and below it.
// It reads an aliased value where the value is defined.
func readAlike(node *yamlv3.Node) bool {
	if node.Kind == yamlv3.MappingNode {
		if _, ok := fields(node); !ok {
			return false
		}
	}
	for _, below := range node.Content {
		if below.Kind != yamlv3.AliasNode && !readAlike(below) {
			return false
		}
	}
	return true
}

// fields returns the names of a mapping's fields, with those of merged maps. It
// returns false if a name is not text, or if a field is repeated in another way than
// by an override.
func fields(node *yamlv3.Node) (map[string]bool, bool) {
	if node.Kind != yamlv3.MappingNode {
		return nil, false
	}
	own, all := make(map[string]bool), make(map[string]bool)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolved(node.Content[i+1])
		if key.ShortTag() != "!!merge" {
			if key.ShortTag() != "!!str" || own[key.Value] {
				return nil, false
			}
			own[key.Value], all[key.Value] = true, true
			continue
		}
		from := []*yamlv3.Node{value}
		if value.Kind == yamlv3.SequenceNode {
			from = value.Content
		}
		for _, mapping := range from {
			merged, ok := fields(resolved(mapping))
			if !ok {
				return nil, false
			}
			for name := range merged {
				if all[name] {
					return nil, false
				}
				all[name] = true
			}
		}
	}
	return all, true
}

// Located is an object of a file and its position.
type Located struct {
	Object *unstructured.Unstructured
	Lines  Lines
}

// Objects reads all objects of a file: documents of YAML or JSON, and the items of
// lists. It skips empty documents.
func Objects(text []byte) ([]*unstructured.Unstructured, error) {
	located, err := Locate(text)
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(located))
	for i, l := range located {
		objects[i] = l.Object
	}
	return objects, nil
}

// Locate reads what Objects reads, with line numbers.
func Locate(text []byte) ([]Located, error) {
	var r reader
	documents := yamlstream.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for n := 1; ; n++ {
		part, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return r.found, nil
		}
		if err == nil {
			err = r.read(part)
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
	}
}

// reader reads a file, document by document.
type reader struct {
	found []Located
	lines int // before the next document
}

func (r *reader) read(text []byte) error {
	var found []item
	root, err := document(text, func(raw []byte) (err error) {
		if string(raw) == "null" {
			return nil
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(raw); err != nil {
			return err
		}
		found, err = unpacked(nil, item{object: object})
		return err
	})
	if err != nil {
		return err
	}
	at := newPositions(root, text, r.lines)
	for _, i := range found {
		r.found = append(r.found, Located{i.object, at.of(i.object, i.path)})
	}
	r.lines += bytes.Count(text, []byte("\n")) + 1 // and the separator
	return nil
}

// item is an object of a document, and the path to it through lists.
type item struct {
	object *unstructured.Unstructured
	path   []any
}

// maxDepth bounds lists in lists.
const maxDepth = 10

func unpacked(found []item, of item) ([]item, error) {
	if !of.object.IsList() {
		if of.object.GetKind() == "List" {
			return nil, errors.New("a list without items")
		}
		return append(found, of), nil
	}
	if err := listed(of.object.GetKind()); err != nil {
		return nil, err
	}
	if len(of.path) == 2*maxDepth {
		return nil, errors.New("lists in lists, too many deep")
	}
	items, _ := of.object.Object["items"].([]any)
	for i, fields := range items {
		fields, ok := fields.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("item %d is no object", i)
		}
		inner := item{&unstructured.Unstructured{Object: fields}, below(of.path, "items", i)}
		if inner.object.GetKind() == "" || inner.object.GetAPIVersion() == "" {
			return nil, fmt.Errorf("item %d has no apiVersion or kind", i)
		}
		var err error
		if found, err = unpacked(found, inner); err != nil {
			return nil, fmt.Errorf("item %d: %w", i, err)
		}
	}
	return found, nil
}

// listed returns an error for an object with items whose kind is not a list's.
// kubectl reads only the items, and the API server ignores them. A check of one of the
// two would miss the images of the other.
func listed(kind string) error {
	if !strings.HasSuffix(kind, "List") {
		return fmt.Errorf("items in a %s, which is no list", kind)
	}
	return nil
}
