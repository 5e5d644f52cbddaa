package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	yamlv3 "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime"
)

// Errors of Read.
var (
	// ErrNoObject reports a document that is neither a Kubernetes object nor a
	// kustomization.
	ErrNoObject = errors.New("not a Kubernetes object: it has no apiVersion or no kind")
	// ErrTemplate reports a Helm template that is not rendered.
	ErrTemplate = errors.New("a template, with {{ and }}, and not yet a manifest")
)

// Source is the text of a file of manifests, with the images in it.
type Source struct {
	// Objects is the number of Kubernetes objects and kustomizations.
	Objects int
	// Images are in the order of the objects.
	Images []Named

	text      []byte
	documents []part
}

// Named is an image and its place in a file.
type Named struct {
	Image
	Object string // kind and name, after the namespace if the object has one
	Line   int    // from 1
	// Elsewhere is set for an image of a kustomization whose tag is in the manifests
	// that it changes. Ref then has no tag.
	Elsewhere bool

	document int
	path     []any // the path to the image, or to the entry of a kustomization
	node     *yamlv3.Node
}

// part is one document of a file.
type part struct {
	start  int // position in the file, in bytes
	text   []byte
	values any // as Kubernetes reads them
}

// Read reads a file. The name only shows whether the file is a kustomization without
// a kind. A patch of a kustomization is read like the object that it is a part of.
// Read fails where Objects fails, and for more: an image could hide behind
// everything that cannot be understood.
func Read(name string, text []byte) (*Source, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("not text in UTF-8")
	}
	s := &Source{text: text}
	for n, p := range split(text) {
		if err := s.read(name, p); err != nil {
			if bytes.Contains(p.text, []byte("{{")) {
				err = fmt.Errorf("%w: %w", ErrTemplate, err)
			}
			return nil, fmt.Errorf("document %d: %w", n+1, err)
		}
	}
	return s, nil
}

// split splits a text where Kubernetes' own reader does: at lines of --- with only
// spaces or a comment after it.
func split(text []byte) []part {
	var parts []part
	begin, at := 0, 0
	for line := range bytes.Lines(text) {
		if after, ok := bytes.CutPrefix(line, []byte("---")); ok {
			if after = bytes.TrimSpace(after); len(after) == 0 || after[0] == '#' {
				parts = append(parts, part{start: begin, text: text[begin:at]})
				begin = at + len(line)
			}
		}
		at += len(line)
	}
	return append(parts, part{start: begin, text: text[begin:]})
}

// decode fills the values of the part, and returns their nodes.
func (p *part) decode() (*yamlv3.Node, error) {
	return document(p.text, func(raw []byte) error { return json.Unmarshal(raw, &p.values) })
}

func (s *Source) read(name string, p part) error {
	root, err := p.decode()
	if err != nil || p.values == nil {
		return err
	}
	s.documents = append(s.documents, p)
	at := newPositions(root, p.text, bytes.Count(s.text[:p.start], []byte("\n")))
	before := len(s.Images)
	if err := s.collect(name, p.values, nil, 0); err != nil {
		return err
	}
	for i := before; i < len(s.Images); i++ {
		image := &s.Images[i]
		if strings.Contains(image.Ref, "{{") {
			return fmt.Errorf("%w: %s of %s", ErrTemplate, image.Place(), image.Object)
		}
		node, ok := at.find(image.path)
		if !ok {
			return fmt.Errorf("%s of %s: %w", image.Place(), image.Object, errPosition)
		}
		image.document, image.node, image.Line = len(s.documents)-1, node, at.line(node)
	}
	return nil
}

