package simulate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/match"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
)

// Load puts the constraints of an input, and their templates, into a Gatekeeper engine.
func Load(ctx context.Context, p workload.Input, e *gatekeeper.Engine) error {
	for _, kind := range policies.Kinds() {
		if !slices.ContainsFunc(p.Constraints, func(c workload.Document) bool { return c.Object.GetKind() == kind }) {
			continue
		}
		template, err := policies.Templates.ReadFile(strings.ToLower(kind) + "/template.yaml")
		if err != nil {
			return err
		}
		if err := e.AddTemplate(ctx, template); err != nil {
			return err
		}
	}
	for _, c := range p.Constraints {
		text, err := c.Object.MarshalJSON()
		if err == nil {
			err = e.AddConstraint(ctx, text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
	}
	return nil
}

// Review returns what Gatekeeper decides when somebody creates an object, and the Pods
// that the object makes. Most constraints match Pods, and most manifests are workloads.
func Review(ctx context.Context, p workload.Input, e *gatekeeper.Engine, object *unstructured.Unstructured) (gatekeeper.Decision, error) {
	object = object.DeepCopy()
	if object.GetNamespace() == "" && HoldsImages(object) {
		object.SetNamespace("default")
	}
	var all gatekeeper.Decision
	for _, o := range append([]*unstructured.Unstructured{object}, manifest.Pods(object)...) {
		if err := matchable(p, o); err != nil {
			return gatekeeper.Decision{}, err
		}
		d, err := e.Review(ctx, gatekeeper.Request{Operation: admissionv1.Create, Object: o, Namespace: p.Namespaces[o.GetNamespace()]})
		if err != nil {
			return gatekeeper.Decision{}, err
		}
		all.Denied = append(all.Denied, d.Denied...)
		all.Warnings = append(all.Warnings, d.Warnings...)
		all.DryRun = append(all.DryRun, d.DryRun...)
		all.Constraints += d.Constraints
	}
	return all, nil
}

// matchable returns an error if a constraint selects namespaces by labels, and the labels
// of the object's namespace are not known. In a cluster, Gatekeeper knows the namespace.
func matchable(p workload.Input, object *unstructured.Unstructured) error {
	name := object.GetNamespace()
	if name == "" || p.Namespaces[name] != nil {
		return nil
	}
	for _, c := range p.Constraints {
		if selector, _, _ := unstructured.NestedFieldNoCopy(c.Object.Object, "spec", "match", "namespaceSelector"); selector == nil {
			continue
		}
		var of struct {
			Spec struct {
				Match match.Match `json:"match"`
			} `json:"spec"`
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(c.Object.Object, &of); err != nil {
			return fmt.Errorf("%s: %w", c.File, err)
		}
		if _, err := match.Matches(&of.Spec.Match, &match.Matchable{Object: object, Source: mutationtypes.SourceTypeOriginal}); err != nil {
			return &cli.HintedError{
				What: fmt.Errorf("constraint %s selects namespaces by their labels, and those of namespace %s are not known", c.Object.GetName(), name),
				Hint: "put the Namespace among the manifests; kubectl get namespace -o yaml writes those of a cluster",
			}
		}
	}
	return nil
}

// HoldsImages reports whether an object is a Pod or makes Pods.
func HoldsImages(object *unstructured.Unstructured) bool {
	_, ok, err := unstructured.NestedSlice(object.Object, "spec", "containers")
	return ok && err == nil || len(manifest.Pods(object)) > 0
}

// Questions returns the questions of the constraints about the manifests, sorted.
func Questions(ctx context.Context, p workload.Input) ([]string, error) {
	var mu sync.Mutex
	seen := make(map[string]bool)
	e, err := gatekeeper.New(gatekeeper.Config{Ask: func(_ context.Context, _ string, questions []string) (map[string]any, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, q := range questions {
			seen[q] = true
		}
		return nil, ErrNotAsked
	}})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if err := Load(ctx, p, e); err != nil {
		return nil, err
	}
	group := cli.Limited()
	for _, m := range p.Manifests {
		group.Go(func() error {
			if _, err := Review(ctx, p, e, m.Object); err != nil {
				return fmt.Errorf("%s: %w", m.Name(), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	questions := make([]string, 0, len(seen))
	for q := range seen {
		questions = append(questions, q)
	}
	slices.Sort(questions)
	return questions, nil
}

// ObjectResult is the simulated result for an object.
type ObjectResult struct {
	File       string               `json:"file"`
	Line       int                  `json:"line"` // the line of the object's first field
	Object     workload.ObjectName  `json:"object"`
	Result     string               `json:"result"` // allowed, warned, denied, unknown, unmatched
	Violations []workload.Violation `json:"violations"`
	Error      string               `json:"error,omitempty"`

	Lines manifest.Lines `json:"-"`
}

// Add adds violations, each once: a workload and its Pod often have the same.
func (c *ObjectResult) Add(action string, violations []gatekeeper.Violation) {
	for _, v := range violations {
		place, _ := v.Details["place"].(string)
		image, _ := v.Details["subject"].(string)
		x := NewViolation(action, v)
		x.Line = c.Lines.Image(place, image)
		if !slices.Contains(c.Violations, x) {
			c.Violations = append(c.Violations, x)
		}
	}
}

// AllQuestions returns the questions of several inputs.
func AllQuestions(ctx context.Context, of ...workload.Input) (map[string]bool, error) {
	seen := make(map[string]bool)
	for _, p := range of {
		questions, err := Questions(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, q := range questions {
			seen[q] = true
		}
	}
	return seen, nil
}

// Engines are Gatekeeper engines, one for each input.
type Engines struct {
	policies []workload.Input
	engines  []*gatekeeper.Engine
}

// NewEngines makes an engine for each input. ask answers the questions of constraints.
func NewEngines(ctx context.Context, ask func(context.Context, string, []string) (map[string]any, error), of ...workload.Input) (*Engines, error) {
	j := &Engines{policies: of}
	for _, p := range of {
		e, err := gatekeeper.New(gatekeeper.Config{Ask: ask})
		if err == nil {
			j.engines = append(j.engines, e)
			err = Load(ctx, p, e)
		}
		if err != nil {
			j.Close()
			return nil, err
		}
	}
	return j, nil
}

// Review returns what Gatekeeper decides about a Pod under input n.
func (j *Engines) Review(ctx context.Context, n int, pod *unstructured.Unstructured) (gatekeeper.Decision, error) {
	return Review(ctx, j.policies[n], j.engines[n], pod)
}

// Close frees the engines.
func (j *Engines) Close() {
	for _, e := range j.engines {
		e.Close()
	}
}

// NewViolation makes a violation for people from one of the Gatekeeper engine. action is
// deny, warn or dryrun.
func NewViolation(action string, v gatekeeper.Violation) workload.Violation {
	reason, _ := v.Details["reason"].(string)
	return workload.Violation{Kind: v.Kind, Constraint: v.Constraint, Action: action, Reason: reason, Message: v.Message}
}
