package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// gather reads the facts. It fails only when it cannot reach the cluster, or when the
// time is over. Any other error becomes part of the facts, and checks report it.
func gather(ctx context.Context, s *connect.Session) (*facts, error) {
	client, err := s.Kube.Typed()
	if err != nil {
		return nil, err
	}
	f := &facts{backends: make(map[string]backend)}
	if f.apiTime.is, err = clock(ctx, s); err != nil {
		return nil, fmt.Errorf("reaching the cluster: %w", err)
	}
	f.now = time.Now()
	f.webhooks.is, f.webhooks.err = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, enforcement.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(f.webhooks.err) {
		f.webhooks = fact[*admissionregistrationv1.ValidatingWebhookConfiguration]{is: &admissionregistrationv1.ValidatingWebhookConfiguration{}}
	}
	deployments, err := client.AppsV1().Deployments(f.gatekeeperNamespace()).List(ctx, metav1.ListOptions{LabelSelector: "gatekeeper.sh/system=yes"})
	if f.gatekeeper.err = err; err == nil {
		f.gatekeeper.is = withOperations(deployments.Items)
	}
	namespaces, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if f.namespaces.err = err; err == nil {
		f.namespaces.is = namespaces.Items
	}
	f.labels = readLabelGuard(ctx, client)
	f.configs = found(ctx, s, enforcement.ConfigKind)
	f.templates = found(ctx, s, schema.GroupVersionResource{Group: "templates.gatekeeper.sh", Version: "v1", Resource: "constrainttemplates"})
	f.providers = found(ctx, s, schema.GroupVersionResource{Group: "externaldata.gatekeeper.sh", Version: "v1beta1", Resource: "providers"})
	f.assigns = found(ctx, s, assignKind)
	if len(f.pins()) > 0 {
		webhooks, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, mutationConfiguration, metav1.GetOptions{})
		if f.mutation.err = err; err == nil {
			f.mutation.is = mutating(webhooks)
		} else if apierrors.IsNotFound(err) {
			f.mutation.err = nil
		}
	}
	for _, kind := range policies.Kinds() {
		found, err := enforcement.ListConstraints(ctx, s, kind)
		f.constraints.err = cmp.Or(f.constraints.err, err)
		for _, c := range found {
			f.constraints.is = append(f.constraints.is, *c.Object)
		}
	}
	f.reach = make(map[string]fact[enforcement.Reach])
	for i := range f.constraints.is {
		if c := &f.constraints.is[i]; deniesImages(*c) {
			r, err := f.scope().ReadReach(ctx, s, c)
			f.reach[constraint.Name(c)] = fact[enforcement.Reach]{r, err}
		}
	}
	wanted := f.wantedProviders()
	for _, p := range f.providers.is {
		if wanted[p.GetName()] != "" || p.GetName() == "oke-sign" { // before there is a constraint, too
			f.backends[p.GetName()] = readBackend(ctx, client, p)
		}
	}
	f.keys = part(ctx, s.Timeout/8, func(ctx context.Context) fact[[]keyFact] { return keyFacts(ctx, s, f.constraints.is) })
	f.running = part(ctx, s.Timeout/2, func(ctx context.Context) fact[[]*simulate.ImageStatus] {
		return runningFacts(ctx, s, len(f.constraints.is) > 0)
	})
	return f, ctx.Err()
}

