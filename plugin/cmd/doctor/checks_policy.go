package doctor

import (
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

func checkTemplates(f *facts) []finding {
	if f.templates.err != nil {
		return []finding{unknown(f.templates.err)}
	}
	var found []finding
	for _, kind := range policies.Kinds() {
		apply := "kubectl apply -f policies/" + strings.ToLower(kind) + "/template.yaml"
		i := slices.IndexFunc(f.templates.is, func(t unstructured.Unstructured) bool { return t.GetName() == strings.ToLower(kind) })
		if i < 0 {
			if kind == policies.SignedImages {
				found = append(found, fails(apply, "%s is not installed", kind))
			}
			continue
		}
		t := f.templates.is[i]
		errs := statusErrors(t)
		created, _, _ := unstructured.NestedBool(t.Object, "status", "created")
		same, recorded := sameCode(t, kind)
		switch {
		case len(errs) > 0:
			found = append(found, fails(apply, "Gatekeeper cannot use %s: %s", kind, errs[0]))
		case !created:
			found = append(found, fails(apply, "Gatekeeper has not loaded %s", kind))
		case recorded && !same:
			found = append(found, fails(apply, "%s is the template for recorded verdicts in CI: in a cluster it denies every image that needs a verdict", kind))
		case !same:
			found = append(found, warns(apply, "%s is not the template of this release", kind))
		default:
			found = append(found, holds("%s", kind))
		}
	}
	return found
}

// sameCode reports whether a template has the Rego of this release, and whether it has
// the Rego for recorded verdicts.
func sameCode(t unstructured.Unstructured, kind string) (same, recorded bool) {
	is := func(embedded embed.FS, file string) bool {
		text, err := embedded.ReadFile(file)
		if err != nil {
			return false
		}
		object, err := manifest.Object(text)
		return err == nil && reflect.DeepEqual(sources(object.Object), sources(t.Object))
	}
	folder := strings.ToLower(kind)
	return is(policies.Templates, folder+"/template.yaml"), is(policies.Recorded, folder+"/recorded/template.yaml")
}

func sources(template map[string]any) (found []any) {
	targets, _, _ := unstructured.NestedSlice(template, "spec", "targets")
	for _, target := range targets {
		target, _ := target.(map[string]any)
		found = append(found, target["code"], target["rego"], target["libs"], target["operations"])
	}
	return found
}

func checkEffect(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{unknown(f.constraints.err)}
	}
	var signed, denying, reaching []unstructured.Unstructured
	var found []finding
	for _, c := range f.constraints.is {
		if c.GetKind() == policies.ImageDigests && deniesImages(c) {
			found = append(found, checkReach(f, c)...)
		}
		if c.GetKind() != policies.SignedImages {
			continue
		}
		signed = append(signed, c)
		if !deniesPods(c) {
			found = append(found, checkKinds(c)...)
			continue
		}
		denying = append(denying, c)
		if r := f.reach[constraint.Name(&c)]; r.err == nil && r.is.Why() == "" {
			reaching = append(reaching, c)
		}
		found = append(found, checkList(c)...)
		found = append(found, checkReach(f, c)...)
	}
	switch {
	case len(signed) == 0:
		return append([]finding{fails("kubectl oke-sign policy set --key KEY", "no constraint requires signatures")}, found...)
	case len(denying) == 0:
		return append([]finding{fails("set enforcementAction: deny in a constraint that matches Pods, with kubectl edit okesignedimages", "%s of kind OKESignedImages, but none denies Pods", cli.Count(len(signed), "constraint"))}, found...)
	case len(reaching) == 0:
		return worst(found)
	}
	var names []string
	for _, c := range reaching {
		names = append(names, c.GetName())
	}
	return append([]finding{holds("%s denies Pods", strings.Join(names, ", "))}, found...)
}

