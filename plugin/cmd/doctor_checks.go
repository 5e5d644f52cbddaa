package cmd

import (
	"cmp"
	"context"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

// facts are what checks look at: objects as they were read, each with the error
// that it could not be.
type facts struct {
	now         time.Time
	apiTime     fact[time.Time]
	webhooks    fact[*admissionregistrationv1.ValidatingWebhookConfiguration] // nil if it is not there
	gatekeeper  fact[[]appsv1.Deployment]
	namespaces  fact[[]corev1.Namespace]
	labels      fact[labelGuard]
	configs     fact[[]unstructured.Unstructured]
	templates   fact[[]unstructured.Unstructured]
	constraints fact[[]unstructured.Unstructured]
	providers   fact[[]unstructured.Unstructured]
	assigns     fact[[]unstructured.Unstructured]
	mutation    fact[*admissionregistrationv1.MutatingWebhook] // nil if it is not there
	backends    map[string]backend                             // by Provider
	keys        fact[[]keyFact]
	running     fact[[]*imageStatus]
	oke         fact[*okecluster.Cluster] // nil: nothing says which one it is
}

type fact[T any] struct {
	is  T
	err error
}

// backend is what stands behind a Provider's address.
type backend struct {
	namespace string
	service   string
	unserved  string // why nobody answers there, whatever runs
	pods      []corev1.Pod
	unready   map[string]string // what a Pod says of why it is not ready
	chain     fact[[]*x509.Certificate]
	err       error
}

type keyFact struct {
	id    string
	realm string // in which it cannot be, for it lies in another
	key   vault.MasterKey
	err   error
}

// States of a finding.
const (
	stateHolds   = "holds"
	stateWarns   = "warns"   // enforcement holds, and something weakens it
	stateFails   = "fails"   // enforcement does not hold
	stateUnknown = "unknown" // the check could not be done
	stateSkipped = "skipped" // the check needs to be told where to look
)

// finding is the outcome of a check.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`

	err error
}

func holds(format string, args ...any) finding {
	return finding{State: stateHolds, Detail: fmt.Sprintf(format, args...)}
}

func fails(fix, format string, args ...any) finding {
	return finding{State: stateFails, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func warns(fix, format string, args ...any) finding {
	return finding{State: stateWarns, Detail: fmt.Sprintf(format, args...), Fix: fix}
}

func notDone(err error) finding {
	fix := "you need the right to read it"
	if errors.Is(err, context.DeadlineExceeded) {
		fix = "try again, perhaps with a longer --timeout"
	}
	return finding{State: stateUnknown, Detail: clip(err.Error(), 400), Fix: fix, err: err}
}

// check is one thing that can make enforcement not hold.
type check struct {
	name string
	look func(*facts) []finding
}

// checks are all of them, from what everything hangs on to the details.
func checks() []check {
	return []check{
		{"gatekeeper runs", checkGatekeeper},
		{"gatekeeper version", checkVersion},
		{"webhook fails closed", checkFailurePolicy},
		{"webhook sees everything", checkRules},
		{"namespaces left out", checkNamespaces},
		{"exempt namespaces", checkExempt},
		{"labels of namespaces", checkNamespaceLabels},
		{"external data", checkExternalData},
		{"response cache", checkResponseCache},
		{"templates", checkTemplates},
		{"constraints enforce", checkEffect},
		{"constraints are taken in", checkConstraintStatus},
		{"break-glass is held", checkBreakGlass},
		{"providers", checkProviders},
		{"providers answer what is asked", checkAnswerers},
		{"provider is ready", checkBackends},
		{"provider certificate", checkCertificates},
		{"answers", checkAudit},
		{"audit lists all", checkAuditList},
		{"keys", checkKeys},
		{"scans", checkScans},
		{"tags are pinned", checkPins},
		{"clocks", checkClock},
		{"OKE's own policy", checkOKE},
		{"what runs may run", checkRunning},
	}
}

// run does all checks.
func (f *facts) run() []finding {
	var found []finding
	for _, c := range checks() {
		for _, x := range c.look(f) {
			x.Check = c.name
			found = append(found, x)
		}
	}
	return found
}

const (
	helmValues  = "helm upgrade gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --reuse-values "
	helmInstall = "helm install gatekeeper gatekeeper/gatekeeper -n gatekeeper-system --create-namespace --wait --values gatekeeper-values.yaml"
)

func (f *facts) validation() (*admissionregistrationv1.ValidatingWebhook, error) {
	return findWebhook(f.webhooks.is, f.webhooks.err)
}

// gatekeeperNamespace is where the webhook's service is.
func (f *facts) gatekeeperNamespace() string {
	if w, err := f.validation(); err == nil && w != nil && w.ClientConfig.Service != nil {
		return w.ClientConfig.Service.Namespace
	}
	return "gatekeeper-system"
}

// operations are Gatekeeper's Deployments that do something.
func (f *facts) operations(what string) []appsv1.Deployment {
	var found []appsv1.Deployment
	for _, d := range f.gatekeeper.is {
		if d.Spec.Template.Labels["gatekeeper.sh/operation"] == what {
			found = append(found, d)
		}
	}
	return found
}

func checkGatekeeper(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{notDone(f.gatekeeper.err)}
	}
	webhook := f.operations("webhook")
	if len(webhook) == 0 {
		return []finding{fails(helmInstall, "no Deployment with Gatekeeper's webhook in namespace %s", f.gatekeeperNamespace())}
	}
	var found []finding
	for _, d := range f.gatekeeper.is {
		command := fmt.Sprintf("kubectl -n %s describe deployment %s", d.Namespace, d.Name)
		wanted := int32(1)
		if d.Spec.Replicas != nil {
			wanted = *d.Spec.Replicas
		}
		switch isWebhook := d.Spec.Template.Labels["gatekeeper.sh/operation"] == "webhook"; {
		case d.Status.ReadyReplicas == 0 && isWebhook:
			found = append(found, fails(command, "%s has no ready Pod: with failurePolicy Fail nothing can be created, with Ignore everything can", d.Name))
		case d.Status.ReadyReplicas == 0:
			found = append(found, warns(command, "%s has no ready Pod", d.Name))
		case isWebhook && wanted < 2:
			found = append(found, warns(helmValues+"--set replicas=3", "%s has one replica: while its node is drained, nothing can be created", d.Name))
		default:
			found = append(found, holds("%s: %d of %d Pods ready", d.Name, d.Status.ReadyReplicas, wanted))
		}
	}
	if len(f.operations("audit")) == 0 {
		found = append(found, warns(helmInstall, "no audit runs: nobody lists what ran before the policy came"))
	}
	return found
}

// Gatekeeper has asked providers unless told otherwise since oldest; tested is the
// version that the policies are tested with.
const (
	oldestGatekeeper = "v3.11.0"
	testedGatekeeper = "v3.23.0"
)

func checkVersion(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{notDone(f.gatekeeper.err)}
	}
	var found []finding
	for _, d := range f.operations("webhook") {
		for _, c := range d.Spec.Template.Spec.Containers {
			image, _, _ := strings.Cut(c.Image, "@")
			tag := image[strings.LastIndexAny(image, ":/")+1:]
			v, err := version.ParseSemantic(tag)
			update := "helm upgrade gatekeeper gatekeeper/gatekeeper -n " + d.Namespace + " --values gatekeeper-values.yaml"
			switch {
			case err != nil:
				found = append(found, warns("name Gatekeeper's version in the tag of its image", "%s says no version", printable(c.Image)))
			case v.LessThan(version.MustParseSemantic(oldestGatekeeper)):
				found = append(found, fails(update, "%s asks no providers unless told to, and cannot read the templates", tag))
			case v.LessThan(version.MustParseSemantic(testedGatekeeper)):
				found = append(found, warns(update, "%s is older than %s, with which the policies are tested", tag, testedGatekeeper))
			default:
				found = append(found, holds("%s", tag))
			}
		}
	}
	return found
}

