// Package helm writes the helm commands that install and upgrade Gatekeeper, so that a user
// can run them as printed: without a repository or a file of values to add first.
package helm

import "strings"

// chart is Gatekeeper's chart as an argument of helm, without a repository to add first.
const chart = "gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts"

// values are the values of charts/oke-sign/gatekeeper-values.yaml in JSON, which
// a user of the plugin does not have as a file.
var values = []struct{ name, value string }{
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

// Values returns the values that Install sets, in JSON, by name.
func Values() map[string]string {
	found := make(map[string]string)
	for _, v := range values {
		found[v.name] = v.value
	}
	return found
}

// Install returns the command that installs a version of Gatekeeper with the values that the
// policies need.
func Install(version string) string {
	var set []string
	for _, v := range values {
		set = append(set, v.name+"="+v.value)
	}
	return "helm install gatekeeper " + chart + " --version " + strings.TrimPrefix(version, "v") +
		" -n gatekeeper-system --create-namespace --wait --set-json '" + strings.Join(set, ",") + "'"
}

// Upgrade returns the command that upgrades a release of Gatekeeper to a version of its
// chart; an empty version is the newest.
func Upgrade(release, namespace, version string) string {
	if version != "" {
		version = " --version " + strings.TrimPrefix(version, "v")
	}
	return "helm upgrade " + release + " " + chart + version + " -n " + namespace
}

// TagOf returns the tag of an image, which for Gatekeeper is its version.
func TagOf(image string) string {
	name, _, _ := strings.Cut(image, "@")
	return name[strings.LastIndexAny(name, ":/")+1:]
}
