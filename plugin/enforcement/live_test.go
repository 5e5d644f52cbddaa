package enforcement_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/policies"
)

// Whether Gatekeeper and the providers answer is in the EndpointSlices of their Services.
func TestReadLive(t *testing.T) {
	const (
		hook      = `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: gatekeeper-validating-webhook-configuration}, webhooks: [{name: validation.gatekeeper.sh, clientConfig: {service: {namespace: gk, name: hook}}}]}`
		ignored   = `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: gatekeeper-validating-webhook-configuration}, webhooks: [{name: validation.gatekeeper.sh, failurePolicy: Ignore, clientConfig: {service: {namespace: gk, name: hook}}}]}`
		hookReady = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: hook-1, namespace: gk, labels: {kubernetes.io/service-name: hook}}, endpoints: [{addresses: [10.0.0.1], targetRef: {kind: Pod, name: a}}]}`
		provider  = `{apiVersion: externaldata.gatekeeper.sh/v1beta1, kind: Provider, metadata: {name: oke-sign}, spec: {url: "https://oke-sign.sign.svc:8443/v1/signatures"}}`
		ready     = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: p, namespace: sign, labels: {kubernetes.io/service-name: oke-sign}}, endpoints: [{addresses: [10.0.0.2], conditions: {ready: true}, targetRef: {kind: Pod, name: b}}]}`
		unready   = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: p, namespace: sign, labels: {kubernetes.io/service-name: oke-sign}}, endpoints: [{addresses: [10.0.0.2], conditions: {ready: false}, targetRef: {kind: Pod, name: b}}]}`
		elsewhere = `{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: p, namespace: other, labels: {kubernetes.io/service-name: oke-sign}}, endpoints: [{addresses: [10.0.0.2], targetRef: {kind: Pod, name: b}}]}`
		outside   = `{apiVersion: externaldata.gatekeeper.sh/v1beta1, kind: Provider, metadata: {name: oke-sign}, spec: {url: "https://sign.example.com/v1/signatures"}}`
	)
	type want struct{ gatekeeper, provider, unchecked, loose string }
	const (
		noHook     = "no Pod of Gatekeeper is ready behind Service gk/hook"
		noProvider = "no Pod of the provider is ready behind Service sign/oke-sign"
		loose      = "failurePolicy is Ignore: the API server admits objects when Gatekeeper does not answer in time"
	)
	for name, tc := range map[string]struct {
		objects []string
		path    string // that the user may not read
		want    want
	}{
		"all answer":                        {[]string{hook, hookReady, provider, ready}, "", want{}},
		"failurePolicy Ignore":              {[]string{ignored, hookReady, provider, ready}, "", want{loose: loose}},
		"no Pod of Gatekeeper":              {[]string{hook, provider, ready}, "", want{gatekeeper: noHook}},
		"no Pod of Gatekeeper, with Ignore": {[]string{ignored, provider, ready}, "", want{gatekeeper: noHook, unchecked: noHook + ", and failurePolicy is Ignore", loose: loose}},
		"no webhook":                        {[]string{provider, ready}, "", want{gatekeeper: "Gatekeeper's webhook does not exist", unchecked: "Gatekeeper's webhook does not exist"}},
		"no Provider":                       {[]string{hook, hookReady, ready}, "", want{provider: "the Provider oke-sign does not exist"}},
		"no Pod of the provider":            {[]string{hook, hookReady, provider}, "", want{provider: noProvider}},
		"no ready Pod of the provider":      {[]string{hook, hookReady, provider, unready}, "", want{provider: noProvider}},
		"a Service of that name elsewhere":  {[]string{hook, hookReady, provider, elsewhere}, "", want{provider: noProvider}},
		"a provider outside the cluster":    {[]string{hook, hookReady, outside}, "", want{}},
		"Providers may not be read":         {[]string{hook, hookReady, provider, ready}, "/apis/externaldata", want{provider: "error: reading the Provider oke-sign: not for you"}},
		"EndpointSlices may not be listed":  {[]string{hook, hookReady, provider, ready}, "/apis/discovery", want{gatekeeper: "error: reading whether Gatekeeper answers: not for you", provider: "error: reading whether the provider oke-sign answers: not for you"}},
		"the webhook may not be read":       {[]string{hook, hookReady, provider, ready}, "/apis/admissionregistration", want{gatekeeper: "error: reading Gatekeeper's webhook: not for you"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, server, _ := session(t, append(tc.objects, signedImages)...)
			answer(server, tc.path, http.StatusForbidden, metav1.StatusReasonForbidden)
			e, err := enforcement.Read(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			l := enforcement.ReadLive(t.Context(), s, e)
			text := func(h enforcement.Health) string {
				if h.Err != nil {
					return "error: " + h.Err.Error()
				}
				return h.Down
			}
			if len(l.Providers) != 1 {
				t.Errorf("%d Providers, want 1", len(l.Providers))
			}
			got := want{text(l.Gatekeeper), text(l.Answers(e.Constraints[0].Object)), l.Unchecked, l.Loose}
			if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(want{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServiceAt(t *testing.T) {
	for address, want := range map[string]string{
		"https://oke-sign.sign.svc:8443/v1/signatures":      "sign/oke-sign",
		"https://oke-sign.sign.svc.cluster.local/v1":        "sign/oke-sign",
		"https://oke-sign.sign:8443/v1/signatures":          "sign/oke-sign",
		"https://sign.example.com/v1/signatures":            "",
		"https://oke-sign:8443":                             "",
		"https://.svc/":                                     "",
		"":                                                  "",
		"https://[::1]:8443/" + strings.Repeat("x", 100):    "",
		"https://oke-sign.sign.svc:notaport/v1/signatures/": "",
	} {
		name, namespace, ok := enforcement.ServiceAt(address)
		if got := strings.Trim(namespace+"/"+name, "/"); got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %v", address, got, ok)
		}
	}
}

// The reach of a constraint ends where its match or Gatekeeper's webhook exempts all.
// Pods are read only if the match may exclude all of them, and only up to the first that
// matches.
func TestReadReach(t *testing.T) {
	const (
		web    = `{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: default, labels: {app: web}}}`
		done   = `{apiVersion: v1, kind: Pod, metadata: {name: done, namespace: default, labels: {app: job}}, status: {phase: Succeeded}}`
		deploy = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, namespace: default}, spec: {template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: x}]}}}}`
	)
	for name, tc := range map[string]struct {
		match string
		path  string // that the user may not read
		want  string
		reads bool // Pods
	}{
		"everything":                       {``, "", "", false},
		"all but some namespaces":          {`excludedNamespaces: [kube-system]`, "", "", false},
		"a label of a Pod":                 {`labelSelector: {matchLabels: {app: web}}`, "", "", true},
		"a label of a workload's Pods":     {`labelSelector: {matchLabels: {app: api}}`, "", "", true},
		"a label of a Pod that has ended":  {`labelSelector: {matchLabels: {app: job}}`, "", `none of 2 Pods matches: only objects with {"matchLabels":{"app":"job"}}, and the creator of a Pod chooses its labels`, true},
		"no namespace":                     {`namespaces: [x]`, "", `no namespace matches: only namespaces ["x"]`, false},
		"no Pods":                          {`kinds: [{apiGroups: [apps], kinds: [Pod]}]`, "", "spec.match.kinds does not include Pods", false},
		"a selector that is none":          {`namespaceSelector: {matchExpressions: [{key: a, operator: Is}]}`, "", `error: spec.match: `, false},
		"namespaces may not be listed":     {`namespaces: [default]`, "/api/v1/namespaces", "error: listing namespaces: not for you", false},
		"Pods may not be listed":           {`labelSelector: {matchLabels: {app: web}}`, "/api/v1/pods", "error: listing pods: not for you", true},
		"workloads may not be listed":      {`labelSelector: {matchLabels: {app: x}}`, "/apis/apps", "error: listing deployments: not for you", true},
		"workloads, which need no reading": {`labelSelector: {matchLabels: {app: web}}`, "/apis/apps", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, server, _ := session(t, web, done, deploy)
			answer(server, tc.path, http.StatusForbidden, metav1.StatusReasonForbidden)
			c := object(t, `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: `+policies.SignedImages+`, metadata: {name: x}, spec: {match: {`+tc.match+`}}}`)
			r, err := enforcement.Scope(t.Context(), s, "").ReadReach(t.Context(), s, &c)
			got := r.Why()
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != tc.want && (!strings.HasSuffix(tc.want, ": ") || !strings.HasPrefix(got, tc.want)) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			reads := false
			for _, r := range server.Requests() {
				reads = reads || strings.HasSuffix(r, "/pods")
			}
			if reads != tc.reads && tc.path == "" {
				t.Errorf("it reads Pods: %v", reads)
			}
		})
	}
}