func checkFailurePolicy(f *facts) []finding {
	w, err := f.validation()
	switch {
	case err != nil:
		return []finding{notDone(err)}
	case w == nil:
		return []finding{fails(helmInstall, "the webhook %s is not there: nothing is ever refused", validationWebhook)}
	}
	var found []finding
	if w.FailurePolicy == nil || *w.FailurePolicy == admissionregistrationv1.Fail {
		found = append(found, holds("failurePolicy Fail"))
	} else {
		found = append(found, fails(helmValues+"--set validatingWebhookFailurePolicy=Fail",
			"failurePolicy is %s: what Gatekeeper cannot judge in time is admitted", *w.FailurePolicy))
	}
	if len(w.ClientConfig.CABundle) == 0 {
		found = append(found, fails(fmt.Sprintf("kubectl -n %s rollout restart deployment", f.gatekeeperNamespace()), "the webhook has no caBundle, so no call of it succeeds"))
	}
	return found
}

// judgedResources are those that name images, by their group. A subresource is not
// part of *.
var judgedResources = map[string][]string{
	"":      {"pods", "pods/ephemeralcontainers", "replicationcontrollers"},
	"apps":  {"deployments", "replicasets", "statefulsets", "daemonsets"},
	"batch": {"jobs", "cronjobs"},
}

func checkRules(f *facts) []finding {
	w, err := f.validation()
	if err != nil {
		return []finding{notDone(err)}
	}
	if w == nil {
		return nil // said already
	}
	var found []finding
	for _, group := range []string{"", "apps", "batch"} {
		for _, resource := range judgedResources[group] {
			for _, operation := range []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update} {
				if resource == "pods/ephemeralcontainers" && operation == admissionregistrationv1.Create {
					continue // there is no such request
				}
				if slices.ContainsFunc(w.Rules, func(r admissionregistrationv1.RuleWithOperations) bool { return covers(r, group, resource, operation) }) {
					continue
				}
				fix := "add it to validatingWebhookCustomRules in the values of Gatekeeper's chart, or leave those out"
				if group == "" && resource != "replicationcontrollers" {
					found = append(found, fails(fix, "the webhook is not asked about %s of %s: images get in that way", operation, resource))
				} else {
					found = append(found, warns(fix, "the webhook is not asked about %s of %s: nobody is warned of them, and break-glass is not held there", operation, resource))
				}
			}
		}
	}
	if s := w.ObjectSelector; s != nil && len(s.MatchLabels)+len(s.MatchExpressions) > 0 {
		found = append(found, fails("remove objectSelector from the webhook", "the webhook leaves objects out by their labels, which whoever makes them chooses"))
	}
	for _, c := range w.MatchConditions {
		if c.Name != "nothing-a-cluster-lives-by" {
			found = append(found, warns("read it, and remove it if it can leave a Pod out", "the webhook has the condition %s of its own", printable(c.Name)))
		}
	}
	if len(found) == 0 {
		found = append(found, holds("Pods, ephemeral containers and workloads"))
	}
	return found
}

