package certs_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/oke-sign/oke-sign/provider/certs"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
)

const (
	secretPath   = fakeapiserver.Secrets + "/oke-sign-tls"
	providerPath = fakeapiserver.Providers + "/oke-sign"
	host         = "oke-sign.oke-sign.svc"
)

// rights returns the rights that the package's documentation names.
func rights() []string {
	return []string{
		"get " + secretPath, "update " + secretPath, "create " + fakeapiserver.Secrets,
		"get " + providerPath, "patch " + providerPath,
	}
}

// provider is a Provider object in the form that Gatekeeper leaves.
type provider struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Generation int64 `json:"generation,omitempty"`
	} `json:"metadata"`
	Spec struct {
		URL      string `json:"url"`
		Timeout  int    `json:"timeout"`
		CABundle []byte `json:"caBundle"`
	} `json:"spec"`
	Status struct {
		ByPod []podStatus `json:"byPod,omitempty"`
	} `json:"status"`
}

type podStatus struct {
	Active             bool  `json:"active"`
	ObservedGeneration int64 `json:"observedGeneration"`
}

// adopt is Gatekeeper: both of its processes load the current Provider.
func adopt(t *testing.T, api *fakeapiserver.Guarded) provider {
	t.Helper()
	var p provider
	if !api.Get(providerPath, &p) {
		t.Fatal("there is no Provider")
	}
	pod := podStatus{true, p.Metadata.Generation}
	p.Status.ByPod = []podStatus{pod, pod}
	api.Set(providerPath, p)
	return p
}

func newRotator(t *testing.T, api *fakeapiserver.Guarded) *certs.Rotator {
	t.Helper()
	service, err := certs.ParseService("oke-sign/oke-sign:8443")
	if err != nil {
		t.Fatal(err)
	}
	return certs.NewRotator(certs.RotatorConfig{
		Cluster: cluster(t, api), Secret: types.NamespacedName{Namespace: "oke-sign", Name: "oke-sign-tls"}, Service: service,
		Providers: []certs.Provider{{Name: "oke-sign", Path: "/v1/signatures", Timeout: 2}}, Log: quiet(),
	})
}

// settled returns a rotator whose certificate Gatekeeper accepts.
func settled(t *testing.T, api *fakeapiserver.Guarded) *certs.Rotator {
	t.Helper()
	r := newRotator(t, api)
	expect(t, "before Gatekeeper knows", r.Keep(t.Context()), "Gatekeeper has not yet read Provider oke-sign")
	expect(t, "Ready", r.Ready(), "there is no serving certificate yet")
	adopt(t, api)
	expect(t, "once Gatekeeper knows", r.Keep(t.Context()), "")
	expect(t, "Ready", r.Ready(), "")
	return r
}

func secretOf(t *testing.T, api *fakeapiserver.Guarded) *corev1.Secret {
	t.Helper()
	secret := new(corev1.Secret)
	if !api.Get(secretPath, secret) {
		t.Fatal("there is no Secret")
	}
	secret.APIVersion, secret.Kind = "v1", "Secret"
	return secret
}

// handshake connects to the provider as a Gatekeeper with this bundle of CAs.
func handshake(r *certs.Rotator, bundle []byte) error {
	near, far := net.Pipe()
	defer func() { _ = near.Close() }()
	go func() {
		defer func() { _ = far.Close() }()
		_ = tls.Server(far, certs.TLS(r.Serving())).Handshake()
	}()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return tls.Client(near, &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS13}).Handshake()
}

func blocks(bundle []byte) int { return bytes.Count(bundle, []byte("BEGIN CERTIFICATE")) }

func TestRotatorFromNothing(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, rights()...)
	r := settled(t, api)
	var p provider
	api.Get(providerPath, &p)
	if p.Spec.URL != "https://oke-sign.oke-sign.svc:8443/v1/signatures" || p.Spec.Timeout != 2 || api.Manager(providerPath) != "oke-sign-provider" {
		t.Errorf("applied by %s: %+v", api.Manager(providerPath), p.Spec)
	}
	if err := handshake(r, p.Spec.CABundle); err != nil {
		t.Error(err)
	}
	secret := secretOf(t, api)
	if secret.Type != corev1.SecretTypeTLS || len(secret.Data) != 3 || blocks(secret.Data["ca.crt"]) != 1 {
		t.Errorf("a Secret of type %s with %d entries", secret.Type, len(secret.Data))
	}
	if left := time.Until(r.Serving().NotAfter()); left < 89*24*time.Hour || left > 91*24*time.Hour {
		t.Errorf("it holds %s", left)
	}

	// Without a change, neither this rotator nor the next one writes.
	another := newRotator(t, api)
	before := len(api.Asked())
	for _, r := range []*certs.Rotator{r, another} {
		expect(t, "another look", r.Keep(t.Context()), "")
	}
	for _, asked := range api.Asked()[before:] {
		if !strings.HasPrefix(asked, "get ") {
			t.Errorf("asked to %s", asked)
		}
	}
	if err := handshake(another, p.Spec.CABundle); err != nil {
		t.Error(err)
	}
}