// part bounds a question to OCI by a part of --timeout. While OCI does not answer,
// doctor still has the time to report on the cluster.
func part[T any](ctx context.Context, limit time.Duration, look func(context.Context) fact[T]) fact[T] {
	if limit == 0 {
		return look(ctx)
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := look(within)
	if f.err != nil && within.Err() != nil && ctx.Err() == nil {
		f.err = fmt.Errorf("OCI did not answer within %s of --timeout: %w", limit, f.err)
	}
	return f
}

// withOperations labels Deployments without an operation by their names. Manifests
// older than Gatekeeper's chart have no such label.
func withOperations(found []appsv1.Deployment) []appsv1.Deployment {
	for i, d := range found {
		if d.Spec.Template.Labels["gatekeeper.sh/operation"] != "" {
			continue
		}
		what := "webhook"
		if strings.Contains(d.Name, "audit") {
			what = "audit"
		}
		found[i].Spec.Template.Labels = map[string]string{"gatekeeper.sh/operation": what}
	}
	return found
}

// clock returns the time by the API server's clock, to the second.
func clock(ctx context.Context, s *connect.Session) (time.Time, error) {
	config, err := s.Kube.ToRESTConfig()
	if err != nil {
		return time.Time{}, connect.Unreachable(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return time.Time{}, err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return time.Time{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, base.JoinPath("version").String(), nil)
	if err != nil {
		return time.Time{}, err
	}
	response, err := client.Do(request)
	if err != nil {
		return time.Time{}, err
	}
	defer response.Body.Close() //nolint:errcheck // nothing reads the body
	return http.ParseTime(response.Header.Get("Date"))
}

// found lists all objects of a kind. A kind that is not installed has no objects.
func found(ctx context.Context, s *connect.Session, of schema.GroupVersionResource) (f fact[[]unstructured.Unstructured]) {
	f.is, f.err = enforcement.List(ctx, s, of)
	if apierrors.IsNotFound(f.err) {
		f.err = nil
	}
	return f
}

// readBackend follows the address of a Provider to its Service, Pods and certificate.
func readBackend(ctx context.Context, client kubernetes.Interface, p unstructured.Unstructured) backend {
	b := backend{unready: make(map[string]string)}
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	u, err := url.Parse(address)
	if err != nil {
		return backend{err: err}
	}
	var ok bool
	if b.service, b.namespace, ok = enforcement.ServiceAt(address); !ok {
		return backend{err: fmt.Errorf("%s %w", cli.Clip(u.Host, 100), errNoService)}
	}
	service, err := client.CoreV1().Services(b.namespace).Get(ctx, b.service, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		service, err = nil, nil
	}
	if err != nil {
		return backend{namespace: b.namespace, err: err}
	}
	if b.unserved = unserved(service, u); b.unserved != "" {
		return b
	}
	pods, err := client.CoreV1().Pods(b.namespace).List(ctx, metav1.ListOptions{LabelSelector: labels.Set(service.Spec.Selector).String()})
	if err != nil {
		return backend{namespace: b.namespace, err: err}
	}
	b.pods = pods.Items
	for _, pod := range b.pods {
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status != corev1.ConditionTrue {
				b.unready[pod.Name] = askReady(ctx, client, pod, cmp.Or(c.Message, string(pod.Status.Phase)))
			}
		}
	}
	b.chain.is, b.chain.err = served(ctx, client, b.pods)
	return b
}

// unserved returns why nothing answers at an address of a Service, or "". A nil Service
// does not exist.
func unserved(service *corev1.Service, at *url.URL) string {
	port := cmp.Or(at.Port(), "443")
	switch {
	case service == nil:
		return "the Service does not exist"
	case len(service.Spec.Selector) == 0:
		return "the Service selects no Pods"
	case !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return fmt.Sprint(p.Port) == port }):
		return "the Service has no port " + port
	}
	return ""
}

// askReady asks a Pod why it is not ready, through the API server. The health port
// needs no client certificate, unlike the port for requests.
func askReady(ctx context.Context, client kubernetes.Interface, pod corev1.Pod, fallback string) string {
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name != "health" {
				continue
			}
			err := client.CoreV1().RESTClient().Get().Namespace(pod.Namespace).Resource("pods").
				Name(fmt.Sprintf("http:%s:%d", pod.Name, port.ContainerPort)).SubResource("proxy").Suffix("readyz").
				MaxRetries(0).Do(ctx).Error()
			// client-go returns the Pod's plain text as the cause of an error.
			said, ok := apierrors.StatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
			switch {
			case err == nil:
				return "it answers now, but Kubernetes has not seen it yet"
			case ok:
				return said.Message
			case !apierrors.IsForbidden(err): // such as a Pod that the API server does not reach
				return err.Error()
			}
		}
	}
	return fallback
}

