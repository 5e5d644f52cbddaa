package constraint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/policies"
)

// Current is the policy of a cluster, and the constraints that it was read from.
type Current struct {
	// Policy is nil if there is none, or none that is plain.
	Policy *Policy
	// Parts are the constraints that make it up.
	Parts []Part
	// Guards are left of a change that was not made to its end.
	Guards []*unstructured.Unstructured
	// Others are constraints of the same kinds that are no part of it.
	Others []*unstructured.Unstructured
	// Drift are parts that do not say what the policy says, and parts that are
	// missing or too many. The constraint on the signatures of Pods is the policy's
	// word, and the next change brings the others in line.
	Drift []string
	// Unclear says why the constraints cannot be taken for one policy. They were
	// written by hand then, or by another tool, and a change would be a guess.
	Unclear string
}

// Read reads the policy from the constraints of a cluster. If the one on the
// signatures of Pods has the label of the policy, the policy is what has it.
// Otherwise the constraints were written by hand or by another tool, and are the
// policy if they can be taken for one without a doubt.
func Read(objects []*unstructured.Unstructured) Current {
	var labelled, found, guards, others []*unstructured.Unstructured
	for _, o := range objects {
		switch role := Role(o.GetLabels()[Label]); {
		case !slices.Contains(Kinds(), o.GetKind()):
			others = append(others, o)
		case role == Guard:
			guards = append(guards, o)
		default:
			found = append(found, o)
			if role != "" {
				labelled = append(labelled, o)
			}
		}
	}
	ours := slices.ContainsFunc(labelled, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == policies.SignedImages && Role(o.GetLabels()[Label]) == Pods
	})
	if ours {
		others = append(others, slices.DeleteFunc(found, managed)...)
		found = labelled
	}
	c := assemble(found)
	if !ours && c.Policy != nil && len(c.Drift) > 0 {
		c.Unclear = "the constraints differ: " + strings.Join(c.Drift, "; ")
	}
	switch {
	case c.Unclear != "":
		c = Current{Unclear: c.Unclear, Others: found}
	case c.Policy == nil: // what has the label is ours all the same
		for _, p := range c.Parts {
			if !managed(p.Object) {
				c.Others = append(c.Others, p.Object)
			}
		}
		c.Parts = slices.DeleteFunc(c.Parts, func(p Part) bool { return !managed(p.Object) })
	}
	c.Guards = guards
	c.Others = append(c.Others, others...)
	for _, list := range [][]*unstructured.Unstructured{c.Guards, c.Others} {
		slices.SortFunc(list, func(a, b *unstructured.Unstructured) int { return cmp.Compare(Name(a), Name(b)) })
	}
	return c
}

// Apart is the policy without the constraints that somebody wrote himself, whether
// they could be taken for it or not. They are no part of it then.
func Apart(objects []*unstructured.Unstructured) Current {
	c := Read(slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool { return !managed(o) }))
	for _, o := range objects {
		if !managed(o) {
			c.Others = append(c.Others, o)
		}
	}
	return c
}

// roleOf is the role of a constraint among all of the cluster: of its label, or as
// its author may have meant it; "" for none.
func roleOf(o *unstructured.Unstructured, all []*unstructured.Unstructured) Role {
	said := read(o)
	switch {
	case managed(o):
		return Role(o.GetLabels()[Label])
	case !slices.Contains(Modes(), said.action) || field(o, "spec", "match", "name") != nil || said.scope.NamespaceSelector == "?" || said.scope.PodSelector == "?":
		return "" // a scoped one, or one on a single object: the policy has no words for it
	case said.report:
		return Report
	case o.GetKind() == policies.BreakGlass:
		return Pods
	case !matches(o, true):
		return Workloads
	case matches(o, false) && said.action != Deny && slices.ContainsFunc(all, func(other *unstructured.Unstructured) bool {
		return other != o && other.GetKind() == o.GetKind() && matches(other, true) && read(other).action == Deny && !read(other).report
	}):
		return Workloads // a warning about everything beside what denies Pods
	default:
		return Pods
	}
}

// matches reports whether a constraint is about Pods, or about anything else.
func matches(o *unstructured.Unstructured, pods bool) bool {
	list, _ := field(o, "spec", "match", "kinds").([]any)
	if len(list) == 0 {
		return true
	}
	for _, item := range list {
		item, _ := item.(map[string]any)
		groups, _ := item["apiGroups"].([]any)
		kinds, _ := item["kinds"].([]any)
		core := len(groups) == 0 || slices.Contains(groups, any("")) || slices.Contains(groups, any("*"))
		named := len(kinds) == 0 || slices.Contains(kinds, any("Pod")) || slices.Contains(kinds, any("*"))
		only := len(groups) == 1 && groups[0] == "" && len(kinds) == 1 && kinds[0] == "Pod"
		if pods && core && named || !pods && !only {
			return true
		}
	}
	return false
}

// assemble makes a policy of constraints that each have a role.
func assemble(objects []*unstructured.Unstructured) Current {
	var c Current
	by := make(map[place]*unstructured.Unstructured)
	for _, o := range objects {
		at := place{o.GetKind(), roleOf(o, objects)}
		switch {
		case at.role != Pods && at.role != Workloads && at.role != Report:
			c.Others = append(c.Others, o)
		case by[at] != nil:
			c.Unclear = fmt.Sprintf("%s and %s are for the same", Name(by[at]), Name(o))
		default:
			by[at] = o
			c.Parts = append(c.Parts, Part{at.kind, at.role, o})
		}
	}
	main := by[place{policies.SignedImages, Pods}]
	if main == nil || c.Unclear != "" {
		return c
	}
	said := read(main)
	p := Policy{
		Mode: said.action, Keys: said.keys, OtherRegistries: said.otherRegistries, ExemptImages: said.exemptImages,
		Digests: None, BreakGlass: said.breakGlass, Scope: said.scope, Provider: said.provider,
		WarnWorkloads: by[place{policies.SignedImages, Workloads}] != nil,
	}
	if digests := by[place{policies.ImageDigests, Pods}]; digests != nil {
		p.Digests = read(digests).registries
	}
	if rules := by[place{policies.BreakGlass, Pods}]; rules != nil {
		r := read(rules).rules
		r.Report = by[place{policies.BreakGlass, Report}] != nil
		p.BreakGlassRules = &r
	}
	c.Policy = &p
	if !said.hasKeys {
		c.Drift = append(c.Drift, Name(main)+" has no readable keys, and refuses every image that needs one")
	}
	wanted := p.places()
	slices.SortFunc(c.Parts, func(a, b Part) int { return slices.Index(wanted, a.place()) - slices.Index(wanted, b.place()) })
	for _, part := range c.Parts {
		if !slices.Contains(wanted, part.place()) {
			c.Drift = append(c.Drift, Name(part.Object)+" is too many")
			continue
		}
		o := part.Object.DeepCopy()
		if p.write(part.place(), o); !same(o, part.Object) {
			c.Drift = append(c.Drift, fmt.Sprintf("%s says otherwise than %s", Name(part.Object), Name(main)))
		}
	}
	for _, at := range wanted {
		if by[at] == nil && (managed(main) || at.role != Report) {
			c.Drift = append(c.Drift, fmt.Sprintf("%s/%s is missing", at.kind, at.name()))
		}
	}
	return c
}
