package doctor

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/helm"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// Finding is an outcome of doctor's checks.
type Finding = finding

// HelmInstall is the command that installs Gatekeeper.
func HelmInstall() string { return helm.Install(newestGatekeeper) }

// Sorted is findings as doctor reports them, and the one thing to do next.
func Sorted(found []Finding) ([]Finding, string) {
	sorted := bySeverity(slices.Clone(found))
	return sorted, next(sorted)
}

// NoService is the error of an address that leads to no Service of the cluster.
var NoService = errNoService

// Key is OCI Vault's answer about an allowed key.
type Key struct {
	ID    string
	Realm string // of the user, if it is not the key's
	Key   vault.MasterKey
	Err   error
}

// World has the facts of doctor: objects of a cluster, and answers of OCI.
type World struct {
	Objects map[string]*unstructured.Unstructured // by KIND/NAME
	Unread  map[string]error                      // by KIND, or keys, running, oke, clock
	Now     time.Time
	Behind  time.Duration     // the API server's clock
	Old     bool              // an API server without ValidatingAdmissionPolicies
	Home    string            // the namespace of the provider; oke-sign if empty
	Unready map[string]string // the answer of a Pod's readiness page
	Backend error             // the error of reading what serves the Provider oke-sign
	Keys    []Key
	Running []*simulate.ImageStatus
	OKE     *okecluster.Cluster
}

// Findings makes one check, or all of them if named is empty.
func (w *World) Findings(named string) ([]Finding, error) {
	f, err := w.facts()
	if err != nil {
		return nil, err
	}
	found := f.run()
	if named == "" {
		return found, nil
	}
	if !slices.ContainsFunc(checks(), func(c check) bool { return c.name == named }) {
		return nil, fmt.Errorf("no check is called %q", named)
	}
	return slices.DeleteFunc(found, func(x finding) bool { return x.Check != named }), nil
}

// Checks returns the names of all checks.
func Checks() []string {
	var names []string
	for _, c := range checks() {
		names = append(names, c.name)
	}
	return names
}

// Gather reads a cluster, and makes all checks with the facts.
func Gather(ctx context.Context, s *connect.Session) ([]Finding, error) {
	f, err := gather(ctx, s)
	if err != nil {
		return nil, err
	}
	return f.run(), nil
}

