package cmd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/wildcard"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"

	"github.com/oke-sign/oke-sign/policies"
)

// Names that Gatekeeper's chart gives, and that its code relies on.
const (
	webhookConfiguration = "gatekeeper-validating-webhook-configuration"
	validationWebhook    = "validation.gatekeeper.sh"
	ignoreLabel          = "admission.gatekeeper.sh/ignore"
)

// enforced is what a cluster enforces: constraints of oke-sign, and where
// Gatekeeper is not asked at all.
type enforced struct {
	policy
	webhook  *admissionregistrationv1.ValidatingWebhook // nil if it is not there
	unknown  error                                      // why it could not be read
	excluded []string                                   // namespaces that Gatekeeper is configured to pass over; * at either end
}

var errNoConstraints = errors.New("the cluster has no constraint of oke-sign, so nothing says which images may run")

// enforced reads what the cluster enforces.
func (g *global) enforced(ctx context.Context) (enforced, error) {
	var constraints []document
	for _, kind := range policies.Kinds() {
		found, err := g.constraints(ctx, kind)
		if err != nil {
			return enforced{}, err
		}
		constraints = append(constraints, found...)
	}
	if len(constraints) == 0 {
		return enforced{}, &refusal{errNoConstraints, "kubectl oke-sign doctor says what is missing"}
	}
	e, err := g.surroundings(ctx, "")
	e.constraints = constraints
	return e, err
}

// surroundings are what the cluster enforces but for constraints: its namespaces, or
// one of them, and where Gatekeeper is not asked. Who may not read one of it gets the
// rest, and is told.
func (g *global) surroundings(ctx context.Context, namespace string) (e enforced, err error) {
	e.namespaces, err = g.listNamespaces(ctx, namespace)
	switch {
	case apierrors.IsForbidden(err):
		g.remark("you may not list namespaces; constraints that choose them by label cannot be judged")
	case err != nil:
		return enforced{}, err
	}
	e.webhook, e.unknown = g.webhook(ctx)
	switch {
	case ctx.Err() != nil:
		return enforced{}, ctx.Err()
	case apierrors.IsForbidden(e.unknown):
		g.remark("you may not read Gatekeeper's webhook: namespaces that it leaves out are judged here all the same")
	case e.unknown != nil:
		g.remark("whether Gatekeeper is asked could not be found out: %v", e.unknown)
	case e.webhook == nil:
		g.remark("Gatekeeper's webhook is not there: whatever is said here, nothing is refused (kubectl oke-sign doctor)")
	}
	configs, err := g.list(ctx, configKind)
	switch {
	case apierrors.IsForbidden(err):
		g.remark("you may not read Gatekeeper's Config: namespaces that it leaves out are judged here all the same")
	case err != nil && !apierrors.IsNotFound(err):
		return enforced{}, fmt.Errorf("listing Gatekeeper's configuration: %w", err)
	}
	e.excluded = excludedNamespaces(configs)
	return e, nil
}

// listNamespaces are the namespaces by name, or one of them.
func (g *global) listNamespaces(ctx context.Context, only string) (map[string]*corev1.Namespace, error) {
	found := make(map[string]*corev1.Namespace)
	client, err := g.kube.typed()
	if err != nil {
		return found, err
	}
	options := metav1.ListOptions{}
	if only != "" {
		options.FieldSelector = "metadata.name=" + only
	}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.CoreV1().Namespaces().List(ctx, options)
	})
	err = pages.EachListItem(ctx, options, func(o runtime.Object) error {
		if n, ok := o.(*corev1.Namespace); ok {
			n.ManagedFields = nil
			found[n.Name] = n
		}
		return nil
	})
	if err != nil {
		return found, fmt.Errorf("listing namespaces: %w", err)
	}
	return found, nil
}

// webhook is the webhook that constraints are enforced by, or nil if it is not there.
func (g *global) webhook(ctx context.Context) (*admissionregistrationv1.ValidatingWebhook, error) {
	client, err := g.kube.typed()
	if err != nil {
		return nil, err
	}
	return findWebhook(client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, webhookConfiguration, metav1.GetOptions{}))
}

var configKind = schema.GroupVersionResource{Group: "config.gatekeeper.sh", Version: "v1alpha1", Resource: "configs"}

// excludedNamespaces are those that Gatekeeper's webhook is configured to pass over.
func excludedNamespaces(configs []unstructured.Unstructured) []string {
	var found []string
	for _, c := range configs {
		matches, _, _ := unstructured.NestedSlice(c.Object, "spec", "match")
		for _, m := range matches {
			m, _ := m.(map[string]any)
			processes, _, _ := unstructured.NestedStringSlice(m, "processes")
			namespaces, _, _ := unstructured.NestedStringSlice(m, "excludedNamespaces")
			if c.GetName() == "config" && (slices.Contains(processes, "*") || slices.Contains(processes, "webhook")) {
				found = append(found, namespaces...)
			}
		}
	}
	return found
}

// constraints are those of a kind; a kind that is not installed has none.
func (g *global) constraints(ctx context.Context, kind string) ([]document, error) {
	list, err := g.list(ctx, constraintsOf(kind))
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing constraints of kind %s: %w", kind, err)
	}
	found := make([]document, len(list))
	for i := range list {
		found[i] = document{file: "the cluster", object: &list[i]}
	}
	return found, nil
}

// list lists all objects of a kind, page by page.
func (g *global) list(ctx context.Context, of schema.GroupVersionResource) ([]unstructured.Unstructured, error) {
	client, err := g.kube.objects()
	if err != nil {
		return nil, err
	}
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return client.Resource(of).List(ctx, options)
	})
	var found []unstructured.Unstructured
	err = pages.EachListItem(ctx, metav1.ListOptions{}, func(o runtime.Object) error {
		if o, ok := o.(*unstructured.Unstructured); ok {
			found = append(found, *o)
		}
		return nil
	})
	return found, err
}

// findWebhook finds the webhook that constraints are enforced by. That it is not
// there is an answer.
func findWebhook(c *admissionregistrationv1.ValidatingWebhookConfiguration, err error) (*admissionregistrationv1.ValidatingWebhook, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil || c == nil {
		return nil, err
	}
	for i := range c.Webhooks {
		if c.Webhooks[i].Name == validationWebhook {
			return &c.Webhooks[i], nil
		}
	}
	return nil, nil
}

// outside says why Gatekeeper is not asked about a namespace, or "".
func (e enforced) outside(namespace string) string {
	for _, pattern := range e.excluded {
		if wildcard.Wildcard(pattern).Matches(namespace) {
			return "Gatekeeper's Config excludes the namespace"
		}
	}
	n := e.namespaces[namespace]
	if e.webhook == nil || n == nil {
		return ""
	}
	return leftOut(e.webhook, n)
}

func leftOut(webhook *admissionregistrationv1.ValidatingWebhook, n *corev1.Namespace) string {
	chosen, err := metav1.LabelSelectorAsSelector(webhook.NamespaceSelector)
	if err != nil || webhook.NamespaceSelector == nil || chosen.Matches(labels.Set(n.Labels)) {
		return ""
	}
	if _, ok := n.Labels[ignoreLabel]; ok {
		return "the namespace has the label " + ignoreLabel
	}
	return "Gatekeeper's webhook leaves the namespace out"
}
