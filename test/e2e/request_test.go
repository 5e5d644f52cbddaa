package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// account sends requests to the API server as one user. kubectl cannot send some of
// these requests, and changes the body of others.
type account struct {
	client *http.Client
	server string
}

// administrator returns the account that has every right.
func administrator(t *testing.T) account {
	t.Helper()
	return newAccount(t, adminConfig(t))
}

// bearer returns the account that a token belongs to.
func bearer(t *testing.T, token string) account {
	t.Helper()
	config := rest.AnonymousClientConfig(adminConfig(t))
	config.BearerToken = token
	return newAccount(t, config)
}

func adminConfig(t *testing.T) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func newAccount(t *testing.T, config *rest.Config) account {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return account{client, config.Host}
}

// target is a resource or subresource with its group and version, for example
// apps/v1/deployments/scale or v1/pods.
type target string

// base returns the resource without its subresource.
func (r target) base() target {
	version, resource, _ := r.split()
	return target(version + "/" + resource)
}

func (r target) sub() string {
	_, _, sub := r.split()
	return sub
}

func (r target) split() (groupVersion, resource, sub string) {
	parts := strings.Split(string(r), "/")
	version := 1
	if parts[0] != "v1" {
		version = 2
	}
	return strings.Join(parts[:version], "/"), parts[version], strings.Join(parts[version+1:], "/")
}

// path returns the path of an object, or of all objects if the name is empty. The
// namespace is empty for cluster-wide resources.
func (r target) path(namespace, name string) string {
	groupVersion, resource, sub := r.split()
	root := "/apis/"
	if !strings.Contains(groupVersion, "/") {
		root = "/api/"
	}
	parts := []string{root + groupVersion}
	if namespace != "" {
		parts = append(parts, "namespaces", namespace)
	}
	for _, part := range []string{resource, name, sub} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/")
}

// form is a content type of a request.
type form string

const (
	asJSON    form = "application/json"
	asYAML    form = "application/yaml"
	merge     form = "application/merge-patch+json"
	strategic form = "application/strategic-merge-patch+json"
	jsonPatch form = "application/json-patch+json"
	apply     form = "application/apply-patch+yaml"
)

// String returns the form as a word: update, or the kind of patch.
func (f form) String() string {
	if f == asJSON {
		return "update"
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(string(f), "application/"), "+")
	return name
}

// query returns the query parameters that a form needs.
func (f form) query() url.Values {
	if f == apply {
		return url.Values{"fieldManager": {"intruder"}, "force": {"true"}}
	}
	return nil
}

// send sends an object or a patch and returns the object in the answer. A rejection by
// the API server is an error of package apierrors.
func (a account) send(ctx context.Context, method, path string, f form, query url.Values, body any) (object, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	text, isText := body.([]byte)
	if !isText && body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, a.server+path+"?"+query.Encode(), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", string(f))
	request.Header.Set("Accept", "application/json")
	answer, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if text, err = io.ReadAll(answer.Body); err != nil {
		return nil, err
	}
	if answer.StatusCode >= http.StatusBadRequest {
		status := metav1.Status{Code: int32(answer.StatusCode), Message: string(text)}
		_ = json.Unmarshal(text, &status) // a proxy's answer is not a Status
		return nil, &apierrors.StatusError{ErrStatus: status}
	}
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", method, path, err, text)
	}
	return o, nil
}

// create creates an object, or sends one to the subresource of the object with its
// name.
func (a account) create(ctx context.Context, r target, namespace string, body object) (object, error) {
	name := ""
	if r.sub() != "" {
		name = nameOf(body)
	}
	return a.send(ctx, http.MethodPost, r.path(namespace, name), asJSON, nil, body)
}

func (a account) update(ctx context.Context, r target, namespace string, body object) (object, error) {
	return a.send(ctx, http.MethodPut, r.path(namespace, nameOf(body)), asJSON, nil, body)
}

func (a account) patch(ctx context.Context, r target, namespace, name string, f form, body any) (object, error) {
	return a.send(ctx, http.MethodPatch, r.path(namespace, name), f, f.query(), body)
}

func (a account) get(ctx context.Context, r target, namespace, name string) (object, error) {
	return a.send(ctx, http.MethodGet, r.path(namespace, name), asJSON, nil, nil)
}

func (a account) remove(ctx context.Context, r target, namespace, name string) error {
	_, err := a.send(ctx, http.MethodDelete, r.path(namespace, name), asJSON, url.Values{"propagationPolicy": {"Background"}}, nil)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// watch passes every object of a resource to a function, existing ones first. It
// returns nil once the function returns true.
func (a account) watch(ctx context.Context, r target, namespace string, query url.Values, enough func(object) bool) error {
	q := url.Values{"watch": {"true"}}
	for name, values := range query {
		q[name] = values
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+r.path(namespace, "")+"?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	for events := json.NewDecoder(answer.Body); ; {
		var event struct {
			Type   string
			Object object
		}
		if err := events.Decode(&event); err != nil {
			return fmt.Errorf("watching %s: %w", r, err)
		}
		if event.Type == "ERROR" || event.Type == "" {
			return fmt.Errorf("watching %s: %v", r, event.Object)
		}
		if event.Type != "DELETED" && enough(event.Object) {
			return nil
		}
	}
}

// await waits until an object meets a condition.
func (a account) await(ctx context.Context, r target, namespace, name string, is func(object) bool) (object, error) {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	var found object
	err := a.watch(ctx, r, namespace, url.Values{"fieldSelector": {"metadata.name=" + name}}, func(o object) bool {
		found = o
		return is(o)
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for %s %s: %w", r, name, err)
	}
	return found, nil
}

// at returns the value at a path of fields, or nil.
func at(o object, fields ...string) any {
	var v any = o
	for _, field := range fields {
		m, ok := v.(object)
		if !ok {
			return nil
		}
		v = m[field]
	}
	return v
}

func nameOf(o object) string {
	name, _ := at(o, "metadata", "name").(string)
	return name
}

// holds reports whether an object contains a text.
func holds(o any, text string) bool {
	all, err := json.Marshal(o)
	return err == nil && bytes.Contains(all, []byte(text))
}
