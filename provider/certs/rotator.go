package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

const (
	life        = 90 * 24 * time.Hour
	renewBefore = 30 * 24 * time.Hour
	// skew is the largest difference between the clocks of two machines.
	skew = time.Hour
	// overlap is how long an older CA stays published. After that time, no replica shows
	// a certificate by it.
	overlap    = time.Hour
	maxOverlap = 4 // CAs published at a time

	lookEvery = 5 * time.Second
	// adoption bounds the wait for Gatekeeper to read a new CA. A process that has not
	// read it by then has ended, or starts and reads it first.
	adoption = 30 * time.Second
	// remakeEvery bounds how often a certificate is made, in case another program keeps
	// writing useless ones into the Secret.
	remakeEvery = time.Minute
)

// Provider is an object through which Gatekeeper asks: one path of the server.
type Provider struct {
	Name    string
	Path    string
	Timeout int // seconds that Gatekeeper waits, below the time-out of its webhook
}

// RotatorConfig configures a Rotator.
type RotatorConfig struct {
	Cluster *Cluster
	// Secret holds the certificate; all replicas share it. It need not exist.
	Secret types.NamespacedName
	// Service is what the certificate is for.
	Service Service
	// Providers are applied with the CA of the certificate.
	Providers []Provider
	Log       *slog.Logger
}

// Rotator makes and renews the provider's serving certificate, and gives Gatekeeper the
// CA. Every replica runs a Rotator, and none leads. They agree through the Secret, since
// the API server accepts a write only from a replica that read the latest version.
//
// Each certificate has a new CA, whose key is dropped after it signed. The Secret has the
// certificate, its key, and in ca.crt the CAs that Gatekeeper must trust: that of the
// certificate first, and older ones for another hour. A replica shows a new certificate
// only after Gatekeeper has read its CA. Until then it shows the old certificate, even if
// the Secret is deleted.
//
// The certificates come from package rotator of cert-controller. Its loop does not fit.
// It replaces a CA at once, so that every request fails until Gatekeeper has read the new
// one. It needs the Secret to exist, to be mounted, and to be listed with all others of
// its namespace. It overwrites Provider objects as a whole.
type Rotator struct {
	RotatorConfig
	serving Serving
	shown   *kept
	maker   rotator.CertRotator

	made    time.Time // when this replica made its last certificate
	awaited string    // the state, and since when, that Gatekeeper must adopt
	since   time.Time

	mu    sync.Mutex
	lacks error // why no newer certificate is shown
}

// NewRotator returns a Rotator without a certificate. Run makes or finds one.
func NewRotator(cfg RotatorConfig) *Rotator {
	return &Rotator{
		RotatorConfig: cfg,
		maker: rotator.CertRotator{
			CAName: "oke-sign-ca", CAOrganization: "oke-sign",
			DNSName: cfg.Service.host(), ExtraDNSNames: []string{strings.TrimSuffix(cfg.Service.host(), ".svc")},
			ExtKeyUsages: serverAuth(),
		},
	}
}

func serverAuth() *[]x509.ExtKeyUsage { return &[]x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }

// Serving returns the certificate to show.
func (r *Rotator) Serving() *Serving { return &r.serving }

// Ready returns why Gatekeeper could not be answered, or nil.
func (r *Rotator) Ready() error {
	err := r.serving.Ready()
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lacks != nil {
		return fmt.Errorf("%w: %w", err, r.lacks)
	}
	return err
}