func covers(r admissionregistrationv1.RuleWithOperations, group, resource string, operation admissionregistrationv1.OperationType) bool {
	parent, sub, isSub := strings.Cut(resource, "/")
	names := []string{resource, "*/*"}
	if isSub {
		names = append(names, parent+"/*", "*/"+sub)
	} else {
		names = append(names, "*")
	}
	if r.Scope != nil && *r.Scope == admissionregistrationv1.ClusterScope {
		return false
	}
	return (slices.Contains(r.APIGroups, "*") || slices.Contains(r.APIGroups, group)) &&
		(slices.Contains(r.APIVersions, "*") || slices.Contains(r.APIVersions, "v1")) &&
		(slices.Contains(r.Operations, admissionregistrationv1.OperationAll) || slices.Contains(r.Operations, operation)) &&
		slices.ContainsFunc(names, func(name string) bool { return slices.Contains(r.Resources, name) })
}

// checkNamespaces finds namespaces that Gatekeeper is not asked about, or passes
// over. What the cluster and Gatekeeper live by has to be among them.
func checkNamespaces(f *facts) []finding {
	w, err := f.validation()
	if err = cmp.Or(err, f.namespaces.err); err != nil {
		return []finding{notDone(err)}
	}
	own := []string{"kube-system", f.gatekeeperNamespace()}
	for _, b := range f.backends {
		own = append(own, b.namespace)
	}
	e := enforced{policy: policy{namespaces: make(map[string]*corev1.Namespace)}, webhook: w, excluded: excludedNamespaces(f.configs.is)}
	var expected, others []string
	for i, n := range f.namespaces.is {
		e.namespaces[n.Name] = &f.namespaces.is[i]
		why := e.outside(n.Name)
		switch {
		case why == "":
		case slices.Contains(own, n.Name):
			expected = append(expected, n.Name)
		default:
			others = append(others, n.Name+" ("+why+")")
		}
	}
	var found []finding
	if f.configs.err != nil {
		found = append(found, notDone(f.configs.err))
	}
	if len(others) > 0 {
		found = append(found, fails("remove the label "+ignoreLabel+", the entry of the Config, or the namespace from validatingWebhookExemptNamespacesLabels",
			"any image runs in %s", strings.Join(others, ", ")))
	}
	if len(expected) > 0 {
		found = append(found, holds("as intended: %s; whoever may make Pods there is held by nothing", strings.Join(expected, ", ")))
	}
	if len(found) == 0 && w != nil {
		found = append(found, warns("use the exemptions of gatekeeper-values.yaml", "no namespace: if Gatekeeper is down, nothing in kube-system can be mended"))
	}
	return found
}

// flagsOf are the values of a flag in the arguments of a Pod's containers.
func flagsOf(pod corev1.PodSpec, name string) []string {
	var found []string
	for _, c := range pod.Containers {
		for i, arg := range c.Args {
			switch flag, value, ok := strings.Cut(strings.TrimLeft(arg, "-"), "="); {
			case flag != name || !strings.HasPrefix(arg, "-"):
			case ok:
				found = append(found, value)
			case i+1 < len(c.Args) && !strings.HasPrefix(c.Args[i+1], "-"):
				found = append(found, c.Args[i+1])
			default:
				found = append(found, "true")
			}
		}
	}
	return found
}

func checkExternalData(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{notDone(f.gatekeeper.err)}
	}
	for _, d := range f.gatekeeper.is {
		for _, value := range flagsOf(d.Spec.Template.Spec, "enable-external-data") {
			if on, err := strconv.ParseBool(value); err != nil || !on {
				return []finding{fails(helmValues+"--set enableExternalData=true", "%s runs with --enable-external-data=%s: it asks no provider, and refuses every image of OCI Registry", d.Name, value)}
			}
		}
	}
	if len(f.gatekeeper.is) == 0 {
		return nil // said already
	}
	return []finding{holds("on")}
}

// longestCache is how long Gatekeeper may keep answers before it tells on how long
// a disabled key still counts.
const longestCache = time.Minute

func checkResponseCache(f *facts) []finding {
	if f.gatekeeper.err != nil {
		return []finding{notDone(f.gatekeeper.err)}
	}
	var found []finding
	for _, d := range f.operations("webhook") {
		ttl := 3 * time.Minute // Gatekeeper's default
		for _, value := range flagsOf(d.Spec.Template.Spec, "external-data-provider-response-cache-ttl") {
			if parsed, err := time.ParseDuration(value); err == nil {
				ttl = parsed
			}
		}
		if ttl > longestCache {
			found = append(found, warns(helmValues+"--set externaldataProviderResponseCacheTTL=30s", "Gatekeeper keeps answers for %s: so much longer a disabled key counts, and a new signature does not", ttl))
		} else {
			found = append(found, holds("%s", ttl))
		}
	}
	return found
}

