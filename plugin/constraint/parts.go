package constraint

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/oke-sign/oke-sign/policies"
)

// Label marks a constraint as part of the image policy. Its value is the role of the part.
const Label = "oke-sign.dev/policy"

// Group and Version are the API group and version of all constraints.
const (
	Group   = "constraints.gatekeeper.sh"
	Version = "v1beta1"
)

// Role is what a constraint does in the policy. A policy has at most one constraint of
// each kind and role.
type Role string

// Roles.
const (
	Pods      Role = "pods"      // checks Pods, or limits who may use break-glass
	Workloads Role = "workloads" // warns of workloads whose Pods would be denied
	Report    Role = "report"    // warns of images that are admitted without a signature
	// Guard is a copy of a constraint that exists while the constraint changes.
	Guard Role = "guard"
)

// Part is a constraint of the policy.
type Part struct {
	Kind   string // of the constraint
	Role   Role
	Object *unstructured.Unstructured
}

// Name returns a constraint's kind and name, as kubectl shows them.
func Name(o *unstructured.Unstructured) string { return o.GetKind() + "/" + o.GetName() }

// slot is the kind and the role of a part.
type slot struct {
	kind string
	role Role
}

func (p Part) slot() slot { return slot{p.Kind, p.Role} }

// name returns the name of a new constraint. Denials show it.
func (p slot) name() string {
	if p.role == Pods {
		return "image-policy"
	}
	return "image-policy-" + string(p.role)
}

// slots returns the parts of a policy. Those that deny come first.
func (p Policy) slots() []slot {
	list := []slot{{policies.SignedImages, Pods}}
	if p.Digests != None {
		list = append(list, slot{policies.ImageDigests, Pods})
	}
	if p.BreakGlassRules != nil {
		list = append(list, slot{policies.BreakGlass, Pods})
	}
	if p.WarnWorkloads {
		list = append(list, slot{policies.SignedImages, Workloads})
		if p.Digests != None {
			list = append(list, slot{policies.ImageDigests, Workloads})
		}
	}
	if len(p.Keys) == 0 {
		list = append(list, slot{policies.SignedImages, Report})
	}
	if p.BreakGlassRules != nil && p.BreakGlassRules.Report {
		list = append(list, slot{policies.BreakGlass, Report})
	}
	return list
}

// Kinds returns the kinds of constraints in a policy.
func Kinds() []string {
	return []string{policies.SignedImages, policies.ImageDigests, policies.BreakGlass}
}

// Constraints returns new constraints that hold the policy.
func (p Policy) Constraints() []*unstructured.Unstructured {
	var list []*unstructured.Unstructured
	for _, at := range p.slots() {
		list = append(list, p.fresh(at))
	}
	return list
}

func (p Policy) fresh(at slot) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{}}
	o.SetAPIVersion(Group + "/" + Version)
	o.SetKind(at.kind)
	o.SetName(at.name())
	o.SetLabels(map[string]string{Label: string(at.role)})
	set(o, kinds(at), "spec", "match", "kinds")
	set(o, p.action(at.role), "spec", "enforcementAction")
	// Defaults are written, too, so that readers see them.
	parameters := map[string]any{}
	switch at.kind {
	case policies.SignedImages:
		parameters = map[string]any{"otherRegistries": p.OtherRegistries, "breakGlass": p.BreakGlass, "provider": p.Provider}
	case policies.ImageDigests:
		parameters = map[string]any{"registries": p.Digests, "breakGlass": p.BreakGlass}
	}
	set(o, parameters, "spec", "parameters")
	p.write(at, o)
	return o
}

// action returns what a part does about violations. Parts for workloads and reports never
// deny.
func (p Policy) action(role Role) string {
	if role != Pods && p.Mode == Deny {
		return Warn
	}
	return p.Mode
}

// kinds returns the kinds that a part matches.
func kinds(at slot) []any {
	pods := map[string]any{"apiGroups": []any{""}, "kinds": []any{"Pod"}}
	apps := []any{"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"}
	if at.kind == policies.BreakGlass {
		// A StatefulSet makes Pods from its old revisions. A warning would repeat
		// that of the StatefulSet itself.
		apps = append([]any{"ControllerRevision"}, apps...)
	}
	workloads := []any{
		map[string]any{"apiGroups": []any{""}, "kinds": []any{"PodTemplate", "ReplicationController"}},
		map[string]any{"apiGroups": []any{"apps"}, "kinds": apps},
		map[string]any{"apiGroups": []any{"batch"}, "kinds": []any{"CronJob", "Job"}},
	}
	switch {
	case at.kind == policies.BreakGlass:
		// OKEBreakGlass must match workloads, too: otherwise a Deployment's controller
		// uses break-glass for a user who may not.
		return append([]any{pods}, workloads...)
	case at.role == Workloads:
		return workloads
	default:
		return []any{pods}
	}
}