// collect collects the images of an object, or of all objects in a list.
func (s *Source) collect(name string, value any, path []any, depth int) error {
	object, _ := value.(map[string]any)
	kind, _ := object["kind"].(string)
	version, _ := object["apiVersion"].(string)
	items, isList := object["items"].([]any)
	base := name[strings.LastIndexAny(name, `/\`)+1:]
	switch {
	case strings.HasPrefix(version, "kustomize.config.k8s.io/"),
		kind == "" && version == "" && object != nil && slices.Contains([]string{"kustomization.yaml", "kustomization.yml", "Kustomization"}, base):
		s.Objects++
		return s.kustomization(object, path)
	case kind == "" || version == "":
		return ErrNoObject
	case isList && depth == maxDepth:
		return errors.New("lists in lists, too many deep")
	case isList:
		if err := listed(kind); err != nil {
			return err
		}
		for i, item := range items {
			if err := s.collect("", item, below(path, "items", i), depth+1); err != nil {
				return fmt.Errorf("item %d: %w", i, err)
			}
		}
		return nil
	}
	s.Objects++
	found, err := places(object)
	if err != nil {
		return err
	}
	for _, p := range found {
		if p.Ref != "" { // a patch need not name it
			s.Images = append(s.Images, Named{Image: p.Image, Object: title(kind, object), path: below(path, p.path...)})
		}
	}
	return nil
}

func title(kind string, object map[string]any) string {
	metadata, _ := object["metadata"].(map[string]any)
	name, _ := metadata["name"].(string)
	generated, _ := metadata["generateName"].(string)
	title := kind
	if name != "" || generated != "" {
		title += "/" + cmp.Or(name, generated+"*")
	}
	if namespace, _ := metadata["namespace"].(string); namespace != "" {
		title = namespace + "/" + title
	}
	return title
}

// kustomization collects the images of a kustomization.
func (s *Source) kustomization(object map[string]any, path []any) error {
	list, ok := object["images"].([]any)
	if !ok && object["images"] != nil {
		return errors.New("images must be a list")
	}
	for i, item := range list {
		entry, _ := item.(map[string]any)
		fields := make(map[string]string)
		for _, field := range []string{"name", "newName", "newTag", "digest", "tagSuffix"} {
			text, ok := entry[field].(string)
			if !ok && (entry == nil || entry[field] != nil) {
				return fmt.Errorf("images/%d: %s must be text; quote it", i, field)
			}
			fields[field] = text
		}
		image := Named{
			Image:  Image{Field: "images", Name: fields["name"], Ref: cmp.Or(fields["newName"], fields["name"])},
			Object: title("Kustomization", object), path: below(path, "images", i),
		}
		image.Elsewhere = fields["newTag"] == "" && fields["digest"] == ""
		if fields["newTag"] != "" {
			image.Ref += ":" + fields["newTag"]
		}
		if fields["digest"] != "" {
			image.Ref += "@" + fields["digest"]
		}
		s.Images = append(s.Images, image)
	}
	return nil
}

// Pin returns the text with digests in place of tags. digests has a digest for each
// reference to pin, as written. keepTags keeps the tags next to the digests: nodes
// ignore such a tag, and people read it. All other bytes stay unchanged. Pin reads
// the result again, and returns an error if any other value has changed.
func (s *Source) Pin(digests map[string]string, keepTags bool) ([]byte, error) {
	var edits []edit
	want := make([]part, len(s.documents))
	for i, p := range s.documents {
		want[i] = part{values: runtime.DeepCopyJSONValue(p.values)}
	}
	for _, image := range s.Images {
		digest, ok := digests[image.Ref]
		if !ok || image.Elsewhere {
			continue
		}
		p := s.documents[image.document]
		var made []edit
		var err error
		if image.Field == "images" {
			made, err = p.pinEntry(image.node, digest, keepTags)
			entry, _ := at(want[image.document].values, image.path).(map[string]any)
			entry["digest"] = digest
			if !keepTags {
				delete(entry, "newTag")
			}
		} else {
			pinned := Pinned(image.Ref, digest, keepTags)
			made, err = p.replace(image.node, pinned)
			set(want[image.document].values, image.path, pinned)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %s of %s: %w", image.Line, image.Place(), image.Object, err)
		}
		edits = append(edits, made...)
	}
	text := apply(s.text, edits)
	n := 0
	for _, p := range split(text) {
		if _, err := p.decode(); err != nil {
			return nil, fmt.Errorf("the pinned text could not be read again, so nothing was pinned: %w", err)
		}
		if p.values == nil {
			continue
		}
		if n == len(want) || !reflect.DeepEqual(p.values, want[n].values) {
			return nil, errShared
		}
		n++
	}
	if n != len(want) {
		return nil, errShared
	}
	return text, nil
}

var errShared = errors.New("more than images would change: an anchor (&name) is used for an image and for something else; write the image out in both places")

// Pinned returns a reference with a digest, in place of its tag or after it.
func Pinned(ref, digest string, keepTag bool) string {
	name, tag := ref, strings.LastIndexByte(ref, ':')
	if !keepTag && tag > strings.LastIndexByte(ref, '/') {
		name = ref[:tag]
	}
	return name + "@" + digest
}

// edit replaces some bytes.
type edit struct {
	from, to int
	new      string
}

// apply makes edits. A repeated edit, from an alias, is made once. Other edits never
// overlap, and the caller reads the result again.
func apply(text []byte, edits []edit) []byte {
	slices.SortFunc(edits, func(a, b edit) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), strings.Compare(a.new, b.new))
	})
	var out []byte
	at := 0
	for _, e := range slices.Compact(edits) {
		if e.from < at {
			continue
		}
		out = append(append(out, text[at:e.from]...), e.new...)
		at = e.to
	}
	return append(out, text[at:]...)
}

func (p part) replace(node *yamlv3.Node, value string) ([]edit, error) {
	from, to, err := p.span(node)
	return []edit{{p.start + from, p.start + to, value}}, err
}

// pinEntry adds a digest to an entry of a kustomization, in place of its tag or
// before it.
func (p part) pinEntry(entry *yamlv3.Node, digest string, keepTag bool) ([]edit, error) {
	key, value := field(entry, "newTag")
	if key == nil {
		return nil, errors.New("its newTag cannot be found")
	}
	if !keepTag {
		renamed, err := p.replace(key, "digest")
		if err != nil {
			return nil, err
		}
		replaced, err := p.replace(value, digest)
		return append(renamed, replaced...), err
	}
	from, ok := p.offset(key)
	if !ok {
		return nil, errPosition
	}
	inserted := "digest: " + digest
	switch {
	case entry.Style&yamlv3.FlowStyle == 0:
		end := "\n"
		if rest := p.text[from:]; bytes.HasPrefix(rest[max(0, bytes.IndexByte(rest, '\n')-1):], []byte("\r\n")) {
			end = "\r\n"
		}
		inserted += end + strings.Repeat(" ", key.Column-1)
	case key.Style&yamlv3.DoubleQuotedStyle != 0:
		inserted = fmt.Sprintf(`"digest": %q, `, digest)
	default:
		inserted += ", "
	}
	return []edit{{p.start + from, p.start + from, inserted}}, nil
}

var errPosition = errors.New("cannot tell where in the file it stands; write it on one line, plain or in quotes")

// span returns the position of a scalar's text, without quotes.
func (p part) span(node *yamlv3.Node) (from, to int, err error) {
	from, ok := p.offset(node)
	if !ok {
		return 0, 0, errPosition
	}
	rest := p.text[from:]
	if node.Anchor != "" || node.Style&yamlv3.TaggedStyle != 0 {
		rest = rest[properties(rest):]
		from = len(p.text) - len(rest)
	}
	switch {
	case node.Style&(yamlv3.DoubleQuotedStyle|yamlv3.SingleQuotedStyle) != 0:
		n := quoted(rest)
		if n < 0 {
			return 0, 0, errPosition
		}
		return from + 1, from + n, nil
	case node.Style&(yamlv3.LiteralStyle|yamlv3.FoldedStyle) != 0:
		header := bytes.IndexByte(rest, '\n')
		if header < 0 || strings.ContainsAny(node.Value, "\r\n") {
			return 0, 0, errPosition
		}
		after := rest[header:]
		blank := len(after) - len(bytes.TrimLeft(after, "\r\n "))
		if !bytes.HasPrefix(after[blank:], []byte(node.Value)) {
			return 0, 0, errPosition
		}
		from += header + blank
	case !bytes.HasPrefix(rest, []byte(node.Value)):
		return 0, 0, errPosition
	}
	return from, from + len(node.Value), nil
}

// properties returns the length of the anchor and tag before a value, with the space
// after them.
func properties(text []byte) int {
	at := 0
	for at < len(text) {
		n := 1
		switch text[at] {
		case ' ', '\t', '\r', '\n':
		case '&', '!':
			n = bytes.IndexAny(text[at:], " \t\r\n")
		case '#':
			n = bytes.IndexByte(text[at:], '\n')
		default:
			return at
		}
		if n < 0 {
			break
		}
		at += n
	}
	return at
}

// quoted returns the position of the closing quote of a text, or -1.
func quoted(text []byte) int {
	if len(text) == 0 || text[0] != '"' && text[0] != '\'' {
		return -1
	}
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && text[0] == '"':
			i++
		case text[i] != text[0]:
		case text[0] == '\'' && i+1 < len(text) && text[i+1] == '\'':
			i++
		default:
			return i
		}
	}
	return -1
}

// offset returns the position of a node in bytes. The parser counts lines by YAML's
// line breaks, and columns in characters. It does not count a byte order mark at the
// beginning.
func (p part) offset(node *yamlv3.Node) (int, bool) {
	at := 0
	if p.start == 0 && bytes.HasPrefix(p.text, []byte("\ufeff")) {
		at = len("\ufeff")
	}
	for line, column := 1, 1; at < len(p.text); {
		if line == node.Line && column == node.Column {
			return at, true
		}
		r, size := utf8.DecodeRune(p.text[at:])
		at += size
		switch r {
		case '\r':
			if at < len(p.text) && p.text[at] == '\n' {
				at++
			}
			fallthrough
		case '\n', '\u0085', '\u2028', '\u2029':
			line, column = line+1, 1
		default:
			column++
		}
	}
	return 0, false
}

func at(value any, path []any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			fields, _ := value.(map[string]any)
			value = fields[step]
		case int:
			items, _ := value.([]any)
			value = items[step]
		}
	}
	return value
}

func set(value any, path []any, to string) {
	last := len(path) - 1
	fields, _ := at(value, path[:last]).(map[string]any)
	name, _ := path[last].(string)
	fields[name] = to
}
