package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/match"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// load puts the templates and constraints of a policy into an engine.
func (p policy) load(ctx context.Context, e *gatekeeper.Engine) error {
	for _, kind := range policies.Kinds() {
		if !slices.ContainsFunc(p.constraints, func(c document) bool { return c.object.GetKind() == kind }) {
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
	for _, c := range p.constraints {
		text, err := c.object.MarshalJSON()
		if err == nil {
			err = e.AddConstraint(ctx, text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
	}
	return nil
}

// review judges an object as it would be when somebody creates it, and the Pods
// that come of it: constraints mostly match Pods, and manifests hold workloads.
func (p policy) review(ctx context.Context, e *gatekeeper.Engine, object *unstructured.Unstructured) (gatekeeper.Decision, error) {
	object = object.DeepCopy()
	if object.GetNamespace() == "" && holdsImages(object) {
		object.SetNamespace("default")
	}
	var all gatekeeper.Decision
	for _, o := range append([]*unstructured.Unstructured{object}, manifest.Pods(object)...) {
		if err := p.matchable(o); err != nil {
			return gatekeeper.Decision{}, err
		}
		d, err := e.Review(ctx, gatekeeper.Request{Operation: admissionv1.Create, Object: o, Namespace: p.namespaces[o.GetNamespace()]})
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

// matchable fails if it cannot be told whether the constraints match an object,
// because one selects namespaces by their labels and the object's is not known.
// Gatekeeper refuses such an object, but in a cluster it knows the namespace.
func (p policy) matchable(object *unstructured.Unstructured) error {
	name := object.GetNamespace()
	if name == "" || p.namespaces[name] != nil {
		return nil
	}
	for _, c := range p.constraints {
		if selector, _, _ := unstructured.NestedFieldNoCopy(c.object.Object, "spec", "match", "namespaceSelector"); selector == nil {
			continue
		}
		var of struct {
			Spec struct {
				Match match.Match `json:"match"`
			} `json:"spec"`
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(c.object.Object, &of); err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		if _, err := match.Matches(&of.Spec.Match, &match.Matchable{Object: object, Source: mutationtypes.SourceTypeOriginal}); err != nil {
			return &refusal{
				fmt.Errorf("constraint %s selects namespaces by their labels, and those of namespace %s are not known", c.object.GetName(), name),
				"put the Namespace among the manifests; kubectl get namespace -o yaml writes those of a cluster",
			}
		}
	}
	return nil
}

func holdsImages(object *unstructured.Unstructured) bool {
	_, ok, err := unstructured.NestedSlice(object.Object, "spec", "containers")
	return ok && err == nil || len(manifest.Pods(object)) > 0
}

// errNotAsked is the system error of a policy that nobody answers.
var errNotAsked = errors.New("nobody was asked; add --live, --verdicts FILE or --provider URL")

// questions are what the policy would ask about the manifests.
func (g *global) questions(ctx context.Context, p policy) ([]string, error) {
	var mu sync.Mutex
	seen := make(map[string]bool)
	e, err := gatekeeper.New(gatekeeper.Config{Ask: func(_ context.Context, _ string, questions []string) (map[string]any, error) {
		mu.Lock()
		defer mu.Unlock()
		for _, q := range questions {
			seen[q] = true
		}
		return nil, errNotAsked
	}})
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if err := p.load(ctx, e); err != nil {
		return nil, err
	}
	group := limited()
	for _, m := range p.manifests {
		group.Go(func() error {
			if _, err := p.review(ctx, e, m.object); err != nil {
				return fmt.Errorf("%s: %w", m.name(), err)
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

// answered is a question and what came of it.
type answered struct {
	question question
	value    any // a verdict, or what scans say
	err      error
}

// answer asks OCI, as the user, what the provider would.
func (g *global) answer(ctx context.Context, questions []string) ([]answered, error) {
	if len(questions) == 0 {
		return nil, nil // nothing that needs OCI
	}
	cloud, err := g.connectImages(ctx)
	if err != nil {
		return nil, err
	}
	checker, scans := cloud.checker(), cloud.scans()
	answers := make([]answered, len(questions))
	done := g.progress("asked about %d of %d images", len(questions))
	group := limited()
	for i, key := range questions {
		group.Go(func() error {
			defer done()
			answers[i] = ask(ctx, checker, scans, key)
			answers[i].err = because(ctx, answers[i].err)
			return nil
		})
	}
	_ = group.Wait() // each answer has its own error
	return answers, nil
}

func ask(ctx context.Context, checker *verdict.Checker, scans *vulnreport.Checker, key string) answered {
	var a answered
	if a.err = json.Unmarshal([]byte(key), &a.question); a.err != nil {
		return a
	}
	allowed, err := parseKeys(a.question.Keys)
	if err != nil {
		a.err = err
		return a
	}
	ref, err := image.Parse(a.question.Image)
	if err != nil {
		a.err = err
		return a
	}
	if ctx.Err() != nil {
		a.err = ctx.Err()
		return a
	}
	if a.question.Keys == nil {
		a.value, a.err = scans.Check(ctx, ref)
	} else {
		a.value, a.err = checker.Check(ctx, ref, allowed)
	}
	return a
}
