// Package fakeapiserver has two Kubernetes API servers, for tests without a cluster.
// Unmodified clients talk to them over HTTP.
//
// Server is for the commands of the plugin. It has discovery, the verbs of every
// kind of object in a cluster with the policies, and a client with all rights. It
// stores objects in the tracker of controller-runtime's fake client. The tracker
// assigns resource versions, rejects edits of changed objects, and merges
// server-side applies. It merges a list as one value. Server has no watches.
//
// Guarded is for the provider. It has HTTPS, and a service account with a few rights
// on a few objects. It has watches from a resource version on, and failures on
// demand.
//
// Neither server validates, defaults or admits objects. The tests on a real control
// plane, test/e2e, cover that.
package fakeapiserver

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

// Resource is a resource that a server serves.
type Resource struct {
	schema.GroupVersionKind
	Plural     string
	Short      []string
	Namespaced bool
}

func resource(group, version, kind string, namespaced bool, short ...string) Resource {
	plural := strings.ToLower(kind) + "s"
	if stem, found := strings.CutSuffix(plural, "ys"); found {
		plural = stem + "ies"
	}
	if group == "constraints.gatekeeper.sh" {
		plural = strings.ToLower(kind) // Gatekeeper forms plurals this way
	}
	return Resource{schema.GroupVersionKind{Group: group, Version: version, Kind: kind}, plural, short, namespaced}
}

// Resources returns the resources that the commands use in a cluster with Gatekeeper
// and the policies of oke-sign.
func Resources() []Resource {
	list := []Resource{
		resource("", "v1", "Namespace", false, "ns"),
		resource("", "v1", "Node", false, "no"),
		resource("", "v1", "Pod", true, "po"),
		resource("", "v1", "Service", true, "svc"),
		resource("", "v1", "ConfigMap", true, "cm"),
		resource("", "v1", "Secret", true),
		resource("", "v1", "Event", true, "ev"),
		resource("", "v1", "ServiceAccount", true, "sa"),
		resource("", "v1", "ReplicationController", true, "rc"),
		resource("apps", "v1", "Deployment", true, "deploy"),
		resource("apps", "v1", "ReplicaSet", true, "rs"),
		resource("apps", "v1", "ControllerRevision", true),
		resource("apps", "v1", "StatefulSet", true, "sts"),
		resource("apps", "v1", "DaemonSet", true, "ds"),
		resource("batch", "v1", "Job", true),
		resource("batch", "v1", "CronJob", true, "cj"),
		resource("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", false),
		resource("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", false),
		resource("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicy", false),
		resource("admissionregistration.k8s.io", "v1", "ValidatingAdmissionPolicyBinding", false),
		resource("rbac.authorization.k8s.io", "v1", "ClusterRole", false),
		resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", false),
		resource("rbac.authorization.k8s.io", "v1", "Role", true),
		resource("rbac.authorization.k8s.io", "v1", "RoleBinding", true),
		resource("policy", "v1", "PodDisruptionBudget", true, "pdb"),
		resource("networking.k8s.io", "v1", "NetworkPolicy", true, "netpol"),
		resource("discovery.k8s.io", "v1", "EndpointSlice", true),
		resource("apiextensions.k8s.io", "v1", "CustomResourceDefinition", false, "crd"),
		resource("templates.gatekeeper.sh", "v1", "ConstraintTemplate", false),
		resource("externaldata.gatekeeper.sh", "v1beta1", "Provider", false),
		resource("mutations.gatekeeper.sh", "v1", "Assign", false),
		resource("config.gatekeeper.sh", "v1alpha1", "Config", true),
		resource("status.gatekeeper.sh", "v1beta1", "ConstraintPodStatus", true),
		resource("status.gatekeeper.sh", "v1beta1", "ConstraintTemplatePodStatus", true),
		resource("status.gatekeeper.sh", "v1beta1", "ProviderPodStatus", true),
	}
	for i, r := range list {
		switch r.Kind {
		case "ConstraintPodStatus", "ConstraintTemplatePodStatus", "ProviderPodStatus":
			list[i].Plural = strings.ToLower(r.Kind) + "es"
		case "Assign":
			list[i].Plural = "assign"
		}
	}
	for _, kind := range []string{"OKESignedImages", "OKEImageDigests", "OKEBreakGlass", "OKEScannedImages"} {
		list = append(list, resource("constraints.gatekeeper.sh", "v1beta1", kind, false))
	}
	return list
}

