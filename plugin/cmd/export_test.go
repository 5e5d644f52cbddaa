package cmd

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/provider/ociauth"
)

// Printable is what becomes of text from outside before a person sees it.
func Printable(s string) string { return printable(s) }

// Printed is a value as -o prints it.
func Printed(format string, v any) (string, error) {
	var b bytes.Buffer
	o := output{format: format}
	err := o.print(&b, data{value: v})
	return b.String(), err
}

// Running are the Pods that run in a cluster, by their names, each with the workload
// that it belongs to.
func Running(ctx context.Context, kubeconfig, namespace, selector string) (map[string]string, error) {
	g := &global{terminal: terminal{streams: genericiooptions.IOStreams{ErrOut: io.Discard}}, kube: newKube(io.Discard)}
	*g.kube.KubeConfig = kubeconfig
	pods, err := g.runningPods(ctx, namespace, selector)
	if err != nil {
		return nil, err
	}
	workloads, err := g.workloads(ctx, namespace, pods)
	found := make(map[string]string)
	for i, w := range workloads {
		found[pods[i].name()] = w.APIVersion + "/" + w.Kind + "/" + w.Name
	}
	return found, err
}

// Lagging is the part of Gatekeeper, of which Pods are asked, that does not enforce a
// constraint as it is now.
func Lagging(o *unstructured.Unstructured, asked []string) string { return lagging(o, asked) }

// Lets is whether a statement, in a policy that is attached to the last of a line
// of compartments, lets the service that scans read a kind of resource in the
// first. Compartments are given by name; the tenancy is called (root).
func Lets(statement, resource string, line ...string) bool {
	compartments := make([]ociauth.Compartment, 0, len(line))
	for _, name := range line {
		c := ociauth.Compartment{ID: "ocid1.compartment.oc1.." + name, Name: name}
		if name == "(root)" {
			c.ID = "ocid1.tenancy.oc1..x"
		}
		compartments = append(compartments, c)
	}
	return lets(statement, resource, compartments)
}

// Finding is an outcome of doctor's checks.
type Finding = finding

// Doctor does the checks that need neither OCI nor a running cluster, on objects as
// they would be read, at a time by both clocks.
func Doctor(objects []*unstructured.Unstructured, now time.Time) ([]Finding, error) {
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

// Fitted is a table as it is shown at a terminal of so many columns.
func Fitted(width int, columns []string, rows ...[]string) string {
	var b bytes.Buffer
	d := data{blocks: []block{{rows: rows}}}
	for _, name := range columns {
		d.columns = append(d.columns, column{name: name})
	}
	if err := writeTable(&b, d, false, width); err != nil {
		return err.Error()
	}
	return b.String()
}

// Kinds is how many of the Pods a cluster with these constraints has to judge.
func Kinds(constraints, pods []*unstructured.Unstructured) int {
	var e enforced
	for _, c := range constraints {
		e.constraints = append(e.constraints, document{object: c})
	}
	var small []*unstructured.Unstructured
	for _, pod := range pods {
		small = append(small, trimmed(pod.DeepCopy()))
	}
	return len(e.alike(small))
}

// DoctorsClock is what doctor says of a machine whose clock is that far from the API
// server's.
func DoctorsClock(off time.Duration) []Finding {
	now := time.Now()
	return checkClock(&facts{now: now, apiTime: fact[time.Time]{is: now.Add(off)}})
}

// Quoted is a text as a string of Terraform's language.
func Quoted(s string) string { return quoted(s) }
