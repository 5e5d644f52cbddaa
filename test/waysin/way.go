package waysin

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/openapi3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

// Way is one verb of one resource or subresource.
type Way struct {
	schema.GroupVersion
	Resource    string
	Subresource string // empty for the resource itself
	Verb        string // as RBAC calls it
	Namespaced  bool
	Kind        string  // of the body
	Connects    bool    // opens a stream or forwards a request, and has no body that the API server reads
	Carries     []Place // what of the body can bring an image to a node; empty if nothing
}

// Target names the resource as requests do, such as apps/v1/deployments/scale.
func (w Way) Target() string {
	return strings.TrimSuffix(w.GroupVersion.String()+"/"+w.Resource+"/"+w.Subresource, "/")
}

// String is the target with the verb, such as "apps/v1/deployments/scale patch".
func (w Way) String() string { return w.Target() + " " + w.Verb }

// Writes reports whether the request changes something.
func (w Way) Writes() bool { return !slices.Contains([]string{"get", "list", "watch"}, w.Verb) }

// HasBody reports whether the request sends an object, or a change of one.
func (w Way) HasBody() bool { return slices.Contains([]string{"create", "update", "patch"}, w.Verb) }

// Discover lists every way that the API server offers.
func Discover(client discovery.DiscoveryInterface) ([]Way, error) {
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		return nil, fmt.Errorf("asking for the resources: %w", err)
	}
	root := openapi3.NewRoot(client.OpenAPIV3())
	var ways []Way
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		document, err := root.GVSpec(gv)
		if err != nil {
			return nil, fmt.Errorf("asking for the schemas of %s: %w", gv, err)
		}
		more, err := List(gv, list.APIResources, document)
		if err != nil {
			return nil, err
		}
		ways = append(ways, more...)
	}
	return ways, nil
}

// List lists the ways of one group and version, given its schemas.
func List(gv schema.GroupVersion, resources []metav1.APIResource, document *spec3.OpenAPI) ([]Way, error) {
	var ways []Way
	var problems []error
	for _, resource := range resources {
		name, sub, _ := strings.Cut(resource.Name, "/")
		for _, verb := range resource.Verbs {
			way := Way{GroupVersion: gv, Resource: name, Subresource: sub, Verb: verb, Namespaced: resource.Namespaced, Kind: resource.Kind}
			if err := way.look(document); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", way, err))
			}
			ways = append(ways, way)
		}
	}
	return ways, errors.Join(problems...)
}

// look finds out from the schemas what the body of the request can carry.
func (w *Way) look(document *spec3.OpenAPI) error {
	path := w.path()
	if document.Paths == nil || document.Paths.Paths[path] == nil {
		return fmt.Errorf("the schemas have no path %s", path)
	}
	operation := w.operation(document.Paths.Paths[path])
	if operation == nil {
		return fmt.Errorf("the schemas have no such operation of path %s", path)
	}
	w.Connects = operation.Extensions["x-kubernetes-action"] == "connect"
	if w.Connects || !w.HasBody() {
		return nil
	}
	body := bodyOf(operation)
	if w.Verb == "patch" { // a patch has no schema, its result has
		body = resultOf(operation)
	}
	if body == nil {
		return errors.New("the schemas do not say what its body is")
	}
	walk := walk{document: document}
	walk.schema(body, "")
	w.Carries = walk.places
	w.addOwner(document, body)
	return nil
}

// addOwner adds what the parent of a subresource may take over from the body, and
// what the object itself is.
func (w *Way) addOwner(document *spec3.OpenAPI, body *spec.Schema) {
	_, hasMetadata := resolve(document, body).Properties["metadata"]
	core := w.Group == ""
	switch {
	case core && w.Resource == "namespaces" && hasMetadata:
		w.Carries = append(w.Carries, Place{"metadata.labels", Labels})
	case core && (w.Resource == "pods" || w.Resource == "bindings") && hasMetadata:
		w.Carries = append(w.Carries, Place{"metadata.annotations", Annotations})
	}
	if w.Namespaced && (w.Group == "gatekeeper.sh" || strings.HasSuffix(w.Group, ".gatekeeper.sh")) {
		w.Carries = append(w.Carries, Place{"", Policy})
	}
}

// path is the request's path in the OpenAPI document.
func (w *Way) path() string {
	path := "/apis/" + w.GroupVersion.String()
	if w.Group == "" {
		path = "/api/" + w.Version
	}
	if w.Namespaced {
		path += "/namespaces/{namespace}"
	}
	path += "/" + w.Resource
	collection := slices.Contains([]string{"create", "deletecollection", "list", "watch"}, w.Verb) && w.Subresource == ""
	if !collection {
		path += "/{name}"
	}
	if w.Subresource != "" {
		path += "/" + w.Subresource
	}
	return path
}

func (w *Way) operation(path *spec3.Path) *spec3.Operation {
	switch w.Verb {
	case "create":
		return path.Post
	case "update":
		return path.Put
	case "patch":
		return path.Patch
	case "delete", "deletecollection":
		return path.Delete
	case "get", "list", "watch":
		return path.Get
	}
	return nil
}

func bodyOf(operation *spec3.Operation) *spec.Schema {
	if operation.RequestBody == nil {
		return nil
	}
	return schemaOf(operation.RequestBody.Content)
}

func resultOf(operation *spec3.Operation) *spec.Schema {
	if operation.Responses == nil || operation.Responses.StatusCodeResponses[200] == nil {
		return nil
	}
	return schemaOf(operation.Responses.StatusCodeResponses[200].Content)
}

func schemaOf(content map[string]*spec3.MediaType) *spec.Schema {
	for _, name := range []string{"application/json", "*/*"} {
		if media := content[name]; media != nil {
			return media.Schema
		}
	}
	return nil
}
