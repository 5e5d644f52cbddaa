package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
	"github.com/oke-sign/oke-sign/test/ocitest"
	"github.com/oke-sign/oke-sign/test/pki"
)

// In a cluster the program needs its service account and no files. It makes its
// certificate, registers it with Gatekeeper, and learns which client to answer.
func TestInCluster(t *testing.T) {
	t.Parallel()
	const (
		secret   = fakeapiserver.Secrets + "/oke-sign-tls"
		webhooks = fakeapiserver.Webhooks + "/" + certs.GatekeeperWebhooks
	)
	rights := []string{"get " + secret, "create " + fakeapiserver.Secrets, "list " + webhooks, "watch " + webhooks}
	for _, p := range providers() {
		rights = append(rights, "get "+fakeapiserver.Providers+"/"+p.Name, "patch "+fakeapiserver.Providers+"/"+p.Name)
	}
	api := fakeapiserver.StartGuarded(t, rights...)
	ca, err := pki.NewAuthority("gatekeeper-ca")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(pki.Leaf{Names: []string{gatekeeper}})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, dir: t.TempDir(), stopped: make(chan error, 1)}
	if r.caller, err = pair.TLS(); err != nil {
		t.Fatal(err)
	}
	tenancy := cloud.NewTenancy(t, ocitest.TenancyConfig{})
	env := func(name string) string {
		switch name {
		case "KUBERNETES_SERVICE_HOST":
			return api.Host
		case "KUBERNETES_SERVICE_PORT":
			return api.Port
		}
		return os.Getenv(name)
	}
	r.launch(env, []string{
		"--cert-secret", "oke-sign/oke-sign-tls", "--service", "oke-sign/oke-sign:8443", "--client-ca-from-gatekeeper",
		"--service-account", api.Dir, "--config-file", tenancy.Admin().ConfigFile(),
	})
	waits := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			status, text := r.get("/readyz")
			return status == http.StatusServiceUnavailable && strings.Contains(text, want)
		})
	}
	waits("there is no serving certificate yet: Gatekeeper has not yet read Provider oke-sign")
	for _, p := range providers() {
		var object fakeapiserver.Object
		if !api.Get(fakeapiserver.Providers+"/"+p.Name, &object) {
			t.Fatalf("no Provider %s", p.Name)
		}
		object["status"] = fakeapiserver.Object{"byPod": []any{fakeapiserver.Object{"active": true, "observedGeneration": 1}}}
		api.Set(fakeapiserver.Providers+"/"+p.Name, object)
	}
	waits("nobody may ask: ValidatingWebhookConfiguration " + certs.GatekeeperWebhooks + ": it does not exist")
	api.Set(webhooks, fakeapiserver.Object{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
		"webhooks": []any{fakeapiserver.Object{"name": "validation.gatekeeper.sh", "clientConfig": fakeapiserver.Object{
			"caBundle": base64.StdEncoding.EncodeToString(ca.PEM()),
			"service":  fakeapiserver.Object{"namespace": "gatekeeper-system", "name": "gatekeeper-webhook-service"},
		}}},
	})
	until(t, "ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })

	var object struct {
		Spec struct {
			URL      string
			CABundle []byte
		}
	}
	api.Get(fakeapiserver.Providers+"/oke-sign", &object)
	if object.Spec.URL != "https://oke-sign.oke-sign.svc:8443/v1/signatures" {
		t.Errorf("Gatekeeper is told to ask %s", object.Spec.URL)
	}
	other, err := pki.NewAuthority("gatekeeper-ca")
	if err != nil {
		t.Fatal(err)
	}
	for by, want := range map[*pki.Authority]int{ca: http.StatusOK, other: http.StatusForbidden} {
		if status, answer := r.postAs(by, object.Spec.URL, object.Spec.CABundle); status != want {
			t.Errorf("got %d, want %d: %s", status, want, answer)
		}
	}
	if _, metrics := r.get("/metrics"); !strings.Contains(metrics, "oke_sign_certificate_expiry_timestamp_seconds 1.") {
		t.Error("the metrics lack the expiry of the certificate")
	}
	if asked := api.Asked(); !slices.Contains(asked, "watch "+webhooks) {
		t.Errorf("asked for %q", asked)
	}
}

// postAs sends a request to the URL with a certificate of Gatekeeper's name. The
// connection goes to the program, whatever the URL's host is.
func (r *running) postAs(ca *pki.Authority, url string, roots []byte) (int, string) {
	r.t.Helper()
	pair, err := ca.Issue(pki.Leaf{Names: []string{gatekeeper}})
	if err != nil {
		r.t.Fatal(err)
	}
	cert, err := pair.TLS()
	if err != nil {
		r.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	client := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, r.addr)
		},
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{cert}},
	}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(externaldata.NewProviderRequest([]string{question("docker.io/library/nginx:latest")}))
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}
