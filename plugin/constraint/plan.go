package constraint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/policies"
)

// Step creates, changes or deletes one constraint. Old is nil for a new constraint, New is
// nil for a deleted one.
type Step struct {
	Old, New *unstructured.Unstructured
}

// Object returns the constraint after the step, or before a deletion.
func (s Step) Object() *unstructured.Unstructured {
	if s.New == nil {
		return s.Old
	}
	return s.New
}

// Plan returns the steps from the constraints of a cluster to a policy, or to no policy if
// policy is nil. Between the steps, the cluster never admits anything that both the old and
// the new policy deny: steps that deny more come first, and steps that deny less come last.
// If several constraints change in both ways, copies of the old ones stay as guards until
// the last step.
//
// Gatekeeper needs some seconds to follow each step.
func (c Current) Plan(policy *Policy) []Step {
	var ordered [4][]Step // that deny more, both more and less, less, the same
	add := func(s Step) {
		at := 3
		switch more, less := s.effect(); {
		case more && less:
			at = 1
		case more:
			at = 0
		case less:
			at = 2
		}
		ordered[at] = append(ordered[at], s)
	}
	var wanted []slot
	var adopted []Step
	if policy != nil {
		wanted = policy.slots()
		adopted = c.adopt()
	}
	parts := slices.Clone(c.Parts)
	for _, s := range adopted {
		i := slices.IndexFunc(parts, func(p Part) bool { return p.Object == s.Old })
		parts[i].Object = s.New
	}
	for _, at := range wanted {
		i := slices.IndexFunc(parts, func(p Part) bool { return p.slot() == at })
		if i < 0 {
			add(Step{New: policy.fresh(at)})
			continue
		}
		o := parts[i].Object.DeepCopy()
		if policy.write(at, o); !same(o, parts[i].Object) {
			add(Step{Old: parts[i].Object, New: o})
		}
	}
	for _, part := range parts {
		if !slices.Contains(wanted, part.slot()) {
			add(Step{Old: part.Object})
		}
	}
	var guards []Step
	if mixed := ordered[1]; len(mixed) > 1 {
		for _, s := range mixed {
			if !slices.ContainsFunc(c.Guards, func(g *unstructured.Unstructured) bool { return g.GetKind() == s.Old.GetKind() }) {
				guards = append(guards, Step{New: guard(s.Old)})
			}
		}
	}
	steps := slices.Concat(adopted, guards, ordered[0], ordered[1], ordered[2], ordered[3])
	for _, s := range guards {
		steps = append(steps, Step{Old: s.New})
	}
	for _, o := range c.Guards {
		steps = append(steps, Step{Old: o})
	}
	return steps
}

// After returns the constraints after a change to the given policy. A nil policy has no
// constraints.
func (c Current) After(policy *Policy) []*unstructured.Unstructured {
	if policy == nil {
		return nil
	}
	objects := make([]*unstructured.Unstructured, len(c.Parts))
	for i, p := range c.Parts {
		objects[i] = p.Object
	}
	for _, s := range Merged(c.Plan(policy)) {
		if s.Old != nil {
			objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return Name(o) == Name(s.Old) })
		}
		if s.New != nil && !s.Guards() {
			objects = append(objects, s.New)
		}
	}
	slots := policy.slots()
	slices.SortStableFunc(objects, func(a, b *unstructured.Unstructured) int {
		at := func(o *unstructured.Unstructured) int {
			return slices.Index(slots, slot{o.GetKind(), Role(o.GetLabels()[Label])})
		}
		return at(a) - at(b)
	})
	return objects
}

// adopt labels the policy's constraints that have no label. Otherwise they would not form
// one policy in the middle of a change, when they differ. The constraint on the signatures
// of Pods gets its label last, because the label counts from then on.
func (c Current) adopt() []Step {
	var steps []Step
	for _, p := range slices.Backward(c.Parts) {
		if !managed(p.Object) {
			o := p.Object.DeepCopy()
			labels := o.GetLabels()
			if labels == nil {
				labels = make(map[string]string)
			}
			labels[Label] = string(p.Role)
			o.SetLabels(labels)
			steps = append(steps, Step{Old: p.Object, New: o})
		}
	}
	return steps
}

