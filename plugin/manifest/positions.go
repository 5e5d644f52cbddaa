package manifest

import (
	"bytes"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Lines say where in a file an object stands, and its images. They are counted from
// 1, and 0 if that is not known.
type Lines struct {
	Object int // of its first field

	images []imageLine
}

type imageLine struct {
	Image
	line int
}

// Image is the line of an image, or the object's if it has no such: ref is as
// written there, and place as a policy names it, which cuts what is long.
func (l Lines) Image(place, ref string) int {
	begin, cut := strings.CutSuffix(place, "..")
	for _, i := range l.images {
		if i.Ref == ref && (i.Place() == place || cut && strings.HasPrefix(i.Place(), begin)) {
			return i.line
		}
	}
	return l.Object
}

// positions finds where the values of a document stand. Going on from what a path
// has in common with the one before keeps the time from growing with the square of
// a document that many images are in.
type positions struct {
	path  []any
	nodes []*yamlv3.Node // along the path, beginning with the root
	lines []int          // of the file, by those that YAML counts in the document
}

// newPositions takes a document, its text, and how many lines stand before it. YAML
// knows breaks of lines that neither editors nor git count.
func newPositions(document *yamlv3.Node, text []byte, before int) *positions {
	root := document
	if len(document.Content) > 0 {
		root = document.Content[0]
	}
	line := before + 1
	lines := []int{line}
	for i, r := range string(text) {
		switch r {
		case '\n':
			line++
		case '\r':
			if bytes.HasPrefix(text[i:], []byte("\r\n")) {
				continue
			}
		case '\u0085', '\u2028', '\u2029':
		default:
			continue
		}
		lines = append(lines, line)
	}
	return &positions{nodes: []*yamlv3.Node{root}, lines: lines}
}

// find is the node at the end of a path, through aliases and merged mappings, or
// the last on the way to it.
func (p *positions) find(path []any) (*yamlv3.Node, bool) {
	same := 0
	for same < min(len(path), len(p.path)) && path[same] == p.path[same] {
		same++
	}
	p.path, p.nodes = path[:same], p.nodes[:same+1]
	for _, step := range path[same:] {
		last := p.nodes[len(p.nodes)-1]
		next := child(last, step)
		if next == nil {
			return last, false
		}
		p.path, p.nodes = path[:len(p.nodes)], append(p.nodes, next)
	}
	return p.nodes[len(p.nodes)-1], true
}

func child(node *yamlv3.Node, step any) *yamlv3.Node {
	switch step := step.(type) {
	case string:
		if _, value := field(node, step); value != nil {
			return resolved(value)
		}
	case int:
		if node.Kind == yamlv3.SequenceNode && step < len(node.Content) {
			return resolved(node.Content[step])
		}
	}
	return nil
}

// of are the lines of the object at the end of a path. Images are left out if not
// all of them can be read; that is for others to complain of.
func (p *positions) of(object *unstructured.Unstructured, path []any) Lines {
	node, _ := p.find(path)
	l := Lines{Object: p.line(node)}
	found, _ := places(object.Object)
	for _, i := range found {
		node, _ := p.find(below(path, i.path...))
		l.images = append(l.images, imageLine{i.Image, p.line(node)})
	}
	return l
}

// line is where a node begins in the file: an object with its first field. Of a text
// in another encoding than UTF-8 the lines are not all known, and an empty one has
// none.
func (p *positions) line(node *yamlv3.Node) int {
	if node.Kind == yamlv3.MappingNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	return p.lines[max(min(node.Line, len(p.lines)), 1)-1]
}

// field is a field of a mapping: its own, or one that it merges in.
func field(node *yamlv3.Node, name string) (key, value *yamlv3.Node) {
	if node.Kind != yamlv3.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if k := resolved(node.Content[i]); k.Kind == yamlv3.ScalarNode && k.Value == name {
			return k, node.Content[i+1]
		}
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != "<<" {
			continue
		}
		merged := []*yamlv3.Node{resolved(node.Content[i+1])}
		if merged[0].Kind == yamlv3.SequenceNode {
			merged = merged[0].Content
		}
		for _, m := range merged {
			if k, v := field(resolved(m), name); k != nil {
				return k, v
			}
		}
	}
	return nil, nil
}

func resolved(node *yamlv3.Node) *yamlv3.Node {
	for node.Kind == yamlv3.AliasNode {
		node = node.Alias
	}
	return node
}
