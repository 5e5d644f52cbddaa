package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
)

// Annotations of break-glass. OKEBreakGlass has the same.
const (
	glassAnnotation  = "oracle.image-policy.k8s.io/break-glass"
	reasonAnnotation = "oke-sign.dev/break-glass-reason"
	untilAnnotation  = "oke-sign.dev/break-glass-until"
)

// standing is how Pods that are alike stand under what the cluster enforces: what
// would become of them if they were made again now.
type standing struct {
	pods      []int // which of the Pods that were judged
	pod       *unstructured.Unstructured
	outside   string // why Gatekeeper is not asked about them
	decision  gatekeeper.Decision
	unlifted  gatekeeper.Decision // without exemptions and break-glass, by constraints on images alone
	unglassed gatekeeper.Decision // without break-glass
	err       error
}

// judgement is Pods under what is enforced, and what OCI said of their images.
type judgement struct {
	standings []standing
	// signed are the answers, by the image as it is referenced, to whether any key
	// of any constraint has signed it.
	signed map[string]answered
	// scans are the same to what scans say of it; nil where no constraint asks.
	scans map[string]answered
}

// judgePods judges Pods. What constraints ask OCI is asked once, however many Pods
// and constraints ask it, and Pods that differ in nothing that they could see are
// judged once. further are references of images to ask about besides.
func (g *global) judgePods(ctx context.Context, e enforced, pods []*unstructured.Unstructured, further []string) (judgement, error) {
	j := judgement{standings: e.alike(pods), signed: make(map[string]answered)}
	plain := e.unlifted()
	p := policy{namespaces: e.namespaces}
	bare := p
	for i := range j.standings {
		s := &j.standings[i]
		if s.outside = e.outside(s.pod.GetNamespace()); s.outside == "" {
			p.manifests = append(p.manifests, document{object: s.pod})
			if e.exempts() || s.glass() {
				bare.manifests = append(bare.manifests, document{object: unglassed(s.pod)})
			}
		}
		images, _ := manifest.Images(s.pod) // what cannot be read, the policy refuses
		for _, image := range images {
			further = append(further, image.Ref)
		}
	}
	p.constraints, bare.constraints = e.constraints, plain
	seen, err := g.allQuestions(ctx, p, bare)
	if err != nil {
		return judgement{}, err
	}
	about := make(map[string]string)
	keys := e.keys()
	if len(e.of(policies.ScannedImages)) > 0 {
		j.scans = make(map[string]answered)
	}
	for _, ref := range further {
		if parsed, err := image.Parse(ref); err != nil || parsed.Digest() == "" {
			continue
		}
		if len(keys) > 0 {
			q := gatekeeper.Question(ref, keys)
			seen[q], about[q] = true, ref
		}
		if j.scans != nil {
			q := gatekeeper.ScanQuestion(ref)
			seen[q], about[q] = true, ref
		}
	}
	questions := make([]string, 0, len(seen))
	for q := range seen {
		questions = append(questions, q)
	}
	slices.Sort(questions)
	answers, err := g.answer(ctx, questions)
	if err != nil {
		return judgement{}, err
	}
	for i, a := range answers {
		switch ref, ok := about[questions[i]]; {
		case ok && a.question.Keys == nil:
			j.scans[ref] = a
		case ok:
			j.signed[ref] = a
		}
	}
	return j, g.decide(ctx, &j, p, bare, fromAnswers(answers))
}

// allQuestions are what policies ask about their manifests.
func (g *global) allQuestions(ctx context.Context, of ...policy) (map[string]bool, error) {
	seen := make(map[string]bool)
	for _, p := range of {
		questions, err := g.questions(ctx, p)
		if err != nil {
			return nil, err
		}
		for _, q := range questions {
			seen[q] = true
		}
	}
	return seen, nil
}

// judges are policies in Gatekeeper's engine, one for each.
type judges struct {
	policies []policy
	engines  []*gatekeeper.Engine
}

func newJudges(ctx context.Context, ask func(context.Context, string, []string) (map[string]any, error), of ...policy) (*judges, error) {
	j := &judges{policies: of}
	for _, p := range of {
		e, err := gatekeeper.New(gatekeeper.Config{Ask: ask})
		if err == nil {
			j.engines = append(j.engines, e)
			err = p.load(ctx, e)
		}
		if err != nil {
			j.close()
			return nil, err
		}
	}
	return j, nil
}

// review judges a Pod under one of the policies.
func (j *judges) review(ctx context.Context, n int, pod *unstructured.Unstructured) (gatekeeper.Decision, error) {
	return j.policies[n].review(ctx, j.engines[n], pod)
}

func (j *judges) close() {
	for _, e := range j.engines {
		e.Close()
	}
}

// decide judges every standing under the constraints, and under the same without
// exemptions.
func (g *global) decide(ctx context.Context, j *judgement, p, bare policy, ask func(context.Context, string, []string) (map[string]any, error)) error {
	both, err := newJudges(ctx, ask, p, bare)
	if err != nil {
		return err
	}
	defer both.close()
	done := g.progress("judged %d of %d kinds of Pods", len(j.standings))
	group := limited()
	for i := range j.standings {
		s := &j.standings[i]
		if s.outside != "" {
			continue
		}
		group.Go(func() error {
			defer done()
			if s.decision, s.err = both.review(ctx, 0, s.pod); s.err != nil {
				return nil
			}
			if s.glass() {
				if s.unglassed, s.err = both.review(ctx, 0, unglassed(s.pod)); s.err != nil {
					return nil
				}
			}
			s.unlifted, s.err = both.review(ctx, 1, unglassed(s.pod))
			return nil
		})
	}
	_ = group.Wait() // each standing has its own error
	return ctx.Err()
}