// covers reports whether a constraint matches all of the kinds.
func covers(o *unstructured.Unstructured, kinds []any) bool {
	matched, _ := field(o, "spec", "match", "kinds").([]any)
	has := func(item any, list, name string) bool {
		fields, _ := item.(map[string]any)
		names, _ := fields[list].([]any)
		return len(names) == 0 || slices.Contains(names, any(name)) || slices.Contains(names, any("*"))
	}
	for _, item := range kinds {
		wanted := &unstructured.Unstructured{Object: item.(map[string]any)}
		for _, group := range texts(wanted, "apiGroups") {
			for _, kind := range texts(wanted, "kinds") {
				if len(matched) > 0 && !slices.ContainsFunc(matched, func(m any) bool { return has(m, "apiGroups", group) && has(m, "kinds", kind) }) {
					return false
				}
			}
		}
	}
	return true
}

// write changes a constraint so that it holds the policy. It changes only fields that
// differ. It does not change other criteria of the match, or parameters that the policy
// does not know.
func (p Policy) write(at slot, o *unstructured.Unstructured) {
	old := read(o)
	if action := p.action(at.role); old.action != action {
		set(o, action, "spec", "enforcementAction")
	}
	// The match may be wider than necessary, but not narrower. Authors of other
	// constraints choose the workloads that they warn of.
	if (managed(o) || at.role == Pods) && !covers(o, kinds(at)) {
		set(o, kinds(at), "spec", "match", "kinds")
	}
	scope := p.Scope
	if at.kind == policies.BreakGlass {
		// A Deployment need not have the labels of its Pods, and a selector would skip it.
		scope.PodSelector = ""
	}
	list(o, scope.Namespaces, "spec", "match", "namespaces")
	list(o, scope.ExcludedNamespaces, "spec", "match", "excludedNamespaces")
	selector(o, scope.NamespaceSelector, "spec", "match", "namespaceSelector")
	selector(o, scope.PodSelector, "spec", "match", "labelSelector")

	parameter := func(old, wanted, name string) {
		if old != wanted {
			set(o, wanted, "spec", "parameters", name)
		}
	}
	switch at.kind {
	case policies.SignedImages:
		if !sameSet(old.keys, p.Keys) || !old.hasKeys {
			set(o, anys(p.Keys), "spec", "parameters", "keys")
		}
		parameter(old.otherRegistries, p.OtherRegistries, "otherRegistries")
		parameter(old.breakGlass, p.BreakGlass, "breakGlass")
		parameter(old.provider, p.Provider, "provider")
		list(o, p.ExemptImages, "spec", "parameters", "exemptImages")
		entries(o, p.Exemptions, "spec", "parameters", "exemptions")
		entries(o, p.Revoked, "spec", "parameters", "revoked")
	case policies.ImageDigests:
		parameter(old.registries, p.Digests, "registries")
		parameter(old.breakGlass, p.BreakGlass, "breakGlass")
		list(o, p.ExemptImages, "spec", "parameters", "exemptImages")
		entries(o, p.Exemptions, "spec", "parameters", "exemptions")
	case policies.BreakGlass:
		rules := p.BreakGlassRules
		if at.role == Report {
			rules = &BreakGlassRules{} // it only counts
		}
		list(o, rules.Users, "spec", "parameters", "users")
		list(o, rules.Groups, "spec", "parameters", "groups")
		list(o, rules.ServiceAccounts, "spec", "parameters", "serviceAccounts")
		if old.rules.RequireReason != rules.RequireReason {
			set(o, rules.RequireReason, "spec", "parameters", "requireReason")
		}
		if old.rules.RequireDigest != rules.RequireDigest {
			set(o, rules.RequireDigest, "spec", "parameters", "requireDigest")
		}
		if old.rules.MaxDuration != rules.MaxDuration {
			set(o, rules.MaxDuration, "spec", "parameters", "maxDuration")
			if rules.MaxDuration == "" {
				unstructured.RemoveNestedField(o.Object, "spec", "parameters", "maxDuration")
			}
		}
	}
	if at.kind != policies.ImageDigests && old.report != (at.role == Report) {
		set(o, at.role == Report, "spec", "parameters", "report")
	}
}

// part is the content of one constraint, with defaults.
type part struct {
	action          string
	scope           Scope
	keys            []string
	hasKeys         bool
	otherRegistries string
	exemptImages    []string
	exemptions      []Exemption
	revoked         []Revocation
	breakGlass      string
	provider        string
	registries      string
	rules           BreakGlassRules
	report          bool
}