func checkTemplates(f *facts) []finding {
	if err := cmp.Or(f.templates.err, f.constraints.err); err != nil {
		return []finding{notDone(err)}
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
			found = append(found, fails(apply, "Gatekeeper has not taken %s in", kind))
		case recorded && !same:
			found = append(found, fails(apply, "%s is the template for recorded verdicts, which belongs into CI: it refuses every image that needs one", kind))
		case !same:
			found = append(found, warns(apply, "%s is not the template of this release", kind))
		default:
			found = append(found, holds("%s", kind))
		}
	}
	return found
}

// sameCode compares the Rego of a template with this release's, and with that for
// recorded verdicts.
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

// statusErrors are what Gatekeeper's Pods complain of.
func statusErrors(o unstructured.Unstructured) []string {
	var found []string
	pods, _, _ := unstructured.NestedSlice(o.Object, "status", "byPod")
	for _, p := range pods {
		p, _ := p.(map[string]any)
		errs, _, _ := unstructured.NestedSlice(p, "errors")
		for _, e := range errs {
			e, _ := e.(map[string]any)
			message, _ := e["message"].(string)
			found = append(found, clip(message, 200))
		}
	}
	return found
}

func checkEffect(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{notDone(f.constraints.err)}
	}
	var signed, denying []unstructured.Unstructured
	var found []finding
	for _, c := range f.constraints.is {
		if c.GetKind() != policies.SignedImages {
			continue
		}
		signed = append(signed, c)
		if !refusesPods(c) {
			continue
		}
		denying = append(denying, c)
		name := c.GetKind() + "/" + c.GetName()
		edit := "kubectl edit " + strings.ToLower(name)
		if keys, ok, _ := unstructured.NestedSlice(c.Object, "spec", "parameters", "keys"); ok && len(keys) == 0 {
			found = append(found, warns(edit, "%s lists no key: any image of OCI Registry may run, signed or not", name))
		}
		for _, narrow := range narrowed(c) {
			found = append(found, warns(edit, "%s is not about everything: %s", name, narrow))
		}
	}
	switch {
	case len(signed) == 0:
		return []finding{fails("kubectl oke-sign policy set --key KEY", "no constraint asks for signatures")}
	case len(denying) == 0:
		return []finding{fails("set enforcementAction: deny in a constraint that matches Pods", "%s of kind OKESignedImages, and none refuses Pods", count(len(signed), "constraint"))}
	}
	var names []string
	for _, c := range denying {
		names = append(names, c.GetName())
	}
	return append([]finding{holds("Pods are refused by %s", strings.Join(names, ", "))}, found...)
}

// refusesPods reports whether a constraint asks for signatures of what runs.
func refusesPods(c unstructured.Unstructured) bool {
	return c.GetKind() == policies.SignedImages && actsAt(c, "deny") && matchesKind(c, "", "Pod")
}

// actsAt reports whether a constraint does something at admission.
func actsAt(c unstructured.Unstructured, what string) bool {
	action, _, _ := unstructured.NestedString(c.Object, "spec", "enforcementAction")
	if action != "scoped" {
		return cmp.Or(action, "deny") == what
	}
	scoped, _, _ := unstructured.NestedSlice(c.Object, "spec", "scopedEnforcementActions")
	for _, s := range scoped {
		s, _ := s.(map[string]any)
		points, _, _ := unstructured.NestedSlice(s, "enforcementPoints")
		for _, p := range points {
			p, _ := p.(map[string]any)
			if s["action"] == what && (p["name"] == "*" || p["name"] == validationWebhook) {
				return true
			}
		}
	}
	return false
}

func matchesKind(c unstructured.Unstructured, group, kind string) bool {
	list, _, _ := unstructured.NestedSlice(c.Object, "spec", "match", "kinds")
	if len(list) == 0 {
		return true
	}
	for _, item := range list {
		item, _ := item.(map[string]any)
		groups, _, _ := unstructured.NestedStringSlice(item, "apiGroups")
		kinds, _, _ := unstructured.NestedStringSlice(item, "kinds")
		if (len(groups) == 0 || slices.Contains(groups, "*") || slices.Contains(groups, group)) &&
			(len(kinds) == 0 || slices.Contains(kinds, "*") || slices.Contains(kinds, kind)) {
			return true
		}
	}
	return false
}

// narrowed says what a constraint is not about.
func narrowed(c unstructured.Unstructured) []string {
	var found []string
	match, _, _ := unstructured.NestedMap(c.Object, "spec", "match")
	for _, field := range []struct{ name, text string }{
		{"namespaces", "only namespaces %v"}, {"excludedNamespaces", "not namespaces %v"}, {"namespaceSelector", "only namespaces with %v, and whoever may label a Namespace, such as its owner, takes it out"},
		{"labelSelector", "only objects with %v, which whoever makes a Pod chooses"}, {"name", "only objects called %v"},
		{"source", "only what is %v"}, {"scope", "only %v objects"},
	} {
		value := match[field.name]
		empty, isMap := value.(map[string]any)
		if value == nil || isMap && len(empty) == 0 || value == "*" || value == "" || value == "All" || field.name == "scope" && value == "Namespaced" {
			continue
		}
		found = append(found, clip(fmt.Sprintf(field.text, value), 200))
	}
	return found
}