// worst makes failures of the warnings that a constraint covers no Pod that runs. Without
// another constraint, nothing that runs is checked.
func worst(found []finding) []finding {
	for i := range found {
		if found[i].idle {
			found[i].State = stateFails
		}
	}
	return found
}

// edit returns the command that changes a constraint.
func edit(c unstructured.Unstructured) string {
	if c.GetLabels()[constraint.Label] != "" {
		return "kubectl oke-sign policy edit"
	}
	return "kubectl edit " + strings.ToLower(c.GetKind()) + "/" + c.GetName()
}

// checkKinds finds a constraint that denies neither Pods nor anything that makes Pods.
func checkKinds(c unstructured.Unstructured) []finding {
	makesPods := func(k podKind) bool { return enforcement.MatchesKind(c, k.group, k.kind) }
	if !enforcement.ActsAt(c, "deny") || slices.ContainsFunc(breakGlassKinds, makesPods) {
		return nil
	}
	return []finding{fails(edit(c), "%s applies to no Pod: spec.match.kinds includes neither Pods nor workloads", constraint.Name(&c))}
}

// checkList finds a constraint on signatures that admits all images, or no image.
func checkList(c unstructured.Unstructured) []finding {
	switch keys, listed, _ := unstructured.NestedSlice(c.Object, "spec", "parameters", "keys"); {
	case !listed:
		return []finding{fails(edit(c), "%s has no list of keys, and denies every image of OCI Registry", constraint.Name(&c))}
	case len(keys) == 0:
		return []finding{warns(edit(c), "%s lists no key, so every image of OCI Registry may run, signed or not", constraint.Name(&c))}
	}
	return nil
}

// checkReach finds a constraint that applies to no Pod, or not to all Pods. Names of
// namespaces that Gatekeeper does not check anyway may be excluded.
func checkReach(f *facts, c unstructured.Unstructured) []finding {
	name := constraint.Name(&c)
	switch r := f.reach[name]; {
	case r.err != nil:
		return []finding{unknown(fmt.Errorf("whether %s applies to a Pod: %w", name, r.err))}
	case r.is.Empty != "":
		return []finding{fails(edit(c), "%s applies to no Pod: %s", name, r.is.Empty)}
	case r.is.Idle != "":
		x := warns(edit(c), "%s applies to no Pod that runs: %s", name, r.is.Idle)
		x.idle = true
		return []finding{x}
	}
	var found []finding
	for _, narrow := range enforcement.Narrowed(f.scope().WithoutExempt(c)) {
		found = append(found, warns(edit(c), "%s does not cover all Pods: %s", name, narrow))
	}
	return found
}

func checkConstraintStatus(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{unknown(f.constraints.err)}
	}
	var found []finding
	for _, c := range f.constraints.is {
		name := c.GetKind() + "/" + c.GetName()
		look := "kubectl get " + strings.ToLower(name) + " -o yaml"
		if errs := statusErrors(c); len(errs) > 0 {
			found = append(found, fails(look, "Gatekeeper cannot use %s: %s", name, errs[0]))
			continue
		}
		pods, _, _ := unstructured.NestedSlice(c.Object, "status", "byPod")
		enforced := 0
		for _, p := range pods {
			p, _ := p.(map[string]any)
			if on, _, _ := unstructured.NestedBool(p, "enforced"); on && enforcement.Enforces(p) {
				enforced++
			}
		}
		if enforced == 0 {
			found = append(found, fails(look, "no Pod of Gatekeeper enforces %s yet", name))
		}
	}
	if len(found) == 0 && len(f.constraints.is) > 0 {
		found = append(found, holds("%s", cli.Count(len(f.constraints.is), "constraint")))
	}
	return found
}

type podKind struct{ group, kind string }

// breakGlassKinds are the kinds whose objects set annotations of Pods.
var breakGlassKinds = []podKind{
	{"", "Pod"}, {"", "PodTemplate"}, {"", "ReplicationController"},
	{"apps", "ControllerRevision"}, {"apps", "DaemonSet"}, {"apps", "Deployment"}, {"apps", "ReplicaSet"}, {"apps", "StatefulSet"},
	{"batch", "CronJob"}, {"batch", "Job"},
}