func read(o *unstructured.Unstructured) part {
	text := func(name, otherwise string) string {
		s, _, _ := unstructured.NestedString(o.Object, "spec", "parameters", name)
		return cmp.Or(s, otherwise)
	}
	flag := func(name string) bool {
		b, _, _ := unstructured.NestedBool(o.Object, "spec", "parameters", name)
		return b
	}
	action, _, _ := unstructured.NestedString(o.Object, "spec", "enforcementAction")
	_, hasKeys := field(o, "spec", "parameters", "keys").([]any)
	return part{
		action: cmp.Or(action, Deny),
		scope: Scope{
			Namespaces:         texts(o, "spec", "match", "namespaces"),
			ExcludedNamespaces: texts(o, "spec", "match", "excludedNamespaces"),
			NamespaceSelector:  selected(o, "spec", "match", "namespaceSelector"),
			PodSelector:        selected(o, "spec", "match", "labelSelector"),
		},
		keys: unique(texts(o, "spec", "parameters", "keys")), hasKeys: hasKeys,
		otherRegistries: text("otherRegistries", Refuse),
		exemptImages:    texts(o, "spec", "parameters", "exemptImages"),
		exemptions:      readEntries[Exemption](o, "spec", "parameters", "exemptions"),
		revoked:         readEntries[Revocation](o, "spec", "parameters", "revoked"),
		breakGlass:      text("breakGlass", Honor),
		provider:        text("provider", "oke-sign"),
		registries:      text("registries", All),
		rules: BreakGlassRules{
			Users:           texts(o, "spec", "parameters", "users"),
			Groups:          texts(o, "spec", "parameters", "groups"),
			ServiceAccounts: texts(o, "spec", "parameters", "serviceAccounts"),
			RequireReason:   flag("requireReason"),
			RequireDigest:   flag("requireDigest"),
			MaxDuration:     text("maxDuration", ""),
		},
		report: flag("report"),
	}
}

func managed(o *unstructured.Unstructured) bool { return o.GetLabels()[Label] != "" }

func field(o *unstructured.Unstructured, path ...string) any {
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, path...)
	return value
}

// set sets a field. It replaces values on the path that are not objects: such a constraint
// is broken, and set repairs it.
func set(o *unstructured.Unstructured, value any, path ...string) {
	at := o.Object
	for _, name := range path[:len(path)-1] {
		next, ok := at[name].(map[string]any)
		if !ok {
			next = make(map[string]any)
			at[name] = next
		}
		at = next
	}
	at[path[len(path)-1]] = value
}

// list sets a list if it differs as a set. It removes the field for an empty list.
func list(o *unstructured.Unstructured, values []string, path ...string) {
	switch {
	case sameSet(texts(o, path...), values):
	case len(values) == 0:
		unstructured.RemoveNestedField(o.Object, path...)
	default:
		set(o, anys(values), path...)
	}
}

// entries sets a list of objects if it differs. It removes the field for an empty list.
func entries[T any](o *unstructured.Unstructured, values []T, path ...string) {
	switch {
	case slices.Equal(described(readEntries[T](o, path...)), described(values)):
	case len(values) == 0:
		unstructured.RemoveNestedField(o.Object, path...)
	default:
		var value []any
		text, _ := json.Marshal(values) // structs of texts convert without an error
		_ = json.Unmarshal(text, &value)
		set(o, value, path...)
	}
}

// readEntries reads a list of objects. It skips entries that are not of the type.
func readEntries[T any](o *unstructured.Unstructured, path ...string) []T {
	values, _ := field(o, path...).([]any)
	var list []T
	for _, v := range values {
		var entry T
		text, err := json.Marshal(v)
		if err == nil && json.Unmarshal(text, &entry) == nil {
			list = append(list, entry)
		}
	}
	return list
}

// described returns each entry as text, for comparisons.
func described[T any](values []T) []string {
	var list []string
	for _, v := range values {
		text, _ := json.Marshal(v)
		list = append(list, string(text))
	}
	return list
}

func selector(o *unstructured.Unstructured, text string, path ...string) {
	parsed, err := metav1.ParseToLabelSelector(text)
	if err != nil {
		return // Validate has rejected it before
	}
	switch {
	case selected(o, path...) == format(parsed):
	case format(parsed) == "":
		unstructured.RemoveNestedField(o.Object, path...)
	default:
		// A selector converts without an error.
		value, _ := runtime.DefaultUnstructuredConverter.ToUnstructured(parsed)
		set(o, value, path...)
	}
}

// selected returns a label selector as text, "" if it selects everything.
func selected(o *unstructured.Unstructured, path ...string) string {
	value, ok := field(o, path...).(map[string]any)
	if !ok {
		return ""
	}
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(value, &s); err != nil {
		return "?" // not a valid selector
	}
	return format(&s)
}

func format(s *metav1.LabelSelector) string {
	if len(s.MatchLabels)+len(s.MatchExpressions) == 0 {
		return ""
	}
	return metav1.FormatLabelSelector(s)
}

func texts(o *unstructured.Unstructured, path ...string) []string {
	values, _ := field(o, path...).([]any)
	var list []string
	for _, v := range values {
		if s, ok := v.(string); ok {
			list = append(list, s)
		}
	}
	return list
}

func anys(list []string) []any {
	values := make([]any, len(list))
	for i, s := range list {
		values[i] = s
	}
	return values
}

func unique(list []string) []string {
	var once []string
	for _, s := range list {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

func setOf(list []string) map[string]bool {
	set := make(map[string]bool, len(list))
	for _, s := range list {
		set[s] = true
	}
	return set
}

func sameSet(a, b []string) bool { return maps.Equal(setOf(a), setOf(b)) }