func checkConstraintStatus(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{notDone(f.constraints.err)}
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
			if on, _, _ := unstructured.NestedBool(p, "enforced"); on && refuses(p) {
				enforced++
			}
		}
		if enforced == 0 {
			found = append(found, fails(look, "no Pod of Gatekeeper enforces %s yet", name))
		}
	}
	if len(found) == 0 && len(f.constraints.is) > 0 {
		found = append(found, holds("%s", count(len(f.constraints.is), "constraint")))
	}
	return found
}

// glassKinds are the kinds that bring an annotation onto a Pod.
var glassKinds = []struct{ group, kind string }{
	{"", "Pod"}, {"", "PodTemplate"}, {"", "ReplicationController"},
	{"apps", "ControllerRevision"}, {"apps", "DaemonSet"}, {"apps", "Deployment"}, {"apps", "ReplicaSet"}, {"apps", "StatefulSet"},
	{"batch", "CronJob"}, {"batch", "Job"},
}

// checkBreakGlass finds ways round the constraint that says who may break the
// glass: a kind or a namespace that it is not about, or an action that only warns.
func checkBreakGlass(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{notDone(f.constraints.err)}
	}
	var rules []unstructured.Unstructured
	honoured, who := false, false
	for _, c := range f.constraints.is {
		switch c.GetKind() {
		case policies.SignedImages, policies.ImageDigests, policies.ScannedImages:
			glass, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "breakGlass")
			honoured = honoured || glass != "Ignore" && actsAt(c, "deny")
		case policies.BreakGlass:
			report, _, _ := unstructured.NestedBool(c.Object, "spec", "parameters", "report")
			if report {
				continue
			}
			if !actsAt(c, "deny") {
				return []finding{fails("set enforcementAction: deny in it", "OKEBreakGlass/%s refuses nobody", c.GetName())}
			}
			rules = append(rules, c)
			for _, list := range []string{"users", "groups", "serviceAccounts"} {
				names, _, _ := unstructured.NestedSlice(c.Object, "spec", "parameters", list)
				who = who || len(names) > 0
			}
		}
	}
	switch {
	case !honoured:
		return []finding{holds("the policy ignores the annotation")}
	case len(rules) == 0:
		return []finding{warns("kubectl apply -f a constraint of kind OKEBreakGlass", "anybody who may make a Pod may lift the policy with an annotation, without a reason or an end")}
	}
	worse := warns
	if who {
		worse = fails // whom it keeps out gets in there
	}
	var found []finding
	var missing []string
	for _, k := range glassKinds {
		if !slices.ContainsFunc(rules, func(c unstructured.Unstructured) bool { return matchesKind(c, k.group, k.kind) }) {
			missing = append(missing, k.kind)
		}
	}
	if len(missing) > 0 {
		found = append(found, worse("add the kinds to spec.match.kinds", "OKEBreakGlass is not about %s: the annotation gets in through them", strings.Join(missing, ", ")))
	}
	whole := slices.ContainsFunc(rules, func(c unstructured.Unstructured) bool { return len(narrowed(c)) == 0 })
	if !whole {
		found = append(found, worse("remove it from spec.match", "OKEBreakGlass/%s leaves something out: %s", rules[0].GetName(), narrowed(rules[0])[0]))
	}
	found = append(found, looseRules(rules)...)
	if len(found) == 0 {
		found = append(found, holds("by %s", count(len(rules), "constraint")))
	}
	return found
}

// looseRules finds what lets a break-glass that was allowed once be used again.
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
			"OKEBreakGlass/%s sets no maxDuration: whoever may scale an old ReplicaSet starts its Pods under break-glass again, at any time", rules[0].GetName()))
	}
	if !pinned {
		found = append(found, warns(patch(`{"requireDigest":true}`),
			"OKEBreakGlass/%s does not require digests: a Pod under break-glass runs what its tag names when the Pod starts", rules[0].GetName()))
	}
	return found
}

// wantedProviders are the Providers that constraints name, with one that does.
func (f *facts) wantedProviders() map[string]string {
	found := make(map[string]string)
	for _, c := range f.constraints.is {
		fallback := map[string]string{policies.SignedImages: "oke-sign", policies.ScannedImages: "oke-sign-scans"}[c.GetKind()]
		if fallback != "" {
			name, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "provider")
			found[cmp.Or(name, fallback)] = c.GetKind() + "/" + c.GetName()
		}
	}
	return found
}

// provider is the Provider with a name, or nil.
func (f *facts) provider(name string) *unstructured.Unstructured {
	i := slices.IndexFunc(f.providers.is, func(p unstructured.Unstructured) bool { return p.GetName() == name })
	if i < 0 {
		return nil
	}
	return &f.providers.is[i]
}

