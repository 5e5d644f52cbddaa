package workload

import (
	"cmp"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// Document is an object and its position in a file.
type Document struct {
	File   string
	Object *unstructured.Unstructured
	Lines  manifest.Lines // in the file
}

// Name returns kubectl's name of the object, after its namespace.
func (d Document) Name() string {
	name := d.Object.GetKind() + "/" + cmp.Or(d.Object.GetName(), d.Object.GetGenerateName()+"*")
	if namespace := d.Object.GetNamespace(); namespace != "" {
		name = namespace + "/" + name
	}
	return name
}

// At returns FILE:LINE, which editors and logs turn into a link.
func (d Document) At(line int) string { return fmt.Sprintf("%s:%d", d.File, line) }

// Input is the manifests and constraints of a simulation.
type Input struct {
	Manifests   []Document
	Constraints []Document
	Namespaces  map[string]*corev1.Namespace
}

// ObjectName identifies an object of a cluster.
type ObjectName struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
}

// Violation is a violation of a constraint by an object.
type Violation struct {
	Kind       string `json:"kind"` // of the constraint
	Constraint string `json:"constraint"`
	Action     string `json:"action"` // deny, warn, dryrun
	Reason     string `json:"reason,omitempty"`
	Message    string `json:"message"`
	Line       int    `json:"line,omitempty"` // the line of the image or of the object in a file
}

// NameOf returns the name of an object.
func NameOf(o object) ObjectName {
	version, kind := o.GroupVersionKind().ToAPIVersionAndKind()
	return ObjectName{version, kind, o.GetNamespace(), o.GetName()}
}

// Controller returns the controller of an object, or the object itself without one. A
// static Pod names its node as controller; Controller returns the Pod.
func Controller(o object) ObjectName {
	owner := metav1.GetControllerOf(o)
	if owner == nil || owner.Kind == "Node" {
		return NameOf(o)
	}
	return ObjectName{owner.APIVersion, owner.Kind, o.GetNamespace(), owner.Name}
}

// Brief returns the message without the image and its place, which tables show in other
// columns.
func (v Violation) Brief(ref string) string {
	text := strings.TrimSuffix(v.Message, ": "+ref)
	if place, rest, ok := strings.Cut(text, ": "); ok && strings.Contains(place, "/") {
		text = rest
	}
	return text
}

// Title returns kubectl's name of the object, after its namespace.
func (n ObjectName) Title() string {
	if n.Namespace == "" {
		return n.Kind + "/" + n.Name
	}
	return n.Namespace + "/" + n.Kind + "/" + n.Name
}
