package doctor

import (
	"cmp"
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
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// facts are what checks look at: objects as they were read, each with the error
// that it could not be.
type facts struct {
	now         time.Time
	apiTime     fact[time.Time]
	webhooks    fact[*admissionregistrationv1.ValidatingWebhookConfiguration] // nil if it is not there
	gatekeeper  fact[[]appsv1.Deployment]
	namespaces  fact[[]corev1.Namespace]
	labels      fact[labelGuard]
	configs     fact[[]unstructured.Unstructured]
	templates   fact[[]unstructured.Unstructured]
	constraints fact[[]unstructured.Unstructured]
	providers   fact[[]unstructured.Unstructured]
	assigns     fact[[]unstructured.Unstructured]
	mutation    fact[*admissionregistrationv1.MutatingWebhook] // nil if it is not there
	backends    map[string]backend                             // by Provider
	keys        fact[[]keyFact]
	running     fact[[]*simulate.ImageStatus]
	oke         fact[*okecluster.Cluster] // nil: nothing says which one it is
}

type fact[T any] struct {
	is  T
	err error
}

// backend is what stands behind a Provider's address.
type backend struct {
	namespace string
	service   string
	unserved  string // why nobody answers there, whatever runs
	pods      []corev1.Pod
	unready   map[string]string // what a Pod says of why it is not ready
	chain     fact[[]*x509.Certificate]
	err       error
}

// errNoService says of an address that it leads out of the cluster, or nowhere.
var errNoService = errors.New("is no Service of the cluster, so who answers there cannot be seen")

type keyFact struct {
	id    string
	realm string // in which it cannot be, for it lies in another
	key   vault.MasterKey
	err   error
}

func (f *facts) validation() (*admissionregistrationv1.ValidatingWebhook, error) {
	return enforcement.FindWebhook(f.webhooks.is, f.webhooks.err)
}

// gatekeeperNamespace is where the webhook's service is.
func (f *facts) gatekeeperNamespace() string {
	if w, err := f.validation(); err == nil && w != nil && w.ClientConfig.Service != nil {
		return w.ClientConfig.Service.Namespace
	}
	return "gatekeeper-system"
}

// operations are Gatekeeper's Deployments that do something.
func (f *facts) operations(what string) []appsv1.Deployment {
	var found []appsv1.Deployment
	for _, d := range f.gatekeeper.is {
		if d.Spec.Template.Labels["gatekeeper.sh/operation"] == what {
			found = append(found, d)
		}
	}
	return found
}

// labelGuard is the ValidatingAdmissionPolicy that guards the labels of namespaces,
// and the binding that enforces it. Both are nil where they are not there.
type labelGuard struct {
	served  bool // the API server has such policies
	policy  *admissionregistrationv1.ValidatingAdmissionPolicy
	binding *admissionregistrationv1.ValidatingAdmissionPolicyBinding
}

// provider is the Provider with a name, or nil.
func (f *facts) provider(name string) *unstructured.Unstructured {
	i := slices.IndexFunc(f.providers.is, func(p unstructured.Unstructured) bool { return p.GetName() == name })
	if i < 0 {
		return nil
	}
	return &f.providers.is[i]
}

// wantedProviders are the Providers that constraints name, with one that does.
func (f *facts) wantedProviders() map[string]string {
	found := make(map[string]string)
	for _, c := range f.constraints.is {
		fallback := map[string]string{policies.SignedImages: "oke-sign", policies.ScannedImages: "oke-sign-scans"}[c.GetKind()]
		if fallback != "" {
			name, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "provider")
			found[cmp.Or(name, fallback)] = c.GetKind() + "/" + c.GetName()
		}
	}
	return found
}

// providerNamespace is where the provider runs, as far as that is known.
func (f *facts) providerNamespace() string {
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		if n := f.backends[name].namespace; n != "" {
			return n
		}
	}
	return "oke-sign"
}

// address is where the provider answers under a path, as far as that is known.
func (f *facts) address(path string) string {
	service := "oke-sign"
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		if b := f.backends[name]; b.namespace == f.providerNamespace() && b.service != "" {
			service = b.service
		}
	}
	return fmt.Sprintf("https://%s.%s.svc:8443%s", service, f.providerNamespace(), path)
}

// logs is the command that shows what the provider says.
func (f *facts) logs() string {
	return "kubectl -n " + f.providerNamespace() + " logs deployment/oke-sign"
}

// upgradeGatekeeper is the command that sets a value of Gatekeeper's chart.
func (f *facts) upgradeGatekeeper(value string) string {
	return "helm upgrade gatekeeper gatekeeper/gatekeeper -n " + f.gatekeeperNamespace() + " --reuse-values --set " + value
}

// Gatekeeper's webhook that changes objects, and one kind of its rules for that.
const (
	mutationConfiguration = "gatekeeper-mutating-webhook-configuration"
	mutationWebhook       = "mutation.gatekeeper.sh"
)

var assignKind = schema.GroupVersionResource{Group: "mutations.gatekeeper.sh", Version: "v1", Resource: "assign"}

// pin is a rule by which Gatekeeper puts digests in the place of tags.
type pin struct {
	rule          unstructured.Unstructured
	provider      string                     // that it asks
	asked         *unstructured.Unstructured // the Provider, or nil if it is not there
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
		if x.provider == digestAnswerer.provider || x.asked != nil && pathOf(*x.asked) == digestAnswerer.path {
			found = append(found, x)
		}
	}
	return found
}

// pathOf is the path of a Provider's address.
func pathOf(p unstructured.Unstructured) string {
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Path
}

// labelGuardName is the name that the chart oke-sign gives to policy and binding.
const labelGuardName = "oke-sign-namespace-labels"

// answerer is how constraints of a kind have the provider asked.
type answerer struct {
	provider string // its name, unless a constraint says otherwise
	path     string
	timeout  int // seconds that the Provider is given
	flag     string
	within   time.Duration // in which it answers, unless the flag says otherwise
}

// digestAnswerer is how the provider is asked for the digests of tags.
var digestAnswerer = answerer{provider: "oke-sign-digests", path: "/v1/digests", timeout: 1}

// answererOf is the one for a kind, or for a constraint KIND/NAME.
func answererOf(constraint string) answerer {
	if kind, _, _ := strings.Cut(constraint, "/"); kind == policies.ScannedImages {
		return answerer{"oke-sign-scans", "/v1/scans", 1, "scan-timeout", 300 * time.Millisecond}
	}
	return answerer{"oke-sign", "/v1/signatures", 2, "timeout", 1300 * time.Millisecond}
}
