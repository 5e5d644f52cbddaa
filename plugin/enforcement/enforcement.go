// Package enforcement reads what a cluster enforces: the constraints of oke-sign,
// Gatekeeper's webhook, and the namespaces that Gatekeeper exempts. It changes nothing.
// It skips parts that the user may not read, and says so. Objects are hostile input: any
// field may be missing or have the wrong type.
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

// State is what a cluster enforces: constraints of oke-sign, and the namespaces that
// Gatekeeper does not check. Each part that could not be read has an error instead.
type State struct {
	workload.Input
	Webhook  *admissionregistrationv1.ValidatingWebhook // nil: it does not exist
	Excluded []string                                   // namespaces that Gatekeeper's Config exempts; a * may be at either end
	Live     *Live                                      // who answers now; nil: not read, and assumed to answer

	Unlisted   error // why the namespaces could not be listed
	Unknown    error // why the webhook could not be read
	Unexcluded error // why the Config could not be read
}

// ErrNoConstraints reports a cluster without a constraint of oke-sign.
var ErrNoConstraints = errors.New("the cluster has no constraint of oke-sign, so every image may run")

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
		return State{}, &cli.HintedError{What: ErrNoConstraints, Hint: "kubectl oke-sign doctor shows what is missing"}
	}
	e, err := ReadScope(ctx, s, "")
	e.Constraints = constraints
	return e, err
}

// Scope reads where the cluster enforces constraints: its namespaces, or one of them, and
// the namespaces that Gatekeeper does not check.
func Scope(ctx context.Context, s *connect.Session, namespace string) (e State) {
	e.Namespaces, e.Unlisted = listNamespaces(ctx, s, namespace)
	e.Webhook, e.Unknown = ReadWebhook(ctx, s)
	configs, err := List(ctx, s, ConfigKind)
	if err != nil && !apierrors.IsNotFound(err) {
		e.Unexcluded = fmt.Errorf("listing Gatekeeper's configuration: %w", err)
	}
	e.Excluded = ExcludedNamespaces(configs)
	return e
}

// ReadScope reads what Scope reads. It skips parts that the user may not read, and says
// so. Another failure to read the namespaces or the Config is an error.
func ReadScope(ctx context.Context, s *connect.Session, namespace string) (State, error) {
	e := Scope(ctx, s, namespace)
	switch {
	case apierrors.IsForbidden(e.Unlisted):
		s.Remark("you may not list namespaces, so constraints with a namespaceSelector cannot be simulated")
	case e.Unlisted != nil:
		return State{}, e.Unlisted
	}
	switch {
	case ctx.Err() != nil:
		return State{}, ctx.Err()
	case apierrors.IsForbidden(e.Unknown):
		s.Remark("you may not read Gatekeeper's webhook, so namespaces that it exempts count as checked here")
	case e.Unknown != nil:
		s.Remark("Gatekeeper's webhook could not be read: %v", e.Unknown)
	case e.Webhook == nil:
		s.Remark("Gatekeeper's webhook does not exist, so the cluster denies nothing; run kubectl oke-sign doctor")
	}
	switch {
	case apierrors.IsForbidden(e.Unexcluded):
		s.Remark("you may not read Gatekeeper's Config, so namespaces that it exempts count as checked here")
	case e.Unexcluded != nil:
		return State{}, e.Unexcluded
	}
	return e, nil
}

// listNamespaces returns the namespaces by name, or one of them.
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

// ReadWebhook returns the webhook that enforces constraints. It is nil if it does not
// exist.
func ReadWebhook(ctx context.Context, s *connect.Session) (*admissionregistrationv1.ValidatingWebhook, error) {
	client, err := s.Kube.Typed()
	if err != nil {
		return nil, err
	}
	return FindWebhook(client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, WebhookConfiguration, metav1.GetOptions{}))
}

// ConfigKind is the resource of Gatekeeper's Config.
var ConfigKind = schema.GroupVersionResource{Group: "config.gatekeeper.sh", Version: "v1alpha1", Resource: "configs"}

// ExcludedNamespaces returns the namespaces that Gatekeeper's Config exempts from the
// webhook.
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

// FindWebhook returns the webhook that enforces constraints. It is nil, without an error,
// if it does not exist.
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

// WhyNotAsked returns why Gatekeeper does not check a namespace, or "".
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
	return exemptBy(e.Webhook, n)
}

func exemptBy(webhook *admissionregistrationv1.ValidatingWebhook, n *corev1.Namespace) string {
	chosen, err := metav1.LabelSelectorAsSelector(webhook.NamespaceSelector)
	if err != nil || webhook.NamespaceSelector == nil || chosen.Matches(labels.Set(n.Labels)) {
		return ""
	}
	if _, ok := n.Labels[IgnoreLabel]; ok {
		return "the namespace has the label " + IgnoreLabel
	}
	return "Gatekeeper's webhook exempts the namespace"
}