// alike puts Pods together that no constraint could tell apart.
func (e enforced) alike(pods []*unstructured.Unstructured) []standing {
	named := slices.ContainsFunc(e.constraints, func(c document) bool {
		name, _, _ := unstructured.NestedFieldNoCopy(c.object.Object, "spec", "match", "name")
		return name != nil
	})
	chooses := e.chooses()
	var found []standing
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
			annotations[glassAnnotation], annotations[reasonAnnotation], annotations[untilAnnotation],
		})
		n, ok := at[string(key)]
		if !ok {
			n = len(found)
			at[string(key)] = n
			found = append(found, standing{pod: pod})
		}
		found[n].pods = append(found[n].pods, i)
	}
	return found
}

// chooses returns a function that reports whether a constraint may choose Pods by a
// label.
func (e enforced) chooses() func(label string) bool {
	var text strings.Builder
	for _, c := range e.constraints {
		match, _, _ := unstructured.NestedFieldNoCopy(c.object.Object, "spec", "match")
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

// unlifted are the constraints on images, without what lets an image in as it is.
func (e enforced) unlifted() []document {
	var found []document
	for _, c := range e.constraints {
		if c.object.GetKind() == policies.BreakGlass {
			continue
		}
		object := c.object.DeepCopy()
		unstructured.RemoveNestedField(object.Object, "spec", "parameters", "exemptImages")
		found = append(found, document{file: c.file, object: object})
	}
	return found
}

// exempts reports whether a constraint exempts images.
func (e enforced) exempts() bool {
	return slices.ContainsFunc(e.constraints, func(c document) bool {
		patterns, _, _ := unstructured.NestedSlice(c.object.Object, "spec", "parameters", "exemptImages")
		return len(patterns) > 0
	})
}

// glass reports whether the Pod has the break-glass annotation, whatever it says.
func (s *standing) glass() bool {
	_, ok := s.pod.GetAnnotations()[glassAnnotation]
	return ok
}

func unglassed(pod *unstructured.Unstructured) *unstructured.Unstructured {
	annotations := pod.GetAnnotations()
	if _, ok := annotations[glassAnnotation]; !ok {
		return pod
	}
	pod = pod.DeepCopy()
	delete(annotations, glassAnnotation)
	pod.SetAnnotations(annotations)
	return pod
}

// of are the constraints of a kind.
func (e enforced) of(kind string) []document {
	return slices.DeleteFunc(slices.Clone(e.constraints), func(c document) bool { return c.object.GetKind() != kind })
}

// keys are all that constraints list.
func (e enforced) keys() []string {
	var keys []string
	for _, c := range e.of(policies.SignedImages) {
		listed, _, _ := unstructured.NestedStringSlice(c.object.Object, "spec", "parameters", "keys")
		keys = append(keys, listed...)
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// What becomes of an image in a Pod that is made again, the worst first.
const (
	unknownImage   = "unknown"     // could not be found out
	refusedImage   = "refused"     //
	warnedImage    = "warned"      // let in, and whoever sends it is warned
	glassImage     = "break-glass" // let in by the annotation alone
	exemptImage    = "exempt"      // let in by an exemption alone
	outsideImage   = "not-asked"   // Gatekeeper is not asked about the namespace
	unmatchedImage = "unmatched"   // no constraint is about the Pod
	allowedImage   = "allowed"
)

var imageResults = []string{unknownImage, refusedImage, warnedImage, glassImage, exemptImage, outsideImage, unmatchedImage, allowedImage}

// of says what becomes of an image, and why.
func (s *standing) of(ref string) (string, []violation) {
	switch {
	case s.outside != "":
		return outsideImage, nil
	case s.err != nil:
		return unknownImage, nil
	}
	about := func(action string, from []gatekeeper.Violation) (found []violation) {
		for _, v := range from {
			if v.Details["subject"] == ref {
				found = append(found, violated(action, v))
			}
		}
		return found
	}
	denied := about("deny", s.decision.Denied)
	for _, v := range s.decision.Denied {
		// Against the Pod as a whole, such as a break-glass that has run out.
		if place, _ := v.Details["place"].(string); !strings.Contains(place, "/") {
			denied = append(denied, violated("deny", v))
		}
	}
	warned := append(about("warn", s.decision.Warnings), about("dryrun", s.decision.DryRun)...)
	switch glass, exempt := about("lifted", s.unglassed.Denied), about("lifted", s.unlifted.Denied); {
	case slices.ContainsFunc(denied, func(v violation) bool { return v.Reason == "no-answer" }):
		return unknownImage, denied
	case len(denied) > 0:
		return refusedImage, denied
	case s.unlifted.Constraints == 0:
		return unmatchedImage, nil
	case len(warned) > 0:
		return warnedImage, warned
	case len(glass) > 0:
		return glassImage, glass
	case len(exempt) > 0:
		return exemptImage, exempt
	}
	return allowedImage, nil
}

func violated(action string, v gatekeeper.Violation) violation {
	reason, _ := v.Details["reason"].(string)
	return violation{Kind: v.Kind, Constraint: v.Constraint, Action: action, Reason: reason, Message: v.Message}
}

// brief is a violation without the image and its place, which stand beside it.
func (v violation) brief(ref string) string {
	text := strings.TrimSuffix(v.Message, ": "+ref)
	if place, rest, ok := strings.Cut(text, ": "); ok && strings.Contains(place, "/") {
		text = rest
	}
	return text
}

// title is the object as kubectl names it, with its namespace before it.
func (n objectName) title() string {
	if n.Namespace == "" {
		return n.Kind + "/" + n.Name
	}
	return n.Namespace + "/" + n.Kind + "/" + n.Name
}
