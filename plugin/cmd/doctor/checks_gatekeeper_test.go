package doctor_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/helm"
)

// The command that installs Gatekeeper sets the values of gatekeeper-values.yaml.
func TestHelmInstall(t *testing.T) {
	text, err := os.ReadFile("../../../charts/oke-sign/gatekeeper-values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]any
	if err := yaml.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]any)
	for name, value := range helm.Values() {
		var v any
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got[name] = v
		if !strings.Contains(doctor.HelmInstall(), name+"="+value) || strings.Contains(value, "'") {
			t.Errorf("the command does not set %s=%s", name, value)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("gatekeeper-values.yaml -, the command +:\n%s", diff)
	}
}

// A report begins with the worst findings, and ends with one thing to do.
func TestBySeverity(t *testing.T) {
	w := newWorld(t)
	all(at(webhook, "Ignore", "webhooks,0,failurePolicy"), unread("ConstraintTemplate", forbidden), at(glass, nil, "spec,parameters,maxDuration"))(w)
	found, err := w.Findings("")
	if err != nil {
		t.Fatal(err)
	}
	var states []string
	sorted, next := doctor.Sorted(found)
	for _, x := range sorted {
		states = append(states, x.State)
	}
	if got := slices.Compact(states); !slices.Equal(got, []string{"fails", "unknown", "warns", "skipped", "holds"}) {
		t.Errorf("states in the order %v", got)
	}
	if want := "webhook fails closed: helm upgrade "; !strings.HasPrefix(next, want) {
		t.Errorf("next: %s, want %s", next, want)
	}
	if _, next := doctor.Sorted(nil); next != "" {
		t.Errorf("without a finding, next: %s", next)
	}
}

