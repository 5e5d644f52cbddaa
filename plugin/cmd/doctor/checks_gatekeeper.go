package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/helm"
)

func checkGatekeeper(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{unknown(f.gatekeeper.err)}
	}
	webhook := f.operations("webhook")
	if len(webhook) == 0 {
		return []finding{fails(helm.Install(newestGatekeeper), "no Deployment with Gatekeeper's webhook in namespace %s", f.gatekeeperNamespace())}
	}
	var found []finding
	for _, d := range f.gatekeeper.is {
		command := fmt.Sprintf("kubectl -n %s describe deployment %s", d.Namespace, d.Name)
		wanted := int32(1)
		if d.Spec.Replicas != nil {
			wanted = *d.Spec.Replicas
		}
		switch isWebhook := d.Spec.Template.Labels["gatekeeper.sh/operation"] == "webhook"; {
		case d.Status.ReadyReplicas == 0 && isWebhook:
			found = append(found, fails(command, "%s has no ready Pod: failurePolicy Fail then denies every object, and Ignore admits every object", d.Name))
		case d.Status.ReadyReplicas == 0:
			found = append(found, warns(command, "%s has no ready Pod", d.Name))
		case isWebhook && wanted < 2:
			found = append(found, warns(f.upgradeGatekeeper("replicas=3"), "%s has one replica: while its node is drained, no object can be created", d.Name))
		default:
			found = append(found, holds("%s: %d of %d Pods ready", d.Name, d.Status.ReadyReplicas, wanted))
		}
	}
	if len(f.operations("audit")) == 0 {
		found = append(found, warns(helm.Install(newestGatekeeper), "no audit runs: images that ran before the policy are not reported"))
	}
	return found
}

func checkVersion(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{unknown(f.gatekeeper.err)}
	}
	var found []finding
	for _, d := range f.operations("webhook") {
		for _, c := range d.Spec.Template.Spec.Containers {
			tag := helm.TagOf(c.Image)
			v, err := version.ParseSemantic(tag)
			update := f.helmUpgrade(newestGatekeeper) + " --reset-then-reuse-values"
			switch {
			case err != nil:
				found = append(found, warns("use an image of Gatekeeper whose tag is its version", "%s has no version in its tag", cli.Printable(c.Image)))
			case v.LessThan(version.MustParseSemantic(oldestGatekeeper)):
				found = append(found, fails(update, "%s does not ask providers by default, and cannot load the templates", tag))
			case v.LessThan(version.MustParseSemantic(testedGatekeeper)):
				found = append(found, warns(update, "%s is older than %s, the version that the policies are tested with", tag, testedGatekeeper))
			default:
				found = append(found, holds("%s", tag))
			}
		}
	}
	return found
}

func checkFailurePolicy(f *facts) []finding {
	w, err := f.validation()
	switch {
	case err != nil:
		return []finding{unknown(err)}
	case w == nil:
		return []finding{fails(helm.Install(newestGatekeeper), "the webhook %s does not exist, so no object is denied", enforcement.ValidationWebhook)}
	}
	var found []finding
	if w.FailurePolicy == nil || *w.FailurePolicy == admissionregistrationv1.Fail {
		found = append(found, holds("failurePolicy Fail"))
	} else {
		found = append(found, fails(f.upgradeGatekeeper("validatingWebhookFailurePolicy=Fail"),
			"failurePolicy is %s: the API server admits objects when Gatekeeper does not answer in time", *w.FailurePolicy))
	}
	if len(w.ClientConfig.CABundle) == 0 {
		found = append(found, fails(fmt.Sprintf("kubectl -n %s rollout restart deployment", f.gatekeeperNamespace()), "the webhook has no caBundle, so every call to it fails"))
	}
	return found
}

// checkedResources are the resources that contain images, by API group. The resource *
// of a webhook's rule does not include subresources.
var checkedResources = map[string][]string{
	"":      {"pods", "pods/ephemeralcontainers", "replicationcontrollers"},
	"apps":  {"deployments", "replicasets", "statefulsets", "daemonsets"},
	"batch": {"jobs", "cronjobs"},
}