// checkBreakGlass finds ways around OKEBreakGlass, which limits who may use break-glass:
// kinds or namespaces that it does not cover although the image policy does, and actions
// that only warn.
func checkBreakGlass(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{unknown(f.constraints.err)}
	}
	honoring, rules, idle := breakGlassParts(f.constraints.is)
	switch {
	case len(honoring) == 0:
		return []finding{holds("the policy ignores the annotation")}
	case len(rules) == 0 && len(idle) > 0:
		return []finding{fails(fmt.Sprintf(`kubectl patch okebreakglass %s --type merge -p '{"spec":{"enforcementAction":"deny"}}'`, idle[0].GetName()), "OKEBreakGlass/%s denies nobody", idle[0].GetName())}
	case len(rules) == 0:
		return []finding{warns("kubectl oke-sign policy set --break-glass-group GROUP", "no constraint of kind OKEBreakGlass: anybody who may create a Pod may use break-glass, without a reason and without an end")}
	}
	worse := warns
	if slices.ContainsFunc(rules, namesUsers) {
		worse = fails // the limit can be avoided
	}
	var found []finding
	covering := rules
	for _, c := range honoring {
		// A constraint with a narrower match limits nobody outside it, whatever its kinds.
		over := slices.DeleteFunc(slices.Clone(rules), func(rule unstructured.Unstructured) bool { return f.scope().Uncovered(rule, c) != "" })
		if len(over) == 0 {
			why := f.scope().Uncovered(rules[0], c)
			found = append(found, worse(sameScope(rules[0], c), "OKEBreakGlass/%s does not cover all that %s covers: %s", rules[0].GetName(), constraint.Name(&c), why))
			break
		}
		if missing := missingKinds(over); len(missing) > 0 {
			found = append(found, worse(addKinds(over[0], missing), "OKEBreakGlass does not cover %s: break-glass is not limited there", names(missing)))
			covering = over
			break
		}
		covering = over
	}
	found = append(found, looseRules(covering)...)
	if len(found) == 0 {
		found = append(found, holds("by %s", cli.Count(len(rules), "constraint")))
	}
	return found
}

// breakGlassParts returns the constraints that deny images and honor break-glass, those
// that limit break-glass, and those that would limit it and deny nobody.
func breakGlassParts(constraints []unstructured.Unstructured) (honoring, rules, idle []unstructured.Unstructured) {
	for _, c := range constraints {
		glass, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "breakGlass")
		report, _, _ := unstructured.NestedBool(c.Object, "spec", "parameters", "report")
		switch {
		case c.GetKind() != policies.BreakGlass && glass != "Ignore" && deniesImages(c):
			honoring = append(honoring, c)
		case c.GetKind() != policies.BreakGlass || report:
		case enforcement.ActsAt(c, "deny"):
			rules = append(rules, c)
		default:
			idle = append(idle, c)
		}
	}
	return honoring, rules, idle
}

// namesUsers reports whether an OKEBreakGlass constraint says who may use break-glass.
func namesUsers(rule unstructured.Unstructured) bool {
	return slices.ContainsFunc([]string{"users", "groups", "serviceAccounts"}, func(list string) bool {
		names, _, _ := unstructured.NestedSlice(rule.Object, "spec", "parameters", list)
		return len(names) > 0
	})
}

// missingKinds returns the kinds that none of the rules matches.
func missingKinds(rules []unstructured.Unstructured) []podKind {
	return slices.DeleteFunc(slices.Clone(breakGlassKinds), func(k podKind) bool {
		return slices.ContainsFunc(rules, func(rule unstructured.Unstructured) bool { return enforcement.MatchesKind(rule, k.group, k.kind) })
	})
}