func checkProviders(f *facts) []finding {
	if err := cmp.Or(f.providers.err, f.constraints.err); err != nil {
		return []finding{notDone(err)}
	}
	limit := 10 // seconds, of a webhook that says nothing
	if w, err := f.validation(); err == nil && w != nil && w.TimeoutSeconds != nil {
		limit = int(*w.TimeoutSeconds)
	}
	var found []finding
	total := 0
	wanted := f.wantedProviders()
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		p := f.provider(name)
		if p == nil {
			found = append(found, fails("install the provider with the chart oke-sign", "there is no Provider %s, which %s asks: every image of OCI Registry is refused", name, wanted[name]))
			continue
		}
		before := len(found)
		found = append(found, checkProvider(*p, answererOf(wanted[name]), f.now, limit)...)
		seconds, _, _ := unstructured.NestedInt64(p.Object, "spec", "timeout")
		total += int(seconds)
		if len(found) == before {
			found = append(found, holds("%s: time-out %d s of the webhook's %d s", name, seconds, limit))
		}
	}
	if len(wanted) > 1 && total >= limit {
		found = append(found, warns(fmt.Sprintf(helmValues+"--set validatingWebhookTimeoutSeconds=%d", total+2), "the Providers may take %d s together, and the webhook has %d s: it may end without a reason", total, limit))
	}
	return found
}

func checkProvider(p unstructured.Unstructured, by answerer, now time.Time, limit int) []finding {
	name := p.GetName()
	patch := func(spec string) string {
		return fmt.Sprintf("kubectl patch provider %s --type merge -p '{\"spec\":%s}'", name, spec)
	}
	var found []finding
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" {
		found = append(found, fails(patch(`{"url":"https://oke-sign.oke-sign.svc:8443`+by.path+`"}`), "%s has the address %q, and only https is asked", name, clip(address, 100)))
	}
	if authorities, err := bundle(p); err != nil {
		found = append(found, fails("restart the provider, which writes it, or give it with the chart's caBundle", "%s: caBundle: %v", name, err))
	} else if end := authorities[0].NotAfter; end.Before(now.Add(30 * 24 * time.Hour)) {
		state := warns
		if end.Before(now) {
			state = fails
		}
		found = append(found, state("renew the provider's certificate and its CA", "%s: the CA ends %s", name, timestamp(end)))
	}
	wait := fmt.Sprintf(`{"timeout":%d}`, by.timeout)
	switch seconds, _, _ := unstructured.NestedInt64(p.Object, "spec", "timeout"); {
	case seconds <= 0:
		found = append(found, fails(patch(wait), "%s has no time-out, which Gatekeeper takes for 0: every question fails at once", name))
	case int(seconds) >= limit:
		found = append(found, fails(patch(wait), "%s has a time-out of %d s, and the webhook one of %d s: a slow answer ends the webhook, not the question", name, seconds, limit))
	}
	for _, e := range statusErrors(p) {
		found = append(found, fails("kubectl get provider "+name+" -o yaml", "Gatekeeper cannot use %s: %s", name, e))
	}
	pods, ok, _ := unstructured.NestedSlice(p.Object, "status", "byPod")
	for _, s := range pods {
		s, _ := s.(map[string]any)
		if active, said := s["active"].(bool); said && !active && len(statusErrors(p)) == 0 {
			found = append(found, fails("kubectl get provider "+name+" -o yaml", "%s is not active in a Pod of Gatekeeper", name))
		}
	}
	if !ok || len(pods) == 0 {
		found = append(found, warns("kubectl get provider "+name+" -o yaml", "no Pod of Gatekeeper says that it knows %s", name))
	}
	return found
}

// bundle are the authorities of a Provider.
func bundle(p unstructured.Unstructured) ([]*x509.Certificate, error) {
	encoded, _, _ := unstructured.NestedString(p.Object, "spec", "caBundle")
	if encoded == "" {
		return nil, errors.New("it is empty, so no connection is made")
	}
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New("it is not base64")
	}
	return certificates(text)
}

func certificates(text []byte) ([]*x509.Certificate, error) {
	var found []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	if len(found) == 0 {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return found, nil
}

func checkBackends(f *facts) []finding {
	var found []finding
	for _, name := range slices.Sorted(maps.Keys(f.backends)) {
		b := f.backends[name]
		if b.err != nil {
			found = append(found, notDone(fmt.Errorf("%s: %w", name, b.err)))
			continue
		}
		ready := 0
		for _, p := range b.pods {
			if slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
				return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
			}) {
				ready++
			}
		}
		if b.unserved != "" {
			found = append(found, fails(fmt.Sprintf("kubectl -n %s get service; the chart oke-sign makes it", b.namespace),
				"%s: nobody answers at %s.%s: %s; every image of OCI Registry is refused", name, b.service, b.namespace, b.unserved))
			continue
		}
		logs := fmt.Sprintf("kubectl -n %s get pods; kubectl -n %s logs deployment/oke-sign", b.namespace, b.namespace)
		for _, pod := range slices.Sorted(maps.Keys(b.unready)) {
			found = append(found, warns(fmt.Sprintf("kubectl -n %s logs %s", b.namespace, pod), "%s is not ready: %s", pod, clip(b.unready[pod], 300)))
		}
		switch ready {
		case 0:
			found = append(found, fails(logs, "%s: none of %s is ready, so nobody answers and every image of OCI Registry is refused", name, count(len(b.pods), "Pod")))
		case 1:
			found = append(found, warns(fmt.Sprintf("kubectl -n %s scale deployment oke-sign --replicas=2", b.namespace), "%s: one Pod is ready, and no other if its node goes", name))
		default:
			found = append(found, holds("%s: %d Pods", name, ready))
		}
	}
	return found
}

