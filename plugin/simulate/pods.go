// Package simulate says what Gatekeeper would do with objects and Pods. It runs the
// Gatekeeper engine in process, with verdicts that OCI gives to the user.
//
// The simulation trusts the constraints of the cluster and the answers of OCI. It does
// not include the provider's cache, rights and network. A question without an answer makes
// the result unknown, never allowed.
package simulate

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
)

// Annotations of break-glass, as in the template OKEBreakGlass.
const (
	BreakGlassAnnotation = "oracle.image-policy.k8s.io/break-glass"
	ReasonAnnotation     = "oke-sign.dev/break-glass-reason"
	UntilAnnotation      = "oke-sign.dev/break-glass-until"
)

// PodGroup is a group of Pods that no constraint can tell apart, with what Gatekeeper
// would decide if the Pods were created again now.
type PodGroup struct {
	Pods              []int // indexes of the simulated Pods
	Pod               *unstructured.Unstructured
	outside           string // why Gatekeeper does not see the Pods
	live              *enforcement.Live
	health            map[string]enforcement.Health // of the Providers, by KIND/NAME of a constraint
	Decision          gatekeeper.Decision
	withoutExemptions gatekeeper.Decision // without exemptions and break-glass, of the constraints on images
	WithoutBreakGlass gatekeeper.Decision // without break-glass
	Err               error
}

// Simulation is what Gatekeeper would decide about Pods, and what OCI answered about their
// images.
type Simulation struct {
	Groups []PodGroup
	// signed has the verdicts with the keys of all constraints, by image reference.
	signed map[string]Answer
	// Scans has the reports of scans, by image reference. It is nil if no constraint
	// requires scans.
	Scans map[string]Answer
}

// Pods simulates Pods. It asks each question once, however many Pods and constraints have
// it, and simulates each group of Pods once. further are more image references to ask
// about. With e.Live, the simulation has no answer that the cluster would not have now.
func Pods(ctx context.Context, t *cli.Terminal, ask Asker, e enforcement.State, pods []*unstructured.Unstructured, further ...string) (Simulation, error) {
	j := Simulation{Groups: GroupPods(e, pods), signed: make(map[string]Answer)}
	constraintsAlone := withoutExemptions(e)
	p := workload.Input{Namespaces: e.Namespaces}
	unexempted := p
	for i := range j.Groups {
		s := &j.Groups[i]
		if s.outside = e.WhyNotAsked(s.Pod.GetNamespace()); s.outside == "" {
			p.Manifests = append(p.Manifests, workload.Document{Object: s.Pod})
			if exempts(e) || s.underBreakGlass() {
				unexempted.Manifests = append(unexempted.Manifests, workload.Document{Object: withoutBreakGlass(s.Pod)})
			}
		}
		images, _ := manifest.Images(s.Pod) // the constraints deny what cannot be read
		for _, image := range images {
			further = append(further, image.Ref)
		}
	}
	health := healthOf(e)
	for i := range j.Groups {
		j.Groups[i].live, j.Groups[i].health = e.Live, health
	}
	p.Constraints, unexempted.Constraints = e.Constraints, constraintsAlone
	seen, err := AllQuestions(ctx, p, unexempted)
	if err != nil {
		return Simulation{}, err
	}
	about := make(map[string]string)
	keys := Keys(e)
	if len(of(e, policies.ScannedImages)) > 0 {
		j.Scans = make(map[string]Answer)
	}
	for _, ref := range further {
		if parsed, err := image.Parse(ref); err != nil || parsed.Digest() == "" {
			continue
		}
		if len(keys) > 0 {
			q := gatekeeper.Question(ref, keys)
			seen[q], about[q] = true, ref
		}
		if j.Scans != nil {
			q := gatekeeper.ScanQuestion(ref)
			seen[q], about[q] = true, ref
		}
	}
	questions := make([]string, 0, len(seen))
	for q := range seen {
		questions = append(questions, q)
	}
	slices.Sort(questions)
	answers, err := ask(ctx, questions)
	if err != nil {
		return Simulation{}, err
	}
	for i, a := range answers {
		switch ref, ok := about[questions[i]]; {
		case ok && a.Question.Keys == nil:
			j.Scans[ref] = a
		case ok:
			j.signed[ref] = a
		}
	}
	return j, decide(ctx, t, &j, p, unexempted, AskNow(e.Live, FromAnswers(answers)))
}