func TestGatekeeperRuns(t *testing.T) {
	told(t, "gatekeeper runs", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: gatekeeper-audit: 1 of 1 Pods ready",
			"holds: gatekeeper-controller-manager: 3 of 3 Pods ready",
		}},
		"no Gatekeeper": {gone(manager), []string{
			"fails: no Deployment with Gatekeeper's webhook in namespace gatekeeper-system",
			"-> " + doctor.HelmInstall(),
		}},
		"Gatekeeper elsewhere, and none there": {all(gone(manager), at(webhook, "policy", "webhooks,0,clientConfig,service,namespace")), []string{
			"fails: no Deployment with Gatekeeper's webhook in namespace policy",
			"-> " + doctor.HelmInstall(),
		}},
		"no Pod of the webhook is ready": {at(manager, int64(0), "status,readyReplicas"), []string{
			"holds: gatekeeper-audit: 1 of 1 Pods ready",
			"fails: gatekeeper-controller-manager has no ready Pod: failurePolicy Fail then denies every object, and Ignore admits every object",
			"-> kubectl -n gatekeeper-system describe deployment gatekeeper-controller-manager",
		}},
		"one replica": {at(manager, int64(1), "spec,replicas"), []string{
			"holds: gatekeeper-audit: 1 of 1 Pods ready",
			"warns: gatekeeper-controller-manager has one replica: while its node is drained, no object can be created",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set replicas=3",
		}},
		"a Deployment that says no replicas has one": {at(manager, nil, "spec,replicas"), []string{
			"holds: gatekeeper-audit: 1 of 1 Pods ready",
			"warns: gatekeeper-controller-manager has one replica: while its node is drained, no object can be created",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set replicas=3",
		}},
		"one of three Pods is ready": {at(manager, int64(1), "status,readyReplicas"), []string{
			"holds: gatekeeper-audit: 1 of 1 Pods ready",
			"holds: gatekeeper-controller-manager: 1 of 3 Pods ready",
		}},
		"no audit": {gone(audit), []string{
			"holds: gatekeeper-controller-manager: 3 of 3 Pods ready",
			"warns: no audit runs: images that ran before the policy are not reported",
			"-> " + doctor.HelmInstall(),
		}},
		"no Pod of the audit is ready": {at(audit, int64(0), "status,readyReplicas"), []string{
			"warns: gatekeeper-audit has no ready Pod",
			"-> kubectl -n gatekeeper-system describe deployment gatekeeper-audit",
			"holds: gatekeeper-controller-manager: 3 of 3 Pods ready",
		}},
		"Deployments may not be listed": {unread("Deployment", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestGatekeeperVersion(t *testing.T) {
	told(t, "gatekeeper version", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: v3.23.1",
		}},
		"too old to ask providers": {at(manager, "openpolicyagent/gatekeeper:v3.10.0@sha256:00", managerImage), []string{
			"fails: v3.10.0 does not ask providers by default, and cannot load the templates",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reset-then-reuse-values",
		}},
		"older than the tested one": {at(manager, "openpolicyagent/gatekeeper:v3.22.2", managerImage), []string{
			"warns: v3.22.2 is older than v3.23.0, the version that the policies are tested with",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reset-then-reuse-values",
		}},
		"a candidate of the tested one": {at(manager, "openpolicyagent/gatekeeper:v3.23.0-rc.1", managerImage), []string{
			"warns: v3.23.0-rc.1 is older than v3.23.0, the version that the policies are tested with",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reset-then-reuse-values",
		}},
		"the tested one": {at(manager, "openpolicyagent/gatekeeper:v3.23.0", managerImage), []string{
			"holds: v3.23.0",
		}},
		"newer": {at(manager, "gatekeeper:v4.0.0", managerImage), []string{
			"holds: v4.0.0",
		}},
		"a port and no tag": {at(manager, "registry:5000/gatekeeper", managerImage), []string{
			"warns: registry:5000/gatekeeper has no version in its tag",
			"-> use an image of Gatekeeper whose tag is its version",
		}},
		"a digest and no tag": {at(manager, "gatekeeper@sha256:00", managerImage), []string{
			"warns: gatekeeper@sha256:00 has no version in its tag",
			"-> use an image of Gatekeeper whose tag is its version",
		}},
		"a tag that is no version, with an escape sequence": {at(manager, "gatekeeper:\x1b[2Jlatest", managerImage), []string{
			"warns: gatekeeper:?[2Jlatest has no version in its tag",
			"-> use an image of Gatekeeper whose tag is its version",
		}},
		"no container": {at(manager, nil, "spec,template,spec,containers"), nil},
		"Deployments may not be listed": {unread("Deployment", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestWebhookFailsClosed(t *testing.T) {
	told(t, "webhook fails closed", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: failurePolicy Fail",
		}},
		"no webhook configuration": {gone(webhook), []string{
			"fails: the webhook validation.gatekeeper.sh does not exist, so no object is denied",
			"-> " + doctor.HelmInstall(),
		}},
		"a configuration with another webhook only": {at(webhook, "other", "webhooks,0,name"), []string{
			"fails: the webhook validation.gatekeeper.sh does not exist, so no object is denied",
			"-> " + doctor.HelmInstall(),
		}},
		"a configuration without webhooks": {at(webhook, nil, "webhooks"), []string{
			"fails: the webhook validation.gatekeeper.sh does not exist, so no object is denied",
			"-> " + doctor.HelmInstall(),
		}},
		"failurePolicy Ignore": {at(webhook, "Ignore", "webhooks,0,failurePolicy"), []string{
			"fails: failurePolicy is Ignore: the API server admits objects when Gatekeeper does not answer in time",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set validatingWebhookFailurePolicy=Fail",
		}},
		"no failurePolicy, which Kubernetes takes for Fail": {at(webhook, nil, "webhooks,0,failurePolicy"), []string{
			"holds: failurePolicy Fail",
		}},
		"no CA": {at(webhook, nil, "webhooks,0,clientConfig,caBundle"), []string{
			"holds: failurePolicy Fail",
			"fails: the webhook has no caBundle, so every call to it fails",
			"-> kubectl -n gatekeeper-system rollout restart deployment",
		}},
		"neither CA nor service": {at(webhook, nil, "webhooks,0,clientConfig"), []string{
			"holds: failurePolicy Fail",
			"fails: the webhook has no caBundle, so every call to it fails",
			"-> kubectl -n gatekeeper-system rollout restart deployment",
		}},
		"the webhook may not be read": {unread("ValidatingWebhookConfiguration", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"the API server is broken": {unread("ValidatingWebhookConfiguration", broken), []string{
			"unknown: Internal error occurred: etcd is gone",
			"-> try again; if it stays, fix the cause that the error names",
		}},
		"the API server is late": {unread("ValidatingWebhookConfiguration", errLate), []string{
			"unknown: asking: context deadline exceeded",
			"-> try again with a longer --timeout",
		}},
	})
}

// unaskedPods returns the findings for requests that decide which images run.
func unaskedPods(requests ...string) []string {
	return unasked("fails", "so images are not checked there", requests)
}

// unaskedWorkloads returns the findings for requests about workloads.
func unaskedWorkloads(requests ...string) []string {
	return unasked("warns", "so nobody is warned, and break-glass is not limited there", requests)
}

func unasked(state, consequence string, requests []string) []string {
	var want []string
	for _, request := range requests {
		want = append(want,
			state+": the webhook is not asked about "+request+", "+consequence,
			"-> add it to validatingWebhookCustomRules in the values of Gatekeeper's chart, or remove that value")
	}
	return want
}

func TestWebhookSeesEverything(t *testing.T) {
	podsUnasked := unaskedPods("CREATE of pods", "UPDATE of pods", "UPDATE of pods/ephemeralcontainers")
	workloadsUnasked := unaskedWorkloads(
		"CREATE of replicationcontrollers", "UPDATE of replicationcontrollers", "CREATE of deployments", "UPDATE of deployments",
		"CREATE of replicasets", "UPDATE of replicasets", "CREATE of statefulsets", "UPDATE of statefulsets",
		"CREATE of daemonsets", "UPDATE of daemonsets", "CREATE of jobs", "UPDATE of jobs",
		"CREATE of cronjobs", "UPDATE of cronjobs",
	)
	told(t, "webhook sees everything", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"no ephemeral containers": {at(webhook, []any{"*"}, "webhooks,0,rules,0,resources"), unaskedPods("UPDATE of pods/ephemeralcontainers")},
		"ephemeral containers through */ephemeralcontainers": {at(webhook, []any{"*", "*/ephemeralcontainers"}, "webhooks,0,rules,0,resources"), []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"ephemeral containers through pods/*": {at(webhook, []any{"*", "pods/*"}, "webhooks,0,rules,0,resources"), []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"all resources and subresources": {at(webhook, []any{"*/*"}, "webhooks,0,rules,0,resources"), []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"no updates": {at(webhook, []any{"CREATE"}, "webhooks,0,rules,0,operations"), slices.Concat(
			unaskedPods("UPDATE of pods", "UPDATE of pods/ephemeralcontainers"),
			unaskedWorkloads("UPDATE of replicationcontrollers", "UPDATE of deployments", "UPDATE of replicasets",
				"UPDATE of statefulsets", "UPDATE of daemonsets", "UPDATE of jobs", "UPDATE of cronjobs"),
		)},
		"all operations": {at(webhook, []any{"*"}, "webhooks,0,rules,0,operations"), []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"core objects only": {at(webhook, []any{""}, "webhooks,0,rules,0,apiGroups"), unaskedWorkloads("CREATE of deployments", "UPDATE of deployments", "CREATE of replicasets", "UPDATE of replicasets", "CREATE of statefulsets", "UPDATE of statefulsets",
			"CREATE of daemonsets", "UPDATE of daemonsets", "CREATE of jobs", "UPDATE of jobs", "CREATE of cronjobs", "UPDATE of cronjobs")},
		"another version of the API only": {at(webhook, []any{"v2"}, "webhooks,0,rules,0,apiVersions"), slices.Concat(podsUnasked, workloadsUnasked)},
		"cluster-wide objects only":       {at(webhook, "Cluster", "webhooks,0,rules,0,scope"), slices.Concat(podsUnasked, workloadsUnasked)},
		"namespaced objects only": {at(webhook, "Namespaced", "webhooks,0,rules,0,scope"), []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"objects selected by label": {at(webhook, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "webhooks,0,objectSelector"), []string{
			"fails: the webhook skips objects by their labels, and the creator of an object chooses its labels",
			"-> remove objectSelector from the webhook",
		}},
		"an empty object selector": {at(webhook, map[string]any{}, "webhooks,0,objectSelector"), []string{
			"holds: Pods, ephemeral containers and workloads",
		}},
		"an unknown condition, with an escape sequence": {at(webhook, "mine\x1b[2J", "webhooks,0,matchConditions,0,name"), []string{
			"warns: the webhook has the unknown condition mine?[2J",
			"-> read it, and remove it if it can skip a Pod",
		}},
		"no webhook: another check reports it": {gone(webhook), nil},
		"the webhook may not be read": {unread("ValidatingWebhookConfiguration", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestNamespacesLeftOut(t *testing.T) {
	told(t, "unchecked namespaces", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"a namespace with the label": {at("Namespace/shop", "true", "metadata,labels,admission.gatekeeper.sh/ignore"), []string{
			"fails: any image runs in shop (the namespace has the label admission.gatekeeper.sh/ignore)",
			"-> remove the label admission.gatekeeper.sh/ignore, the entry in the Config, or the namespace in validatingWebhookExemptNamespacesLabels",
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"a namespace that the webhook exempts": {at(webhook, []any{"shop"}, "webhooks,0,namespaceSelector,matchExpressions,1,values"), []string{
			"fails: any image runs in shop (Gatekeeper's webhook exempts the namespace)",
			"-> remove the label admission.gatekeeper.sh/ignore, the entry in the Config, or the namespace in validatingWebhookExemptNamespacesLabels",
			"holds: as intended: gatekeeper-system; the policy does not apply there, so restrict who may create Pods",
		}},
		"a pattern of the Config": {add("{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config}, spec: {match: [{processes: ['*'], excludedNamespaces: ['sh*']}]}}"), []string{
			"fails: any image runs in shop (Gatekeeper's Config excludes the namespace)",
			"-> remove the label admission.gatekeeper.sh/ignore, the entry in the Config, or the namespace in validatingWebhookExemptNamespacesLabels",
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"a Config for the audit only": {add("{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config}, spec: {match: [{processes: [audit], excludedNamespaces: [shop]}]}}"), []string{
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"a Config of hostile shape": {add("{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config}, spec: {match: [shop, 7, {processes: '*', excludedNamespaces: {shop: true}}]}}"), []string{
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"an exempt namespace without need": {all(at(webhook, []any{"kube-system", "oke-sign", "gatekeeper-system", "kube-node-lease"}, "webhooks,0,namespaceSelector,matchExpressions,1,values"), add("{apiVersion: v1, kind: Namespace, metadata: {name: kube-node-lease, labels: {kubernetes.io/metadata.name: kube-node-lease}}}")), []string{
			"fails: any image runs in kube-node-lease (Gatekeeper's webhook exempts the namespace)",
			"-> remove the label admission.gatekeeper.sh/ignore, the entry in the Config, or the namespace in validatingWebhookExemptNamespacesLabels",
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"no namespace": {at(webhook, nil, "webhooks,0,namespaceSelector"), []string{
			"warns: no namespace is exempt: while Gatekeeper is down, no Pod of kube-system can start",
			`-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set 'validatingWebhookExemptNamespacesLabels.kubernetes\.io/metadata\.name={kube-system,oke-sign}'`,
		}},
		"an invalid namespace selector": {at(webhook, []any{map[string]any{"key": "a", "operator": "Near"}}, "webhooks,0,namespaceSelector,matchExpressions"), []string{
			"warns: no namespace is exempt: while Gatekeeper is down, no Pod of kube-system can start",
			`-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set 'validatingWebhookExemptNamespacesLabels.kubernetes\.io/metadata\.name={kube-system,oke-sign}'`,
		}},
		"the Config may not be read": {unread("Config", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
			"holds: as intended: gatekeeper-system, kube-system, oke-sign; the policy does not apply there, so restrict who may create Pods",
		}},
		"namespaces may not be listed": {unread("Namespace", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
		"the webhook may not be read": {unread("ValidatingWebhookConfiguration", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestExternalData(t *testing.T) {
	told(t, "external data", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: on",
		}},
		"off": {at(manager, []any{"--enable-external-data=false"}, args), []string{
			"fails: gatekeeper-controller-manager runs with --enable-external-data=false: it asks no provider, and denies every image of OCI Registry",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set enableExternalData=true",
		}},
		"off, in two words": {at(audit, []any{"--enable-external-data", "false"}, args), []string{
			"fails: gatekeeper-audit runs with --enable-external-data=false: it asks no provider, and denies every image of OCI Registry",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set enableExternalData=true",
		}},
		"on, in one word": {at(manager, []any{"--enable-external-data", "--operation=webhook"}, args), []string{
			"holds: on",
		}},
		"an invalid value": {at(manager, []any{"--enable-external-data=perhaps"}, args), []string{
			"fails: gatekeeper-controller-manager runs with --enable-external-data=perhaps: it asks no provider, and denies every image of OCI Registry",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set enableExternalData=true",
		}},
		"the flag of something else": {at(manager, []any{"--disable-enable-external-data=false", "enable-external-data=false"}, args), []string{
			"holds: on",
		}},
		"no Gatekeeper: another check reports it": {all(gone(manager), gone(audit)), nil},
		"Deployments may not be listed": {unread("Deployment", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}

func TestResponseCache(t *testing.T) {
	told(t, "response cache", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: 30s",
		}},
		"three minutes": {at(manager, []any{"--external-data-provider-response-cache-ttl=3m"}, args), []string{
			"warns: Gatekeeper caches answers for 3m0s: for that time a disabled key still counts, and a new signature does not",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set externaldataProviderResponseCacheTTL=30s",
		}},
		"a minute": {at(manager, []any{"--external-data-provider-response-cache-ttl", "60s"}, args), []string{
			"holds: 1m0s",
		}},
		"a second more": {at(manager, []any{"-external-data-provider-response-cache-ttl=61s"}, args), []string{
			"warns: Gatekeeper caches answers for 1m1s: for that time a disabled key still counts, and a new signature does not",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set externaldataProviderResponseCacheTTL=30s",
		}},
		"the default": {at(manager, []any{}, args), []string{
			"warns: Gatekeeper caches answers for 3m0s: for that time a disabled key still counts, and a new signature does not",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set externaldataProviderResponseCacheTTL=30s",
		}},
		"an invalid time: the default counts": {at(manager, []any{"--external-data-provider-response-cache-ttl=soon"}, args), []string{
			"warns: Gatekeeper caches answers for 3m0s: for that time a disabled key still counts, and a new signature does not",
			"-> helm upgrade gatekeeper gatekeeper --repo https://open-policy-agent.github.io/gatekeeper/charts --version 3.23.1 -n gatekeeper-system --reuse-values --set externaldataProviderResponseCacheTTL=30s",
		}},
		"Deployments may not be listed": {unread("Deployment", forbidden), []string{
			"unknown: objects is forbidden: you may not",
			"-> ask for the right to read it",
		}},
	})
}