// The administrator may create the Secret at installation, and grant no right to
// create Secrets.
func TestRotatorFillsAnEmptySecret(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, slices.DeleteFunc(rights(), func(r string) bool { return strings.HasPrefix(r, "create") })...)
	api.Set(secretPath, fakeapiserver.Object{"apiVersion": "v1", "kind": "Secret", "metadata": fakeapiserver.Object{"labels": fakeapiserver.Object{"chart": "ours"}}})
	settled(t, api)
	if secret := secretOf(t, api); secret.Labels["chart"] != "ours" {
		t.Errorf("the label is gone: %v", secret.Labels)
	}
}

// The provider answers requests during each change of the Secret. It shows the old
// certificate until Gatekeeper has the CA of the new one. Both CAs are published.
func TestRotation(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *fakeapiserver.Guarded){
		"the Secret is deleted": func(_ *testing.T, api *fakeapiserver.Guarded) { api.Delete(secretPath) },
		"the certificate ends soon": func(t *testing.T, api *fakeapiserver.Guarded) {
			api.Set(secretPath, written(t, host, 29*24*time.Hour, secretOf(t, api).Data["ca.crt"]))
		},
		"the Secret is emptied": func(t *testing.T, api *fakeapiserver.Guarded) {
			secret := secretOf(t, api)
			secret.Data = nil
			api.Set(secretPath, secret)
		},
		"an administrator replaces it": func(t *testing.T, api *fakeapiserver.Guarded) {
			api.Set(secretPath, written(t, host, 60*24*time.Hour, nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			api := fakeapiserver.StartGuarded(t, rights()...)
			r, other := settled(t, api), newRotator(t, api)
			expect(t, "another replica", other.Keep(t.Context()), "")
			replicas := []*certs.Rotator{r, other}
			before := adopt(t, api).Spec.CABundle
			change(t, api)
			for _, r := range replicas {
				r.Later()
				for range 2 {
					expect(t, "renewed", r.Keep(t.Context()), "Gatekeeper has not yet read")
				}
				expect(t, "Ready", r.Ready(), "")
				expect(t, "the old one is shown", handshake(r, before), "")
			}
			after := adopt(t, api).Spec.CABundle
			if n := blocks(after); n < 2 {
				t.Errorf("%d CAs are published", n)
			}
			if name == "the Secret is deleted" {
				expect(t, "a replica that starts publishes the same", newRotator(t, api).Keep(t.Context()), "")
			}
			for _, r := range replicas {
				expect(t, "the old one is shown, and its CA still known", handshake(r, after), "")
			}
			for _, r := range replicas {
				expect(t, "once Gatekeeper knows", r.Keep(t.Context()), "")
				expect(t, "the new one is shown", handshake(r, before), "unknown authority")
				expect(t, "and known", handshake(r, after), "")
			}
		})
	}
}

// A new replica does not remove the CA of the certificate that the other replicas
// show.
func TestNewReplicaWithoutASecret(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, rights()...)
	r := settled(t, api)
	api.Delete(secretPath)
	expect(t, "Keep", newRotator(t, api).Keep(t.Context()), "Gatekeeper has not yet read")
	expect(t, "the old one is shown, and its CA known", handshake(r, adopt(t, api).Spec.CABundle), "")
}

// written returns a Secret with a certificate that is valid for left. before are its
// older CAs.
func written(t *testing.T, host string, left time.Duration, before []byte) *corev1.Secret {
	t.Helper()
	begin, end := time.Now().Add(-3*time.Hour), time.Now().Add(left)
	maker := rotator.CertRotator{CAName: "ca", DNSName: host, ExtKeyUsages: &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	ca, err := maker.CreateCACert(begin, end)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := maker.CreateCertPEM(ca, begin, end)
	if err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{Data: map[string][]byte{"tls.crt": cert, "tls.key": key, "ca.crt": append(ca.CertPEM, before...)}}
	secret.APIVersion, secret.Kind = "v1", "Secret"
	return secret
}

// A CA is published until its newest certificate is an hour old.
func TestOldCAsRetire(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, rights()...)
	old := written(t, host, 60*24*time.Hour, nil).Data["ca.crt"]
	api.Set(secretPath, written(t, host, 60*24*time.Hour, old))
	settled(t, api)
	if n := blocks(secretOf(t, api).Data["ca.crt"]); n != 1 {
		t.Errorf("%d CAs in the Secret", n)
	}
	var p provider
	if api.Get(providerPath, &p); blocks(p.Spec.CABundle) != 1 {
		t.Errorf("%d CAs published", blocks(p.Spec.CABundle))
	}
}

