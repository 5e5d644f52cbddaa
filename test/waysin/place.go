package waysin

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// What is what a place can hold.
type What string

// What a place can hold.
const (
	Containers  What = "containers"  // of a Pod or of the template of one
	Image       What = "image"       // an image reference
	Replicas    What = "replicas"    // how many Pods a controller makes
	Anything    What = "anything"    // any JSON, and so a Pod template
	Annotations What = "annotations" // of a Pod, among them break-glass
	Labels      What = "labels"      // of a namespace, by which webhooks and constraints choose
	Policy      What = "policy"      // what Gatekeeper itself reads
)

// Place is where in a body something stands that counts.
type Place struct {
	Path string // fields joined by dots; [] is each element, * each value
	What What
}

func (p Place) String() string { return cmp.Or(p.Path, "the object") + " (" + string(p.What) + ")" }

var (
	containerLists = []string{"containers", "ephemeralContainers", "initContainers"}
	namesImage     = regexp.MustCompile(`(?i)images?(id|name|ref|reference|url)?$`)
	namesReplicas  = regexp.MustCompile(`(?i)replicas$`)
)

// fieldOwners is the schema of metadata.managedFields[].fieldsV1, which may hold any
// JSON and which nothing but the API server's own bookkeeping reads.
const fieldOwners = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"

// walk collects the places of a schema.
type walk struct {
	document *spec3.OpenAPI
	open     []string // names of the schemas that lead here, to notice recursion
	places   []Place
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

// name adds a property that tells by its name and type what it holds.
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

func (w *walk) add(path string, what What) {
	if place := (Place{path, what}); !slices.Contains(w.places, place) {
		w.places = append(w.places, place)
	}
}

// anything reports whether a schema lets any object stand there.
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

// refName is the name of the schema that this one refers to, if it does. A
// reference with a description beside it stands in a list of one.
func refName(s *spec.Schema) string {
	if len(s.AllOf) == 1 && s.Ref.String() == "" && len(s.Properties) == 0 {
		s = &s.AllOf[0]
	}
	return strings.TrimPrefix(s.Ref.String(), "#/components/schemas/")
}

// resolve follows a reference. A schema that is missing allows anything.
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
