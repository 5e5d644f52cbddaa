package manifest

import (
	"bytes"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Lines are the lines of an object and of its images in a file. They count from 1.
// An unknown line is 0.
type Lines struct {
	Object int // the line of its first field

	images []imageLine
}

type imageLine struct {
	Image
	line int
}

// Image returns the line of an image, or the object's line if the image is unknown.
// ref is the reference as written. place is the place in a denial, which shortens
// long places.
func (l Lines) Image(place, ref string) int {
	begin, cut := strings.CutSuffix(place, "..")
	for _, i := range l.images {
		if i.Ref == ref && (i.Place() == place || cut && strings.HasPrefix(i.Place(), begin)) {
			return i.line
		}
	}
	return l.Object
}

// positions finds the lines of a document's values. It continues from the common
// part of a path and the path before. Otherwise the time would grow with the square
// of the number of images.
type positions struct {
	path  []any
	nodes []*yamlv3.Node // along the path, from the root
	lines []int          // lines of the file, by the lines that YAML counts in the document
}

// newPositions takes a document, its text, and the number of lines before it. YAML
// has line breaks that editors and git do not count.
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

// find returns the node at the end of a path, through aliases and merged mappings.
// If the path leads nowhere, it returns the last node on the way.
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

// of returns the lines of the object at the end of a path. It omits images if some
// cannot be read, because other code reports that.
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

// line returns the line of a node in the file. The line of an object is that of its
// first field. In an encoding other than UTF-8 some lines are unknown, and an empty
// document has no line.
func (p *positions) line(node *yamlv3.Node) int {
	if node.Kind == yamlv3.MappingNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	return p.lines[max(min(node.Line, len(p.lines)), 1)-1]
}

// field returns a field of a mapping, or of a map that is merged into it.
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
