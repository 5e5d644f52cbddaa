package charts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

// The policy exempts the namespaces of the installation. Anybody who may create Namespaces can take
// a free name.
func TestExemptNamespacesFollowTheInstallation(t *testing.T) {
	kubeconfig := clusterWith(t, "signing", "policy")
	install := func(args ...string) (string, string, error) {
		return helm(t, append([]string{
			"install", "p", "oke-sign-policy", "--namespace", "signing", "--kubeconfig", kubeconfig, "--dry-run=server", "--disable-openapi-validation",
			"--values", "testdata/oke-sign-policy/default.yaml",
		}, args...)...)
	}
	for name, tc := range map[string]struct {
		values string
		want   string // part of the error; empty: helm installs the chart
	}{
		"both namespaces":         {"installation.namespace=signing,installation.gatekeeperNamespace=policy", ""},
		"no provider's namespace": {"installation.namespace=,installation.gatekeeperNamespace=policy", ""},
		"defaults":                {"mode=deny", "installation.namespace is oke-sign, but Provider oke-sign leads to namespace signing"},
		"Gatekeeper's by default": {"installation.namespace=signing", "installation.gatekeeperNamespace is gatekeeper-system, but Gatekeeper runs in namespace policy"},
		"a Provider elsewhere":    {"installation.namespace=signing,installation.gatekeeperNamespace=policy,provider=outside", ""},
	} {
		_, errs, err := install("--set", tc.values)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %s", name, errs)
		case tc.want != "" && (err == nil || !strings.Contains(errs, tc.want)):
			t.Errorf("%s: got %v %s, want an error that says: %s", name, err, errs, tc.want)
		}
	}

	out, errs, err := install("--set", "installation.namespace=signing,installation.gatekeeperNamespace=policy,scope.excludedNamespaces={kube-system,free,sys-*}")
	if err != nil {
		t.Fatal(errs)
	}
	_, notes, _ := strings.Cut(out, "\nNOTES:\n")
	for _, line := range []string{"namespace kube-system;", "namespace free, WHICH DOES NOT EXIST: ", "namespace sys-*;", "namespace policy;", "namespace signing;"} {
		if !strings.Contains(notes, "  - in "+line) {
			t.Errorf("the notes do not contain: %s\n%s", line, notes)
		}
	}
}

// The notes of chart oke-sign compare Gatekeeper's exemptions with the cluster.
func TestNotesKnowTheInstallation(t *testing.T) {
	for name, tc := range map[string]struct {
		namespace, values string
		says, saysNot     []string
	}{
		"another namespace": {
			"signing", "gatekeeper.namespace=policy",
			[]string{
				"does not exempt namespace signing", "exempts namespace oke-sign, which does not exist",
				"--set installation.namespace=signing,installation.gatekeeperNamespace=policy \\",
			},
			[]string{"exempts namespace policy", "exempts namespace kube-system", "are not guarded"},
		},
		"the default namespaces": {
			"oke-sign", "namespaceLabels.enabled=false",
			[]string{"the labels of namespaces are not guarded"},
			[]string{"does not exempt", "does not exist", "installation.namespace"},
		},
	} {
		gatekeeper := "policy"
		if tc.namespace == "oke-sign" {
			gatekeeper = "gatekeeper-system"
		}
		out, errs, err := helm(t, "install", "p", "oke-sign", "--namespace", tc.namespace, "--kubeconfig", clusterWith(t, tc.namespace, gatekeeper),
			"--dry-run=server", "--disable-openapi-validation", "--set", region, "--set", tc.values)
		if err != nil {
			t.Errorf("%s: %s", name, errs)
			continue
		}
		_, notes, _ := strings.Cut(out, "\nNOTES:\n")
		for _, text := range tc.says {
			if !strings.Contains(notes, text) {
				t.Errorf("%s: the notes do not contain: %s\n%s", name, text, notes)
			}
		}
		for _, text := range tc.saysNot {
			if strings.Contains(notes, text) {
				t.Errorf("%s: the notes contain: %s\n%s", name, text, notes)
			}
		}
	}
}

// clusterWith starts an API server with the provider and Gatekeeper in these namespaces, and
// returns its kubeconfig.
func clusterWith(t *testing.T, provider, gatekeeper string) string {
	t.Helper()
	server := fakeapiserver.Start(t)
	text := fmt.Sprintf(`
{apiVersion: v1, kind: Namespace, metadata: {name: %[1]s}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: %[2]s}}
---
{apiVersion: externaldata.gatekeeper.sh/v1beta1, kind: Provider, metadata: {name: oke-sign}, spec: {url: "https://oke-sign.%[1]s.svc:8443/v1/signatures"}}
---
{apiVersion: externaldata.gatekeeper.sh/v1beta1, kind: Provider, metadata: {name: outside}, spec: {url: "https://oke-sign.example.com:8443/v1/signatures"}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: gatekeeper-validating-webhook-configuration}
webhooks:
- name: validation.gatekeeper.sh
  failurePolicy: Fail
  timeoutSeconds: 5
  clientConfig: {service: {name: gatekeeper-webhook-service, namespace: %[2]s}}
  namespaceSelector:
    matchExpressions:
    - {key: admission.gatekeeper.sh/ignore, operator: DoesNotExist}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, oke-sign, %[2]s]}
`, provider, gatekeeper)
	list, err := manifest.Objects([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Add(list...); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := server.Kubeconfig(t.TempDir(), "there")
	if err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}