func checkRules(f *facts) []finding {
	w, err := f.validation()
	if err != nil {
		return []finding{unknown(err)}
	}
	if w == nil {
		return nil // another check reports it
	}
	var found []finding
	for _, group := range []string{"", "apps", "batch"} {
		for _, resource := range checkedResources[group] {
			for _, operation := range []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update} {
				if resource == "pods/ephemeralcontainers" && operation == admissionregistrationv1.Create {
					continue // no such request exists
				}
				if slices.ContainsFunc(w.Rules, func(r admissionregistrationv1.RuleWithOperations) bool {
					return enforcement.Covers(r, group, resource, operation)
				}) {
					continue
				}
				fix := "add it to validatingWebhookCustomRules in the values of Gatekeeper's chart, or remove that value"
				if group == "" && resource != "replicationcontrollers" {
					found = append(found, fails(fix, "the webhook is not asked about %s of %s, so images are not checked there", operation, resource))
				} else {
					found = append(found, warns(fix, "the webhook is not asked about %s of %s, so nobody is warned, and break-glass is not limited there", operation, resource))
				}
			}
		}
	}
	if s := w.ObjectSelector; s != nil && len(s.MatchLabels)+len(s.MatchExpressions) > 0 {
		found = append(found, fails("remove objectSelector from the webhook", "the webhook skips objects by their labels, and the creator of an object chooses its labels"))
	}
	for _, c := range w.MatchConditions {
		if c.Name != "nothing-a-cluster-lives-by" {
			found = append(found, warns("read it, and remove it if it can skip a Pod", "the webhook has the unknown condition %s", cli.Printable(c.Name)))
		}
	}
	if len(found) == 0 {
		found = append(found, holds("Pods, ephemeral containers and workloads"))
	}
	return found
}

// checkNamespaces finds namespaces that Gatekeeper does not check. kube-system and the
// namespaces of Gatekeeper and the provider must be among them: otherwise an outage of
// Gatekeeper would keep these from starting again.
func checkNamespaces(f *facts) []finding {
	w, err := f.validation()
	if err = cmp.Or(err, f.namespaces.err); err != nil {
		return []finding{unknown(err)}
	}
	own := []string{"kube-system", f.gatekeeperNamespace()}
	for _, b := range f.backends {
		own = append(own, b.namespace)
	}
	e := f.scope()
	var expected, others []string
	for _, n := range f.namespaces.is {
		why := e.WhyNotAsked(n.Name)
		switch {
		case why == "":
		case slices.Contains(own, n.Name):
			expected = append(expected, n.Name)
		default:
			others = append(others, n.Name+" ("+why+")")
		}
	}
	var found []finding
	if f.configs.err != nil {
		found = append(found, unknown(f.configs.err))
	}
	switch {
	case len(others) > 0 && f.providers.err != nil:
		found = append(found, unknown(fmt.Errorf("any image runs in %s, unless the provider runs there: %w", strings.Join(others, ", "), f.providers.err)))
	case len(others) > 0:
		found = append(found, fails("remove the label "+enforcement.IgnoreLabel+", the entry in the Config, or the namespace in validatingWebhookExemptNamespacesLabels",
			"any image runs in %s", strings.Join(others, ", ")))
	}
	if len(expected) > 0 {
		found = append(found, holds("as intended: %s; the policy does not apply there, so restrict who may create Pods", strings.Join(expected, ", ")))
	}
	if len(found) == 0 && w != nil {
		found = append(found, warns(f.upgradeGatekeeper(`'validatingWebhookExemptNamespacesLabels.kubernetes\.io/metadata\.name={kube-system,`+f.providerNamespace()+"}'"), "no namespace is exempt: while Gatekeeper is down, no Pod of kube-system can start"))
	}
	return found
}

func checkExternalData(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{unknown(f.gatekeeper.err)}
	}
	for _, d := range f.gatekeeper.is {
		for _, value := range flagsOf(d.Spec.Template.Spec, "enable-external-data") {
			if on, err := strconv.ParseBool(value); err != nil || !on {
				return []finding{fails(f.upgradeGatekeeper("enableExternalData=true"), "%s runs with --enable-external-data=%s: it asks no provider, and denies every image of OCI Registry", d.Name, value)}
			}
		}
	}
	if len(f.gatekeeper.is) == 0 {
		return nil // another check reports it
	}
	return []finding{holds("on")}
}

// longestCache is the longest TTL without a warning. A disabled key still counts for
// the TTL of Gatekeeper's cache.
const longestCache = time.Minute

func checkResponseCache(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{unknown(f.gatekeeper.err)}
	}
	var found []finding
	for _, d := range f.operations("webhook") {
		ttl := 3 * time.Minute // Gatekeeper's default
		for _, value := range flagsOf(d.Spec.Template.Spec, "external-data-provider-response-cache-ttl") {
			if parsed, err := time.ParseDuration(value); err == nil {
				ttl = parsed
			}
		}
		if ttl > longestCache {
			found = append(found, warns(f.upgradeGatekeeper("externaldataProviderResponseCacheTTL=30s"), "Gatekeeper caches answers for %s: for that time a disabled key still counts, and a new signature does not", ttl))
		} else {
			found = append(found, holds("%s", ttl))
		}
	}
	return found
}

// Gatekeeper asks external data providers by default since oldestGatekeeper. The
// policies are tested with testedGatekeeper.
const (
	oldestGatekeeper = "v3.11.0"
	testedGatekeeper = "v3.23.0"
	newestGatekeeper = "v3.23.1"
)