func names(kinds []podKind) string {
	var list []string
	for _, k := range kinds {
		list = append(list, k.kind)
	}
	return strings.Join(list, ", ")
}

// addKinds returns the command that has a rule match more kinds.
func addKinds(rule unstructured.Unstructured, kinds []podKind) string {
	var patch []any
	for _, k := range kinds {
		patch = append(patch, map[string]any{"op": "add", "path": "/spec/match/kinds/-", "value": map[string]any{"apiGroups": []string{k.group}, "kinds": []string{k.kind}}})
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return "kubectl edit okebreakglass/" + rule.GetName()
	}
	return fmt.Sprintf("kubectl patch okebreakglass %s --type json -p '%s'", rule.GetName(), text)
}

// sameScope returns the command that gives a rule the scope of a constraint.
func sameScope(rule, c unstructured.Unstructured) string {
	scope := make(map[string]any)
	for _, field := range []string{"namespaces", "excludedNamespaces", "namespaceSelector", "labelSelector", "name", "scope", "source"} {
		there, _, _ := unstructured.NestedFieldNoCopy(rule.Object, "spec", "match", field)
		wanted, _, _ := unstructured.NestedFieldNoCopy(c.Object, "spec", "match", field)
		if field == "labelSelector" || field == "name" { // workloads have other labels and names than their Pods
			wanted = nil
		}
		if !reflect.DeepEqual(there, wanted) {
			scope[field] = wanted
		}
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"match": scope}})
	if err != nil {
		return "kubectl edit okebreakglass/" + rule.GetName()
	}
	return fmt.Sprintf("kubectl patch okebreakglass %s --type merge -p '%s'", rule.GetName(), patch)
}

// looseRules finds rules that let an old break-glass use start other Pods or images.
func looseRules(rules []unstructured.Unstructured) []finding {
	patch := func(parameters string) string {
		return fmt.Sprintf(`kubectl patch okebreakglass %s --type merge -p '{"spec":{"parameters":%s}}'`, rules[0].GetName(), parameters)
	}
	limited := slices.ContainsFunc(rules, func(c unstructured.Unstructured) bool {
		duration, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "maxDuration")
		return duration != ""
	})
	pinned := slices.ContainsFunc(rules, func(c unstructured.Unstructured) bool {
		required, _, _ := unstructured.NestedBool(c.Object, "spec", "parameters", "requireDigest")
		return required
	})
	var found []finding
	if !limited {
		found = append(found, warns(patch(`{"maxDuration":"8h"}`),
			"OKEBreakGlass/%s sets no maxDuration: scaling an old ReplicaSet starts its Pods under break-glass again, at any time", rules[0].GetName()))
	}
	if !pinned {
		found = append(found, warns(patch(`{"requireDigest":true}`),
			"OKEBreakGlass/%s does not require digests: a Pod under break-glass runs whatever image its tag names when it starts", rules[0].GetName()))
	}
	return found
}