// healthOf returns whether the Provider of each constraint answers, by KIND/NAME.
func healthOf(e enforcement.State) map[string]enforcement.Health {
	found := make(map[string]enforcement.Health)
	for _, c := range e.Constraints {
		found[c.Object.GetKind()+"/"+c.Object.GetName()] = e.Live.Answers(c.Object)
	}
	return found
}

// decide simulates every group, under the constraints and under the same constraints
// without exemptions.
func decide(ctx context.Context, t *cli.Terminal, j *Simulation, p, unexempted workload.Input, ask func(context.Context, string, []string) (map[string]any, error)) error {
	both, err := NewEngines(ctx, ask, p, unexempted)
	if err != nil {
		return err
	}
	defer both.Close()
	done := t.Progress("judged %d of %d kinds of Pods", len(j.Groups))
	group := cli.Limited()
	for i := range j.Groups {
		s := &j.Groups[i]
		if s.outside != "" {
			continue
		}
		group.Go(func() error {
			defer done()
			if s.Decision, s.Err = both.Review(ctx, 0, s.Pod); s.Err != nil {
				return nil
			}
			if s.underBreakGlass() {
				if s.WithoutBreakGlass, s.Err = both.Review(ctx, 0, withoutBreakGlass(s.Pod)); s.Err != nil {
					return nil
				}
			}
			s.withoutExemptions, s.Err = both.Review(ctx, 1, withoutBreakGlass(s.Pod))
			return nil
		})
	}
	_ = group.Wait() // each group has its own error
	return ctx.Err()
}

// GroupPods groups Pods that no constraint can tell apart.
func GroupPods(e enforcement.State, pods []*unstructured.Unstructured) []PodGroup {
	named := slices.ContainsFunc(e.Constraints, func(c workload.Document) bool {
		name, _, _ := unstructured.NestedFieldNoCopy(c.Object.Object, "spec", "match", "name")
		return name != nil
	})
	chooses := chooses(e)
	var found []PodGroup
	at := make(map[string]int)
	for i, pod := range pods {
		annotations := pod.GetAnnotations()
		labels := pod.GetLabels()
		maps.DeleteFunc(labels, func(label, _ string) bool { return !chooses(label) }) // of a copy
		name := ""
		if named {
			name = pod.GetName() + "/" + pod.GetGenerateName()
		}
		key, _ := json.Marshal([]any{ // what came as JSON
			name, pod.GetNamespace(), labels, pod.Object["spec"],
			annotations[BreakGlassAnnotation], annotations[ReasonAnnotation], annotations[UntilAnnotation],
		})
		n, ok := at[string(key)]
		if !ok {
			n = len(found)
			at[string(key)] = n
			found = append(found, PodGroup{Pod: pod})
		}
		found[n].Pods = append(found[n].Pods, i)
	}
	return found
}

// chooses returns a function that reports whether a constraint may choose Pods by a
// label.
func chooses(e enforcement.State) func(label string) bool {
	var text strings.Builder
	for _, c := range e.Constraints {
		match, _, _ := unstructured.NestedFieldNoCopy(c.Object.Object, "spec", "match")
		fmt.Fprintln(&text, match)
	}
	matches := text.String()
	known := make(map[string]bool)
	return func(label string) bool {
		chosen, ok := known[label]
		if !ok {
			chosen = strings.Contains(matches, label)
			known[label] = chosen
		}
		return chosen
	}
}

// withoutExemptions returns the constraints on images without their exemptions.
func withoutExemptions(e enforcement.State) []workload.Document {
	var found []workload.Document
	for _, c := range e.Constraints {
		if c.Object.GetKind() == policies.BreakGlass {
			continue
		}
		object := c.Object.DeepCopy()
		unstructured.RemoveNestedField(object.Object, "spec", "parameters", "exemptImages")
		unstructured.RemoveNestedField(object.Object, "spec", "parameters", "exemptions")
		found = append(found, workload.Document{File: c.File, Object: object})
	}
	return found
}

// exempts reports whether a constraint exempts images.
func exempts(e enforcement.State) bool {
	return slices.ContainsFunc(e.Constraints, func(c workload.Document) bool {
		patterns, _, _ := unstructured.NestedSlice(c.Object.Object, "spec", "parameters", "exemptImages")
		exemptions, _, _ := unstructured.NestedSlice(c.Object.Object, "spec", "parameters", "exemptions")
		return len(patterns)+len(exemptions) > 0
	})
}