func checkCertificates(f *facts) []finding {
	var found []finding
	for _, p := range f.providers.is {
		b, ok := f.backends[p.GetName()]
		if !ok || b.err != nil {
			continue // said already
		}
		if b.chain.err != nil {
			found = append(found, notDone(fmt.Errorf("%s: %w", p.GetName(), b.chain.err)))
			continue
		}
		if len(b.chain.is) == 0 {
			continue
		}
		authorities, err := bundle(p)
		if err != nil {
			continue // said already
		}
		roots, between := x509.NewCertPool(), x509.NewCertPool()
		for _, c := range authorities {
			roots.AddCert(c)
		}
		for _, c := range b.chain.is[1:] {
			between.AddCert(c)
		}
		address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
		u, err := url.Parse(address)
		if err != nil {
			continue // said already
		}
		leaf := b.chain.is[0]
		renew := "renew it: cert-manager does by itself, and so does the provider when it makes its own"
		_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: u.Hostname(), CurrentTime: f.now})
		switch {
		case err != nil:
			found = append(found, fails(renew, "Gatekeeper does not accept the certificate of %s: %v", p.GetName(), err))
		case leaf.NotAfter.Before(f.now.Add(7 * 24 * time.Hour)):
			found = append(found, warns(renew, "the certificate of %s ends %s", p.GetName(), timestamp(leaf.NotAfter)))
		default:
			found = append(found, holds("%s: until %s", p.GetName(), timestamp(leaf.NotAfter)))
		}
	}
	return found
}

// checkAudit reads what Gatekeeper itself heard when it audited what runs. What the
// provider does not find and you do, it has no right to read.
func checkAudit(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{notDone(f.constraints.err)}
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
			switch what := f.unreadable(message); {
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
		found = append(found, fails(f.grant(), "OCI lets the provider read nothing: %s", clip(silent, 256)))
	case silent != "":
		found = append(found, fails("kubectl -n oke-sign logs deployment/oke-sign", "the last audit got no answer: %s", clip(silent, 256)))
	}
	if unread != "" {
		found = append(found, fails(f.grant(), "the provider has no right in OCI to read what you can: %s", unread))
	}
	if late != "" { // an audit asks about all images at once, and scans are given less time than that takes
		found = append(found, warns("wait for another audit or two; then kubectl -n oke-sign logs deployment/oke-sign", "the last audit got no answer about scans: %s", clip(late, 256)))
	}
	if unseen != "" {
		found = append(found, warns(f.grant()+"; other tenancies it takes with --tenancy", "the provider does not see an image that runs: %s", clip(unseen, 256)))
	}
	switch {
	case len(found) > 0:
	case audited:
		found = append(found, holds("the last audit had all of them"))
	case len(f.constraints.is) > 0:
		found = append(found, warns("wait a minute, and look whether the audit runs", "no audit has asked yet"))
	}
	return found
}

// checkAuditList finds constraints whose list of violations Gatekeeper has cut.
func checkAuditList(f *facts) []finding {
	if f.constraints.err != nil {
		return []finding{notDone(f.constraints.err)}
	}
	var found []finding
	audited := false
	for _, c := range f.constraints.is {
		total, counted, _ := unstructured.NestedInt64(c.Object, "status", "totalViolations")
		listed, _, _ := unstructured.NestedSlice(c.Object, "status", "violations")
		audited = audited || counted
		if total > int64(len(listed)) {
			found = append(found, warns(fmt.Sprintf(helmValues+"--set constraintViolationsLimit=%d", max(500, total)),
				"%s/%s has %d violations, and the audit lists %d of them", c.GetKind(), c.GetName(), total, len(listed)))
		}
	}
	if len(found) == 0 && audited {
		found = append(found, holds("every violation"))
	}
	return found
}

// unreadable is what a violation says that the provider does not find in OCI, if
// you do; or "".
func (f *facts) unreadable(message string) string {
	if strings.Contains(message, ": image-not-found: ") {
		for _, s := range f.running.is {
			// The audit cuts messages; the name comes before the digest.
			name, _, _ := strings.Cut(s.Image, "@")
			seen := s.Verdict != nil && s.Verdict.Reason != verdict.ImageNotFound && s.Verdict.Reason != verdict.NotCovered
			if seen && strings.Contains(message, ": "+name+"@") {
				return "repository " + name
			}
		}
	}
	if strings.Contains(message, ": key-unusable: OCI Vault does not find key ") {
		for _, k := range f.keys.is {
			if k.err == nil && k.realm == "" && !k.key.Missing && strings.Contains(message, strings.TrimPrefix(short(k.id), "…")) {
				return "key " + clip(cmp.Or(k.key.Name, short(k.id)), 60)
			}
		}
	}
	return ""
}

