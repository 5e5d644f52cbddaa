// Package doctor has kubectl oke-sign doctor. doctor.go reads facts from the cluster and
// from OCI; the files checks_*.go judge them, by subject, and read nothing themselves.
package doctor

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
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
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
)

type doctorOptions struct {
	*connect.Session
	cluster connect.ClusterFlag
	all     bool
	out     cli.Output
}

// New makes the command.
func New(s *connect.Session) *cobra.Command {
	o := &doctorOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out whether the cluster enforces its image policy, and what to mend",
		Long: `Look for everything that can make the image policy not hold: Gatekeeper, its
webhook and its settings, exempt namespaces and who may label one, templates and
constraints, the Provider objects, the provider behind them and its certificate,
keys, scans, how tags are pinned, clocks, OKE's own policy beside it, and what runs
already. Each finding comes with what to do.

  fails     the policy does not hold, or keeps everything out
  warns     it holds, and something weakens it
  unknown   the check could not be done
  skipped   it needs to be told where to look
  holds     shown with --all

Nothing is changed. Needed are the right to get and list Namespaces, Pods,
Deployments, Gatekeeper's objects and constraints, and to get webhook
configurations, ValidatingAdmissionPolicies, their bindings and the provider's
Secret. A check that may not read is unknown. OCI is asked as you.

Exit code 0: the policy holds. 3: it does not, whatever else is unknown. 1: a
check could not be done, and none of the others fails.`,
		Example: `  kubectl oke-sign doctor

  # For a pipeline
  kubectl oke-sign doctor -o json | jq '.[] | select(.state == "fails")'`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "cluster"), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.cluster.Bind(cmd.Flags())
	cmd.Flags().BoolVar(&o.all, "all", false, "Show what holds, too.")
	o.out.Bind(cmd.Flags())
	return cmd
}

var doctorColumns = []cli.Column{{Name: "state"}, {Name: "check"}, {Name: "what"}}

