package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/plugin/simulate"
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

type keyFact struct {
	id    string
	realm string // in which it cannot be, for it lies in another
	key   vault.MasterKey
	err   error
}

// States of a finding.
const (
	stateHolds   = "holds"
	stateWarns   = "warns"   // enforcement holds, and something weakens it
	stateFails   = "fails"   // enforcement does not hold
	stateUnknown = "unknown" // the check could not be done
	stateSkipped = "skipped" // the check needs to be told where to look
)

// finding is the outcome of a check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`

	err error
}

func holds(format string, args ...any) finding {
	return finding{State: stateHolds, Detail: fmt.Sprintf(format, args...)}
}

func fails(fix, format string, args ...any) finding {
	return finding{State: stateFails, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func warns(fix, format string, args ...any) finding {
	return finding{State: stateWarns, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func unknown(err error) finding {
	fix := "you need the right to read it"
	if errors.Is(err, context.DeadlineExceeded) {
		fix = "try again, perhaps with a longer --timeout"
	}
	return finding{State: stateUnknown, Detail: cli.Clip(err.Error(), 400), Fix: fix, err: err}
}

const (
	helmValues  = "helm upgrade gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --reuse-values "
	helmInstall = "helm install gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --create-namespace --wait --values gatekeeper-values.yaml"
)

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
