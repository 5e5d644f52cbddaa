// Package gatekeeper runs Gatekeeper's own engine in process: the client and the Rego
// driver of frameworks/constraint, Gatekeeper's target handler, and its external
// data client, wired as Gatekeeper's manager wires them. The engine decides as a
// cluster with the same templates, constraints and providers does.
//
// It trusts its templates and constraints, and nothing that it reviews. It is not a
// webhook. No API server comes before it, so objects are neither defaulted nor pruned.
// It has no mutation, no expansion, and no namespaces that Gatekeeper ignores.
package gatekeeper

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/open-policy-agent/frameworks/constraint/pkg/apis/externaldata/unversioned"
	templatesv1 "github.com/open-policy-agent/frameworks/constraint/pkg/apis/templates/v1"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client/drivers/rego"
	"github.com/open-policy-agent/frameworks/constraint/pkg/client/reviews"
	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"github.com/open-policy-agent/frameworks/constraint/pkg/instrumentation"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/target"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/util"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/manifest"
)

// DefaultMemory is the default TTL of Gatekeeper's cache of providers' answers.
const DefaultMemory = 3 * time.Minute

// Config says how an Engine reaches providers, and how long it caches their answers.
type Config struct {
	// Certificate and Key are PEM files with the client certificate for providers.
	// The engine reads them again when they change. If they are empty, it has no
	// certificate. The watch logs through controller-runtime, which prints a warning
	// if no logger is set.
	Certificate, Key string
	// Memory is the TTL of a cached answer, as Gatekeeper's
	// --external-data-provider-response-cache-ttl. Ages count in whole seconds. Zero
	// means DefaultMemory, and a negative value means no cache.
	Memory time.Duration
	// Ask answers questions in place of all providers, outside a cluster. A question
	// without a value in the map has no answer. An error becomes the providers'
	// system error, next to the answers. Several goroutines may call Ask.
	Ask func(ctx context.Context, provider string, questions []string) (map[string]any, error)
}

// Engine has templates, constraints, providers and cached answers. It is safe for
// concurrent use.
type Engine struct {
	client    *client.Client
	ask       builtin
	providers *externaldata.ProviderCache
	answers   *externaldata.ProviderResponseCache
	stop      func()

	mu    sync.Mutex
	names []string // of providers
}

// New returns an engine without templates. The caller must close it.
func New(cfg Config) (*Engine, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	e := &Engine{
		providers: externaldata.NewCache(),
		stop:      func() { cancel(); work.Wait() },
	}
	args := []rego.Arg{
		rego.Tracing(false),
		// Templates may reach the network only through a provider.
		rego.DisableBuiltins("http.send"),
		rego.Externs("inventory"),
		rego.AddExternalDataProviderCache(e.providers),
	}
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Memory > 0 {
		e.answers = externaldata.NewProviderResponseCache(ctx, cfg.Memory)
		args = append(args, rego.AddExternalDataProviderResponseCache(e.answers))
	}
	if cfg.Certificate != "" || cfg.Key != "" {
		watcher, err := certwatcher.New(cfg.Certificate, cfg.Key)
		if err != nil {
			e.stop()
			return nil, fmt.Errorf("reading the client certificate: %w", err)
		}
		// If the watch ends early, the certificate stays. Providers reject it after
		// its expiry.
		work.Go(func() { _ = watcher.Start(ctx) })
		args = append(args, rego.EnableExternalDataClientAuth(), rego.AddExternalDataClientCertWatcher(watcher))
	}
	driver, ask, err := newDriver(args)
	if err != nil {
		e.stop()
		return nil, fmt.Errorf("making the Rego driver: %w", err)
	}
	e.ask = ask
	if cfg.Ask != nil {
		e.ask = answering(cfg.Ask)
	}
	e.client, err = client.NewClient(
		client.Targets(&target.K8sValidationTarget{}),
		client.Driver(driver),
		client.EnforcementPoints(util.WebhookEnforcementPoint, util.AuditEnforcementPoint, util.GatorEnforcementPoint),
	)
	if err != nil {
		e.stop()
		return nil, fmt.Errorf("making the constraint client: %w", err)
	}
	return e, nil
}

// Close ends the engine's background work and its connections to providers.
func (e *Engine) Close() {
	e.stop()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, name := range e.names {
		e.providers.Remove(name)
	}
}

// AddTemplate adds or replaces a ConstraintTemplate in YAML or JSON.
func (e *Engine) AddTemplate(ctx context.Context, text []byte) error {
	var versioned templatesv1.ConstraintTemplate
	if err := yaml.UnmarshalStrict(text, &versioned); err != nil {
		return fmt.Errorf("reading a constraint template: %w", err)
	}
	if want := templatesv1.SchemeGroupVersion.String(); versioned.APIVersion != want || versioned.Kind != "ConstraintTemplate" {
		return fmt.Errorf("not a ConstraintTemplate of %s: %s of %q", want, versioned.Kind, versioned.APIVersion)
	}
	template, err := versioned.ToVersionless()
	if err != nil {
		return fmt.Errorf("reading constraint template %s: %w", versioned.Name, err)
	}
	evaluation.RLock()
	defer evaluation.RUnlock()
	if _, err := e.client.AddTemplate(ctx, template); err != nil {
		return fmt.Errorf("adding constraint template %s: %w", versioned.Name, err)
	}
	return nil
}