func (o *doctorOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	id, unnamed := o.cluster.Find(o.Session)
	if unnamed != nil && o.cluster.OCID != "" {
		return unnamed
	}
	f, err := o.gather(ctx)
	if err != nil {
		return o.Finish(o.out, doctorColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	if unnamed == nil {
		f.oke = part(ctx, o.Timeout/8, func(ctx context.Context) fact[*okecluster.Cluster] { return o.okeFacts(ctx, id) })
	}
	var results []cli.Result
	tally := make(map[string]int)
	for _, x := range f.run() {
		tally[x.State]++
		r := cli.Result{Value: x, Denied: x.State == stateFails}
		if x.State == stateUnknown {
			r.PartialErr = cli.StopCause(ctx, x.err)
			r.Target = x.Check
		}
		if x.State == stateHolds {
			r.Names = []string{x.Check}
		}
		if o.all || x.State != stateHolds || o.out.Format == "wide" {
			r.Rows = [][]string{{x.State, x.Check, x.Detail}}
			if x.Fix != "" {
				r.Rows = append(r.Rows, []string{"", "", cli.ToCopy("-> " + x.Fix)})
			}
		}
		results = append(results, r)
	}
	switch {
	case tally[stateFails] > 0:
		o.Remark("the image policy does not hold: %d fail, %d warn, %d unknown, %d hold", tally[stateFails], tally[stateWarns], tally[stateUnknown], tally[stateHolds])
	case tally[stateUnknown] > 0:
		o.Remark("whether the image policy holds is not known: %d unknown, %d warn, %d hold", tally[stateUnknown], tally[stateWarns], tally[stateHolds])
	default:
		o.Remark("the image policy holds: %d warn, %d hold", tally[stateWarns], tally[stateHolds])
	}
	err = o.Finish(o.out, doctorColumns, results)
	if errors.Is(err, cli.ErrFailed) && tally[stateFails] > 0 && ctx.Err() == nil {
		return cli.ErrNo // what fails is known, and nothing that is unknown could mend it
	}
	return err
}

// gather reads what the checks look at. Only a cluster that cannot be reached at
// all is an error; what else cannot be read is for the checks to say.
func (o *doctorOptions) gather(ctx context.Context) (*facts, error) {
	client, err := o.Kube.Typed()
	if err != nil {
		return nil, err
	}
	f := &facts{backends: make(map[string]backend)}
	if f.apiTime.is, err = o.clock(ctx); err != nil {
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
	f.configs = o.found(ctx, enforcement.ConfigKind)
	f.templates = o.found(ctx, schema.GroupVersionResource{Group: "templates.gatekeeper.sh", Version: "v1", Resource: "constrainttemplates"})
	f.providers = o.found(ctx, schema.GroupVersionResource{Group: "externaldata.gatekeeper.sh", Version: "v1beta1", Resource: "providers"})
	f.assigns = o.found(ctx, assignKind)
	if len(f.pins()) > 0 {
		webhooks, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, mutationConfiguration, metav1.GetOptions{})
		if f.mutation.err = err; err == nil {
			f.mutation.is = mutating(webhooks)
		} else if apierrors.IsNotFound(err) {
			f.mutation.err = nil
		}
	}
	for _, kind := range policies.Kinds() {
		found, err := enforcement.ListConstraints(ctx, o.Session, kind)
		f.constraints.err = cmp.Or(f.constraints.err, err)
		for _, c := range found {
			f.constraints.is = append(f.constraints.is, *c.Object)
		}
	}
	wanted := f.wantedProviders()
	for _, p := range f.providers.is {
		if wanted[p.GetName()] != "" || p.GetName() == "oke-sign" { // before there is a constraint, too
			f.backends[p.GetName()] = o.backend(ctx, client, p)
		}
	}
	f.keys = part(ctx, o.Timeout/8, func(ctx context.Context) fact[[]keyFact] { return o.keyFacts(ctx, f.constraints.is) })
	f.running = part(ctx, o.Timeout/2, func(ctx context.Context) fact[[]*simulate.ImageStatus] {
		return o.runningFacts(ctx, len(f.constraints.is) > 0)
	})
	return f, ctx.Err()
}

// part gives what asks OCI a part of the time, if that is limited: while OCI does
// not answer, what the cluster says is worth telling all the more.
func part[T any](ctx context.Context, limit time.Duration, look func(context.Context) fact[T]) fact[T] {
	if limit == 0 {
		return look(ctx)
	}
	within, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	f := look(within)
	if f.err != nil && within.Err() != nil && ctx.Err() == nil {
		f.err = fmt.Errorf("OCI has not answered within %s of --timeout: %w", limit, f.err)
	}
	return f
}

// withOperations gives Deployments that name no operation of Gatekeeper's in their
// labels the one that they are called by.
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

// clock is the time by the API server's clock, to the second.
func (o *doctorOptions) clock(ctx context.Context) (time.Time, error) {
	config, err := o.Kube.ToRESTConfig()
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
	defer response.Body.Close() //nolint:errcheck // nothing of it is read
	return http.ParseTime(response.Header.Get("Date"))
}

// found are all objects of a kind; one that is not installed has none.
func (o *doctorOptions) found(ctx context.Context, of schema.GroupVersionResource) (f fact[[]unstructured.Unstructured]) {
	f.is, f.err = enforcement.List(ctx, o.Session, of)
	if apierrors.IsNotFound(f.err) {
		f.err = nil
	}
	return f
}

// backend follows the address of a Provider to its Service, Pods and certificate.
func (o *doctorOptions) backend(ctx context.Context, client kubernetes.Interface, p unstructured.Unstructured) backend {
	b := backend{unready: make(map[string]string)}
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	u, err := url.Parse(address)
	if err != nil {
		return backend{err: err}
	}
	host := strings.Split(u.Hostname(), ".")
	if len(host) < 2 || len(host) > 2 && host[2] != "svc" {
		return backend{err: fmt.Errorf("%s is no Service of the cluster, so who answers there cannot be seen", cli.Clip(u.Host, 100))}
	}
	b.namespace, b.service = host[1], host[0]
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
				b.unready[pod.Name] = o.askReady(ctx, client, pod, cmp.Or(c.Message, string(pod.Status.Phase)))
			}
		}
	}
	b.chain.is, b.chain.err = served(ctx, client, b.pods)
	return b
}