// Run maintains the certificate until ctx ends.
func (r *Rotator) Run(ctx context.Context) {
	const first, longest = 500 * time.Millisecond, 30 * time.Second
	for retry := first; ; {
		wait := lookEvery
		err := r.keep(ctx)
		if ctx.Err() != nil {
			return
		}
		switch _, waits := errors.AsType[notAdopted](err); {
		case waits:
			wait = first
		case err != nil:
			wait, retry = retry, min(2*retry, longest)
		default:
			retry = first
		}
		r.note(err)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// note logs an error once, not at every look.
func (r *Rotator) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && (r.lacks == nil || r.lacks.Error() != err.Error()) {
		if _, waits := errors.AsType[notAdopted](err); waits {
			r.Log.Info("a new serving certificate waits", "secret", r.Secret.String(), "for", err)
		} else {
			r.Log.Warn("the serving certificate cannot be checked or renewed", "secret", r.Secret.String(), "error", err)
		}
	}
	r.lacks = err
}

// notAdopted says that Gatekeeper has not yet read a Provider object.
type notAdopted struct{ provider string }

func (e notAdopted) Error() string {
	return "Gatekeeper has not yet read Provider " + e.provider
}

// keep checks the Secret, the Provider objects and the certificate once.
func (r *Rotator) keep(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	objects, err := r.published(ctx)
	if err != nil {
		return err
	}
	k, err := r.agree(ctx, objects)
	if err != nil {
		return err
	}
	shown := r.shown
	current := shown != nil && shown.pair.Leaf.Equal(k.pair.Leaf)
	bundle := k.cas
	// All replicas publish the same, unless somebody replaced the Secret.
	if shown != nil && !slices.ContainsFunc(bundle, shown.cas[0].Equal) {
		bundle = append(slices.Clone(bundle), shown.cas[0])
	}
	waits, err := r.publish(ctx, objects, encodeCAs(bundle))
	if err != nil || current {
		return err
	}
	if waits != nil {
		if id := string(k.pair.Leaf.Raw); r.awaited != id {
			r.awaited, r.since = id, time.Now()
		}
		if time.Since(r.since) < adoption {
			return waits
		}
		r.Log.Warn("the new serving certificate is shown before Gatekeeper has read its CA", "waited", adoption.String(), "error", waits)
	}
	r.serving.current.Store(&k.pair)
	r.shown = &k
	r.Log.Info("serving certificate loaded", "secret", r.Secret.String(), "expires", k.pair.Leaf.NotAfter)
	return nil
}

// kept is the content of the Secret.
type kept struct {
	pair tls.Certificate
	cas  []*x509.Certificate // that of the certificate first
}

// agree returns the content of the Secret, after it adds what is missing.
func (r *Rotator) agree(ctx context.Context, published []*unstructured.Unstructured) (kept, error) {
	const tries = 3
	secrets := r.Cluster.core.Secrets(r.Secret.Namespace)
	var lost error
	for range tries {
		secret, err := secrets.Get(ctx, r.Secret.Name, metav1.GetOptions{})
		exists := err == nil
		if err != nil && !apierrors.IsNotFound(err) {
			return kept{}, err
		}
		if !exists {
			secret = &corev1.Secret{Type: corev1.SecretTypeTLS}
			secret.Name, secret.Namespace = r.Secret.Name, r.Secret.Namespace
			secret.Labels = map[string]string{"app.kubernetes.io/managed-by": fieldManager}
		}
		k, because, err := r.settle(secret, published)
		if err != nil || because == "" {
			return k, err
		}
		if exists {
			_, err = secrets.Update(ctx, secret, metav1.UpdateOptions{FieldManager: fieldManager})
		} else {
			_, err = secrets.Create(ctx, secret, metav1.CreateOptions{FieldManager: fieldManager})
		}
		switch {
		case err == nil:
			r.made = time.Now()
			r.Log.Info("the Secret of the serving certificate was written", "secret", r.Secret.String(), "because", because)
			return r.read(secret, r.made)
		case !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err):
			return kept{}, err
		}
		lost = err // to another replica, which has done the same
	}
	return kept{}, fmt.Errorf("writing Secret %s: another program keeps writing it: %w", r.Secret, lost)
}

// settle reads the Secret. If the content does not suffice, it changes the Secret and
// returns the reason.
func (r *Rotator) settle(secret *corev1.Secret, published []*unstructured.Unstructured) (kept, string, error) {
	now := time.Now()
	k, err := r.read(secret, now)
	because := ""
	switch {
	case len(secret.Data) == 0:
		because = "there is no certificate"
	case err != nil:
		because = err.Error()
	case k.pair.Leaf.NotAfter.Before(now.Add(renewBefore)):
		because = "it expires at " + k.pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
	case len(k.cas) > 1 && now.After(k.cas[0].NotBefore.Add(skew+overlap)):
		secret.Data[keyCA] = encodeCAs(k.cas[:1])
		return kept{}, "the overlap of the older CAs is over", nil
	default:
		return k, "", nil
	}
	if since := time.Since(r.made); since < remakeEvery {
		return kept{}, "", fmt.Errorf("a certificate was made %s ago, and already needs to be replaced: %s", since.Round(time.Second), because)
	}
	before := k.cas
	for _, object := range published {
		before = append(before, authoritiesOf(object)...)
	}
	if err := r.fill(secret, before, now); err != nil {
		return kept{}, "", fmt.Errorf("making a certificate: %w", err)
	}
	return kept{}, because, nil
}

// Names in the Secret, as in every Secret of type kubernetes.io/tls.
const (
	keyCert = corev1.TLSCertKey
	keyKey  = corev1.TLSPrivateKeyKey
	keyCA   = "ca.crt"
)