// AddConstraint adds or replaces a constraint in YAML or JSON. It checks the
// constraint against the template's schema, as the API server and Gatekeeper's
// webhook would.
func (e *Engine) AddConstraint(ctx context.Context, text []byte) error {
	constraint, err := manifest.Object(text)
	if err != nil {
		return fmt.Errorf("reading a constraint: %w", err)
	}
	action, _, err := unstructured.NestedString(constraint.Object, "spec", "enforcementAction")
	if err != nil {
		return fmt.Errorf("reading the action of constraint %s: %w", constraint.GetName(), err)
	}
	// Gatekeeper's webhook skips a violation with an unknown action, so a misspelt
	// one would enforce nothing.
	if action != "" {
		if err := util.ValidateEnforcementAction(util.EnforcementAction(action), constraint.Object); err != nil {
			return fmt.Errorf("adding constraint %s: %w", constraint.GetName(), err)
		}
	}
	if _, err := e.client.AddConstraint(ctx, constraint); err != nil {
		return fmt.Errorf("adding constraint %s: %w", constraint.GetName(), err)
	}
	return nil
}

// RemoveConstraint removes a constraint. A missing constraint is not an error.
func (e *Engine) RemoveConstraint(ctx context.Context, kind, name string) error {
	constraint := &unstructured.Unstructured{}
	constraint.SetAPIVersion("constraints.gatekeeper.sh/v1beta1")
	constraint.SetKind(kind)
	constraint.SetName(name)
	if _, err := e.client.RemoveConstraint(ctx, constraint); err != nil {
		return fmt.Errorf("removing constraint %s: %w", name, err)
	}
	return nil
}

