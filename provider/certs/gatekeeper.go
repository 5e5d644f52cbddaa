package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	// GatekeeperWebhooks is the default name of Gatekeeper's
	// ValidatingWebhookConfiguration.
	GatekeeperWebhooks = "gatekeeper-validating-webhook-configuration"
	gatekeeperWebhook  = "validation.gatekeeper.sh"

	// trustLonger is how long a replaced CA stays trusted. Gatekeeper shows its old
	// certificate until the kubelet has brought the new one.
	trustLonger = 15 * time.Minute
	maxTrusted  = 4 // CAs at a time: the current one and those that it replaced lately

	maxBundle       = 64 << 10
	maxCertificates = 16
	watchFor        = 5 * time.Minute // then Follow reads the object again
)

// Gatekeeper is Callers with Gatekeeper's CA, which its webhook configuration has. That
// object has no private key.
//
// The API server calls Gatekeeper by the name of the Service in the same object.
// Gatekeeper has one certificate, for that name, and shows it to providers too.
type Gatekeeper struct {
	Callers
	cluster *Cluster
	object  string
	name    string // empty: that of the Service
	log     *slog.Logger

	mu    sync.Mutex
	lacks error  // why no newer CA is trusted
	seen  string // the newest trusted CA
}

// NewGatekeeper returns a Gatekeeper that accepts callers with a certificate for this DNS
// name, by the CA of a ValidatingWebhookConfiguration. An empty name means the name of the
// webhook's Service. Until Follow has read the CA, it accepts nobody.
func NewGatekeeper(cluster *Cluster, object, name string, log *slog.Logger) *Gatekeeper {
	return &Gatekeeper{cluster: cluster, object: object, name: name, log: log, lacks: errors.New("it was not read yet")}
}

// Ready returns the reason why the provider accepts no caller, or nil. A CA that
// disappeared stays trusted for a while, as a replaced CA does.
func (g *Gatekeeper) Ready() error {
	if trusted := g.trusted.Load(); trusted != nil {
		for _, t := range *trusted {
			if t.until.IsZero() || time.Now().Before(t.until) {
				return nil
			}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Errorf("nobody may ask: ValidatingWebhookConfiguration %s: %w", g.object, g.lacks)
}

// Follow trusts the CA of the webhook configuration until ctx ends. While the API server
// does not answer, the last CA stays trusted.
//
// While watches fail or end at once, with or without an error, it waits longer and longer
// before it reads again. Otherwise it would list several times a second.
func (g *Gatekeeper) Follow(ctx context.Context) {
	const first, longest = 200 * time.Millisecond, 30 * time.Second
	for wait := first; ; wait = min(2*wait, longest) {
		version, err := g.read(ctx)
		if err == nil {
			began := time.Now()
			err = g.watch(ctx, version)
			if time.Since(began) > longest {
				wait = first
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			g.unread(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

func (g *Gatekeeper) unread(err error) {
	g.log.Warn("Gatekeeper's CA cannot be followed", "object", g.object, "error", err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.trusted.Load() == nil {
		g.lacks = err
	}
}

// byName selects the object by its name, so that a right by name allows the list.
func (g *Gatekeeper) byName() metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", g.object).String()}
}

// read reads the object and returns the version to watch from.
func (g *Gatekeeper) read(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	list, err := g.cluster.admission.ValidatingWebhookConfigurations().List(ctx, g.byName())
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(list.Items, func(c admissionv1.ValidatingWebhookConfiguration) bool { return c.Name == g.object })
	if i < 0 {
		g.take(nil)
	} else {
		g.take(&list.Items[i])
	}
	return list.ResourceVersion, nil
}

// watch applies changes until the API server ends the watch, which is not an error.
func (g *Gatekeeper) watch(ctx context.Context, version string) error {
	ctx, cancel := context.WithTimeout(ctx, watchFor+callTimeout)
	defer cancel()
	options := g.byName()
	options.ResourceVersion = version
	options.TimeoutSeconds = new(int64(watchFor.Seconds()))
	changes, err := g.cluster.admission.ValidatingWebhookConfigurations().Watch(ctx, options)
	if err != nil {
		return err
	}
	defer changes.Stop()
	for change := range changes.ResultChan() {
		config, ok := change.Object.(*admissionv1.ValidatingWebhookConfiguration)
		switch {
		case !ok:
			return apierrors.FromObject(change.Object)
		case config.Name != g.object:
		case change.Type == watch.Deleted:
			g.take(nil)
		default:
			g.take(config)
		}
	}
	return nil
}

// take trusts the CA of a configuration from now on, and the previous CA for a while.
func (g *Gatekeeper) take(config *admissionv1.ValidatingWebhookConfiguration) {
	newest, about, err := g.trust(config)
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil && (g.lacks == nil || g.lacks.Error() != err.Error()) {
		g.log.Error("Gatekeeper's CA is not available", "object", g.object, "error", err)
	}
	g.lacks = err
	now := time.Now()
	var next, before []trust
	if old := g.trusted.Load(); old != nil {
		before = *old
	}
	if err == nil {
		if len(before) > 0 && before[0].until.IsZero() && g.seen == about {
			return
		}
		next = append(next, newest)
		g.seen = about
		g.log.Info("Gatekeeper's CA is trusted", "object", g.object, "name", newest.name)
	}
	for _, t := range before {
		if t.until.IsZero() {
			t.until = now.Add(trustLonger)
		}
		if now.Before(t.until) && len(next) < maxTrusted {
			next = append(next, t)
		}
	}
	if len(next) > 0 || len(before) > 0 {
		g.trusted.Store(&next)
	}
}

// trust reads the CA from a configuration. The string about changes whenever the CA
// does.
func (g *Gatekeeper) trust(config *admissionv1.ValidatingWebhookConfiguration) (t trust, about string, err error) {
	if config == nil {
		return trust{}, "", errors.New("it does not exist: is Gatekeeper installed?")
	}
	i := slices.IndexFunc(config.Webhooks, func(w admissionv1.ValidatingWebhook) bool { return w.Name == gatekeeperWebhook })
	if i < 0 {
		return trust{}, "", fmt.Errorf("it has no webhook %s", gatekeeperWebhook)
	}
	client := config.Webhooks[i].ClientConfig
	name := g.name
	if name == "" {
		if client.Service == nil {
			return trust{}, "", errors.New("its webhook names no Service: set --client-name to the DNS name of Gatekeeper's certificate")
		}
		name = client.Service.Name + "." + client.Service.Namespace + ".svc"
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			return trust{}, "", fmt.Errorf("its webhook's Service has no name: %.200q", name)
		}
	}
	list, err := parseAuthorities(client.CABundle)
	if err != nil {
		return trust{}, "", fmt.Errorf("its caBundle %w", err)
	}
	return trust{pool: poolOf(list), name: name}, name + "\n" + string(client.CABundle), nil
}

// parseAuthorities reads the bundle of an object of the cluster.
func parseAuthorities(bundle []byte) ([]*x509.Certificate, error) {
	switch {
	case len(bundle) == 0:
		return nil, errors.New("is empty")
	case len(bundle) > maxBundle:
		return nil, fmt.Errorf("is larger than %d bytes", maxBundle)
	}
	list, err := parseBundle(bundle)
	if err != nil {
		return nil, err
	}
	if len(list) > maxCertificates {
		return nil, fmt.Errorf("holds more than %d certificates", maxCertificates)
	}
	for _, cert := range list {
		if !cert.BasicConstraintsValid || !cert.IsCA {
			return nil, fmt.Errorf("holds a certificate that is not a CA: %.200q", cert.Subject)
		}
	}
	return list, nil
}
