package doctor_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

// session returns the session of a cluster user without an OCI identity.
func session(t *testing.T, server *fakeapiserver.Server) *connect.Session {
	t.Helper()
	kubeconfig, err := server.Kubeconfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &connect.Session{Kube: connect.NewKube(io.Discard)}
	s.Streams.ErrOut = io.Discard
	s.Bind(pflag.NewFlagSet("", pflag.ContinueOnError), func(name string) string {
		return map[string]string{"OCI_CLI_AUTH": "api_key", "OCI_CLI_CONFIG_FILE": "/nowhere"}[name]
	})
	*s.Kube.KubeConfig = kubeconfig
	return s
}

// filled returns a server with the sound cluster.
func filled(t *testing.T) *fakeapiserver.Server {
	t.Helper()
	server := fakeapiserver.Start(t)
	for _, o := range newWorld(t).Objects {
		if err := server.Add(o); err != nil {
			t.Fatal(err)
		}
	}
	return server
}

// failing makes the server answer requests for a path with a status.
func failing(path string, code int, reason, message string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":%q,"code":%d,"message":%q}`, reason, code, message)
		return true
	}
}

// unknowns returns the unknown checks with their messages, except those that ask
// OCI.
func unknowns(found []doctor.Finding) map[string]string {
	all := make(map[string]string)
	for _, x := range found {
		if x.State == "unknown" && x.Check != "keys" && x.Check != "running images" {
			all[x.Check] = x.Detail + " -> " + x.Fix
		}
	}
	return all
}

// A missing right makes only those checks unknown that need it.
func TestGatherWithoutRights(t *testing.T) {
	const may = "you may not -> ask for the right to read it"
	for name, tc := range map[string]struct {
		path string
		want map[string]string
	}{
		"everything may be read": {"/nothing", map[string]string{}},
		"the webhook": {"/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", map[string]string{
			"webhook fails closed": may, "webhook sees everything": may, "unchecked namespaces": may, "exempt namespaces": may,
		}},
		"Gatekeeper's Deployments": {"/apis/apps/v1/namespaces/gatekeeper-system/deployments", map[string]string{
			"gatekeeper runs": may, "gatekeeper version": may, "external data": may, "response cache": may, "exempt namespaces": may,
		}},
		"namespaces": {"/api/v1/namespaces", map[string]string{
			"unchecked namespaces": may, "exempt namespaces": may,
			"provider is ready": "oke-sign: " + may, // its Service is in one
		}},
		"the policy that guards labels": {"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", map[string]string{"labels of namespaces": may, "exempt namespaces": may}},
		"its binding":                   {"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", map[string]string{"labels of namespaces": may, "exempt namespaces": may}},
		"Gatekeeper's Config":           {"/apis/config.gatekeeper.sh", map[string]string{"unchecked namespaces": may, "exempt namespaces": may}},
		"templates":                     {"/apis/templates.gatekeeper.sh", map[string]string{"templates": may}},
		"Providers": {"/apis/externaldata.gatekeeper.sh", map[string]string{
			"providers": may, "tags are pinned": may,
			"unchecked namespaces": "any image runs in oke-sign (Gatekeeper's webhook exempts the namespace), unless the provider runs there: " + may,
		}},
		"rules of pinning":      {"/apis/mutations.gatekeeper.sh", map[string]string{"tags are pinned": may}},
		"the webhook that pins": {"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", map[string]string{"tags are pinned": may}},
		"constraints": {"/apis/constraints.gatekeeper.sh", map[string]string{
			"exempt namespaces": listing, "constraints enforce": listing, "constraints are loaded": listing, "break-glass is limited": listing, "providers": listing, "answers": listing, "audit lists all": listing,
		}},
		"the provider's Service": {"/api/v1/namespaces/oke-sign/services", map[string]string{"provider is ready": "oke-sign: " + may}},
		"the provider's Pods":    {"/api/v1/namespaces/oke-sign/pods", map[string]string{"provider is ready": "oke-sign: " + may}},
		"the provider's Secret":  {"/api/v1/namespaces/oke-sign/secrets", map[string]string{"provider certificate": "oke-sign: " + may}},
	} {
		t.Run(name, func(t *testing.T) {
			server := filled(t)
			server.Before(failing(tc.path, http.StatusForbidden, "Forbidden", "you may not"))
			found, err := doctor.Gather(t.Context(), session(t, server))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, unknowns(found)); diff != "" {
				t.Error(diff)
			}
			for _, x := range found {
				if x.State == "fails" {
					t.Errorf("%s fails: %s", x.Check, x.Detail)
				}
			}
		})
	}
}

