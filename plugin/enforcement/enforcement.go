// Package enforcement reads what a cluster enforces: the constraints of oke-sign,
// Gatekeeper's webhook, and the namespaces that Gatekeeper leaves out. It changes
// nothing. Parts that the user may not read are left out, with a remark.
package enforcement

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

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
)

// State is what a cluster enforces: constraints of oke-sign, and where
// Gatekeeper is not asked at all.
type State struct {
	workload.Input
	Webhook  *admissionregistrationv1.ValidatingWebhook // nil if it is not there
	Unknown  error                                      // why it could not be read
	Excluded []string                                   // namespaces that Gatekeeper is configured to pass over; * at either end
}

// ErrNoConstraints says that a cluster enforces nothing of oke-sign.
var ErrNoConstraints = errors.New("the cluster has no constraint of oke-sign, so nothing says which images may run")

// Read reads what the cluster enforces.
func Read(ctx context.Context, s *connect.Session) (State, error) {
	var constraints []workload.Document
	for _, kind := range policies.Kinds() {
		found, err := ListConstraints(ctx, s, kind)
		if err != nil {
			return State{}, err
		}
		constraints = append(constraints, found...)
	}
	if len(constraints) == 0 {
		return State{}, &cli.HintedError{What: ErrNoConstraints, Hint: "kubectl oke-sign doctor says what is missing"}
	}
	e, err := ReadScope(ctx, s, "")
	e.Constraints = constraints
	return e, err
}

// ReadScope are what the cluster enforces but for constraints: its namespaces, or
// one of them, and where Gatekeeper is not asked. Who may not read one of it gets the
// rest, and is told.
func ReadScope(ctx context.Context, s *connect.Session, namespace string) (e State, err error) {
	e.Namespaces, err = listNamespaces(ctx, s, namespace)
	switch {
	case apierrors.IsForbidden(err):
		s.Remark("you may not list namespaces; constraints that choose them by label cannot be judged")
	case err != nil:
		return State{}, err
	}
	e.Webhook, e.Unknown = ReadWebhook(ctx, s)
	switch {
	case ctx.Err() != nil:
		return State{}, ctx.Err()
	case apierrors.IsForbidden(e.Unknown):
		s.Remark("you may not read Gatekeeper's webhook: namespaces that it leaves out are judged here all the same")
	case e.Unknown != nil:
		s.Remark("whether Gatekeeper is asked could not be found out: %v", e.Unknown)
	case e.Webhook == nil:
		s.Remark("Gatekeeper's webhook is not there: whatever is said here, nothing is refused (kubectl oke-sign doctor)")
	}
	configs, err := List(ctx, s, ConfigKind)
	switch {
	case apierrors.IsForbidden(err):
		s.Remark("you may not read Gatekeeper's Config: namespaces that it leaves out are judged here all the same")
	case err != nil && !apierrors.IsNotFound(err):
		return State{}, fmt.Errorf("listing Gatekeeper's configuration: %w", err)
	}
	e.Excluded = ExcludedNamespaces(configs)
	return e, nil
}

// listNamespaces are the namespaces by name, or one of them.
func listNamespaces(ctx context.Context, s *connect.Session, only string) (map[string]*corev1.Namespace, error) {
	found := make(map[string]*corev1.Namespace)
	client, err := s.Kube.Typed()
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

// ReadWebhook is the webhook that constraints are enforced by, or nil if it is not there.
func ReadWebhook(ctx context.Context, s *connect.Session) (*admissionregistrationv1.ValidatingWebhook, error) {
	client, err := s.Kube.Typed()
	if err != nil {
		return nil, err
	}
	return FindWebhook(client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, WebhookConfiguration, metav1.GetOptions{}))
}

// ConfigKind is the type of Gatekeeper's own configuration.
var ConfigKind = schema.GroupVersionResource{Group: "config.gatekeeper.sh", Version: "v1alpha1", Resource: "configs"}

// ExcludedNamespaces are those that Gatekeeper's webhook is configured to pass over.
func ExcludedNamespaces(configs []unstructured.Unstructured) []string {
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

// FindWebhook finds the webhook that constraints are enforced by. That it is not
// there is an answer.
func FindWebhook(c *admissionregistrationv1.ValidatingWebhookConfiguration, err error) (*admissionregistrationv1.ValidatingWebhook, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil || c == nil {
		return nil, err
	}
	for i := range c.Webhooks {
		if c.Webhooks[i].Name == ValidationWebhook {
			return &c.Webhooks[i], nil
		}
	}
	return nil, nil
}

// WhyNotAsked says why Gatekeeper is not asked about a namespace, or "".
func (e State) WhyNotAsked(namespace string) string {
	for _, pattern := range e.Excluded {
		if wildcard.Wildcard(pattern).Matches(namespace) {
			return "Gatekeeper's Config excludes the namespace"
		}
	}
	n := e.Namespaces[namespace]
	if e.Webhook == nil || n == nil {
		return ""
	}
	return leftOut(e.Webhook, n)
}

func leftOut(webhook *admissionregistrationv1.ValidatingWebhook, n *corev1.Namespace) string {
	chosen, err := metav1.LabelSelectorAsSelector(webhook.NamespaceSelector)
	if err != nil || webhook.NamespaceSelector == nil || chosen.Matches(labels.Set(n.Labels)) {
		return ""
	}
	if _, ok := n.Labels[IgnoreLabel]; ok {
		return "the namespace has the label " + IgnoreLabel
	}
	return "Gatekeeper's webhook leaves the namespace out"
}