// checkAudit reads the answers that Gatekeeper's audit got. If the user finds an image or
// a key that the provider does not find, the provider lacks the right to read it.
func checkAudit(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{unknown(f.constraints.err)}
	}
	silent, late, unseen, unread := "", "", "", ""
	audited := false
	for _, c := range f.constraints.is {
		if _, ok, _ := unstructured.NestedString(c.Object, "status", "auditTimestamp"); ok {
			audited = true
		}
		violations, _, _ := unstructured.NestedSlice(c.Object, "status", "violations")
		for _, v := range violations {
			v, _ := v.(map[string]any)
			message, _ := v["message"].(string)
			switch what := unreadable(f, message); {
			case what != "":
				unread = cmp.Or(unread, what)
			case strings.Contains(message, ": no-answer: ") && c.GetKind() == policies.ScannedImages:
				late = cmp.Or(late, message)
			case strings.Contains(message, ": no-answer: "):
				silent = cmp.Or(silent, message)
			case strings.Contains(message, ": image-not-found: "), strings.Contains(message, ": not-covered: "):
				unseen = cmp.Or(unseen, message)
			}
		}
	}
	var found []finding
	switch {
	case strings.Contains(silent, "NotAuthorizedOrNotFound"):
		found = append(found, fails(grant(f), "the provider may not read from OCI: %s", cli.Clip(silent, 256)))
	case silent != "":
		found = append(found, fails(f.logs(), "the last audit got no answer: %s", cli.Clip(silent, 256)))
	}
	if unread != "" {
		found = append(found, fails(grant(f), "the provider may not read what you may read in OCI: %s", unread))
	}
	if late != "" { // an audit asks about all images at once, and scans are given less time than that takes
		found = append(found, warns("wait for the next audit; then "+f.logs(), "the last audit got no answer about scans: %s", cli.Clip(late, 256)))
	}
	if unseen != "" {
		found = append(found, warns(grant(f)+"; for another tenancy give the provider --tenancy", "the provider does not find an image that runs: %s", cli.Clip(unseen, 256)))
	}
	switch {
	case len(found) > 0:
	case audited:
		found = append(found, holds("the last audit got all answers"))
	case len(f.constraints.is) > 0:
		found = append(found, warns("wait a minute, then run kubectl oke-sign doctor again", "no audit has finished yet"))
	}
	return found
}

// checkAuditList finds constraints whose list of violations Gatekeeper truncated.
func checkAuditList(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{unknown(f.constraints.err)}
	}
	var found []finding
	audited := false
	for _, c := range f.constraints.is {
		total, counted, _ := unstructured.NestedInt64(c.Object, "status", "totalViolations")
		listed, _, _ := unstructured.NestedSlice(c.Object, "status", "violations")
		audited = audited || counted
		if total > int64(len(listed)) {
			found = append(found, warns(f.upgradeGatekeeper(fmt.Sprintf("constraintViolationsLimit=%d", max(500, total))),
				"%s/%s has %d violations, and the audit lists %d of them", c.GetKind(), c.GetName(), total, len(listed)))
		}
	}
	if len(found) == 0 && audited {
		found = append(found, holds("every violation"))
	}
	return found
}

// unreadable returns the repository or key that the provider does not find and the user
// does, or "".
func unreadable(f *facts, message string) string {
	if strings.Contains(message, ": image-not-found: ") {
		for _, s := range f.running.is {
			// The audit truncates messages. The name comes before the digest.
			name, _, _ := strings.Cut(s.Image, "@")
			seen := s.Verdict != nil && s.Verdict.Reason != verdict.ImageNotFound && s.Verdict.Reason != verdict.NotCovered
			if seen && strings.Contains(message, ": "+name+"@") {
				return "repository " + name
			}
		}
	}
	if strings.Contains(message, ": key-unusable: OCI Vault does not find key ") {
		for _, k := range f.keys.is {
			if k.err == nil && k.realm == "" && !k.key.Missing && strings.Contains(message, strings.TrimPrefix(signature.Short(k.id), "…")) {
				return "key " + cli.Clip(cmp.Or(k.key.Name, signature.Short(k.id)), 60)
			}
		}
	}
	return ""
}

// grant returns the command that prints the IAM statements for the provider.
func grant(f *facts) string {
	command := "kubectl oke-sign iam"
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		for _, pod := range f.backends[name].pods {
			switch auth := flagsOf(pod.Spec, "auth"); {
			case slices.Contains(auth, ociauth.KindInstancePrincipal):
				return command + " prints the statements; they are for the dynamic group of the nodes"
			case slices.Contains(auth, ociauth.KindOKEWorkloadIdentity):
				id := "OCID"
				if f.oke.is != nil {
					id = f.oke.is.ID.String()
				}
				return fmt.Sprintf("%s --cluster %s --workload %s/%s prints the statements", command, id, pod.Namespace, cmp.Or(pod.Spec.ServiceAccountName, "default"))
			}
		}
	}
	return command + " prints the statements for the provider"
}

