package doctor

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// facts are the input of the checks: objects as the cluster returned them, or the error
// of reading them.
type facts struct {
	now         time.Time
	apiTime     fact[time.Time]
	webhooks    fact[*admissionregistrationv1.ValidatingWebhookConfiguration] // nil: it does not exist
	gatekeeper  fact[[]appsv1.Deployment]
	namespaces  fact[[]corev1.Namespace]
	labels      fact[labelGuard]
	configs     fact[[]unstructured.Unstructured]
	templates   fact[[]unstructured.Unstructured]
	constraints fact[[]unstructured.Unstructured]
	reach       map[string]fact[enforcement.Reach] // by KIND/NAME, of the constraints that deny
	providers   fact[[]unstructured.Unstructured]
	assigns     fact[[]unstructured.Unstructured]
	mutation    fact[*admissionregistrationv1.MutatingWebhook] // nil: it does not exist
	backends    map[string]backend                             // by Provider
	keys        fact[[]keyFact]
	running     fact[[]*simulate.ImageStatus]
	oke         fact[*okecluster.Cluster] // nil: no flag or kubeconfig names the cluster
}

type fact[T any] struct {
	is  T
	err error
}

// backend is the Service and the Pods at a Provider's address.
type backend struct {
	namespace string
	service   string
	unserved  string // why nothing answers there, whatever runs
	pods      []corev1.Pod
	unready   map[string]string // by Pod: why it is not ready
	chain     fact[[]*x509.Certificate]
	err       error
}

// errNoService reports a Provider's address that names no Service of the cluster.
var errNoService = errors.New("is no Service of the cluster, so doctor cannot check it")

type keyFact struct {
	id    string
	realm string // the user's realm, if the key is in another one
	key   vault.MasterKey
	err   error
}

func (f *facts) validation() (*admissionregistrationv1.ValidatingWebhook, error) {
	return enforcement.FindWebhook(f.webhooks.is, f.webhooks.err)
}

// scope returns where Gatekeeper checks objects.
func (f *facts) scope() enforcement.State {
	w, err := f.validation()
	e := enforcement.State{
		Input: workload.Input{Namespaces: make(map[string]*corev1.Namespace)}, Webhook: w, Excluded: enforcement.ExcludedNamespaces(f.configs.is),
		Unlisted: f.namespaces.err, Unknown: err, Unexcluded: f.configs.err,
	}
	for i, n := range f.namespaces.is {
		e.Namespaces[n.Name] = &f.namespaces.is[i]
	}
	return e
}

// gatekeeperNamespace returns the namespace of the webhook's Service.
func (f *facts) gatekeeperNamespace() string {
	if w, err := f.validation(); err == nil && w != nil && w.ClientConfig.Service != nil {
		return w.ClientConfig.Service.Namespace
	}
	return "gatekeeper-system"
}

// operations returns Gatekeeper's Deployments that run an operation, such as audit.
func (f *facts) operations(what string) []appsv1.Deployment {
	var found []appsv1.Deployment
	for _, d := range f.gatekeeper.is {
		if d.Spec.Template.Labels["gatekeeper.sh/operation"] == what {
			found = append(found, d)
		}
	}
	return found
}

// labelGuard is the ValidatingAdmissionPolicy that guards the labels of namespaces, and
// the binding that enforces it. Either is nil if it does not exist.
type labelGuard struct {
	served  bool // the API server has such policies
	policy  *admissionregistrationv1.ValidatingAdmissionPolicy
	binding *admissionregistrationv1.ValidatingAdmissionPolicyBinding
}

// provider returns the Provider of a name, or nil.
func (f *facts) provider(name string) *unstructured.Unstructured {
	i := slices.IndexFunc(f.providers.is, func(p unstructured.Unstructured) bool { return p.GetName() == name })
	if i < 0 {
		return nil
	}
	return &f.providers.is[i]
}

// wantedProviders returns the names of the Providers that constraints use, each with
// one of these constraints.
func (f *facts) wantedProviders() map[string]string {
	found := make(map[string]string)
	for _, c := range f.constraints.is {
		if name := enforcement.ProviderOf(&c); name != "" {
			found[name] = c.GetKind() + "/" + c.GetName()
		}
	}
	return found
}

// providerNamespace returns the namespace of the provider, or the chart's default.
func (f *facts) providerNamespace() string {
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		if n := f.backends[name].namespace; n != "" {
			return n
		}
	}
	return "oke-sign"
}

// address returns the provider's URL of a path. The chart's names fill in for unknown
// ones.
func (f *facts) address(path string) string {
	service := "oke-sign"
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		if b := f.backends[name]; b.namespace == f.providerNamespace() && b.service != "" {
			service = b.service
		}
	}
	return fmt.Sprintf("https://%s.%s.svc:8443%s", service, f.providerNamespace(), path)
}

// logs returns the command that shows the provider's log.
func (f *facts) logs() string {
	return "kubectl -n " + f.providerNamespace() + " logs deployment/oke-sign"
}

// Names of Gatekeeper's webhook that changes objects.
const (
	mutationConfiguration = "gatekeeper-mutating-webhook-configuration"
	mutationWebhook       = "mutation.gatekeeper.sh"
)

var assignKind = schema.GroupVersionResource{Group: "mutations.gatekeeper.sh", Version: "v1", Resource: "assign"}

// pin is a rule of Gatekeeper that replaces tags by digests.
type pin struct {
	rule          unstructured.Unstructured
	provider      string                     // the name of its Provider
	asked         *unstructured.Unstructured // its Provider; nil: it does not exist
	failurePolicy string
}

func (f *facts) pins() []pin {
	var found []pin
	for _, rule := range f.assigns.is {
		data, _, _ := unstructured.NestedMap(rule.Object, "spec", "parameters", "assign", "externalData")
		x := pin{rule: rule}
		x.provider, _ = data["provider"].(string)
		x.failurePolicy, _ = data["failurePolicy"].(string)
		x.asked = f.provider(x.provider)
		if x.provider == digestEndpoint.provider || x.asked != nil && pathOf(*x.asked) == digestEndpoint.path {
			found = append(found, x)
		}
	}
	return found
}

// pathOf returns the path of a Provider's address.
func pathOf(p unstructured.Unstructured) string {
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Path
}

// labelGuardName is the name of the policy and its binding in the chart oke-sign.
const labelGuardName = "oke-sign-namespace-labels"

// An endpoint is how constraints of a kind ask the provider.
type endpoint struct {
	provider string // the Provider's name, unless a constraint names another
	path     string
	timeout  int // of the Provider, in seconds
	flag     string
	within   time.Duration // the flag's default: the provider answers in this time
}

// digestEndpoint resolves tags to digests.
var digestEndpoint = endpoint{provider: "oke-sign-digests", path: "/v1/digests", timeout: 1}

// endpointOf returns the endpoint for a kind, or for a constraint KIND/NAME.
func endpointOf(constraint string) endpoint {
	if kind, _, _ := strings.Cut(constraint, "/"); kind == policies.ScannedImages {
		return endpoint{"oke-sign-scans", "/v1/scans", 1, "scan-timeout", 300 * time.Millisecond}
	}
	return endpoint{"oke-sign", "/v1/signatures", 2, "timeout", 1300 * time.Millisecond}
}