// underBreakGlass reports whether the Pod has the break-glass annotation, with any value.
func (s *PodGroup) underBreakGlass() bool {
	_, ok := s.Pod.GetAnnotations()[BreakGlassAnnotation]
	return ok
}

func withoutBreakGlass(pod *unstructured.Unstructured) *unstructured.Unstructured {
	annotations := pod.GetAnnotations()
	if _, ok := annotations[BreakGlassAnnotation]; !ok {
		return pod
	}
	pod = pod.DeepCopy()
	delete(annotations, BreakGlassAnnotation)
	pod.SetAnnotations(annotations)
	return pod
}

// of returns the constraints of a kind.
func of(e enforcement.State, kind string) []workload.Document {
	return slices.DeleteFunc(slices.Clone(e.Constraints), func(c workload.Document) bool { return c.Object.GetKind() != kind })
}

// Keys returns the keys of all constraints, sorted, each once.
func Keys(e enforcement.State) []string {
	var keys []string
	for _, c := range of(e, policies.SignedImages) {
		listed, _, _ := unstructured.NestedStringSlice(c.Object.Object, "spec", "parameters", "keys")
		keys = append(keys, listed...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Results for an image in a Pod that is created again, the worst first.
const (
	UnknownImage    = "unknown" // a question has no answer
	DeniedImage     = "denied"
	UncheckedImage  = "unchecked"   // admitted, because Gatekeeper does not answer or is not asked
	WarnedImage     = "warned"      // admitted with a warning, or reported by the audit
	BreakGlassImage = "break-glass" // admitted only by the annotation
	ExemptImage     = "exempt"      // admitted only by an exemption
	OutsideImage    = "not-asked"   // Gatekeeper does not see the namespace
	UnmatchedImage  = "unmatched"   // no constraint matches the Pod
	AllowedImage    = "allowed"
)

// ImageResults are the results for an image, the worst first.
var ImageResults = []string{UnknownImage, DeniedImage, UncheckedImage, WarnedImage, BreakGlassImage, ExemptImage, OutsideImage, UnmatchedImage, AllowedImage}

// ResultOf returns the result for an image, and the violations behind it.
func (s *PodGroup) ResultOf(ref string) (string, []workload.Violation) {
	switch {
	case s.outside != "":
		return OutsideImage, nil
	case s.live != nil && s.live.Gatekeeper.Err != nil, s.Err != nil:
		return UnknownImage, nil
	case s.live != nil && s.live.Unchecked != "":
		return UncheckedImage, nil
	case s.live != nil && s.live.Gatekeeper.Down != "":
		return DeniedImage, []workload.Violation{{Action: "deny", Reason: NoAnswer, Message: s.live.Gatekeeper.Down + ", and failurePolicy is Fail, so the API server denies every Pod"}}
	}
	about := func(action string, from []gatekeeper.Violation) (found []workload.Violation) {
		for _, v := range from {
			if v.Details["subject"] == ref {
				found = append(found, NewViolation(action, v))
			}
		}
		return found
	}
	denied := about("deny", s.Decision.Denied)
	for _, v := range s.Decision.Denied {
		// A violation of the Pod as a whole, such as an expired break-glass.
		if place, _ := v.Details["place"].(string); !strings.Contains(place, "/") {
			denied = append(denied, NewViolation("deny", v))
		}
	}
	warned := append(about("warn", s.Decision.Warnings), about("dryrun", s.Decision.DryRun)...)
	switch broken, exempt := about("lifted", s.WithoutBreakGlass.Denied), about("lifted", s.withoutExemptions.Denied); {
	case slices.ContainsFunc(denied, func(v workload.Violation) bool { return v.Reason == NoAnswer && s.healthOf(v).Down == "" }):
		return UnknownImage, denied
	case len(denied) > 0:
		return DeniedImage, denied
	case s.withoutExemptions.Constraints == 0:
		return UnmatchedImage, nil
	case len(warned) > 0:
		return WarnedImage, warned
	case len(broken) > 0:
		return BreakGlassImage, broken
	case len(exempt) > 0:
		return ExemptImage, exempt
	}
	return AllowedImage, nil
}

// NoAnswer is the reason of a violation without an answer of the provider.
const NoAnswer = "no-answer"

// healthOf returns whether the Provider of a violated constraint answers.
func (s *PodGroup) healthOf(v workload.Violation) enforcement.Health {
	return s.health[v.Kind+"/"+v.Constraint]
}
