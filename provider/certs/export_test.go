package certs

import (
	"context"
	"crypto/x509"
	"net/http"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"k8s.io/client-go/rest"
)

// Take passes a configuration on, as Follow does. Nil is a missing one.
func (g *Gatekeeper) Take(config *admissionv1.ValidatingWebhookConfiguration) { g.take(config) }

// Keep runs one step of Run.
func (r *Rotator) Keep(ctx context.Context) error { return r.keep(ctx) }

// Later moves the last creation of a certificate, and the first wait for Gatekeeper,
// far into the past.
func (r *Rotator) Later() {
	r.made = r.made.Add(-remakeEvery)
	r.since = r.since.Add(-adoption)
}

func ParseAuthorities(bundle []byte) ([]*x509.Certificate, error) { return parseAuthorities(bundle) }

func EncodeCAs(list []*x509.Certificate) []byte { return encodeCAs(list) }

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ClusterOf returns a cluster whose API server is a function.
func ClusterOf(answer func(*http.Request) (*http.Response, error)) *Cluster {
	client, err := admissionclient.NewForConfigAndClient(&rest.Config{}, &http.Client{Transport: transport(answer)})
	if err != nil {
		panic(err)
	}
	return &Cluster{admission: client}
}
