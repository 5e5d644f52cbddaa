package doctor

import (
	"net/url"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Finding is an outcome of doctor's checks.
type Finding = finding

// Check does the checks that need neither OCI nor a running cluster, on objects as
// they would be read, at a time by both clocks.
func Check(objects []*unstructured.Unstructured, now time.Time) ([]Finding, error) {
	f := &facts{now: now, apiTime: fact[time.Time]{is: now}, backends: make(map[string]backend)}
	f.labels.is.served = true
	f.webhooks.is = &admissionregistrationv1.ValidatingWebhookConfiguration{}
	b := backend{namespace: "oke-sign", service: "oke-sign", unready: make(map[string]string)}
	var service *corev1.Service
	for _, o := range objects {
		var into any
		switch o.GetKind() {
		case "ValidatingWebhookConfiguration":
			into = f.webhooks.is
		case "Deployment":
			f.gatekeeper.is = append(f.gatekeeper.is, appsv1.Deployment{})
			into = &f.gatekeeper.is[len(f.gatekeeper.is)-1]
		case "Namespace":
			f.namespaces.is = append(f.namespaces.is, corev1.Namespace{})
			into = &f.namespaces.is[len(f.namespaces.is)-1]
		case "Pod":
			b.pods = append(b.pods, corev1.Pod{})
			into = &b.pods[len(b.pods)-1]
		case "Secret":
			var secret corev1.Secret
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &secret); err != nil {
				return nil, err
			}
			b.chain.is, b.chain.err = certificates(secret.Data[corev1.TLSCertKey])
			continue
		case "ValidatingAdmissionPolicy":
			f.labels.is.policy = new(admissionregistrationv1.ValidatingAdmissionPolicy)
			into = f.labels.is.policy
		case "ValidatingAdmissionPolicyBinding":
			f.labels.is.binding = new(admissionregistrationv1.ValidatingAdmissionPolicyBinding)
			into = f.labels.is.binding
		case "Config":
			f.configs.is = append(f.configs.is, *o)
			continue
		case "ConstraintTemplate":
			f.templates.is = append(f.templates.is, *o)
			continue
		case "Provider":
			f.providers.is = append(f.providers.is, *o)
			continue
		case "Assign":
			f.assigns.is = append(f.assigns.is, *o)
			continue
		case "MutatingWebhookConfiguration":
			var webhooks admissionregistrationv1.MutatingWebhookConfiguration
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &webhooks); err != nil {
				return nil, err
			}
			f.mutation.is = mutating(&webhooks)
			continue
		case "Service":
			service = new(corev1.Service)
			into = service
		default:
			f.constraints.is = append(f.constraints.is, *o)
			continue
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, into); err != nil {
			return nil, err
		}
	}
	b.unserved = unserved(service, &url.URL{Host: "oke-sign.oke-sign.svc:8443"})
	f.backends["oke-sign"] = b
	for name := range f.wantedProviders() {
		f.backends[name] = b
	}
	return f.run(), nil
}

// CheckClock is what doctor says of a machine whose clock is that far from the API
// server's.
func CheckClock(off time.Duration) []Finding {
	now := time.Now()
	return checkClock(&facts{now: now, apiTime: fact[time.Time]{is: now.Add(off)}})
}