func (w *World) facts() (*facts, error) {
	f := &facts{now: w.Now, backends: make(map[string]backend)}
	f.apiTime = fact[time.Time]{w.Now.Add(-w.Behind), w.Unread["clock"]}
	f.labels.is.served = !w.Old
	f.webhooks.is = &admissionregistrationv1.ValidatingWebhookConfiguration{}
	b := backend{namespace: cmp.Or(w.Home, "oke-sign"), service: "oke-sign", unready: w.Unready, err: w.Backend}
	var service *corev1.Service
	var names []string
	for name := range w.Objects {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := w.put(f, &b, &service, w.Objects[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	b.unserved = unserved(service, &url.URL{Host: "oke-sign.oke-sign.svc:8443"})
	f.backends["oke-sign"] = b
	for name := range f.wantedProviders() {
		f.backends[name] = b
	}
	for _, k := range w.Keys {
		f.keys.is = append(f.keys.is, keyFact{id: k.ID, realm: k.Realm, key: k.Key, err: k.Err})
	}
	f.running.is, f.oke.is = w.Running, w.OKE
	w.unread(f)
	f.reach = make(map[string]fact[enforcement.Reach])
	for _, c := range f.constraints.is {
		if deniesImages(c) {
			r, err := f.scope().Reach(&c, w.pods)
			f.reach[c.GetKind()+"/"+c.GetName()] = fact[enforcement.Reach]{r, err}
		}
	}
	return f, nil
}

// pods yields the running Pods.
func (w *World) pods(yield func(*unstructured.Unstructured, error) bool) {
	for _, o := range w.Objects {
		if o.GetKind() == "Pod" && !yield(o, w.Unread["Pod"]) {
			return
		}
	}
}

// put adds an object to the facts that it belongs to.
func (w *World) put(f *facts, b *backend, service **corev1.Service, o *unstructured.Unstructured) error {
	lists := map[string]*fact[[]unstructured.Unstructured]{
		"Config": &f.configs, "ConstraintTemplate": &f.templates, "Provider": &f.providers, "Assign": &f.assigns,
		"OKESignedImages": &f.constraints, "OKEScannedImages": &f.constraints, "OKEImageDigests": &f.constraints, "OKEBreakGlass": &f.constraints,
	}
	if list := lists[o.GetKind()]; list != nil {
		list.is = append(list.is, *o)
		return nil
	}
	read := func(into any) error { return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into) }
	switch o.GetKind() {
	case "ValidatingWebhookConfiguration":
		return read(f.webhooks.is)
	case "MutatingWebhookConfiguration":
		var webhooks admissionregistrationv1.MutatingWebhookConfiguration
		err := read(&webhooks)
		f.mutation.is = mutating(&webhooks)
		return err
	case "ValidatingAdmissionPolicy":
		f.labels.is.policy = new(admissionregistrationv1.ValidatingAdmissionPolicy)
		return read(f.labels.is.policy)
	case "ValidatingAdmissionPolicyBinding":
		f.labels.is.binding = new(admissionregistrationv1.ValidatingAdmissionPolicyBinding)
		return read(f.labels.is.binding)
	case "Deployment":
		f.gatekeeper.is = append(f.gatekeeper.is, appsv1.Deployment{})
		return read(&f.gatekeeper.is[len(f.gatekeeper.is)-1])
	case "Namespace":
		f.namespaces.is = append(f.namespaces.is, corev1.Namespace{})
		return read(&f.namespaces.is[len(f.namespaces.is)-1])
	case "Pod":
		if o.GetNamespace() != b.namespace {
			return nil // Reach looks at it
		}
		b.pods = append(b.pods, corev1.Pod{})
		return read(&b.pods[len(b.pods)-1])
	case "Service":
		*service = new(corev1.Service)
		return read(*service)
	case "Secret":
		var secret corev1.Secret
		err := read(&secret)
		b.chain.is, b.chain.err = certificates(secret.Data[corev1.TLSCertKey])
		b.chain.err = cmp.Or(w.Unread["Secret"], b.chain.err)
		return err
	}
	if o.GetKind() == "EndpointSlice" {
		return nil // doctor looks at the Pods
	}
	return fmt.Errorf("doctor reads no %s", o.GetKind())
}

// unread replaces each unreadable fact with its error.
func (w *World) unread(f *facts) {
	for of, err := range w.Unread {
		switch of {
		case "ValidatingWebhookConfiguration":
			f.webhooks = fact[*admissionregistrationv1.ValidatingWebhookConfiguration]{err: err}
		case "MutatingWebhookConfiguration":
			f.mutation = fact[*admissionregistrationv1.MutatingWebhook]{err: err}
		case "Deployment":
			f.gatekeeper = fact[[]appsv1.Deployment]{err: err}
		case "Namespace":
			f.namespaces = fact[[]corev1.Namespace]{err: err}
		case "ValidatingAdmissionPolicy":
			f.labels = fact[labelGuard]{err: err}
		case "Config":
			f.configs = fact[[]unstructured.Unstructured]{err: err}
		case "ConstraintTemplate":
			f.templates = fact[[]unstructured.Unstructured]{err: err}
		case "Provider":
			f.providers = fact[[]unstructured.Unstructured]{err: err}
		case "Assign":
			f.assigns = fact[[]unstructured.Unstructured]{err: err}
		case "constraints":
			f.constraints = fact[[]unstructured.Unstructured]{err: err}
		case "keys":
			f.keys.err = err
		case "running":
			f.running.err = err
		case "oke":
			f.oke.err = err
		}
	}
}