// A bad Secret is replaced, at most once a minute. Its content is not shown.
func TestBadSecretsAreReplaced(t *testing.T) {
	good := func() *corev1.Secret { return written(t, host, 60*24*time.Hour, nil) }
	with := func(name string, content []byte) *corev1.Secret {
		s := good()
		s.Data[name] = content
		return s
	}
	many := func() []byte {
		var b bytes.Buffer
		for range 16 {
			b.Write(good().Data["ca.crt"])
		}
		return b.Bytes()
	}
	for name, secret := range map[string]*corev1.Secret{
		"for another name":                written(t, "other.svc", 60*24*time.Hour, nil),
		"over":                            written(t, host, -time.Hour, nil),
		"by another CA":                   with("ca.crt", good().Data["ca.crt"]),
		"with another's key":              with("tls.key", good().Data["tls.key"]),
		"no certificate":                  with("tls.crt", nil),
		"no key":                          with("tls.key", []byte("key")),
		"no CA":                           with("ca.crt", nil),
		"too many CAs":                    with("ca.crt", many()),
		"a leaf in place of the CA":       with("ca.crt", good().Data["tls.crt"]),
		"a key among the CAs":             with("ca.crt", append(good().Data["ca.crt"], good().Data["tls.key"]...)),
		"a broken CA after a good one":    with("ca.crt", append(good().Data["ca.crt"], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...)),
		"another CA before the right one": with("ca.crt", append(good().Data["ca.crt"], secretFor(good(), "ca.crt")...)),
	} {
		t.Run(name, func(t *testing.T) {
			api := fakeapiserver.StartGuarded(t, rights()...)
			api.Set(secretPath, secret)
			r := settled(t, api)
			if bytes.Equal(secretOf(t, api).Data["tls.crt"], secret.Data["tls.crt"]) {
				t.Error("it was kept")
			}
			bundle := secretOf(t, api).Data["ca.crt"]
			api.Set(secretPath, secret)
			expect(t, "it comes back", r.Keep(t.Context()), "already needs to be replaced")
			expect(t, "Ready", r.Ready(), "")
			expect(t, "the new certificate is shown", handshake(r, bundle), "")
			r.Later()
			expect(t, "later it is replaced", r.Keep(t.Context()), "Gatekeeper has not yet read")
		})
	}
}

func secretFor(s *corev1.Secret, name string) []byte { return s.Data[name] }

// Replicas that start at the same time agree on one certificate.
func TestReplicasAgree(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, rights()...)
	var starting sync.WaitGroup
	replicas := make([]*certs.Rotator, 5)
	for i := range replicas {
		replicas[i] = newRotator(t, api)
		starting.Go(func() { expect(t, fmt.Sprint("replica ", i), replicas[i].Keep(t.Context()), "not yet read") })
	}
	starting.Wait()
	bundle := adopt(t, api).Spec.CABundle
	if blocks(bundle) != 1 {
		t.Errorf("%d CAs", blocks(bundle))
	}
	for _, r := range replicas {
		expect(t, "Keep", r.Keep(t.Context()), "")
		expect(t, "handshake", handshake(r, bundle), "")
	}
}

