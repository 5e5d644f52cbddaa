package attacksurface

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Content says what a field can hold.
type Content string

// The contents that matter to an image policy.
const (
	Containers  Content = "containers"  // of a Pod or of the template of one
	Image       Content = "image"       // an image reference
	Replicas    Content = "replicas"    // how many Pods a controller makes
	Anything    Content = "anything"    // any JSON, and so a Pod template
	Annotations Content = "annotations" // of a Pod, among them break-glass
	Labels      Content = "labels"      // of a namespace, by which webhooks and constraints choose
	Policy      Content = "policy"      // what Gatekeeper itself reads
)

// Field is a field of a request's body that matters to an image policy.
type Field struct {
	Path    string // fields joined by dots; [] is each element, * each value
	Content Content
}

func (f Field) String() string { return cmp.Or(f.Path, "the object") + " (" + string(f.Content) + ")" }

var (
	containerLists = []string{"containers", "ephemeralContainers", "initContainers"}
	namesImage     = regexp.MustCompile(`(?i)images?(id|name|ref|reference|url)?$`)
	namesReplicas  = regexp.MustCompile(`(?i)replicas$`)
)

// fieldOwners names the schema of metadata.managedFields[].fieldsV1. It may hold any
// JSON, but only the API server's own bookkeeping reads it.
const fieldOwners = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"

// walk collects the fields of a schema.
type walk struct {
	document *spec3.OpenAPI
	open     []string // names of the schemas being walked, to detect recursion
	fields   []Field
}

func (w *walk) schema(s *spec.Schema, path string) {
	if name := refName(s); name != "" {
		if name == fieldOwners || slices.Contains(w.open, name) {
			return
		}
		w.open = append(w.open, name)
		defer func() { w.open = w.open[:len(w.open)-1] }()
		s = resolve(w.document, s)
	}
	if anything(s) {
		w.add(path, Anything)
	}
	for _, name := range sorted(s.Properties) {
		property := s.Properties[name]
		at := strings.TrimPrefix(path+"."+name, ".")
		w.name(name, at, resolve(w.document, &property))
		w.schema(&property, at)
	}
	for _, list := range [][]spec.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range list {
			w.schema(&list[i], path)
		}
	}
	if s.Items != nil && s.Items.Schema != nil {
		w.schema(s.Items.Schema, path+"[]")
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		w.schema(s.AdditionalProperties.Schema, path+".*")
	}
}

// name adds a property if its name and type show what it holds.
func (w *walk) name(name, path string, s *spec.Schema) {
	switch {
	case slices.Contains(containerLists, name) && (s.Type.Contains("array") || len(s.Type) == 0):
		w.add(path, Containers)
	case namesImage.MatchString(name):
		w.add(path, Image)
	case namesReplicas.MatchString(name) && s.Type.Contains("integer") && !strings.HasPrefix(path, "status."):
		w.add(path, Replicas)
	}
}

func (w *walk) add(path string, content Content) {
	if field := (Field{path, content}); !slices.Contains(w.fields, field) {
		w.fields = append(w.fields, field)
	}
}

// anything reports whether a schema accepts any object.
func anything(s *spec.Schema) bool {
	if preserves, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); preserves {
		return true
	}
	if len(s.Properties) > 0 || len(s.AllOf)+len(s.AnyOf)+len(s.OneOf) > 0 {
		return false
	}
	if intOrString, _ := s.Extensions.GetBool("x-kubernetes-int-or-string"); intOrString {
		return false
	}
	if more := s.AdditionalProperties; more != nil && s.Type.Contains("object") {
		return more.Allows && more.Schema == nil
	}
	return len(s.Type) == 0 || s.Type.Contains("object")
}

// refName returns the name of the schema that s refers to, or "". A reference with a
// description is wrapped in an allOf list of one.
func refName(s *spec.Schema) string {
	if len(s.AllOf) == 1 && s.Ref.String() == "" && len(s.Properties) == 0 {
		s = &s.AllOf[0]
	}
	return strings.TrimPrefix(s.Ref.String(), "#/components/schemas/")
}

// resolve follows a reference. A missing schema resolves to one that accepts anything.
func resolve(document *spec3.OpenAPI, s *spec.Schema) *spec.Schema {
	name := refName(s)
	if name == "" {
		return s
	}
	if document.Components != nil && document.Components.Schemas[name] != nil {
		return document.Components.Schemas[name]
	}
	return &spec.Schema{}
}

func sorted(properties map[string]spec.Schema) []string {
	var names []string
	for name := range properties {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