// served returns the certificate that a provider's Pods serve, if they mount it from a
// Secret.
func served(ctx context.Context, client kubernetes.Interface, pods []corev1.Pod) ([]*x509.Certificate, error) {
	for _, pod := range pods {
		for _, v := range pod.Spec.Volumes {
			if v.Secret == nil {
				continue
			}
			secret, err := client.CoreV1().Secrets(pod.Namespace).Get(ctx, v.Secret.SecretName, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			if text := secret.Data[corev1.TLSCertKey]; len(text) > 0 {
				return certificates(text)
			}
		}
	}
	return nil, nil
}

// readLabelGuard reads the ValidatingAdmissionPolicy and its binding, each by its name.
func readLabelGuard(ctx context.Context, client kubernetes.Interface) (f fact[labelGuard]) {
	served, err := client.Discovery().ServerResourcesForGroupVersion(admissionregistrationv1.SchemeGroupVersion.String())
	if err != nil {
		f.err = err
		return f
	}
	f.is.served = slices.ContainsFunc(served.APIResources, func(r metav1.APIResource) bool { return r.Name == "validatingadmissionpolicies" })
	if !f.is.served {
		return f
	}
	api := client.AdmissionregistrationV1()
	f.is.policy, err = api.ValidatingAdmissionPolicies().Get(ctx, labelGuardName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		f.is.policy, err = nil, nil
	}
	if f.err = err; err != nil {
		return f
	}
	f.is.binding, err = api.ValidatingAdmissionPolicyBindings().Get(ctx, labelGuardName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		f.is.binding, err = nil, nil
	}
	f.err = err
	return f
}

// keyFacts asks OCI Vault about the keys that constraints list.
func keyFacts(ctx context.Context, s *connect.Session, constraints []unstructured.Unstructured) (f fact[[]keyFact]) {
	listed := simulate.Keys(enforcedBy(constraints))
	if len(listed) == 0 {
		return f
	}
	c, err := s.Connect(ctx)
	if err != nil {
		f.err = err
		return f
	}
	f.is = make([]keyFact, len(listed))
	group := cli.Limited()
	for i, ocid := range listed {
		group.Go(func() error {
			f.is[i] = keyFact{id: ocid}
			id, err := signature.ParseKeyID(ocid)
			switch {
			case err != nil:
				f.is[i].err = err
			case id.Region().Realm() != c.Who.Realm():
				f.is[i].realm = c.Who.Realm()
			default:
				f.is[i].key, f.is[i].err = c.Vault.MasterKey(ctx, id)
			}
			return nil
		})
	}
	_ = group.Wait() // each key has its own error
	return f
}

// runningFacts simulates admission of the Pods that run.
func runningFacts(ctx context.Context, s *connect.Session, policy bool) (f fact[[]*simulate.ImageStatus]) {
	if !policy {
		return f
	}
	e, err := enforcement.Read(ctx, s)
	if err != nil {
		f.err = err
		return f
	}
	pods, err := workload.RunningPods(ctx, s, "", "")
	if err != nil {
		f.err = err
		return f
	}
	objects := make([]*unstructured.Unstructured, len(pods))
	workloads := make([]workload.ObjectName, len(pods))
	for i, pod := range pods {
		objects[i], workloads[i] = pod.Object, workload.NameOf(pod.Object)
	}
	j, err := simulate.Pods(ctx, &s.Terminal, simulate.OCI(s), e, objects)
	if err != nil {
		f.err = err
		return f
	}
	f.is = simulate.ImageStatuses(j, pods, workloads)
	return f
}

// okeFacts reads the OKE image policy.
func okeFacts(ctx context.Context, s *connect.Session, id okecluster.ID) (f fact[*okecluster.Cluster]) {
	c, err := s.Connect(ctx)
	if err != nil {
		f.err = err
		return f
	}
	found, err := okecluster.New(c.Who).Cluster(ctx, id)
	if f.err = err; err == nil {
		f.is = &found
	}
	return f
}

// mutating returns the webhook that pins tags, or nil.
func mutating(c *admissionregistrationv1.MutatingWebhookConfiguration) *admissionregistrationv1.MutatingWebhook {
	i := slices.IndexFunc(c.Webhooks, func(w admissionregistrationv1.MutatingWebhook) bool { return w.Name == mutationWebhook })
	if i < 0 {
		return nil
	}
	return &c.Webhooks[i]
}