// Server is a running API server without authentication.
type Server struct {
	URL string

	resources []Resource
	client    client.Client

	mu       sync.Mutex
	requests []string
	handlers map[string]http.Handler
	before   func(http.ResponseWriter, *http.Request) bool
}

// Start runs a server until the test ends. It has only the namespaces default and
// kube-system.
func Start(tb testing.TB, resources ...Resource) *Server {
	tb.Helper()
	if len(resources) == 0 {
		resources = Resources()
	}
	scheme := runtime.NewScheme()
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, r := range resources {
		// Objects of any kind are stored unchanged.
		scheme.AddKnownTypeWithName(r.GroupVersionKind, &unstructured.Unstructured{})
		scheme.AddKnownTypeWithName(listOf(r), &unstructured.UnstructuredList{})
		scope := meta.RESTScopeRoot
		if r.Namespaced {
			scope = meta.RESTScopeNamespace
		}
		mapper.AddSpecific(r.GroupVersionKind, r.GroupVersion().WithResource(r.Plural), r.GroupVersion().WithResource(strings.ToLower(r.Kind)), scope)
	}
	s := &Server{
		resources: resources,
		client: fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapper).
			WithTypeConverters(managedfields.NewDeducedTypeConverter()).WithReturnManagedFields().Build(),
		handlers: make(map[string]http.Handler),
	}
	server := httptest.NewServer(s)
	tb.Cleanup(server.Close)
	s.URL = server.URL
	for _, name := range []string{"default", "kube-system"} {
		err := s.Add(&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Namespace",
			"metadata": map[string]any{"name": name, "labels": map[string]any{"kubernetes.io/metadata.name": name}},
		}})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

func listOf(r Resource) schema.GroupVersionKind {
	return r.GroupVersion().WithKind(r.Kind + "List")
}

// Kubeconfig writes a kubeconfig with these contexts. Each context has the namespace
// default. The first one is the current context.
func (s *Server) Kubeconfig(dir string, contexts ...string) (string, error) {
	if len(contexts) == 0 {
		contexts = []string{"test"}
	}
	var entries []any
	for _, name := range contexts {
		entries = append(entries, map[string]any{"name": name, "context": map[string]any{"cluster": "test", "user": "test"}})
	}
	text, err := json.MarshalIndent(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": contexts[0], "contexts": entries,
		"clusters": []any{map[string]any{"name": "test", "cluster": map[string]any{"server": s.URL}}},
		"users":    []any{map[string]any{"name": "test", "user": map[string]any{}}},
	}, "", "  ")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "kubeconfig")
	return file, os.WriteFile(file, text, 0o600)
}

// Add stores objects, and replaces those with the same names.
func (s *Server) Add(objects ...*unstructured.Unstructured) error {
	for _, o := range objects {
		o = o.DeepCopy()
		r, ok := s.find(func(r Resource) bool { return r.GroupVersionKind == o.GroupVersionKind() })
		if !ok {
			return fmt.Errorf("the server serves no %s", o.GroupVersionKind())
		}
		if r.Namespaced && o.GetNamespace() == "" {
			o.SetNamespace("default")
		}
		name(o)
		if err := s.client.Delete(context.Background(), o.DeepCopy()); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		o.SetResourceVersion("")
		if err := s.client.Create(context.Background(), o); err != nil {
			return err
		}
	}
	return nil
}

