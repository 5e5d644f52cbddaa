package enforcement

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/policies"
)

// Health is what is known about a part of the cluster that must answer.
type Health struct {
	Down string // why it does not answer now; "" if it does
	Err  error  // why that is unknown
}

// Live reports whether Gatekeeper and the providers of the constraints answer now. Each of
// them answers if a Pod behind its Service is ready. A provider may still have no answer
// from OCI. An address outside the cluster counts as one that answers.
type Live struct {
	Gatekeeper Health
	Providers  map[string]Health // by the name of the Provider
	// Unchecked is why the API server admits every object without a check, or "".
	Unchecked string
	// Loose is why the API server may admit an object without a check, or "".
	Loose string
}

// ProviderKind is the resource of Gatekeeper's Providers.
var ProviderKind = schema.GroupVersionResource{Group: "externaldata.gatekeeper.sh", Version: "v1beta1", Resource: "providers"}

// ReadLive reads whether Gatekeeper and the providers of a state's constraints answer now.
func ReadLive(ctx context.Context, s *connect.Session, e State) *Live {
	l := &Live{Providers: make(map[string]Health)}
	l.readGatekeeper(ctx, s, e)
	for _, c := range e.Constraints {
		if name := ProviderOf(c.Object); name != "" {
			if _, ok := l.Providers[name]; !ok {
				l.Providers[name] = readProvider(ctx, s, name)
			}
		}
	}
	return l
}

func (l *Live) readGatekeeper(ctx context.Context, s *connect.Session, e State) {
	switch {
	case e.Unknown != nil:
		l.Gatekeeper.Err = fmt.Errorf("reading Gatekeeper's webhook: %w", e.Unknown)
		return
	case e.Webhook == nil:
		l.Gatekeeper.Down = "Gatekeeper's webhook does not exist"
		l.Unchecked = l.Gatekeeper.Down
		return
	}
	ignore := e.Webhook.FailurePolicy != nil && *e.Webhook.FailurePolicy == admissionregistrationv1.Ignore
	if ignore {
		l.Loose = "failurePolicy is Ignore: the API server admits objects when Gatekeeper does not answer in time"
	}
	service := e.Webhook.ClientConfig.Service
	if service == nil {
		return // an address outside the cluster
	}
	ready, err := ReadyPods(ctx, s, service.Namespace, service.Name)
	switch {
	case err != nil:
		l.Gatekeeper.Err = fmt.Errorf("reading whether Gatekeeper answers: %w", err)
	case len(ready) == 0:
		l.Gatekeeper.Down = fmt.Sprintf("no Pod of Gatekeeper is ready behind Service %s/%s", service.Namespace, service.Name)
		if ignore {
			l.Unchecked = l.Gatekeeper.Down + ", and failurePolicy is Ignore"
		}
	}
}

// ProviderOf returns the name of the Provider that a constraint asks, or "".
func ProviderOf(c *unstructured.Unstructured) string {
	fallback := map[string]string{policies.SignedImages: "oke-sign", policies.ScannedImages: "oke-sign-scans"}[c.GetKind()]
	if fallback == "" {
		return ""
	}
	name, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "provider")
	return cmp.Or(name, fallback)
}

func readProvider(ctx context.Context, s *connect.Session, name string) Health {
	address, err := addressOf(ctx, s, name)
	switch {
	case apierrors.IsNotFound(err):
		return Health{Down: fmt.Sprintf("the Provider %s does not exist", name)}
	case err != nil:
		return Health{Err: fmt.Errorf("reading the Provider %s: %w", name, err)}
	}
	service, namespace, ok := ServiceAt(address)
	if !ok {
		return Health{} // an address outside the cluster
	}
	ready, err := ReadyPods(ctx, s, namespace, service)
	switch {
	case err != nil:
		return Health{Err: fmt.Errorf("reading whether the provider %s answers: %w", name, err)}
	case len(ready) == 0:
		return Health{Down: fmt.Sprintf("no Pod of the provider is ready behind Service %s/%s", cli.Clip(namespace, 63), cli.Clip(service, 63))}
	}
	return Health{}
}

// ServiceAt returns the Service of the cluster at a URL, such as
// https://oke-sign.oke-sign.svc:8443/v1/signatures.
func ServiceAt(address string) (name, namespace string, ok bool) {
	u, err := url.Parse(address)
	if err != nil {
		return "", "", false
	}
	host := strings.Split(u.Hostname(), ".")
	if len(host) < 2 || len(host) > 2 && host[2] != "svc" || host[0] == "" || host[1] == "" {
		return "", "", false
	}
	return host[0], host[1], true
}

// ProviderNamespace returns the namespace of the Service at a Provider's address, or "".
func ProviderNamespace(ctx context.Context, s *connect.Session, name string) string {
	address, err := addressOf(ctx, s, name)
	if err != nil {
		return ""
	}
	_, namespace, _ := ServiceAt(address)
	return namespace
}

// addressOf returns the URL of a Provider.
func addressOf(ctx context.Context, s *connect.Session, name string) (string, error) {
	client, err := s.Kube.Objects()
	if err != nil {
		return "", err
	}
	p, err := client.Resource(ProviderKind).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	return address, nil
}

// ReadyPods returns the names of the ready Pods behind a Service.
func ReadyPods(ctx context.Context, s *connect.Session, namespace, service string) ([]string, error) {
	client, err := s.Kube.Typed()
	if err != nil {
		return nil, err
	}
	slices, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			if endpoint.TargetRef != nil && (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) {
				names = append(names, endpoint.TargetRef.Name)
			}
		}
	}
	return names, nil
}

// Answers returns whether the Provider of a constraint answers. A constraint without a
// Provider needs no answer.
func (l *Live) Answers(c *unstructured.Unstructured) Health {
	if l == nil {
		return Health{}
	}
	return l.Providers[ProviderOf(c)]
}

// Covers reports whether a rule of a webhook or a policy matches an operation on a
// resource. Resource * does not include subresources.
func Covers(r admissionregistrationv1.RuleWithOperations, group, resource string, operation admissionregistrationv1.OperationType) bool {
	parent, sub, isSub := strings.Cut(resource, "/")
	names := []string{resource, "*/*"}
	if isSub {
		names = append(names, parent+"/*", "*/"+sub)
	} else {
		names = append(names, "*")
	}
	if r.Scope != nil && *r.Scope == admissionregistrationv1.ClusterScope {
		return false
	}
	return (slices.Contains(r.APIGroups, "*") || slices.Contains(r.APIGroups, group)) &&
		(slices.Contains(r.APIVersions, "*") || slices.Contains(r.APIVersions, "v1")) &&
		(slices.Contains(r.Operations, admissionregistrationv1.OperationAll) || slices.Contains(r.Operations, operation)) &&
		slices.ContainsFunc(names, func(name string) bool { return slices.Contains(r.Resources, name) })
}