// AddData adds an object to the cluster's objects that templates can read, as
// Gatekeeper's sync does.
func (e *Engine) AddData(ctx context.Context, object *unstructured.Unstructured) error {
	if _, err := e.client.AddData(ctx, object); err != nil {
		return fmt.Errorf("adding %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}

// Provider describes an external data provider, as a Provider object does.
type Provider struct {
	Name string
	// URL is the address for questions. It must be https, with TLS 1.3.
	URL string
	// CABundle has the CAs of the provider's certificate, in PEM.
	CABundle []byte
	// Timeout bounds one request. It must be at least a second: Gatekeeper counts in
	// seconds, and a timeout of zero fails every request.
	Timeout time.Duration
}

// AddProvider adds or replaces a provider. The answers of a replaced provider stay in the
// cache, as in Gatekeeper.
func (e *Engine) AddProvider(p Provider) error {
	if p.Timeout < time.Second || p.Timeout%time.Second != 0 {
		return fmt.Errorf("adding provider %s: a timeout is whole seconds, not %s", p.Name, p.Timeout)
	}
	provider := &unversioned.Provider{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name},
		Spec: unversioned.ProviderSpec{
			URL:      p.URL,
			Timeout:  int(p.Timeout / time.Second),
			CABundle: base64.StdEncoding.EncodeToString(p.CABundle),
		},
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.providers.Upsert(provider); err != nil {
		return fmt.Errorf("adding provider %s: %w", p.Name, err)
	}
	// All engines of the process share connections by the provider's name. The next
	// connection must present this engine's certificate.
	externaldata.DefaultClientCache().Invalidate(p.Name)
	if !slices.Contains(e.names, p.Name) {
		e.names = append(e.names, p.Name)
	}
	return nil
}

// Answer is a cached answer of a provider: a value, or an error for the question.
type Answer struct {
	Value    any
	Error    string
	Received time.Time // in whole seconds
}

// Cached returns the cached answer that the next evaluation would use without asking
// the provider.
func (e *Engine) Cached(provider, question string) (Answer, bool) {
	if e.answers == nil {
		return Answer{}, false
	}
	v, err := e.answers.Get(externaldata.CacheKey{ProviderName: provider, Key: question})
	if err != nil {
		return Answer{}, false
	}
	a := Answer{Value: v.Value, Error: v.Error, Received: time.Unix(v.Received, 0)}
	return a, time.Since(a.Received) <= e.answers.TTL
}

// Question returns the key with which OKESignedImages asks whether one of these keys
// signed an image.
func Question(image string, keys []string) string {
	sorted := slices.Compact(slices.Sorted(slices.Values(keys)))
	if sorted == nil {
		sorted = []string{}
	}
	// Two strings and a list of strings always encode.
	key, _ := json.Marshal(struct {
		Image string   `json:"image"`
		Keys  []string `json:"keys"`
	}{image, sorted})
	return string(key)
}

// ScanQuestion returns the key with which OKEScannedImages asks for the scan of an
// image.
func ScanQuestion(image string) string {
	key, _ := json.Marshal(struct { // a string always encodes
		Image string `json:"image"`
	}{image})
	return string(key)
}

// Request is an object to review.
type Request struct {
	// Operation is Create or Update for an admission request. If it is empty, the
	// object is reviewed as in the audit, without a user and an old object.
	Operation admissionv1.Operation
	// Object is the object to store. OldObject is the object that it replaces on
	// Update.
	Object, OldObject *unstructured.Unstructured
	// User is the author of an admission request.
	User authenticationv1.UserInfo
	// Namespace is the namespace of the object, for constraints that select by its
	// labels.
	Namespace *corev1.Namespace
}

// Violation is one violation of a constraint by an object.
type Violation struct {
	Kind       string         // of the constraint
	Constraint string         // its name
	Message    string         // for people
	Details    map[string]any // for programs
}

// String returns the violation in the words of Gatekeeper's webhook.
func (v Violation) String() string { return fmt.Sprintf("[%s] %s", v.Constraint, v.Message) }

// Decision is what Gatekeeper would do with an object.
type Decision struct {
	Denied   []Violation // if not empty, the object is denied
	Warnings []Violation // shown to the user, with or without a denial
	DryRun   []Violation // only counted
	// Constraints is the number of constraints that match the object. If it is zero,
	// no constraint has checked the object.
	Constraints int
}

// Allowed reports whether the object would be admitted.
func (d Decision) Allowed() bool { return len(d.Denied) == 0 }

// Review decides on an object. An error is not a decision: Gatekeeper answers it
// with status 500, and the webhook's failurePolicy decides.
func (e *Engine) Review(ctx context.Context, r Request) (Decision, error) {
	if r.Object == nil {
		return Decision{}, errors.New("reviewing nothing")
	}
	subject, point, err := r.subject()
	if err != nil {
		return Decision{}, fmt.Errorf("reviewing %s %s: %w", r.Object.GetKind(), r.Object.GetName(), err)
	}
	opts := []reviews.ReviewOpt{reviews.EnforcementPoint(point), reviews.Stats(true)}
	if r.Namespace != nil {
		namespace, err := util.NamespaceToMap(r.Namespace)
		if err != nil {
			return Decision{}, fmt.Errorf("reading namespace %s: %w", r.Namespace.Name, err)
		}
		opts = append(opts, reviews.Namespace(namespace))
	}
	evaluation.RLock()
	defer evaluation.RUnlock()
	responses, err := e.client.Review(e.ask.within(ctx), subject, opts...)
	if err != nil {
		return Decision{}, fmt.Errorf("reviewing %s %s: %w", r.Object.GetKind(), r.Object.GetName(), err)
	}
	d := Decision{Constraints: matching(responses.StatsEntries)}
	for _, result := range responses.Results() {
		v := Violation{
			Kind:       result.Constraint.GetKind(),
			Constraint: result.Constraint.GetName(),
			Message:    result.Msg,
		}
		v.Details, _ = result.Metadata["details"].(map[string]any)
		actions := []string{result.EnforcementAction}
		if result.EnforcementAction == string(util.Scoped) {
			actions = result.ScopedEnforcementActions
		}
		for _, action := range actions {
			switch util.EnforcementAction(action) {
			case util.Warn:
				d.Warnings = append(d.Warnings, v)
			case util.Dryrun:
				d.DryRun = append(d.DryRun, v)
			default: // AddConstraint admits no other action than deny
				d.Denied = append(d.Denied, v)
			}
		}
	}
	for _, violations := range [][]Violation{d.Denied, d.Warnings, d.DryRun} {
		slices.SortFunc(violations, func(a, b Violation) int {
			return cmp.Or(
				cmp.Compare(a.Kind, b.Kind),
				cmp.Compare(a.Constraint, b.Constraint),
				cmp.Compare(a.Message, b.Message),
			)
		})
	}
	return d, nil
}

func matching(entries []*instrumentation.StatsEntry) (n int) {
	for _, entry := range entries {
		for _, stat := range entry.Stats {
			if count, ok := stat.Value.(int); ok && stat.Name == "constraintCount" {
				n += count
			}
		}
	}
	return n
}

// subject returns the review for the engine, and its enforcement point.
func (r Request) subject() (any, string, error) {
	if r.Operation == "" {
		return target.AugmentedUnstructured{
			Object:    *r.Object,
			Namespace: r.Namespace,
			Source:    types.SourceTypeOriginal,
		}, util.AuditEnforcementPoint, nil
	}
	object, err := r.Object.MarshalJSON()
	if err != nil {
		return nil, "", err
	}
	kind := r.Object.GroupVersionKind()
	request := &admissionv1.AdmissionRequest{
		Kind:      metav1.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind},
		Name:      r.Object.GetName(),
		Namespace: r.Object.GetNamespace(),
		Operation: r.Operation,
		UserInfo:  r.User,
		Object:    runtime.RawExtension{Raw: object},
	}
	if r.OldObject != nil {
		old, err := r.OldObject.MarshalJSON()
		if err != nil {
			return nil, "", err
		}
		request.OldObject.Raw = old
	}
	return target.AugmentedReview{
		AdmissionRequest: request,
		Namespace:        r.Namespace,
		Source:           types.SourceTypeOriginal,
		IsAdmission:      true,
	}, util.WebhookEnforcementPoint, nil
}
