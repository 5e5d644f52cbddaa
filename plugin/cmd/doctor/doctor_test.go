package doctor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/soundcluster"
)

const soundKey = "ocid1.key.oc1.iad.b5q4c5lnaahik.abuwcljsvk4scpx3vkf56a2my7mh573jpwj2jexepk2qwjoqqnv3t6jcf64a"

// Each thing that makes enforcement not hold is found, by its own check, and comes
// with a fix; and a sound cluster has none.
func TestDoctor(t *testing.T) {
	type world map[string]*unstructured.Unstructured
	// at sets a field: names and numbers, joined by dots; nil removes it.
	at := func(kind string, value any, path string) func(world) {
		return func(w world) {
			o := w[kind]
			if o == nil {
				panic("no " + kind)
			}
			var parent any = o.Object
			steps := strings.Split(path, ",")
			for i, step := range steps {
				var next any
				last := i == len(steps)-1
				switch p := parent.(type) {
				case map[string]any:
					if last && value == nil {
						delete(p, step)
					} else if last {
						p[step] = value
					}
					if next = p[step]; next == nil && !last {
						next = map[string]any{}
						p[step] = next
					}
				case []any:
					var n int
					_, _ = fmt.Sscan(step, &n)
					if last {
						p[n] = value
					}
					next = p[n]
				}
				parent = next
			}
		}
	}
	gone := func(kind string) func(world) { return func(w world) { delete(w, kind) } }
	add := func(text string) func(world) {
		return func(w world) {
			o, err := manifest.Object([]byte(text))
			if err != nil {
				panic(err)
			}
			w["added"] = o
		}
	}
	const (
		webhook, manager, audit = "ValidatingWebhookConfiguration/gatekeeper-validating-webhook-configuration", "Deployment/gatekeeper-controller-manager", "Deployment/gatekeeper-audit"
		signed, glass, provider = "OKESignedImages/signed", "OKEBreakGlass/glass", "Provider/oke-sign"
		pin, digests            = "Assign/pin", "Provider/oke-sign-digests"
		guard, bound            = "ValidatingAdmissionPolicy/oke-sign-namespace-labels", "ValidatingAdmissionPolicyBinding/oke-sign-namespace-labels"
	)
	args := "spec,template,spec,containers,0,args"
	image := "spec,template,spec,containers,0,image"
	recorded, err := policies.Recorded.ReadFile("okesignedimages/recorded/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(world)
		want   string // state, check, part of what it says
	}{
		"no Gatekeeper":                  {gone(manager), "fails|gatekeeper runs|no Deployment with Gatekeeper's webhook in namespace gatekeeper-system"},
		"no Pod of it":                   {at(manager, int64(0), "status,readyReplicas"), "fails|gatekeeper runs|has no ready Pod: with failurePolicy Fail"},
		"one replica":                    {at(manager, int64(1), "spec,replicas"), "warns|gatekeeper runs|has one replica"},
		"no audit":                       {gone(audit), "warns|gatekeeper runs|no audit runs"},
		"an audit that does not run":     {at(audit, int64(0), "status,readyReplicas"), "warns|gatekeeper runs|gatekeeper-audit has no ready Pod"},
		"too old":                        {at(manager, "openpolicyagent/gatekeeper:v3.10.0@sha256:00", image), "fails|gatekeeper version|v3.10.0"},
		"older":                          {at(manager, "openpolicyagent/gatekeeper:v3.22.2", image), "warns|gatekeeper version|v3.22.2 is older than v3.23.0"},
		"no version":                     {at(manager, "registry:5000/gatekeeper", image), "warns|gatekeeper version|says no version"},
		"no webhook":                     {gone(webhook), "fails|webhook fails closed|is not there: nothing is ever refused"},
		"another webhook":                {at(webhook, "other", "webhooks,0,name"), "fails|webhook fails closed|is not there"},
		"Ignore":                         {at(webhook, "Ignore", "webhooks,0,failurePolicy"), "fails|webhook fails closed|failurePolicy is Ignore"},
		"no CA":                          {at(webhook, nil, "webhooks,0,clientConfig,caBundle"), "fails|webhook fails closed|no caBundle"},
		"no ephemeral containers":        {at(webhook, []any{"*"}, "webhooks,0,rules,0,resources"), "fails|webhook sees everything|UPDATE of pods/ephemeralcontainers"},
		"no updates":                     {at(webhook, []any{"CREATE"}, "webhooks,0,rules,0,operations"), "fails|webhook sees everything|UPDATE of pods:"},
		"no workloads":                   {at(webhook, []any{""}, "webhooks,0,rules,0,apiGroups"), "warns|webhook sees everything|CREATE of deployments"},
		"cluster-wide objects only":      {at(webhook, "Cluster", "webhooks,0,rules,0,scope"), "fails|webhook sees everything|CREATE of pods:"},
		"objects by label":               {at(webhook, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "webhooks,0,objectSelector"), "fails|webhook sees everything|by their labels"},
		"a condition":                    {at(webhook, "mine", "webhooks,0,matchConditions,0,name"), "warns|webhook sees everything|the condition mine"},
		"a namespace with the label":     {at("Namespace/shop", "true", "metadata,labels,admission.gatekeeper.sh/ignore"), "fails|namespaces left out|any image runs in shop (the namespace has the label admission.gatekeeper.sh/ignore)"},
		"a namespace the webhook leaves": {at(webhook, []any{"shop"}, "webhooks,0,namespaceSelector,matchExpressions,1,values"), "fails|namespaces left out|any image runs in shop (Gatekeeper's webhook leaves"},
		"a namespace of the Config":      {add("{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config}, spec: {match: [{processes: ['*'], excludedNamespaces: ['sh*']}]}}"), "fails|namespaces left out|any image runs in shop (Gatekeeper's Config excludes"},
		"a namespace that nobody needs": {func(w world) {
			at(webhook, []any{"kube-system", "oke-sign", "gatekeeper-system", "kube-node-lease"}, "webhooks,0,namespaceSelector,matchExpressions,1,values")(w)
			add("{apiVersion: v1, kind: Namespace, metadata: {name: kube-node-lease, labels: {kubernetes.io/metadata.name: kube-node-lease}}}")(w)
		}, "fails|namespaces left out|any image runs in kube-node-lease (Gatekeeper's webhook leaves"},
		"an exempt name that nobody has": {gone("Namespace/oke-sign"), "fails|exempt namespaces|namespace oke-sign is exempt and does not exist: anybody who may create it"},
		"a free name in the Config": {
			add("{apiVersion: config.gatekeeper.sh/v1alpha1, kind: Config, metadata: {name: config}, spec: {match: [{processes: ['*'], excludedNamespaces: [free, 'no-*']}]}}"),
			"fails|exempt namespaces|namespace free is exempt and does not exist",
		},
		"a free name in Gatekeeper's arguments": {at(manager, []any{"--external-data-provider-response-cache-ttl=30s", "--exempt-namespace=free"}, args), "fails|exempt namespaces|namespace free is exempt and does not exist"},
		"a free name in a constraint":           {at(signed, []any{"kube-system", "free", "no-*"}, "spec,match,excludedNamespaces"), "fails|exempt namespaces|namespace free is exempt and does not exist"},
		"a free name that may get the label":    {at(guard, `["gatekeeper-system","free"]`, "spec,variables,0,expression"), "fails|exempt namespaces|namespace free is exempt and does not exist"},
		"Gatekeeper elsewhere": {at(webhook, "policy", "webhooks,0,clientConfig,service,namespace"),
			"fails|exempt namespaces|namespace gatekeeper-system is exempt, and Gatekeeper runs in policy"},
		"a label that exempts": {
			at(webhook, []any{map[string]any{"key": "team", "operator": "NotIn", "values": []any{"infra"}}}, "webhooks,0,namespaceSelector,matchExpressions"),
			"warns|exempt namespaces|by the label team: whoever may label a Namespace",
		},
		"no guard of labels":              {gone(guard), "fails|labels of namespaces|the ValidatingAdmissionPolicy oke-sign-namespace-labels is not there: the owner of a namespace can take it out"},
		"a guard that is not bound":       {gone(bound), "fails|labels of namespaces|the ValidatingAdmissionPolicyBinding oke-sign-namespace-labels is not there"},
		"a guard that fails open":         {at(guard, "Ignore", "spec,failurePolicy"), "fails|labels of namespaces|failurePolicy of policy oke-sign-namespace-labels is not Fail"},
		"a guard with a condition":        {at(guard, []any{map[string]any{"name": "never", "expression": "false"}}, "spec,matchConditions"), "fails|labels of namespaces|has matchConditions"},
		"a guard with parameters":         {at(guard, map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}, "spec,paramKind"), "fails|labels of namespaces|has parameters"},
		"a guard without finalize":        {at(guard, []any{"namespaces", "namespaces/status"}, "spec,matchConstraints,resourceRules,0,resources"), "fails|labels of namespaces|does not see UPDATE of namespaces/finalize"},
		"a guard without status":          {at(guard, []any{"namespaces", "namespaces/finalize"}, "spec,matchConstraints,resourceRules,0,resources"), "fails|labels of namespaces|does not see UPDATE of namespaces/status"},
		"a guard of updates":              {at(guard, []any{"UPDATE"}, "spec,matchConstraints,resourceRules,0,operations"), "fails|labels of namespaces|does not see CREATE of namespaces"},
		"a guard of one namespace":        {at(guard, []any{"shop"}, "spec,matchConstraints,resourceRules,0,resourceNames"), "fails|labels of namespaces|does not see CREATE of namespaces"},
		"a guard of labeled namespaces":   {at(guard, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,matchConstraints,namespaceSelector"), "fails|labels of namespaces|chooses by labels"},
		"a guard of labeled objects":      {at(guard, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,matchConstraints,objectSelector"), "fails|labels of namespaces|chooses by labels"},
		"a guard that leaves something":   {at(guard, []any{map[string]any{"apiGroups": []any{""}, "apiVersions": []any{"v1"}, "operations": []any{"*"}, "resources": []any{"namespaces/status"}}}, "spec,matchConstraints,excludeResourceRules"), "fails|labels of namespaces|leaves resources out"},
		"a guard that matches nothing":    {at(guard, nil, "spec,matchConstraints"), "fails|labels of namespaces|matches nothing"},
		"a guard with another expression": {at(guard, "true", "spec,validations,1,expression"), "fails|labels of namespaces|lacks an expression of this release"},
		"a guard with another variable":   {at(guard, "oldObject.metadata.labels", "spec,variables,2,expression"), "fails|labels of namespaces|the variable after"},
		"a guard that exempts by rule":    {at(guard, "[object.metadata.name]", "spec,variables,0,expression"), "fails|labels of namespaces|the variable exempt of policy oke-sign-namespace-labels is no list of names"},
		"a guard that warns":              {at(bound, []any{"Warn", "Audit"}, "spec,validationActions"), "fails|labels of namespaces|does not deny"},
		"a guard bound to some":           {at(bound, map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]any{"a": "b"}}}, "spec,matchResources"), "fails|labels of namespaces|has matchResources"},
		"a guard bound with parameters":   {at(bound, map[string]any{"name": "p"}, "spec,paramRef"), "fails|labels of namespaces|has parameters"},
		"the binding of another policy":   {at(bound, "other", "spec,policyName"), "fails|labels of namespaces|is for policy other"},
		"break-glass without an end":      {at(glass, nil, "spec,parameters,maxDuration"), "warns|break-glass is held|sets no maxDuration: whoever may scale an old ReplicaSet"},
		"break-glass for tags":            {at(glass, false, "spec,parameters,requireDigest"), "warns|break-glass is held|does not require digests"},
		"break-glass through old Pods":    {at(glass, []any{"DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"}, "spec,match,kinds,1,kinds"), "fails|break-glass is held|is not about ControllerRevision"},
		"an audit whose list is cut":      {at(signed, int64(101), "status,totalViolations"), "warns|audit lists all|OKESignedImages/signed has 101 violations, and the audit lists 0"},
		"namespaces that are chosen":      {at(signed, map[string]any{"matchLabels": map[string]any{"env": "prod"}}, "spec,match,namespaceSelector"), "warns|constraints enforce|whoever may label a Namespace, such as its owner, takes it out"},
		"no namespace left out":           {at(webhook, nil, "webhooks,0,namespaceSelector"), "warns|namespaces left out|nothing in kube-system can be mended"},
		"external data off":               {at(manager, []any{"--enable-external-data=false"}, args), "fails|external data|--enable-external-data=false"},
		"external data off, in two words": {at(audit, []any{"--enable-external-data", "false"}, args), "fails|external data|gatekeeper-audit runs with"},
		"a long cache":                    {at(manager, []any{"--external-data-provider-response-cache-ttl=3m"}, args), "warns|response cache|for 3m0s"},
		"the cache's default":             {at(manager, []any{}, args), "warns|response cache|for 3m0s"},
		"no template":                     {gone("ConstraintTemplate/okesignedimages"), "fails|templates|OKESignedImages is not installed"},
		"a template with an error":        {at("ConstraintTemplate/okesignedimages", []any{map[string]any{"errors": []any{map[string]any{"message": "rego_parse_error"}}}}, "status,byPod"), "fails|templates|cannot use OKESignedImages: rego_parse_error"},
		"a template not taken in":         {at("ConstraintTemplate/okesignedimages", false, "status,created"), "fails|templates|has not taken OKESignedImages in"},
		"a template of another release":   {at("ConstraintTemplate/okesignedimages", []any{}, "spec,targets"), "warns|templates|OKESignedImages is not the template of this release"},
		"a recorded template": {func(w world) {
			o, _ := manifest.Object(recorded)
			o.Object["status"] = map[string]any{"created": true}
			w["ConstraintTemplate/okesignedimages"] = o
		}, "fails|templates|for recorded verdicts"},
		"no constraint": {gone(signed), "fails|constraints enforce|no constraint asks for signatures"},
		"only warnings": {at(signed, "warn", "spec,enforcementAction"), "fails|constraints enforce|and none refuses Pods"},
		"an audit only": {func(w world) {
			at(signed, "scoped", "spec,enforcementAction")(w)
			at(signed, []any{map[string]any{"action": "deny", "enforcementPoints": []any{map[string]any{"name": "audit.gatekeeper.sh"}}}}, "spec,scopedEnforcementActions")(w)
		}, "fails|constraints enforce|and none refuses Pods"},
		"workloads only":            {at(signed, []any{"Deployment"}, "spec,match,kinds,0,kinds"), "fails|constraints enforce|and none refuses Pods"},
		"no key":                    {at(signed, []any{}, "spec,parameters,keys"), "warns|constraints enforce|lists no key"},
		"some Pods":                 {at(signed, map[string]any{"matchLabels": map[string]any{"a": "b"}}, "spec,match,labelSelector"), "warns|constraints enforce|which whoever makes a Pod chooses"},
		"some namespaces":           {at(signed, []any{"prod"}, "spec,match,namespaces"), "warns|constraints enforce|only namespaces [prod]"},
		"a constraint not enforced": {at(signed, nil, "status,byPod"), "fails|constraints are taken in|no Pod of Gatekeeper enforces OKESignedImages/signed yet"},
		"a constraint that only the audit enforces": {
			at(signed, []any{map[string]any{"id": "audit", "enforced": true, "operations": []any{"audit", "status"}}}, "status,byPod"),
			"fails|constraints are taken in|no Pod of Gatekeeper enforces OKESignedImages/signed yet",
		},
		"a constraint with an error": {at(glass, []any{map[string]any{"errors": []any{map[string]any{"message": "bad"}}}}, "status,byPod"), "fails|constraints are taken in|cannot use OKEBreakGlass/glass: bad"},
		"no rules for break-glass":   {gone(glass), "warns|break-glass is held|anybody who may make a Pod"},
		"break-glass for digests": {func(w world) {
			at(signed, "Ignore", "spec,parameters,breakGlass")(w)
			gone(glass)(w)
			add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKEImageDigests, metadata: {name: digests}, spec: {match: {kinds: [{apiGroups: [''], kinds: [Pod]}]}, parameters: {}}, status: {byPod: [{id: a, enforced: true}]}}")(w)
		}, "warns|break-glass is held|anybody who may make a Pod"},
		"break-glass only warned of": {at(glass, "warn", "spec,enforcementAction"), "fails|break-glass is held|refuses nobody"},
		"a kind left out":            {at(glass, []any{"Job"}, "spec,match,kinds,2,kinds"), "fails|break-glass is held|is not about CronJob"},
		"a kind left out, for anybody": {func(w world) {
			at(glass, []any{"Job"}, "spec,match,kinds,2,kinds")(w)
			at(glass, nil, "spec,parameters,groups")(w)
		}, "warns|break-glass is held|is not about CronJob"},
		"a namespace left out of it":     {at(glass, []any{"shop"}, "spec,match,excludedNamespaces"), "fails|break-glass is held|not namespaces [shop]"},
		"no Provider":                    {gone(provider), "fails|providers|there is no Provider oke-sign, which OKESignedImages/signed asks"},
		"no CA of it":                    {at(provider, nil, "spec,caBundle"), "fails|providers|caBundle: it is empty"},
		"a CA that is none":              {at(provider, "eA==", "spec,caBundle"), "fails|providers|no certificate in PEM"},
		"no time-out":                    {at(provider, nil, "spec,timeout"), "fails|providers|has no time-out"},
		"a time-out above the webhook's": {at(provider, int64(5), "spec,timeout"), "fails|providers|a time-out of 5 s, and the webhook one of 5 s"},
		"http":                           {at(provider, "http://oke-sign.oke-sign.svc:8443/", "spec,url"), "fails|providers|only https is asked"},
		"an inactive Provider":           {at(provider, []any{map[string]any{"active": false}}, "status,byPod"), "fails|providers|is not active"},
		"a Provider with an error":       {at(provider, []any{map[string]any{"active": false, "errors": []any{map[string]any{"message": "bad caBundle"}}}}, "status,byPod"), "fails|providers|cannot use oke-sign: bad caBundle"},
		"a Provider nobody knows":        {at(provider, nil, "status"), "warns|providers|says that it knows"},
		"no Pod of the provider ready": {func(w world) {
			at("Pod/oke-sign-1", "False", "status,conditions,0,status")(w)
			at("Pod/oke-sign-2", "False", "status,conditions,0,status")(w)
		}, "fails|provider is ready|none of 2 Pods is ready"},
		"one Pod of it ready":            {at("Pod/oke-sign-1", "False", "status,conditions,0,status"), "warns|provider is ready|one Pod is ready"},
		"no Service":                     {gone("Service/oke-sign"), "fails|provider is ready|nobody answers at oke-sign.oke-sign: there is no such Service"},
		"a Service without the port":     {at("Service/oke-sign", int64(443), "spec,ports,0,port"), "fails|provider is ready|nobody answers at oke-sign.oke-sign: the Service has no port 8443"},
		"a Service that chooses none":    {at("Service/oke-sign", nil, "spec,selector"), "fails|provider is ready|the Service chooses no Pods"},
		"a certificate for another name": {at(provider, "https://other.oke-sign.svc:8443/v1/signatures", "spec,url"), "fails|provider certificate|not other.oke-sign.svc"},
		"an audit without answers":       {at(signed, []any{map[string]any{"message": "containers/c: no-answer: could not find out"}}, "status,violations"), "fails|answers|the last audit got no answer: containers/c"},
		"an audit without rights":        {at(signed, []any{map[string]any{"message": "containers/c: no-answer: 404 NotAuthorizedOrNotFound"}}, "status,violations"), "fails|answers|OCI lets the provider read nothing"},
		"an audit that does not see":     {at(signed, []any{map[string]any{"message": "containers/c: image-not-found: x"}}, "status,violations"), "warns|answers|does not see an image that runs"},
		"no audit so far":                {at(signed, nil, "status,auditTimestamp"), "warns|answers|no audit has asked yet"},
		"no mutation":                    {gone("MutatingWebhookConfiguration/gatekeeper-mutating-webhook-configuration"), "warns|tags are pinned|mutation.gatekeeper.sh is not there"},
		"pins before break-glass":        {at(pin, "Fail", "spec,parameters,assign,externalData,failurePolicy"), "warns|tags are pinned|Assign/pin refuses Pods while the provider has no answer"},
		"a pin with an error":            {at(pin, []any{map[string]any{"errors": []any{map[string]any{"message": "conflict"}}}}, "status,byPod"), "warns|tags are pinned|cannot use Assign/pin: conflict"},
		"no Provider of digests":         {gone(digests), "warns|tags are pinned|there is no Provider oke-sign-digests, which Assign/pin asks"},
		"no digests from it":             {at(digests, "https://oke-sign.oke-sign.svc:8443/v1/signatures", "spec,url"), "warns|tags are pinned|leads to /v1/signatures"},
		"no time-out for digests":        {at(digests, nil, "spec,timeout"), "warns|tags are pinned|oke-sign-digests has no time-out"},
		"digests by another name": {func(w world) {
			w["Provider/own"] = w[digests]
			w["Provider/own"].SetName("own")
			delete(w, digests)
			at(pin, "own", "spec,parameters,assign,externalData,provider")(w)
			at("Provider/own", int64(3), "spec,timeout")(w)
		}, "warns|tags are pinned|own has a time-out of 3 s, and the webhook one of 3 s"},
		"nothing": {func(world) {}, ""},
	} {
		objects, err := soundcluster.Objects(soundKey, "oke-sign.oke-sign.svc")
		if err != nil {
			t.Fatal(err)
		}
		w := make(world)
		for _, o := range objects {
			w[o.GetKind()+"/"+o.GetName()] = o
		}
		at(glass, true, "spec,parameters,requireDigest")(w)
		tc.change(w)
		var changed []*unstructured.Unstructured
		for _, o := range w {
			changed = append(changed, o)
		}
		slices.SortFunc(changed, func(a, b *unstructured.Unstructured) int { return strings.Compare(b.GetName(), a.GetName()) })
		found, err := doctor.Check(changed, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		state, rest, _ := strings.Cut(tc.want, "|")
		check, says, _ := strings.Cut(rest, "|")
		var bad []string
		seen := tc.want == ""
		for _, x := range found {
			seen = seen || x.State == state && x.Check == check && strings.Contains(x.Detail, says)
			if x.State == "skipped" && x.Check == "OKE's own policy" {
				continue // nothing says which cluster it is
			}
			if x.State != "holds" && !strings.Contains(x.Detail, "the CA ends") && !strings.Contains(x.Detail, "certificate of oke-sign ends") {
				bad = append(bad, x.State+"|"+x.Check+"|"+x.Detail)
				if x.Fix == "" {
					t.Errorf("%s: no fix for %q", name, x.Detail)
				}
			}
		}
		if !seen {
			t.Errorf("%s: want %s, got\n%s", name, tc.want, strings.Join(bad, "\n"))
		}
		if tc.want == "" && len(bad) > 0 {
			t.Errorf("a sound cluster: %s", strings.Join(bad, "\n"))
		}
	}

	// A certificate that has run out, and its authority with it.
	objects, err := soundcluster.Objects(soundKey, "oke-sign.oke-sign.svc")
	if err != nil {
		t.Fatal(err)
	}
	found, err := doctor.Check(objects, time.Now().Add(100*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range found {
		if x.State == "fails" {
			got = append(got, x.Check)
		}
	}
	if diff := cmp.Diff([]string{"providers", "provider certificate"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestDoctorsClock(t *testing.T) {
	for off, want := range map[time.Duration]string{0: "holds", 90 * time.Second: "holds", 3 * time.Minute: "warns", -3 * time.Minute: "warns"} {
		found := doctor.CheckClock(off)
		if len(found) != 1 || found[0].State != want || want == "warns" && (!strings.Contains(found[0].Detail, "differ by 3m0s") || found[0].Fix == "") {
			t.Errorf("%s off: %+v", off, found)
		}
	}
}