// Merged returns the steps with one step for each constraint, in the order of their first
// steps. It skips guards that the change itself creates and deletes.
func Merged(steps []Step) []Step {
	var merged []Step
	for _, s := range steps {
		i := slices.IndexFunc(merged, func(m Step) bool { return Name(m.Object()) == Name(s.Object()) })
		switch {
		case s.Guards() && (s.Old == nil || s.Old.GetUID() == ""):
		case i < 0:
			merged = append(merged, s)
		default:
			merged[i].New = s.New
		}
	}
	return merged
}

func guard(o *unstructured.Unstructured) *unstructured.Unstructured {
	g := Manifest(o)
	g.SetName(slot{o.GetKind(), Guard}.name())
	g.SetLabels(map[string]string{Label: string(Guard)})
	g.SetAnnotations(nil)
	return g
}

// Guards reports whether the step creates or deletes a guard.
func (s Step) Guards() bool { return s.Object().GetLabels()[Label] == string(Guard) }

// effect reports whether a step makes the cluster deny more, and whether it makes the
// cluster deny less. Both can be true.
func (s Step) effect() (more, less bool) {
	switch {
	case s.Old == nil:
		return read(s.New).action == Deny, false
	case s.New == nil:
		return false, read(s.Old).action == Deny
	default:
		return compare(s.Old.GetKind(), read(s.Old), read(s.New))
	}
}

// Denies reports whether the policy could deny anything that the policy before admits. A
// nil before admits everything.
func (p Policy) Denies(before *Policy) bool {
	if p.Mode != Deny {
		return false
	}
	if before == nil {
		return true
	}
	for _, at := range p.slots() {
		if at.role != Pods {
			continue
		}
		if !slices.Contains(before.slots(), at) {
			return true
		}
		if more, _ := compare(at.kind, read(before.fresh(at)), read(p.fresh(at))); more {
			return true
		}
	}
	return false
}

// compare reports whether a change of a constraint's content denies more, and whether it
// denies less. Where that depends on the images, both are true.
func compare(kind string, old, now part) (more, less bool) {
	if old.action != Deny || now.action != Deny {
		return old.action != Deny && now.action == Deny, old.action == Deny && now.action != Deny
	}
	note := func(m, l bool) { more, less = more || m, less || l }
	// A wider scope denies more. An empty list means everything.
	widened := func(old, now []string) (bool, bool) {
		switch {
		case sameSet(old, now):
			return false, false
		case len(old) == 0:
			return false, true
		case len(now) == 0:
			return true, false
		}
		return !within(now, old), !within(old, now)
	}
	chosen := func(old, now string) (bool, bool) {
		return old != now && old != "", old != now && now != ""
	}
	note(widened(old.scope.Namespaces, now.scope.Namespaces))
	note(!within(old.scope.ExcludedNamespaces, now.scope.ExcludedNamespaces), !within(now.scope.ExcludedNamespaces, old.scope.ExcludedNamespaces))
	note(chosen(old.scope.NamespaceSelector, now.scope.NamespaceSelector))
	note(chosen(old.scope.PodSelector, now.scope.PodSelector))

	// A longer list of exceptions denies less.
	allowed := func(old, now []string) { note(!within(old, now), !within(now, old)) }
	word := func(old, now, strict string) { note(old != now && now == strict, old != now && old == strict) }
	// An empty list admits everything.
	anybody := func(old, now []string) {
		m, l := widened(old, now)
		note(l, m)
	}
	switch kind {
	case policies.SignedImages:
		anybody(keysOf(old), keysOf(now))
		word(old.otherRegistries, now.otherRegistries, Refuse)
		word(old.breakGlass, now.breakGlass, Ignore)
		allowed(old.exemptImages, now.exemptImages)
		allowed(described(old.exemptions), described(now.exemptions))
		allowed(described(now.revoked), described(old.revoked))
		note(old.provider != now.provider, old.provider != now.provider)
	case policies.ImageDigests:
		word(old.registries, now.registries, All)
		word(old.breakGlass, now.breakGlass, Ignore)
		allowed(old.exemptImages, now.exemptImages)
		allowed(described(old.exemptions), described(now.exemptions))
	case policies.BreakGlass:
		anybody(who(old), who(now))
		note(now.rules.RequireReason && !old.rules.RequireReason, old.rules.RequireReason && !now.rules.RequireReason)
		note(now.rules.RequireDigest && !old.rules.RequireDigest, old.rules.RequireDigest && !now.rules.RequireDigest)
		before, after := longest(old), longest(now)
		note(after < before, after > before)
	}
	return more, less
}