// List returns all objects of an API group.
func (s *Server) List(group string) ([]unstructured.Unstructured, error) {
	var found []unstructured.Unstructured
	for _, r := range s.resources {
		if r.Group != group {
			continue
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(listOf(r))
		if err := s.client.List(context.Background(), list); err != nil {
			return nil, err
		}
		found = append(found, list.Items...)
	}
	return found, nil
}

// Handle serves a path by h, such as the proxy of a service.
func (s *Server) Handle(path string, h http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handlers[path] = h
}

// Before calls f before the server handles a request. If f returns true, f has
// answered the request. A nil f ends this.
func (s *Server) Before(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

// Requests returns the methods and paths of all requests so far, without discovery.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func (s *Server) find(is func(Resource) bool) (Resource, bool) {
	i := slices.IndexFunc(s.resources, is)
	if i < 0 {
		return Resource{}, false
	}
	return s.resources[i], true
}

// name gives a new object what an API server gives it.
func name(o *unstructured.Unstructured) {
	if o.GetUID() == "" {
		o.SetUID(types.UID("uid-of-" + strings.ToLower(o.GetKind()) + "-" + o.GetName()))
	}
	if created := o.GetCreationTimestamp(); created.IsZero() {
		o.SetCreationTimestamp(metav1.Now())
	}
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	handler, before := s.handlers[r.URL.Path], s.before
	s.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	switch segments := strings.Split(strings.Trim(r.URL.Path, "/"), "/"); {
	case handler != nil:
		handler.ServeHTTP(w, r)
	case r.URL.Path == "/version":
		write(w, http.StatusOK, map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.3"})
	case r.URL.Path == "/api":
		write(w, http.StatusOK, metav1.APIVersions{TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"}})
	case r.URL.Path == "/apis":
		write(w, http.StatusOK, s.groups())
	case segments[0] == "api" && len(segments) == 2:
		write(w, http.StatusOK, s.served(schema.GroupVersion{Version: segments[1]}))
	case segments[0] == "apis" && len(segments) == 3:
		write(w, http.StatusOK, s.served(schema.GroupVersion{Group: segments[1], Version: segments[2]}))
	case segments[0] == "api" && len(segments) > 2:
		s.serve(w, r, schema.GroupVersion{Version: segments[1]}, segments[2:])
	case segments[0] == "apis" && len(segments) > 3:
		s.serve(w, r, schema.GroupVersion{Group: segments[1], Version: segments[2]}, segments[3:])
	default:
		fail(w, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "no such path", 0, false))
	}
}

func (s *Server) groups() metav1.APIGroupList {
	list := metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}}
	for _, r := range s.resources {
		if r.Group == "" || slices.ContainsFunc(list.Groups, func(g metav1.APIGroup) bool { return g.Name == r.Group }) {
			continue
		}
		v := metav1.GroupVersionForDiscovery{GroupVersion: r.GroupVersion().String(), Version: r.Version}
		list.Groups = append(list.Groups, metav1.APIGroup{Name: r.Group, Versions: []metav1.GroupVersionForDiscovery{v}, PreferredVersion: v})
	}
	return list
}

func (s *Server) served(gv schema.GroupVersion) metav1.APIResourceList {
	list := metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
	for _, r := range s.resources {
		if r.GroupVersion() == gv {
			list.APIResources = append(list.APIResources, metav1.APIResource{
				Name: r.Plural, SingularName: strings.ToLower(r.Kind), Kind: r.Kind, Namespaced: r.Namespaced, ShortNames: r.Short,
				Verbs: metav1.Verbs{"get", "list", "create", "update", "patch", "delete"},
			})
		}
	}
	return list
}

// serve serves objects: [namespaces NAMESPACE] PLURAL [NAME].
func (s *Server) serve(w http.ResponseWriter, r *http.Request, gv schema.GroupVersion, path []string) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.Path)
	s.mu.Unlock()
	namespace := ""
	if len(path) > 2 && path[0] == "namespaces" {
		namespace, path = path[1], path[2:]
	}
	of, ok := s.find(func(of Resource) bool { return of.GroupVersion() == gv && of.Plural == path[0] })
	if !ok || len(path) > 2 {
		fail(w, apierrors.NewGenericServerResponse(http.StatusNotFound, r.Method, schema.GroupResource{}, "", "no such resource", 0, false))
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil {
		fail(w, err)
		return
	}
	var answer any
	if len(path) == 1 {
		answer, err = s.collection(r, of, namespace, body)
	} else {
		answer, err = s.object(r, of, types.NamespacedName{Namespace: namespace, Name: path[1]}, body)
	}
	if err != nil {
		fail(w, err)
		return
	}
	code := http.StatusOK
	if r.Method == http.MethodPost {
		code = http.StatusCreated
	}
	write(w, code, answer)
}

func (s *Server) collection(r *http.Request, of Resource, namespace string, body []byte) (any, error) {
	query := r.URL.Query()
	switch {
	case r.Method == http.MethodPost:
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(body); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if of.Namespaced {
			o.SetNamespace(namespace)
		}
		name(o)
		var options []client.CreateOption
		if query.Get("dryRun") != "" {
			options = append(options, client.DryRunAll)
		}
		return o, s.client.Create(r.Context(), o, options...)
	case r.Method == http.MethodGet && query.Get("watch") == "":
		chosen, err := labels.Parse(query.Get("labelSelector"))
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		named, err := fields.ParseSelector(query.Get("fieldSelector"))
		if err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(listOf(of))
		if err := s.client.List(r.Context(), list, &client.ListOptions{Namespace: namespace, LabelSelector: chosen}); err != nil {
			return nil, err
		}
		list.Items = slices.DeleteFunc(list.Items, func(o unstructured.Unstructured) bool {
			phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
			node, _, _ := unstructured.NestedString(o.Object, "spec", "nodeName")
			reason, _, _ := unstructured.NestedString(o.Object, "reason")
			return !named.Matches(fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace(), "status.phase": phase, "spec.nodeName": node, "reason": reason})
		})
		return list, page(list, query)
	}
	return nil, apierrors.NewMethodNotSupported(schema.GroupResource{Group: of.Group, Resource: of.Plural}, r.Method)
}

