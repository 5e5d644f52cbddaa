package doctor

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

func checkProviders(f *facts) []finding {
	if err := cmp.Or(f.providers.err, f.constraints.err); err != nil {
		return []finding{unknown(err)}
	}
	limit := 10 // seconds, of a webhook that says nothing
	if w, err := f.validation(); err == nil && w != nil && w.TimeoutSeconds != nil {
		limit = int(*w.TimeoutSeconds)
	}
	var found []finding
	total := 0
	wanted := f.wantedProviders()
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		p := f.provider(name)
		if p == nil {
			found = append(found, fails("install the provider with the chart oke-sign", "%[2]s asks the Provider %[1]s, which does not exist: every image of OCI Registry is denied", name, wanted[name]))
			continue
		}
		before := len(found)
		found = append(found, checkProvider(f, *p, endpointOf(wanted[name]), limit)...)
		seconds, _, _ := unstructured.NestedInt64(p.Object, "spec", "timeout")
		total += int(seconds)
		if len(found) == before {
			found = append(found, holds("%s: time-out %d s of the webhook's %d s", name, seconds, limit))
		}
	}
	if len(wanted) > 1 && total >= limit {
		found = append(found, warns(f.upgradeGatekeeper(fmt.Sprintf("validatingWebhookTimeoutSeconds=%d", total+2)), "the time-outs of the Providers add up to %d s, and the webhook's is %d s: a denial may have no reason", total, limit))
	}
	return found
}

func checkProvider(f *facts, p unstructured.Unstructured, by endpoint, limit int) []finding {
	name := p.GetName()
	patch := func(spec string) string {
		return fmt.Sprintf("kubectl patch provider %s --type merge -p '{\"spec\":%s}'", name, spec)
	}
	var found []finding
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" {
		found = append(found, fails(patch(fmt.Sprintf(`{"url":%q}`, f.address(by.path))), "%s has the address %q, and Gatekeeper asks only https addresses", name, cli.Clip(address, 100)))
	}
	if authorities, err := bundle(p); err != nil {
		found = append(found, fails("restart the provider, which writes the caBundle, or set caBundle of the chart oke-sign", "%s: caBundle: %v", name, err))
	} else if end := authorities[0].NotAfter; end.Before(f.now.Add(30 * 24 * time.Hour)) {
		state := warns
		if end.Before(f.now) {
			state = fails
		}
		found = append(found, state("renew the CA with cert-manager, or restart the provider if it makes its certificate", "%s: the CA expires %s", name, cli.Timestamp(end)))
	}
	wait := fmt.Sprintf(`{"timeout":%d}`, by.timeout)
	switch seconds, _, _ := unstructured.NestedInt64(p.Object, "spec", "timeout"); {
	case seconds <= 0:
		found = append(found, fails(patch(wait), "%s has no time-out, so every request fails at once", name))
	case int(seconds) >= limit:
		found = append(found, fails(patch(wait), "the time-out of %s is %d s, and the webhook's is %d s: a slow answer ends the webhook's call without a reason", name, seconds, limit))
	}
	for _, e := range statusErrors(p) {
		found = append(found, fails("kubectl get provider "+name+" -o yaml", "Gatekeeper cannot use %s: %s", name, e))
	}
	pods, ok, _ := unstructured.NestedSlice(p.Object, "status", "byPod")
	for _, s := range pods {
		s, _ := s.(map[string]any)
		if active, said := s["active"].(bool); said && !active && len(statusErrors(p)) == 0 {
			found = append(found, fails("kubectl get provider "+name+" -o yaml", "%s is not active in a Pod of Gatekeeper", name))
		}
	}
	if !ok || len(pods) == 0 {
		found = append(found, warns("kubectl get provider "+name+" -o yaml", "no Pod of Gatekeeper reports the Provider %s", name))
	}
	return found
}

func checkBackends(f *facts) []finding {
	var found []finding
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		b := f.backends[name]
		if b.err != nil {
			x := unknown(fmt.Errorf("%s: %w", name, b.err))
			if errors.Is(b.err, errNoService) {
				x.Fix = "check that address yourself; doctor checks addresses of the form SERVICE.NAMESPACE.svc"
			}
			found = append(found, x)
			continue
		}
		ready := 0
		for _, p := range b.pods {
			if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready++
			}
		}
		if b.unserved != "" {
			found = append(found, fails(fmt.Sprintf("kubectl -n %s get service; the chart oke-sign creates it", b.namespace),
				"%s: nothing answers at %s.%s: %s; every image of OCI Registry is denied", name, b.service, b.namespace, b.unserved))
			continue
		}
		logs := fmt.Sprintf("kubectl -n %s get pods; %s", b.namespace, f.logs())
		for _, pod := range slices.Sorted(maps.Keys(b.unready)) {
			found = append(found, warns(fmt.Sprintf("kubectl -n %s logs %s", b.namespace, pod), "%s is not ready: %s", pod, cli.Clip(b.unready[pod], 300)))
		}
		switch ready {
		case 0:
			found = append(found, fails(logs, "%s: none of %s is ready, so every image of OCI Registry is denied", name, cli.Count(len(b.pods), "Pod")))
		case 1:
			found = append(found, warns(fmt.Sprintf("kubectl -n %s scale deployment oke-sign --replicas=2", b.namespace), "%s: one Pod is ready, so a lost node leaves no Pod", name))
		default:
			found = append(found, holds("%s: %d Pods", name, ready))
		}
	}
	return found
}

func checkCertificates(f *facts) []finding {
	var found []finding
	for _, p := range f.providers.is {
		b, ok := f.backends[p.GetName()]
		if !ok || b.err != nil {
			continue // another check reports it
		}
		if b.chain.err != nil {
			x := unknown(fmt.Errorf("%s: %w", p.GetName(), b.chain.err))
			if errors.Is(b.chain.err, errNoCertificate) {
				x.Fix = fmt.Sprintf("kubectl -n %s get secrets, and renew the Secret that the provider's Pods mount", b.namespace)
			}
			found = append(found, x)
			continue
		}
		if len(b.chain.is) == 0 {
			continue
		}
		authorities, err := bundle(p)
		if err != nil {
			continue // another check reports it
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		for _, c := range authorities {
			roots.AddCert(c)
		}
		for _, c := range b.chain.is[1:] {
			between.AddCert(c)
		}
		address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
		u, err := url.Parse(address)
		if err != nil {
			continue // another check reports it
		}
		leaf := b.chain.is[0]
		renew := "renew it with cert-manager, or restart the provider if it makes its certificate"
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: u.Hostname(), CurrentTime: f.now})
		switch {
		case err != nil:
			found = append(found, fails(renew, "Gatekeeper does not accept the certificate of %s: %v", p.GetName(), err))
		case leaf.NotAfter.Before(f.now.Add(7 * 24 * time.Hour)):
			found = append(found, warns(renew, "the certificate of %s expires %s", p.GetName(), cli.Timestamp(leaf.NotAfter)))
		default:
			found = append(found, holds("%s: until %s", p.GetName(), cli.Timestamp(leaf.NotAfter)))
		}
	}
	return found
}
