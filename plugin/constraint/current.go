package constraint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/policies"
)

// Current is the policy of a cluster, and the constraints that hold it.
type Current struct {
	// Policy is nil without a policy, or if Unclear says why.
	Policy *Policy
	// Parts are the constraints of the policy.
	Parts []Part
	// Guards are left from a change that stopped in the middle.
	Guards []*unstructured.Unstructured
	// Others are constraints of the same kinds that are not part of the policy.
	Others []*unstructured.Unstructured
	// Drift names parts that differ from the policy, and parts that are missing or not
	// needed. The constraint on the signatures of Pods defines the policy, and the next
	// change adapts the others.
	Drift []string
	// Unclear is why the constraints do not form one policy. Somebody wrote them by hand
	// or with another tool, and a change would be a guess.
	Unclear string
}

// Read reads the policy from the constraints of a cluster. If the constraint on the
// signatures of Pods has the label, the labelled constraints are the policy. Otherwise
// somebody wrote the constraints by hand or with another tool. They are the policy only if
// they form exactly one.
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
	case c.Policy == nil: // labelled constraints stay parts
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

// Apart reads the policy from labelled constraints only. All other constraints are Others.
func Apart(objects []*unstructured.Unstructured) Current {
	c := Read(slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool { return !managed(o) }))
	for _, o := range objects {
		if !managed(o) {
			c.Others = append(c.Others, o)
		}
	}
	return c
}

// roleOf returns the role of a constraint: by its label, or by its content and the other
// constraints. It is "" for a constraint without a role.
func roleOf(o *unstructured.Unstructured, all []*unstructured.Unstructured) Role {
	said := read(o)
	switch {
	case managed(o):
		return Role(o.GetLabels()[Label])
	case !slices.Contains(Modes(), said.action) || field(o, "spec", "match", "name") != nil || said.scope.NamespaceSelector == "?" || said.scope.PodSelector == "?":
		return "" // scoped, or for a single object: a policy cannot express it
	case said.report:
		return Report
	case o.GetKind() == policies.BreakGlass:
		return Pods
	case !matches(o, true):
		return Workloads
	case matches(o, false) && said.action != Deny && slices.ContainsFunc(all, func(other *unstructured.Unstructured) bool {
		return other != o && other.GetKind() == o.GetKind() && matches(other, true) && read(other).action == Deny && !read(other).report
	}):
		return Workloads // it warns of everything, beside a constraint that denies Pods
	default:
		return Pods
	}
}

// matches reports whether a constraint matches Pods, or any other kind.
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

// assemble makes a policy of constraints with roles.
func assemble(objects []*unstructured.Unstructured) Current {
	var c Current
	by := make(map[slot]*unstructured.Unstructured)
	for _, o := range objects {
		at := slot{o.GetKind(), roleOf(o, objects)}
		switch {
		case at.role != Pods && at.role != Workloads && at.role != Report:
			c.Others = append(c.Others, o)
		case by[at] != nil:
			c.Unclear = fmt.Sprintf("%s and %s have the same role", Name(by[at]), Name(o))
		default:
			by[at] = o
			c.Parts = append(c.Parts, Part{at.kind, at.role, o})
		}
	}
	main := by[slot{policies.SignedImages, Pods}]
	if main == nil || c.Unclear != "" {
		return c
	}
	said := read(main)
	p := Policy{
		Mode: said.action, Keys: said.keys, OtherRegistries: said.otherRegistries, ExemptImages: said.exemptImages,
		Exemptions: said.exemptions, Revoked: said.revoked,
		Digests: None, BreakGlass: said.breakGlass, Scope: said.scope, Provider: said.provider,
		WarnWorkloads: by[slot{policies.SignedImages, Workloads}] != nil || !managed(main) && by[slot{policies.ImageDigests, Workloads}] != nil,
	}
	if digests := by[slot{policies.ImageDigests, Pods}]; digests != nil {
		p.Digests = read(digests).registries
	}
	if rules := by[slot{policies.BreakGlass, Pods}]; rules != nil {
		r := read(rules).rules
		r.Report = by[slot{policies.BreakGlass, Report}] != nil
		p.BreakGlassRules = &r
	}
	c.Policy = &p
	if !said.hasKeys {
		c.Drift = append(c.Drift, Name(main)+" has no readable keys, and denies every image that needs a signature")
	}
	wanted := p.slots()
	slices.SortFunc(c.Parts, func(a, b Part) int { return slices.Index(wanted, a.slot()) - slices.Index(wanted, b.slot()) })
	for _, part := range c.Parts {
		if !slices.Contains(wanted, part.slot()) {
			c.Drift = append(c.Drift, Name(part.Object)+" is not needed")
			continue
		}
		o := part.Object.DeepCopy()
		if p.write(part.slot(), o); !same(o, part.Object) {
			c.Drift = append(c.Drift, fmt.Sprintf("%s differs from %s", Name(part.Object), Name(main)))
		}
	}
	for _, at := range wanted {
		// Authors of other constraints need not warn of all that the policy denies.
		if by[at] == nil && managed(main) {
			c.Drift = append(c.Drift, fmt.Sprintf("%s/%s is missing", at.kind, at.name()))
		}
	}
	return c
}
