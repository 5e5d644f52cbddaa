package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"strings"
	"text/template"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

// memory is the TTL of Gatekeeper's cache, as the chart sets it.
const memory = 30 * time.Second

// cluster does the work of the API server and its controllers around Gatekeeper's
// engine. It creates the applied objects, and a Deployment's ReplicaSet and Pods,
// and sends each to the engine.
type cluster struct {
	engine *gatekeeper.Engine
}

// outcome is the fate of an applied object.
type outcome struct {
	denied   []string // why the engine denied the object itself
	warnings []string
	replicas int
	ready    int      // number of running replicas
	events   []string // why the engine denied replicas
}

// text returns all messages.
func (o outcome) text() string {
	return strings.Join(append(append(append([]string{}, o.denied...), o.warnings...), o.events...), "\n")
}

func newCluster(ctx context.Context, cfg gatekeeper.Config, providers ...gatekeeper.Provider) (*cluster, error) {
	engine, err := gatekeeper.New(cfg)
	if err != nil {
		return nil, err
	}
	c := &cluster{engine}
	err = fs.WalkDir(policies.Templates, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := policies.Templates.ReadFile(path)
		if err != nil {
			return err
		}
		return engine.AddTemplate(ctx, text)
	})
	for _, provider := range providers {
		if err == nil {
			err = engine.AddProvider(provider)
		}
	}
	if err != nil {
		engine.Close()
		return nil, err
	}
	return c, nil
}

// policy has the constraints of the demo: those that the chart installs by default
// with these values.
const policy = `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: signed-images}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
  parameters: {{.Parameters}}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: signed-images-in-workloads}
spec:
  enforcementAction: warn
  match: {kinds: [{apiGroups: [apps], kinds: [Deployment]}]}
  parameters: {{.Parameters}}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEImageDigests
metadata: {name: image-digests}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEBreakGlass
metadata: {name: break-glass}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: ["", apps], kinds: [Pod, ReplicaSet, Deployment]}]}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEBreakGlass
metadata: {name: break-glass-report}
spec:
  enforcementAction: warn
  match: {kinds: [{apiGroups: ["", apps], kinds: [Pod, Deployment]}]}
  parameters: {report: true}
---
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKESignedImages
metadata: {name: any-image-report}
spec:
  enforcementAction: warn
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
  parameters: {{.Report}}
`

// enforce adds the policy's constraints to the cluster. parameters are those of
// OKESignedImages, in YAML's flow style.
func (c *cluster) enforce(ctx context.Context, parameters string) error {
	var text bytes.Buffer
	err := template.Must(template.New("policy").Parse(policy)).Execute(&text, map[string]string{
		"Parameters": parameters,
		"Report":     strings.TrimSuffix(parameters, "}") + ", report: true}",
	})
	if err != nil {
		return err
	}
	for document := range strings.SplitSeq(text.String(), "---\n") {
		if err := c.engine.AddConstraint(ctx, []byte(document)); err != nil {
			return err
		}
	}
	return nil
}

// The users and controllers that send requests.
var (
	alice                = authenticationv1.UserInfo{Username: "alice", Groups: []string{"platform", "system:authenticated"}}
	deploymentController = controller("deployment-controller")
	replicaSetController = controller("replicaset-controller")
)

func controller(name string) authenticationv1.UserInfo {
	return authenticationv1.UserInfo{
		Username: "system:serviceaccount:kube-system:" + name,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"},
	}
}

func (c *cluster) create(ctx context.Context, object *unstructured.Unstructured, by authenticationv1.UserInfo) (gatekeeper.Decision, error) {
	return c.engine.Review(ctx, gatekeeper.Request{
		Operation: admissionv1.Create,
		Object:    object,
		User:      by,
		Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: object.GetNamespace()}},
	})
}

// apply creates the object that the text describes, as alice. For a Deployment it then
// creates the ReplicaSet and Pods, as the controllers do.
func (c *cluster) apply(ctx context.Context, text string) (outcome, error) {
	object, err := manifest.Object([]byte(text))
	if err != nil {
		return outcome{}, err
	}
	if object.GetNamespace() == "" {
		object.SetNamespace("default")
	}
	d, err := c.create(ctx, object, alice)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{denied: lines(d.Denied), warnings: lines(d.Warnings), replicas: 1}
	if object.GetKind() != "Deployment" {
		if d.Allowed() {
			o.ready = 1
		}
		return o, nil
	}
	replicas, _, err := unstructured.NestedInt64(object.Object, "spec", "replicas")
	if err != nil {
		return outcome{}, err
	}
	o.replicas = int(replicas)
	if !d.Allowed() {
		return o, nil
	}

	set := object.DeepCopy()
	set.SetKind("ReplicaSet")
	set.SetName(object.GetName() + "-6d4cf56db6")
	if d, err = c.create(ctx, set, deploymentController); err != nil {
		return outcome{}, err
	}
	o.events = append(o.events, lines(d.Denied)...)
	if !d.Allowed() {
		return o, nil
	}
	pod, err := podOf(set)
	if err != nil {
		return outcome{}, err
	}
	for range o.replicas {
		if d, err = c.create(ctx, pod, replicaSetController); err != nil {
			return outcome{}, err
		}
		if d.Allowed() {
			o.ready++
			o.warnings = append(o.warnings, fresh(o.warnings, lines(d.Warnings))...)
		}
		o.events = append(o.events, fresh(o.events, lines(d.Denied))...)
	}
	return o, nil
}

func podOf(set *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	content, found, err := unstructured.NestedMap(set.Object, "spec", "template")
	if err != nil || !found {
		return nil, fmt.Errorf("a %s without a Pod template: %w", set.GetKind(), err)
	}
	pod := &unstructured.Unstructured{Object: content}
	pod.SetAPIVersion("v1")
	pod.SetKind("Pod")
	pod.SetGenerateName(set.GetName() + "-")
	pod.SetNamespace(set.GetNamespace())
	return pod, nil
}

func lines(violations []gatekeeper.Violation) []string {
	var text []string
	for _, v := range violations {
		text = append(text, v.String())
	}
	return text
}

// fresh returns the lines of more that known does not contain.
func fresh(known, more []string) []string {
	var text []string
	for _, line := range more {
		if !strings.Contains(strings.Join(known, "\n"), line) {
			text = append(text, line)
		}
	}
	return text
}