// checkOKE warns of an enabled OKE image policy beside oke-sign's. A Pod must then
// satisfy both, and either can be the reason of a denial.
func checkOKE(f *facts) []finding {
	switch c := f.oke.is; {
	case f.oke.err != nil:
		return []finding{unknownOr("check --cluster, and that a policy lets you `read clusters`", f.oke.err)}
	case c == nil:
		return []finding{{State: stateSkipped, Detail: "the kubeconfig does not name an OKE cluster, so the OKE image policy was not checked", Fix: "kubectl oke-sign doctor --cluster OCID checks it"}}
	case !c.Policy.Enabled:
		return []finding{holds("off")}
	case !slices.ContainsFunc(f.constraints.is, deniesPods):
		return []finding{holds("on, and oke-sign denies nothing")}
	default:
		return []finding{warns("disable one of them when you trust the other: kubectl oke-sign cluster-policy disable --cluster "+c.ID.String(),
			"on as well: a Pod must satisfy both; %s", compareOKE(f))}
	}
}

// compareOKE returns how the keys of the OKE image policy and of oke-sign differ.
func compareOKE(f *facts) string {
	ours := simulate.Keys(enforcedBy(f.constraints.is))
	var theirs []string
	for _, k := range f.oke.is.Policy.Keys {
		theirs = append(theirs, k.String())
	}
	alone := func(of, beside []string) string {
		var found []string
		for _, k := range of {
			if !slices.Contains(beside, k) {
				found = append(found, signature.Short(k))
			}
		}
		return strings.Join(found, ", ")
	}
	switch onlyTheirs, onlyOurs := alone(theirs, ours), alone(ours, theirs); {
	case len(theirs) == 0:
		return "OKE's lists no key, and admits every image of OCI Registry"
	case onlyTheirs == "" && onlyOurs == "":
		return "both list the same keys"
	case onlyOurs == "":
		return "only OKE's lists " + onlyTheirs
	case onlyTheirs == "":
		return "only ours lists " + onlyOurs
	default:
		return "only OKE's lists " + onlyTheirs + ", and only ours " + onlyOurs
	}
}

// checkRunning finds images that would be denied when their Pods restart. Images of a
// cluster's add-ons are in a tenancy of Oracle.
func checkRunning(f *facts) []finding {
	if f.running.err != nil {
		return []finding{unknown(f.running.err)}
	}
	var denied, elsewhere []string
	var unread error
	for _, s := range f.running.is {
		if s.Result == simulate.UnknownImage {
			unread = cmp.Or(unread, s.Err, errors.New("it is unknown whether "+s.Image+" may run"))
		}
		if s.Result != simulate.DeniedImage {
			continue
		}
		name, _, _ := strings.Cut(s.Image, "@")
		if slices.ContainsFunc(s.Violations, func(v workload.Violation) bool { return v.Reason == string(verdict.NotCovered) }) {
			elsewhere = append(elsewhere, name)
		} else {
			denied = append(denied, name)
		}
	}
	var found []finding
	if len(elsewhere) > 0 {
		found = append(found, warns("give the provider --tenancy if the tenancy is yours; or copy and sign the images; or exempt them: exemptImages: ["+cli.Clip(strings.Join(elsewhere, ", "), 600)+"]",
			"%s from other tenancies would be denied when their Pods restart: %s", cli.Count(len(elsewhere), "image"), cli.Clip(strings.Join(elsewhere, ", "), 300)))
	}
	if len(denied) > 0 {
		found = append(found, warns("kubectl oke-sign status -A", "%s would be denied when their Pods restart: %s", cli.Count(len(denied), "image"), cli.Clip(strings.Join(denied, ", "), 300)))
	}
	if unread != nil {
		found = append(found, unknown(unread))
	}
	if len(found) == 0 {
		found = append(found, holds("%s", cli.Count(len(f.running.is), "image")))
	}
	return found
}