// unserved says why nobody answers at an address of a Service, which is nil if it is
// not there, or "".
func unserved(service *corev1.Service, at *url.URL) string {
	port := cmp.Or(at.Port(), "443")
	switch {
	case service == nil:
		return "there is no such Service"
	case len(service.Spec.Selector) == 0:
		return "the Service chooses no Pods"
	case !slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool { return fmt.Sprint(p.Port) == port }):
		return "the Service has no port " + port
	}
	return ""
}

// askReady asks a Pod itself why it is not ready, through the API server: its
// health address wants no client certificate, as the one for questions does.
func (o *doctorOptions) askReady(ctx context.Context, client kubernetes.Interface, pod corev1.Pod, fallback string) string {
	for _, c := range pod.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name != "health" {
				continue
			}
			body, err := client.CoreV1().RESTClient().Get().Namespace(pod.Namespace).Resource("pods").
				Name(fmt.Sprintf("http:%s:%d", pod.Name, port.ContainerPort)).SubResource("proxy").Suffix("readyz").
				MaxRetries(0).Do(ctx).Raw()
			if err == nil {
				return cmp.Or(strings.TrimSpace(string(body)), fallback)
			}
			// What a Pod says in plain text, client-go has in the error and not as a body.
			if said, ok := apierrors.StatusCause(err, metav1.CauseTypeUnexpectedServerResponse); ok {
				return said.Message
			}
		}
	}
	return fallback
}

// served is the certificate that a provider's Pods show, as far as it lies in a
// Secret that they mount.
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

// enforcedBy is what constraints enforce, without what leaves namespaces out.
func enforcedBy(constraints []unstructured.Unstructured) (e enforcement.State) {
	for i := range constraints {
		e.Constraints = append(e.Constraints, workload.Document{Object: &constraints[i]})
	}
	return e
}

// keyFacts asks OCI Vault about the keys that constraints list.
func (o *doctorOptions) keyFacts(ctx context.Context, constraints []unstructured.Unstructured) (f fact[[]keyFact]) {
	listed := simulate.Keys(enforcedBy(constraints))
	if len(listed) == 0 {
		return f
	}
	c, err := o.Connect(ctx)
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

// runningFacts judges what runs now.
func (o *doctorOptions) runningFacts(ctx context.Context, policy bool) (f fact[[]*simulate.ImageStatus]) {
	if !policy {
		return f
	}
	e, err := enforcement.Read(ctx, o.Session)
	if err != nil {
		f.err = err
		return f
	}
	pods, err := workload.RunningPods(ctx, o.Session, "", "")
	if err != nil {
		f.err = err
		return f
	}
	objects := make([]*unstructured.Unstructured, len(pods))
	workloads := make([]workload.ObjectName, len(pods))
	for i, pod := range pods {
		objects[i], workloads[i] = pod.Object, workload.NameOf(pod.Object)
	}
	j, err := simulate.Pods(ctx, &o.Terminal, simulate.OCI(o.Session), e, objects)
	if err != nil {
		f.err = err
		return f
	}
	f.is = simulate.ImageStatuses(j, pods, workloads)
	return f
}

// okeFacts reads the policy that OKE itself has.
func (o *doctorOptions) okeFacts(ctx context.Context, id okecluster.ID) (f fact[*okecluster.Cluster]) {
	c, err := o.Connect(ctx)
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