// read reads the Secret and checks that its content suffices.
func (r *Rotator) read(secret *corev1.Secret, now time.Time) (k kept, err error) {
	if k.cas, err = parseAuthorities(secret.Data[keyCA]); err != nil {
		return kept{}, fmt.Errorf("its %s %w", keyCA, err)
	}
	if k.pair, err = tls.X509KeyPair(secret.Data[keyCert], secret.Data[keyKey]); err != nil {
		return k, fmt.Errorf("its %s and %s: %w", keyCert, keyKey, err)
	}
	if _, err = rotator.ValidCert(secret.Data[keyCA], secret.Data[keyCert], secret.Data[keyKey], r.maker.DNSName, r.maker.ExtKeyUsages, now); err != nil {
		return k, err
	}
	return k, nil
}

// fill puts a new certificate into the Secret. The older CAs stay.
func (r *Rotator) fill(secret *corev1.Secret, before []*x509.Certificate, now time.Time) error {
	begin, end := now.Add(-skew), now.Add(life)
	ca, err := r.maker.CreateCACert(begin, end)
	if err != nil {
		return err
	}
	cert, key, err := r.maker.CreateCertPEM(ca, begin, end)
	if err != nil {
		return err
	}
	cas := []*x509.Certificate{ca.Cert}
	for _, old := range before {
		if now.Before(old.NotAfter) && len(cas) < maxOverlap && !slices.ContainsFunc(cas, old.Equal) {
			cas = append(cas, old)
		}
	}
	if secret.Data == nil {
		secret.Data = make(map[string][]byte)
	}
	maps.Copy(secret.Data, map[string][]byte{keyCert: cert, keyKey: key, keyCA: encodeCAs(cas)})
	return nil
}

func encodeCAs(list []*x509.Certificate) []byte {
	var bundle bytes.Buffer
	for _, cert := range list {
		bundle.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	return bundle.Bytes()
}

func (r *Rotator) objects() dynamic.ResourceInterface {
	return r.Cluster.objects.Resource(schema.GroupVersionResource{Group: "externaldata.gatekeeper.sh", Version: "v1beta1", Resource: "providers"})
}

// published reads the Provider objects. A missing object is nil.
func (r *Rotator) published(ctx context.Context) ([]*unstructured.Unstructured, error) {
	list := make([]*unstructured.Unstructured, len(r.Providers))
	for i, p := range r.Providers {
		object, err := r.objects().Get(ctx, p.Name, metav1.GetOptions{})
		switch {
		case err == nil:
			list[i] = object
		case !apierrors.IsNotFound(err):
			return nil, err
		}
	}
	return list, nil
}

// publish applies the Provider objects that differ from the wanted ones. It returns a
// reason as long as Gatekeeper has not read all of them.
func (r *Rotator) publish(ctx context.Context, live []*unstructured.Unstructured, bundle []byte) (waits, err error) {
	for i, p := range r.Providers {
		spec := map[string]any{
			"url": r.Service.url(p.Path), "timeout": int64(p.Timeout), "caBundle": base64.StdEncoding.EncodeToString(bundle),
		}
		if object := live[i]; object != nil && holds(object, spec) {
			if !adopted(object) {
				waits = notAdopted{p.Name}
			}
			continue
		}
		waits = notAdopted{p.Name}
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "Provider",
			"metadata": map[string]any{"name": p.Name, "labels": map[string]any{"app.kubernetes.io/managed-by": fieldManager}},
			"spec":     spec,
		}}
		_, err := r.objects().Apply(ctx, p.Name, object, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("applying Provider %s: is Gatekeeper installed? %w", p.Name, err)
		} else if err != nil {
			return nil, fmt.Errorf("applying Provider %s: %w", p.Name, err)
		}
		r.Log.Info("Provider object applied", "name", p.Name, "url", spec["url"])
	}
	return waits, nil
}

// holds reports whether an object is as wanted.
func holds(object *unstructured.Unstructured, spec map[string]any) bool {
	live, _, err := unstructured.NestedMap(object.Object, "spec")
	if err != nil {
		return false
	}
	for name, value := range spec {
		if live[name] != value {
			return false
		}
	}
	return true
}

// authoritiesOf returns the CAs of a Provider object, or none if they are malformed.
func authoritiesOf(object *unstructured.Unstructured) []*x509.Certificate {
	if object == nil {
		return nil
	}
	text, _, _ := unstructured.NestedString(object.Object, "spec", "caBundle")
	bundle, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	list, err := parseAuthorities(bundle)
	if err != nil {
		return nil
	}
	return list
}

// adopted reports whether every process of Gatekeeper has read this version of the
// object.
func adopted(object *unstructured.Unstructured) bool {
	pods, _, err := unstructured.NestedSlice(object.Object, "status", "byPod")
	for _, pod := range pods {
		fields, _ := pod.(map[string]any)
		seen, _ := fields["observedGeneration"].(int64)
		active, _ := fields["active"].(bool)
		if !active || seen < object.GetGeneration() {
			return false
		}
	}
	return err == nil && len(pods) > 0
}