// page cuts a list to the part that limit and continue request. The parts of a real
// server show one moment. Here objects may change between parts.
func page(list *unstructured.UnstructuredList, query url.Values) error {
	from, _ := strconv.Atoi(query.Get("continue"))
	limit, _ := strconv.Atoi(query.Get("limit"))
	if from < 0 || from > len(list.Items) || limit < 0 {
		return apierrors.NewBadRequest("no such page")
	}
	slices.SortFunc(list.Items, func(a, b unstructured.Unstructured) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
	to := len(list.Items)
	if limit > 0 && from+limit < to {
		to = from + limit
		list.SetContinue(strconv.Itoa(to))
	}
	list.Items = append([]unstructured.Unstructured{}, list.Items[from:to]...)
	return nil
}

func (s *Server) object(r *http.Request, of Resource, at types.NamespacedName, body []byte) (any, error) {
	ctx, query := r.Context(), r.URL.Query()
	dry := query.Get("dryRun") != ""
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(of.GroupVersionKind)
	o.SetNamespace(at.Namespace)
	o.SetName(at.Name)
	switch r.Method {
	case http.MethodGet:
		return o, s.client.Get(ctx, at, o)
	case http.MethodPut:
		if err := o.UnmarshalJSON(body); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		// As in every API server, the status has a separate path.
		stored := &unstructured.Unstructured{}
		stored.SetGroupVersionKind(of.GroupVersionKind)
		if err := s.client.Get(ctx, at, stored); err != nil {
			return nil, err
		}
		delete(o.Object, "status")
		if status, ok := stored.Object["status"]; ok {
			o.Object["status"] = status
		}
		if version := o.GetResourceVersion(); dry && version != "" && version != stored.GetResourceVersion() {
			return nil, apierrors.NewConflict(schema.GroupResource{Group: of.Group, Resource: of.Plural}, at.Name, errors.New("it has changed"))
		}
		var options []client.UpdateOption
		if dry {
			options = append(options, client.DryRunAll)
		}
		return o, s.client.Update(ctx, o, options...)
	case http.MethodPatch:
		var options []client.PatchOption
		if manager := query.Get("fieldManager"); manager != "" {
			options = append(options, client.FieldOwner(manager))
		}
		if query.Get("force") == "true" {
			options = append(options, client.ForceOwnership)
		}
		if dry {
			options = append(options, client.DryRunAll)
		}
		patch := client.RawPatch(types.PatchType(r.Header.Get("Content-Type")), body)
		if patch.Type() == types.StrategicMergePatchType {
			// A strategic merge needs a schema, and these objects have none.
			return nil, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, r.Method, schema.GroupResource{}, "", "", 0, false)
		}
		return o, s.client.Patch(ctx, o, patch, options...)
	case http.MethodDelete:
		if err := s.client.Get(ctx, at, o); err != nil {
			return nil, err
		}
		var options []client.DeleteOption
		var sent metav1.DeleteOptions
		if len(body) > 0 {
			if err := json.Unmarshal(body, &sent); err != nil {
				return nil, apierrors.NewBadRequest(err.Error())
			}
		}
		if dry || len(sent.DryRun) > 0 {
			options = append(options, client.DryRunAll)
		}
		if sent.Preconditions != nil {
			options = append(options, client.Preconditions(*sent.Preconditions))
		}
		return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}, s.client.Delete(ctx, o, options...)
	}
	return nil, apierrors.NewMethodNotSupported(schema.GroupResource{Group: of.Group, Resource: of.Plural}, r.Method)
}

func write(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client may have left
}

func fail(w http.ResponseWriter, err error) {
	var known apierrors.APIStatus
	if !errors.As(err, &known) {
		known = apierrors.NewInternalError(err)
	}
	status := known.Status()
	status.Kind, status.APIVersion = "Status", "v1"
	write(w, int(status.Code), status)
}
