package doctor

import (
	"cmp"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"
)

// chart is Gatekeeper's chart as an argument of helm, without a repository to add first.
const chart = "gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts"

// gatekeeperValues are the values of charts/oke-sign/gatekeeper-values.yaml in JSON, which
// a user of the plugin does not have as a file.
var gatekeeperValues = []struct{ name, value string }{
	{"validatingWebhookFailurePolicy", `"Fail"`},
	{"validatingWebhookTimeoutSeconds", `5`},
	{"mutatingWebhookTimeoutSeconds", `3`},
	{"validatingWebhookExemptNamespacesLabels", `{"kubernetes.io/metadata.name":["kube-system","oke-sign"]}`},
	{"validatingWebhookMatchConditions", `[{"name":"nothing-a-cluster-lives-by","expression":"!(request.resource.group in [\"authentication.k8s.io\", \"authorization.k8s.io\", \"certificates.k8s.io\", \"coordination.k8s.io\", \"discovery.k8s.io\", \"events.k8s.io\"] || (request.resource.group == \"\" && request.resource.resource in [\"endpoints\", \"events\", \"nodes\"]))"}]`},
	{"externaldataProviderResponseCacheTTL", `"30s"`},
	{"maxServingThreads", `64`},
	{"logDenies", `true`},
	{"constraintViolationsLimit", `100`},
	{"auditMatchKindOnly", `true`},
	{"disabledBuiltins", `["http.send"]`},
	{"defaultCreateVAPBindingForConstraints", `false`},
}

// helmInstall returns the command that installs Gatekeeper with the values that the
// policies need.
func helmInstall() string {
	var values []string
	for _, v := range gatekeeperValues {
		values = append(values, v.name+"="+v.value)
	}
	return "helm install gatekeeper " + chart + " --version " + strings.TrimPrefix(newestGatekeeper, "v") +
		" -n gatekeeper-system --create-namespace --wait --set-json '" + strings.Join(values, ",") + "'"
}

// helmRelease is the annotation of an object that a release of helm made.
const helmRelease = "meta.helm.sh/release-name"

// upgradeGatekeeper returns the command that sets a value of Gatekeeper's chart, in the
// release and the version that run.
func (f *facts) upgradeGatekeeper(value string) string {
	running := ""
	for _, d := range f.operations("webhook") {
		for _, c := range d.Spec.Template.Spec.Containers {
			if v, err := version.ParseSemantic(tagOf(c.Image)); err == nil {
				running = " --version " + v.String()
			}
		}
	}
	return f.helmUpgrade(running) + " --reuse-values --set " + value
}

// helmUpgrade returns the command that upgrades Gatekeeper to a version of its chart.
func (f *facts) helmUpgrade(to string) string {
	release := ""
	for _, d := range f.gatekeeper.is {
		release = cmp.Or(release, d.Annotations[helmRelease])
	}
	return "helm upgrade " + cmp.Or(release, "gatekeeper") + " " + chart + to + " -n " + f.gatekeeperNamespace()
}

// tagOf returns the tag of an image.
func tagOf(image string) string {
	name, _, _ := strings.Cut(image, "@")
	return name[strings.LastIndexAny(name, ":/")+1:]
}