// grant is the command that prints what the provider has to be let do in OCI.
func (f *facts) grant() string {
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

func checkKeys(f *facts) []finding {
	if f.keys.err != nil {
		x := notDone(f.keys.err)
		x.Fix = "kubectl oke-sign keys list shows whether you reach OCI Vault"
		return []finding{x}
	}
	var found []finding
	for _, k := range f.keys.is {
		state := k.key.Decisive()
		enabled := 0
		for _, s := range state.Versions {
			if s == verdict.Enabled {
				enabled++
			}
		}
		name := clip(cmp.Or(k.key.Name, short(k.id)), 60)
		list := "kubectl oke-sign keys list -o wide shows which keys there are"
		switch {
		case k.err != nil:
			x := notDone(fmt.Errorf("%s: %w", name, k.err))
			x.Fix = list
			found = append(found, x)
		case k.realm != "":
			found = append(found, warns(list, "%s lies in another realm than %s, and no principal reaches both: what it signed is refused", name, k.realm))
		case k.key.Missing:
			found = append(found, warns(list, "%s is not found, or you may not read it: what it signed is refused if the provider may not either", name))
		case state.State != verdict.Enabled:
			found = append(found, warns("enable it in OCI Vault, or take it off the list", "%s is %s: what it signed is refused", name, clip(state.State, 40)))
		case state.Algorithm != "RSA":
			found = append(found, warns("take it off the list", "%s is an %s key, which signs no images", name, clip(state.Algorithm, 20)))
		case enabled == 0:
			found = append(found, warns("enable a version in OCI Vault", "%s has no enabled version: what it signed is refused", name))
		default:
			found = append(found, holds("%s", name))
		}
	}
	return found
}

func checkClock(f *facts) []finding {
	if f.apiTime.err != nil {
		return []finding{notDone(f.apiTime.err)}
	}
	skew := f.now.Sub(f.apiTime.is).Abs().Round(time.Second)
	if skew > 2*time.Minute {
		return []finding{warns("set the clocks: timedatectl", "this machine and the API server differ by %s: OCI refuses requests that are 5 minutes off, and break-glass ends by the cluster's clock", skew)}
	}
	return []finding{holds("this machine and the API server agree")}
}

// checkOKE finds OKE's own policy on beside ours: a Pod needs the consent of both
// then, and who looks for the reason of a refusal has two places to look.
func checkOKE(f *facts) []finding {
	switch c := f.oke.is; {
	case f.oke.err != nil:
		x := notDone(f.oke.err)
		x.Fix = "check --cluster, and that a policy lets you `read clusters`"
		return []finding{x}
	case c == nil:
		return []finding{{State: stateSkipped, Detail: "nothing says which OKE cluster this is, so whether OKE's own policy is on as well was not looked at", Fix: "kubectl oke-sign doctor --cluster OCID looks"}}
	case !c.Policy.Enabled:
		return []finding{holds("off")}
	case !slices.ContainsFunc(f.constraints.is, refusesPods):
		return []finding{holds("on, and the only one that refuses")}
	default:
		return []finding{warns("switch one of them off when you trust the other: kubectl oke-sign cluster-policy disable --cluster "+c.ID.String(),
			"on as well: a Pod needs the consent of both; %s", f.compareOKE())}
	}
}

// compareOKE says how the keys of OKE's own policy and of ours differ.
func (f *facts) compareOKE() string {
	ours := enforcedBy(f.constraints.is).keys()
	var theirs []string
	for _, k := range f.oke.is.Policy.Keys {
		theirs = append(theirs, k.String())
	}
	alone := func(of, beside []string) string {
		var found []string
		for _, k := range of {
			if !slices.Contains(beside, k) {
				found = append(found, short(k))
			}
		}
		return strings.Join(found, ", ")
	}
	switch onlyTheirs, onlyOurs := alone(theirs, ours), alone(ours, theirs); {
	case len(theirs) == 0:
		return "it lists no key, and lets in every image of OCI Registry"
	case onlyTheirs == "" && onlyOurs == "":
		return "both list the same keys"
	case onlyOurs == "":
		return "only it lists " + onlyTheirs
	case onlyTheirs == "":
		return "only ours lists " + onlyOurs
	default:
		return "only it lists " + onlyTheirs + ", and only ours " + onlyOurs
	}
}

// checkRunning finds what would not come up again. What Oracle keeps for a cluster's
// add-ons lies in a tenancy of Oracle's.
func checkRunning(f *facts) []finding {
	if f.running.err != nil {
		return []finding{notDone(f.running.err)}
	}
	var refused, foreign []string
	for _, s := range f.running.is {
		if s.Result != refusedImage {
			continue
		}
		name, _, _ := strings.Cut(s.Image, "@")
		if slices.ContainsFunc(s.Violations, func(v violation) bool { return v.Reason == string(verdict.NotCovered) }) {
			foreign = append(foreign, name)
		} else {
			refused = append(refused, name)
		}
	}
	var found []finding
	if len(foreign) > 0 {
		found = append(found, warns("give the provider the tenancy if it is yours, copy them into yours and sign them, or exempt just these: exemptImages: ["+clip(strings.Join(foreign, ", "), 600)+"]",
			"running from other tenancies, and refused if made anew (%s): %s", count(len(foreign), "image"), clip(strings.Join(foreign, ", "), 300)))
	}
	if len(refused) > 0 {
		found = append(found, warns("kubectl oke-sign status -A", "running, and refused if made anew (%s): %s", count(len(refused), "image"), clip(strings.Join(refused, ", "), 300)))
	}
	if len(found) == 0 {
		found = append(found, holds("%s", count(len(f.running.is), "image")))
	}
	return found
}