// keysOf returns the keys of a constraint. A missing list admits nothing, unlike an empty
// one, so keysOf returns a key that signs nothing for it.
func keysOf(p part) []string {
	if !p.hasKeys {
		return []string{"none"}
	}
	return p.keys
}

func who(p part) []string {
	var list []string
	for kind, names := range map[string][]string{"user ": p.rules.Users, "group ": p.rules.Groups, "account ": p.rules.ServiceAccounts} {
		for _, name := range names {
			list = append(list, kind+name)
		}
	}
	return list
}

func longest(p part) time.Duration {
	if p.rules.MaxDuration == "" {
		return 1<<63 - 1
	}
	d, _ := time.ParseDuration(p.rules.MaxDuration) // an invalid duration counts as 0
	return d
}

// within reports whether all of a is in b.
func within(a, b []string) bool {
	set := setOf(b)
	return !slices.ContainsFunc(a, func(s string) bool { return !set[s] })
}

// Manifest returns a constraint without the fields that the API server and Gatekeeper add.
func Manifest(o *unstructured.Unstructured) *unstructured.Unstructured {
	o = o.DeepCopy()
	delete(o.Object, "status")
	for _, name := range []string{"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "selfLink"} {
		unstructured.RemoveNestedField(o.Object, "metadata", name)
	}
	annotations := o.GetAnnotations()
	delete(annotations, "kubectl.kubernetes.io/last-applied-configuration")
	o.SetAnnotations(annotations)
	return o
}

// Same reports whether two states of a constraint are equal without their status.
// Gatekeeper writes the status often, and that is not an edit.
func Same(a, b *unstructured.Unstructured) bool { return same(a, b) && a.GetUID() == b.GetUID() }

func same(a, b *unstructured.Unstructured) bool {
	return equality.Semantic.DeepEqual(Manifest(a).Object, Manifest(b).Object)
}

// ManagerOf returns the tool that manages a constraint from a file, or "". The tool
// undoes changes in the cluster.
func ManagerOf(o *unstructured.Unstructured) string {
	if by := o.GetLabels()["app.kubernetes.io/managed-by"]; by != "" {
		return by
	}
	for _, names := range []map[string]string{o.GetLabels(), o.GetAnnotations()} {
		for name := range names {
			for prefix, manager := range map[string]string{"argocd.argoproj.io/": "Argo CD", "kustomize.toolkit.fluxcd.io/": "Flux", "helm.toolkit.fluxcd.io/": "Flux"} {
				if strings.HasPrefix(name, prefix) {
					return manager
				}
			}
		}
	}
	return ""
}

// Resource returns the API resource of a kind of constraints.
func Resource(kind string) string { return strings.ToLower(kind) }

// String returns the step in words.
func (s Step) String() string {
	switch {
	case s.Old == nil:
		return fmt.Sprintf("create %s", Name(s.New))
	case s.New == nil:
		return fmt.Sprintf("delete %s", Name(s.Old))
	default:
		return fmt.Sprintf("change %s", Name(s.New))
	}
}