const listing = "listing constraints of kind OKESignedImages: you may not -> ask for the right to read it"

// An error of the API server is not a missing right. Without its answer, a check is
// unknown.
func TestGatherFromABrokenServer(t *testing.T) {
	server := filled(t)
	server.Before(failing("/apis/templates.gatekeeper.sh", http.StatusInternalServerError, "InternalError", "etcd is gone"))
	found, err := doctor.Gather(t.Context(), session(t, server))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"templates": "etcd is gone -> try again; if it stays, fix the cause that the error names"}
	if diff := cmp.Diff(want, unknowns(found)); diff != "" {
		t.Error(diff)
	}
}

// Doctor fails only if the cluster is unreachable or its time is over.
func TestGatherEnds(t *testing.T) {
	server := filled(t)
	s := session(t, server)
	*s.Kube.APIServer = "http://127.0.0.1:1"
	if _, err := doctor.Gather(t.Context(), s); err == nil || !strings.HasPrefix(err.Error(), "reaching the cluster: ") {
		t.Errorf("nobody answers: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	server.Before(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/apis/templates.gatekeeper.sh") {
			cancel()
		}
		return false
	})
	if _, err := doctor.Gather(ctx, session(t, server)); err == nil {
		t.Error("no error, and the time has ended")
	}

	server.Before(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header()["Date"] = []string{"soon"}
		return false
	})
	if _, err := doctor.Gather(t.Context(), session(t, server)); err == nil || !strings.Contains(err.Error(), "cannot parse") {
		t.Errorf("a server without a clock: %v", err)
	}
}

// A cluster without Gatekeeper's kinds has none of Gatekeeper's objects.
func TestGatherFromAnEmptyCluster(t *testing.T) {
	bare := slices.DeleteFunc(fakeapiserver.Resources(), func(r fakeapiserver.Resource) bool { return strings.HasSuffix(r.Group, "gatekeeper.sh") })
	found, err := doctor.Gather(t.Context(), session(t, fakeapiserver.Start(t, bare...)))
	if err != nil {
		t.Fatal(err)
	}
	fails := make(map[string]bool)
	for _, x := range found {
		if x.State == "unknown" {
			t.Errorf("%s: %s", x.Check, x.Detail)
		}
		if x.State == "fails" {
			fails[x.Check] = true
		}
	}
	want := []string{"constraints enforce", "gatekeeper runs", "labels of namespaces", "templates", "webhook fails closed"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(fails))); diff != "" {
		t.Error(diff)
	}
}

