package attacksurface

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

// Request is one verb of one resource or subresource.
type Request struct {
	schema.GroupVersion
	Resource    string
	Subresource string // empty for the resource itself
	Verb        string // as RBAC calls it
	Namespaced  bool
	Kind        string  // of the body
	Connects    bool    // opens a stream or forwards a request; the API server reads no body
	Carries     []Field // fields of the body that can bring an image to a node
}

// Target returns the resource in the notation of requests, for example
// apps/v1/deployments/scale.
func (r Request) Target() string {
	return strings.TrimSuffix(r.GroupVersion.String()+"/"+r.Resource+"/"+r.Subresource, "/")
}

// String returns the target with the verb, for example "apps/v1/deployments/scale
// patch".
func (r Request) String() string { return r.Target() + " " + r.Verb }

// Writes reports whether the request changes something.
func (r Request) Writes() bool { return !slices.Contains([]string{"get", "list", "watch"}, r.Verb) }

// HasBody reports whether the request sends an object or a change to one.
func (r Request) HasBody() bool {
	return slices.Contains([]string{"create", "update", "patch"}, r.Verb)
}

// Discover lists every request that the API server offers.
func Discover(client discovery.DiscoveryInterface) ([]Request, error) {
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		return nil, fmt.Errorf("asking for the resources: %w", err)
	}
	root := openapi3.NewRoot(client.OpenAPIV3())
	var requests []Request
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
		requests = append(requests, more...)
	}
	return requests, nil
}

// List lists the requests of one group and version, given its schemas.
func List(gv schema.GroupVersion, resources []metav1.APIResource, document *spec3.OpenAPI) ([]Request, error) {
	var requests []Request
	var problems []error
	for _, resource := range resources {
		name, sub, _ := strings.Cut(resource.Name, "/")
		for _, verb := range resource.Verbs {
			request := Request{GroupVersion: gv, Resource: name, Subresource: sub, Verb: verb, Namespaced: resource.Namespaced, Kind: resource.Kind}
			if err := request.readSchema(document); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", request, err))
			}
			requests = append(requests, request)
		}
	}
	return requests, errors.Join(problems...)
}

// readSchema fills Connects and Carries from the schemas.
func (r *Request) readSchema(document *spec3.OpenAPI) error {
	path := r.path()
	if document.Paths == nil || document.Paths.Paths[path] == nil {
		return fmt.Errorf("the schemas have no path %s", path)
	}
	operation := r.operation(document.Paths.Paths[path])
	if operation == nil {
		return fmt.Errorf("the schemas have no such operation of path %s", path)
	}
	r.Connects = operation.Extensions["x-kubernetes-action"] == "connect"
	if r.Connects || !r.HasBody() {
		return nil
	}
	body := bodyOf(operation)
	if r.Verb == "patch" { // only the result of a patch has a schema
		body = resultOf(operation)
	}
	if body == nil {
		return errors.New("the schemas do not say what its body is")
	}
	walk := walk{document: document}
	walk.schema(body, "")
	r.Carries = walk.fields
	r.addOwner(document, body)
	return nil
}

// addOwner adds what the parent object takes over from the body of a subresource, and
// what the object itself controls.
func (r *Request) addOwner(document *spec3.OpenAPI, body *spec.Schema) {
	_, hasMetadata := resolve(document, body).Properties["metadata"]
	core := r.Group == ""
	switch {
	case core && r.Resource == "namespaces" && hasMetadata:
		r.Carries = append(r.Carries, Field{"metadata.labels", Labels})
	case core && (r.Resource == "pods" || r.Resource == "bindings") && hasMetadata:
		r.Carries = append(r.Carries, Field{"metadata.annotations", Annotations})
	}
	if r.Namespaced && (r.Group == "gatekeeper.sh" || strings.HasSuffix(r.Group, ".gatekeeper.sh")) {
		r.Carries = append(r.Carries, Field{"", Policy})
	}
}

// path returns the request's path in the OpenAPI document.
func (r *Request) path() string {
	path := "/apis/" + r.GroupVersion.String()
	if r.Group == "" {
		path = "/api/" + r.Version
	}
	if r.Namespaced {
		path += "/namespaces/{namespace}"
	}
	path += "/" + r.Resource
	collection := slices.Contains([]string{"create", "deletecollection", "list", "watch"}, r.Verb) && r.Subresource == ""
	if !collection {
		path += "/{name}"
	}
	if r.Subresource != "" {
		path += "/" + r.Subresource
	}
	return path
}

func (r *Request) operation(path *spec3.Path) *spec3.Operation {
	switch r.Verb {
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