// A change of a Provider object by somebody else does not last.
func TestProvidersAreRestored(t *testing.T) {
	for name, change := range map[string]func(*fakeapiserver.Guarded, provider){
		"deleted":      func(api *fakeapiserver.Guarded, _ provider) { api.Delete(providerPath) },
		"another CA":   func(api *fakeapiserver.Guarded, p provider) { p.Spec.CABundle = []byte("x"); api.Set(providerPath, p) },
		"another URL":  func(api *fakeapiserver.Guarded, p provider) { p.Spec.URL = "https://evil/"; api.Set(providerPath, p) },
		"another time": func(api *fakeapiserver.Guarded, p provider) { p.Spec.Timeout = 30; api.Set(providerPath, p) },
		"no spec at all": func(api *fakeapiserver.Guarded, _ provider) {
			api.Set(providerPath, fakeapiserver.Object{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "Provider", "spec": 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			api := fakeapiserver.StartGuarded(t, rights()...)
			r := settled(t, api)
			var before, after provider
			api.Get(providerPath, &before)
			change(api, before)
			expect(t, "Keep", r.Keep(t.Context()), "")
			expect(t, "Ready", r.Ready(), "")
			if api.Get(providerPath, &after); after.Spec.URL != before.Spec.URL || after.Spec.Timeout != 2 || !bytes.Equal(after.Spec.CABundle, before.Spec.CABundle) {
				t.Errorf("got %+v, want %+v", after.Spec, before.Spec)
			}
		})
	}
}

// The rotator waits for a silent Gatekeeper, but not forever.
func TestGatekeeperIsSilent(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, rights()...)
	r := newRotator(t, api)
	for range 3 {
		expect(t, "Keep", r.Keep(t.Context()), "Gatekeeper has not yet read Provider oke-sign")
	}
	r.Later()
	expect(t, "Keep", r.Keep(t.Context()), "")
	expect(t, "Ready", r.Ready(), "")
}

func TestClusterFails(t *testing.T) {
	for what, says := range map[string]string{
		"get " + secretPath:     "is internalerror",
		"update " + secretPath:  "is internalerror",
		"get " + providerPath:   "is internalerror",
		"patch " + providerPath: "applying Provider oke-sign: ",
	} {
		t.Run(what, func(t *testing.T) {
			api := fakeapiserver.StartGuarded(t, rights()...)
			r := settled(t, api)
			var p provider
			api.Get(providerPath, &p)
			api.Set(secretPath, fakeapiserver.Object{"apiVersion": "v1", "kind": "Secret"})
			r.Later()
			api.Fail(func(verb, object string) int {
				if verb+" "+object == what {
					return http.StatusInternalServerError
				}
				return 0
			})
			expect(t, "Keep", r.Keep(t.Context()), says)
			expect(t, "Ready", r.Ready(), "")
			expect(t, "the certificate is shown", handshake(r, p.Spec.CABundle), "")
			api.Fail(nil)
			expect(t, "Keep", r.Keep(t.Context()), "not yet read")
		})
	}
	t.Run("no Gatekeeper", func(t *testing.T) {
		api := fakeapiserver.StartGuarded(t, rights()...)
		api.Fail(func(verb, object string) int {
			if strings.HasPrefix(object, fakeapiserver.Providers) {
				return http.StatusNotFound
			}
			return 0
		})
		expect(t, "Keep", newRotator(t, api).Keep(t.Context()), "applying Provider oke-sign: is Gatekeeper installed?")
	})
	t.Run("no rights", func(t *testing.T) {
		api := fakeapiserver.StartGuarded(t)
		r := newRotator(t, api)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer running.Wait()
		defer stop()
		running.Go(func() { r.Run(ctx) })
		until(t, "it says why", func() bool {
			err := r.Ready()
			return err != nil && strings.Contains(err.Error(), "there is no serving certificate yet: get "+providerPath+" is forbidden")
		})
	})
}

// All parts run at once.
func TestRotatorRuns(t *testing.T) {
	api := fakeapiserver.StartGuarded(t, rights()...)
	r := newRotator(t, api)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { r.Run(ctx) })
	until(t, "a Provider", func() bool { return api.Get(providerPath, new(provider)) })
	bundle := adopt(t, api).Spec.CABundle
	until(t, "ready", func() bool { return r.Ready() == nil })
	expect(t, "handshake", handshake(r, bundle), "")
}

func TestParseNames(t *testing.T) {
	for s, want := range map[string]string{
		"a/b": "a/b:443", "a/b:8443": "a/b:8443", "oke-sign/oke-sign:1": "oke-sign/oke-sign:1",
		"": "", "a": "", "a/": "", "/b": "", "a/b/c": "", "a/b:": "", "a/b:0": "", "a/b:65536": "", "a/b:-1": "", "a/b:1:2": "",
		"A/b": "", "a/b.c": "", "a/1b": "", "a.b/c": "", "a/b:https": "", "../a": "",
	} {
		got, err := certs.ParseService(s)
		if want == "" {
			if err == nil {
				t.Errorf("%q: got %v", s, got)
			}
			continue
		}
		if err != nil || fmt.Sprintf("%s:%d", got.NamespacedName, got.Port) != want {
			t.Errorf("%q: got %v, %v; want %s", s, got, err, want)
		}
	}
	if got, err := certs.ParseName("a/b.c"); err != nil || got.String() != "a/b.c" {
		t.Errorf("got %v, %v", got, err)
	}
}
