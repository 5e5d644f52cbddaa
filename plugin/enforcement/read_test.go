package enforcement_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

const (
	keyA = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"
	keyB = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64b"

	signedImages = `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: signed}, spec: {parameters: {keys: [` + keyA + `]}}}`
	webhooks     = `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: gatekeeper-validating-webhook-configuration}, webhooks: [{name: validation.gatekeeper.sh}]}`
)

// session connects a user to a server with objects. It returns the remarks that the
// user reads.
func session(t *testing.T, objects ...string) (*connect.Session, *fakeapiserver.Server, *bytes.Buffer) {
	t.Helper()
	server := fakeapiserver.Start(t)
	for _, text := range objects {
		o := object(t, text)
		if err := server.Add(&o); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig, err := server.Kubeconfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	s := &connect.Session{Kube: connect.NewKube(&told)}
	s.Streams.ErrOut = &told
	*s.Kube.KubeConfig = kubeconfig
	return s, server, &told
}

// answer makes a server answer requests for a path with an error.
func answer(server *fakeapiserver.Server, path string, code int, reason metav1.StatusReason) {
	server.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if path == "" || !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":"not for you"}`, reason, code)
		return true
	})
}

func TestRead(t *testing.T) {
	const (
		ofWebhook = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
		ofConfig  = "/apis/config.gatekeeper.sh"
		config    = `{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config, namespace: gatekeeper-system}, spec: {match: [{processes: [webhook], excludedNamespaces: [kube-*]}]}}`
	)
	for name, tc := range map[string]struct {
		objects []string
		path    string // of requests that fail
		code    int
		reason  metav1.StatusReason

		wantErr    string
		wantTold   string
		constraint []string
		namespaces int
		webhook    bool
		excluded   []string
	}{
		"everything is there": {
			objects: []string{signedImages, webhooks, config}, constraint: []string{"OKESignedImages/signed"}, namespaces: 2, webhook: true, excluded: []string{"kube-*"},
		},
		"constraints of two kinds": {
			objects:    []string{signedImages, webhooks, `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEBreakGlass, metadata: {name: glass}, spec: {}}`},
			constraint: []string{"OKESignedImages/signed", "OKEBreakGlass/glass"}, namespaces: 2, webhook: true,
		},
		"no constraint": {objects: []string{webhooks}, wantErr: "the cluster has no constraint of oke-sign, so every image may run"},
		"no webhook": {
			objects: []string{signedImages}, constraint: []string{"OKESignedImages/signed"}, namespaces: 2,
			wantTold: "Gatekeeper's webhook does not exist, so the cluster denies nothing; run kubectl oke-sign doctor\n",
		},
		"no right to list constraints": {
			objects: []string{signedImages, webhooks}, path: "/apis/constraints.gatekeeper.sh", code: http.StatusForbidden, reason: metav1.StatusReasonForbidden,
			wantErr: "listing constraints of kind OKESignedImages: not for you",
		},
		"no right to list namespaces": {
			objects: []string{signedImages, webhooks}, path: "/api/v1/namespaces", code: http.StatusForbidden, reason: metav1.StatusReasonForbidden,
			wantTold:   "you may not list namespaces, so constraints with a namespaceSelector cannot be simulated\n",
			constraint: []string{"OKESignedImages/signed"}, webhook: true,
		},
		"namespaces cannot be listed": {
			objects: []string{signedImages, webhooks}, path: "/api/v1/namespaces", code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError,
			wantErr: "listing namespaces: not for you",
		},
		"no right to read the webhook": {
			objects: []string{signedImages, webhooks}, path: ofWebhook, code: http.StatusForbidden, reason: metav1.StatusReasonForbidden,
			wantTold:   "you may not read Gatekeeper's webhook, so namespaces that it exempts count as checked here\n",
			constraint: []string{"OKESignedImages/signed"}, namespaces: 2,
		},
		"the webhook cannot be read": {
			objects: []string{signedImages, webhooks}, path: ofWebhook, code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError,
			wantTold:   "Gatekeeper's webhook could not be read: not for you\n",
			constraint: []string{"OKESignedImages/signed"}, namespaces: 2,
		},
		"no right to read the Config": {
			objects: []string{signedImages, webhooks, config}, path: ofConfig, code: http.StatusForbidden, reason: metav1.StatusReasonForbidden,
			wantTold:   "you may not read Gatekeeper's Config, so namespaces that it exempts count as checked here\n",
			constraint: []string{"OKESignedImages/signed"}, namespaces: 2, webhook: true,
		},
		"no Config in the cluster": {
			objects: []string{signedImages, webhooks}, path: ofConfig, code: http.StatusNotFound, reason: metav1.StatusReasonNotFound,
			constraint: []string{"OKESignedImages/signed"}, namespaces: 2, webhook: true,
		},
		"the Config cannot be read": {
			objects: []string{signedImages, webhooks, config}, path: ofConfig, code: http.StatusInternalServerError, reason: metav1.StatusReasonInternalError,
			wantErr: "listing Gatekeeper's configuration: not for you",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, server, told := session(t, tc.objects...)
			answer(server, tc.path, tc.code, tc.reason)
			e, err := enforcement.Read(t.Context(), s)
			if tc.wantErr != "" {
				if err == nil || err.Error() != tc.wantErr {
					t.Errorf("error %v, want %s", err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, c := range e.Constraints {
				names = append(names, c.Object.GetKind()+"/"+c.Object.GetName())
			}
			slices.Sort(names)
			slices.Sort(tc.constraint)
			if diff := cmp.Diff(tc.constraint, names); diff != "" {
				t.Errorf("constraints:\n%s", diff)
			}
			if len(e.Namespaces) != tc.namespaces || (e.Webhook != nil) != tc.webhook || (e.Unknown != nil) != (tc.path == ofWebhook) {
				t.Errorf("%d namespaces, webhook %v, unknown %v", len(e.Namespaces), e.Webhook, e.Unknown)
			}
			if diff := cmp.Diff(tc.excluded, e.Excluded); diff != "" {
				t.Errorf("excluded:\n%s", diff)
			}
			if diff := cmp.Diff(tc.wantTold, told.String()); diff != "" {
				t.Errorf("told:\n%s", diff)
			}
		})
	}
}

// With the scope of one namespace, no request is about another namespace.
func TestReadScopeOfOneNamespace(t *testing.T) {
	s, _, _ := session(t, webhooks)
	e, err := enforcement.ReadScope(t.Context(), s, "default")
	if err != nil || len(e.Namespaces) != 1 || e.Namespaces["default"] == nil {
		t.Errorf("%v, %v", e.Namespaces, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := enforcement.ReadScope(ctx, s, "default"); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// A paged list is read to its end. A part of a list is not an answer.
func TestListReadsAllPages(t *testing.T) {
	s, server, _ := session(t)
	for i := range 1100 {
		o := object(t, fmt.Sprintf(`{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEImageDigests, metadata: {name: d%d}, spec: {}}`, i))
		if err := server.Add(&o); err != nil {
			t.Fatal(err)
		}
	}
	found, err := enforcement.List(t.Context(), s, enforcement.Resource(policies.ImageDigests))
	if err != nil || len(found) != 1100 {
		t.Errorf("%d objects, %v", len(found), err)
	}
	server.Before(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("continue") == "" {
			return false
		}
		http.Error(w, "gone", http.StatusInternalServerError)
		return true
	})
	if _, err := enforcement.ListConstraints(t.Context(), s, policies.ImageDigests); err == nil {
		t.Error("half a list has no error")
	}
}

func TestReadSignedImages(t *testing.T) {
	constraint := func(name, spec string) string {
		return `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: ` + name + `}, spec: {` + spec + `}}`
	}
	for name, tc := range map[string]struct {
		objects []string
		want    []string // NAME ACTION KEYS
		wantErr string
	}{
		"none": {},
		"keys in order, each once": {
			[]string{constraint("signed", `parameters: {keys: [`+keyB+`, `+keyA+`, `+keyB+`]}`)},
			[]string{"signed deny [" + keyA + " " + keyB + "]"}, "",
		},
		"constraints by name": {
			[]string{constraint("b", `enforcementAction: warn, parameters: {keys: []}`), constraint("a", `enforcementAction: scoped, parameters: {keys: []}`)},
			[]string{"a scoped []", "b warn []"}, "",
		},
		"no list of keys":             {[]string{constraint("signed", `parameters: {}`)}, nil, "OKESignedImages/signed: it has no list of keys, and denies every image of OCI Registry"},
		"an invalid key":              {[]string{constraint("signed", `parameters: {keys: [x]}`)}, nil, "OKESignedImages/signed: not the OCID of a key"},
		"keys that are no list":       {[]string{constraint("signed", `parameters: {keys: x}`)}, nil, "OKESignedImages/signed: "},
		"a specification that is one": {[]string{`{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: signed}, spec: x}`}, nil, "OKESignedImages/signed: "},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := session(t, tc.objects...)
			found, err := enforcement.ReadSignedImages(t.Context(), s)
			if tc.wantErr != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tc.wantErr) || found != nil {
					t.Errorf("error %v, want %s", err, tc.wantErr)
				}
				return
			}
			var got []string
			for _, c := range found {
				got = append(got, fmt.Sprintf("%s %s %v", c.Name, c.Action, c.Keys))
			}
			if diff := cmp.Diff(tc.want, got); err != nil || diff != "" {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

// In a cluster without the kind there is no policy. A cluster without an answer is
// an error.
func TestReadSignedImagesFromOtherClusters(t *testing.T) {
	s, server, _ := session(t, signedImages)
	answer(server, "/apis/constraints.gatekeeper.sh", http.StatusNotFound, metav1.StatusReasonNotFound)
	if found, err := enforcement.ReadSignedImages(t.Context(), s); found != nil || err != nil {
		t.Errorf("without the kind: %v, %v", found, err)
	}
	answer(server, "/apis/constraints.gatekeeper.sh", http.StatusForbidden, metav1.StatusReasonForbidden)
	if _, err := enforcement.ReadSignedImages(t.Context(), s); err == nil || err.Error() != "reading the cluster's policy: not for you" {
		t.Errorf("without the right: %v", err)
	}
	t.Setenv("KUBECONFIG", "/nowhere")
	none := &connect.Session{Kube: connect.NewKube(&bytes.Buffer{})}
	if _, err := enforcement.ReadSignedImages(t.Context(), none); !errors.Is(err, connect.ErrNoCluster) {
		t.Errorf("without a kubeconfig: %v", err)
	}
}

// A constraint on trial changes nothing next to one that denies.
func TestDecisive(t *testing.T) {
	a := enforcement.SignedImages{Name: "a", Action: "deny"}
	b := enforcement.SignedImages{Name: "b", Action: "scoped"}
	c := enforcement.SignedImages{Name: "c", Action: "warn"}
	d := enforcement.SignedImages{Name: "d", Action: "dryrun"}
	for _, tc := range []struct {
		all  []enforcement.SignedImages
		want string
	}{
		{[]enforcement.SignedImages{a, b, c, d}, "OKESignedImages/a, OKESignedImages/b"},
		{[]enforcement.SignedImages{c, d}, "OKESignedImages/c, OKESignedImages/d"},
		{nil, ""},
	} {
		before := enforcement.ConstraintNames(tc.all)
		if got := enforcement.ConstraintNames(enforcement.Decisive(tc.all)); got != tc.want || enforcement.ConstraintNames(tc.all) != before {
			t.Errorf("%s: got %s, want %s", before, got, tc.want)
		}
	}
}

func TestCovers(t *testing.T) {
	const pod = `{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c, image: x}]}}`
	const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: x}]}}}}`
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"env": "prod"}}}
	for name, tc := range map[string]struct {
		match, object string
		want          bool
	}{
		"everything":                      {``, pod, true},
		"a Pod":                           {`kinds: [{apiGroups: [""], kinds: [Pod]}]`, pod, true},
		"the Pods of a workload":          {`kinds: [{apiGroups: [""], kinds: [Pod]}]`, deployment, true},
		"the labels of a workload's Pods": {`kinds: [{apiGroups: [""], kinds: [Pod]}], labelSelector: {matchLabels: {app: web}}`, deployment, true},
		"other labels":                    {`kinds: [{apiGroups: [""], kinds: [Pod]}], labelSelector: {matchLabels: {app: db}}`, deployment, false},
		"another kind":                    {`kinds: [{apiGroups: [batch], kinds: [Job]}]`, pod, false},
		"its namespace by label":          {`namespaceSelector: {matchLabels: {env: prod}}`, pod, true},
		"another namespace by label":      {`namespaceSelector: {matchLabels: {env: test}}`, pod, false},
		"its namespace left out":          {`excludedNamespaces: [sh*]`, pod, false},
		"another namespace":               {`namespaces: [other]`, pod, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := session(t, `{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: signed}, spec: {match: {`+tc.match+`}, parameters: {keys: []}}}`)
			found, err := enforcement.ReadSignedImages(t.Context(), s)
			if err != nil || len(found) != 1 {
				t.Fatal(found, err)
			}
			o, err := manifest.Object([]byte(tc.object))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := found[0].Covers(o, shop); got != tc.want || err != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}