// doctor follows a Provider's address to the Pods behind it.
func TestGatherFollowsAProvider(t *testing.T) {
	notReady := at("Pod/oke-sign-1", "False", "status,conditions,0,status")
	readyz := "/api/v1/namespaces/oke-sign/pods/http:oke-sign-1:8080/proxy/readyz"
	for name, tc := range map[string]struct {
		change change
		answer http.HandlerFunc // of a Pod's readyz
		check  string
		want   []string
	}{
		"an address outside of the cluster": {at(provider, "https://sign.example.com/v1/signatures", "spec,url"), nil, "provider is ready", []string{
			"unknown: oke-sign: sign.example.com is no Service of the cluster, so doctor cannot check it",
			"-> check that address yourself; doctor checks addresses of the form SERVICE.NAMESPACE.svc",
		}},
		"a name without a namespace": {at(provider, "https://oke-sign/v1/signatures", "spec,url"), nil, "provider is ready", []string{
			"unknown: oke-sign: oke-sign is no Service of the cluster, so doctor cannot check it",
			"-> check that address yourself; doctor checks addresses of the form SERVICE.NAMESPACE.svc",
		}},
		"the full name of the Service": {at(provider, "https://oke-sign.oke-sign.svc.cluster.local:8443/v1/signatures", "spec,url"), nil, "provider is ready", []string{"holds: oke-sign: 2 Pods"}},
		"a Service that is not there": {at(provider, "https://sign.shop.svc/v1/signatures", "spec,url"), nil, "provider is ready", []string{
			"fails: oke-sign: nothing answers at sign.shop: the Service does not exist; every image of OCI Registry is denied",
			"-> kubectl -n shop get service; the chart oke-sign creates it",
		}},
		"port 443, which the Service does not have": {at(provider, "https://oke-sign.oke-sign.svc/v1/signatures", "spec,url"), nil, "provider is ready", []string{
			"fails: oke-sign: nothing answers at oke-sign.oke-sign: the Service has no port 443; every image of OCI Registry is denied",
			"-> kubectl -n oke-sign get service; the chart oke-sign creates it",
		}},
		"a Pod that says why it is not ready": {notReady, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "no principal: 401", http.StatusServiceUnavailable)
		}, "provider is ready", []string{
			"warns: oke-sign-1 is not ready: no principal: 401",
			"-> kubectl -n oke-sign logs oke-sign-1",
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"a Pod that has become ready": {notReady, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "ok\n")
		}, "provider is ready", []string{
			"warns: oke-sign-1 is not ready: it answers now, but Kubernetes has not seen it yet",
			"-> kubectl -n oke-sign logs oke-sign-1",
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"a Pod that nobody may ask": {notReady, func(w http.ResponseWriter, r *http.Request) {
			failing("", http.StatusForbidden, "Forbidden", "you may not")(w, r)
		}, "provider is ready", []string{
			"warns: oke-sign-1 is not ready: Running",
			"-> kubectl -n oke-sign logs oke-sign-1",
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"a Pod that the API server does not reach": {notReady, func(w http.ResponseWriter, r *http.Request) {
			failing("", http.StatusServiceUnavailable, "ServiceUnavailable", "error trying to reach service: connection refused")(w, r)
		}, "provider is ready", []string{
			"warns: oke-sign-1 is not ready: error trying to reach service: connection refused",
			"-> kubectl -n oke-sign logs oke-sign-1",
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"a Pod without a port for its health": {all(notReady, at("Pod/oke-sign-1", nil, "spec,containers,0,ports")), nil, "provider is ready", []string{
			"warns: oke-sign-1 is not ready: Running",
			"-> kubectl -n oke-sign logs oke-sign-1",
			"warns: oke-sign: one Pod is ready, so a lost node leaves no Pod",
			"-> kubectl -n oke-sign scale deployment oke-sign --replicas=2",
		}},
		"Pods that mount no Secret": {all(at("Pod/oke-sign-1", nil, "spec,volumes"), at("Pod/oke-sign-2", nil, "spec,volumes")), nil, "provider certificate", nil},
		"a Secret of something else before the certificate": {all(
			add("{apiVersion: v1, kind: Secret, metadata: {name: other, namespace: oke-sign}, data: {token: eA==}}"),
			at("Pod/oke-sign-1", []any{
				map[string]any{"name": "a", "emptyDir": map[string]any{}},
				map[string]any{"name": "b", "secret": map[string]any{"secretName": "other"}},
				map[string]any{"name": "c", "secret": map[string]any{"secretName": "oke-sign-tls"}},
			}, "spec,volumes")), nil, "provider certificate", []string{
			"warns: the certificate of oke-sign expires TIME",
			"-> renew it with cert-manager, or restart the provider if it makes its certificate",
		}},
		"a Deployment of Gatekeeper without labels counts by its name": {
			all(at(manager, nil, "spec,template,metadata"), at(audit, nil, "spec,template,metadata")), nil, "gatekeeper runs", []string{
				"holds: gatekeeper-audit: 1 of 1 Pods ready", "holds: gatekeeper-controller-manager: 3 of 3 Pods ready",
			}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			tc.change(w)
			server := fakeapiserver.Start(t)
			for _, o := range w.Objects {
				if err := server.Add(o); err != nil {
					t.Fatal(err)
				}
			}
			if tc.answer != nil {
				server.Handle(readyz, tc.answer)
			}
			found, err := doctor.Gather(t.Context(), session(t, server))
			if err != nil {
				t.Fatal(err)
			}
			found = slices.DeleteFunc(found, func(x doctor.Finding) bool { return x.Check != tc.check })
			if diff := cmp.Diff(tc.want, lines(found)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
