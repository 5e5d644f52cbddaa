package e2e_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/discovery"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/test/attacksurface"
)

// TestAttackSurface tries to run an unsigned image with every request that the API
// server offers. The attacker may do everything in one namespace and nothing elsewhere.
func TestAttackSurface(t *testing.T) {
	t.Parallel()
	customKinds(t)
	requests := slices.DeleteFunc(discoverRequests(t), func(w attacksurface.Request) bool { return strings.HasSuffix(w.Group, testsGroup) })
	g := newGround(t)
	outcomes := g.try(t, allAttacks(requests), g.policyFile)
	for _, o := range outcomes {
		o.check(t)
	}
	for _, w := range unattacked(requests, outcomes) {
		t.Errorf("%s can carry %v, and no attack uses it: write one", w, w.Carries)
	}
	report(t, requests, outcomes, g.elsewhere(t, requests))
}

// testsGroup is the suffix of the groups that other tests add and remove.
const testsGroup = ".example.com"

// TestAttackSurfaceFindsHoles removes defences in its namespaces, and checks that the
// attacks find each hole. It also checks that a new kind that can hold a Pod template
// is found.
func TestAttackSurfaceFindsHoles(t *testing.T) {
	disturbs(t)
	unknown := newSpace(t).name + testsGroup
	customKind(t, unknown, "v1", "Widget", "widgets")
	requests := discoverRequests(t)
	g := newGround(t)
	unguard(t, g)
	attacks := slices.DeleteFunc(slices.Concat(revisionAttacks(), oldAttacks(), namespaceAttacks(requests)), func(a attack) bool { return a.stops == inert })
	defences := regexp.MustCompile(`(?m)^ *(- ControllerRevision|requireDigest: true)\n`)
	outcomes := g.try(t, attacks, func(t *testing.T, namespaces ...string) string {
		return defences.ReplaceAllString(g.policyFile(t, namespaces...), "")
	})
	var holes []string
	for _, o := range outcomes {
		if o.guarded && o.arrived {
			holes = append(holes, o.attack.name)
		}
	}
	slices.Sort(holes)
	want := []string{
		"an old ReplicaSet with a tag whose break-glass holds, scaled",
		"apps/v1/controllerrevisions of a StatefulSet, forged under break-glass",
		"apps/v1/controllerrevisions of a StatefulSet, forged under break-glass by tag",
		"v1/namespaces/finalize with admission.gatekeeper.sh/ignore by update",
		"v1/namespaces/status with admission.gatekeeper.sh/ignore by apply-patch",
		"v1/namespaces/status with admission.gatekeeper.sh/ignore by json-patch",
		"v1/namespaces/status with admission.gatekeeper.sh/ignore by merge-patch",
		"v1/namespaces/status with admission.gatekeeper.sh/ignore by strategic-merge-patch",
		"v1/namespaces/status with admission.gatekeeper.sh/ignore by update",
	}
	if diff := gocmp.Diff(want, holes); diff != "" {
		t.Errorf("holes without the defences, -want +got:\n%s", diff)
	}
	var widgets []string
	for _, w := range unattacked(requests, outcomes) {
		if w.Group == unknown {
			widgets = append(widgets, w.Resource+" "+w.Verb)
		}
	}
	slices.Sort(widgets)
	if want := []string{"widgets create", "widgets patch", "widgets patch", "widgets update", "widgets update"}; !slices.Equal(widgets, want) {
		t.Errorf("of an unknown kind with a Pod template, requests without an attack are %q; want %q", widgets, want)
	}
}

// unguard exempts the namespaces of a ground from the guard of namespace labels until
// the test ends.
func unguard(t *testing.T, g *ground) {
	t.Helper()
	const binding = "validatingadmissionpolicybinding/oke-sign-namespace-labels"
	g.labels = object{"unguarded": g.name}
	g.open(t, g.name+"-labels")
	admin := administrator(t)
	holdsBack := func() error {
		_, err := admin.send(context.Background(), http.MethodPatch, target("v1/namespaces/status").path("", g.name+"-labels"), merge,
			url.Values{"dryRun": {"All"}}, object{"metadata": object{"labels": object{ignore: "x"}}})
		return err
	}
	t.Cleanup(func() {
		g.kubectl(t, "patch", binding, "--type=merge", "-p", `{"spec": {"matchResources": null}}`).succeeds(t)
		eventually(t, soon, "labels are guarded again", func() error {
			if holdsBack() == nil {
				return errors.New("they are not")
			}
			return nil
		})
	})
	g.kubectl(t, "patch", binding, "--type=merge", "-p", fmt.Sprintf(
		`{"spec": {"matchResources": {"namespaceSelector": {"matchExpressions": [{"key": "unguarded", "operator": "NotIn", "values": [%q]}]}}}}`, g.name)).succeeds(t)
	eventually(t, soon, "labels are not guarded", holdsBack)
}

func discoverRequests(t *testing.T) []attacksurface.Request {
	t.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(adminConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	var requests []attacksurface.Request
	eventually(t, soon, "discovery and schemas agree", func() (err error) { // other tests add kinds
		requests, err = attacksurface.Discover(client)
		return err
	})
	return requests
}

// customKinds adds kinds of other projects that the policies read. Their controllers do
// not run here.
func customKinds(t *testing.T) {
	t.Helper()
	customKind(t, "argoproj.io", "v1alpha1", "Rollout", "rollouts")
	customKind(t, "serving.knative.dev", "v1", "Service", "services")
	customKind(t, "jobset.x-k8s.io", "v1alpha2", "JobSet", "jobsets")
}

// customKind adds a kind whose objects may hold anything, until the test ends.
func customKind(t *testing.T, group, version, kind, plural string) {
	t.Helper()
	admin, name := space{}, plural+"."+group
	admin.apply(t, fmt.Sprintf(`
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %s}
spec:
  group: %s
  scope: Namespaced
  names: {kind: %s, plural: %s}
  versions:
  - name: %s
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`, name, group, kind, plural, version)).succeeds(t)
	t.Cleanup(func() { admin.kubectl(t, "delete", "crd", name, "--wait=false").succeeds(t) })
	admin.kubectl(t, "wait", "crd/"+name, "--for=condition=Established", "--timeout=50s").succeeds(t)
	eventually(t, soon, "the schema of "+name+" is published", func() error {
		_, err := administrator(t).send(t.Context(), http.MethodGet, "/openapi/v3/apis/"+group+"/"+version, asJSON, nil, nil)
		return err
	})
}

// customMatch matches those kinds. The policy must deny their objects, because no Pods
// follow.
const customMatch = `{apiGroups: [argoproj.io], kinds: [Rollout]}, {apiGroups: [serving.knative.dev], kinds: [Service]}, {apiGroups: [jobset.x-k8s.io], kinds: [JobSet]}`

// try runs attacks under a policy and returns their outcomes. It also runs them without
// a policy, except those with their own namespace.
func (g *ground) try(t *testing.T, attacks []attack, policy func(*testing.T, ...string) string) []outcome {
	t.Helper()
	good, bad := g.signed(t, "good", imageKey), g.push(t, "bad")
	ctx, cancel := context.WithTimeout(t.Context(), 2*soon)
	defer cancel()
	guarded, free := g.name+"-guarded", g.name+"-open"
	enforcedIn := []string{guarded, g.name + "-w*"}
	g.open(t, guarded)
	g.open(t, free)
	admin := administrator(t)
	var intruders []*intruder
	add := func(a attack, name, namespace, side string) {
		tag := name + side
		intruders = append(intruders, &intruder{
			Context: ctx, attack: a, ground: g, namespace: namespace, guarded: side != "-open", name: name,
			good: good, bad: withNewDigest(bad, tag), tagged: strings.TrimSuffix(byTag(bad), "v1") + tag,
			admin: admin, owner: g.owner, bearer: func(token string) account { return bearer(t, token) },
		})
	}
	for n, a := range attacks {
		name := fmt.Sprintf("w%03d", n)
		if a.alone {
			g.open(t, g.name+"-"+name)
			add(a, name, g.name+"-"+name, "")
			continue
		}
		add(a, name, guarded, "-guarded")
		add(a, name, free, "-open")
	}
	atOnce(intruders, func(i *intruder) {
		if i.attack.before != nil {
			i.err = i.attack.before(i)
		}
	})
	for _, i := range intruders {
		if i.err != nil {
			t.Fatalf("%s: before the policy: %v", i.attack.name, i.err)
		}
	}
	g.lookAround(t)

	g.apply(t, policy(t, enforcedIn...)).succeeds(t)
	for _, c := range []constraint{
		{kind: policies.SignedImages, on: customMatch, parameters: signedBy("", imageKey)},
		{kind: policies.BreakGlass, on: customMatch, parameters: "{users: [oncall]}"},
	} {
		g.apply(t, strings.Replace(g.manifest(c), "namespaces: ["+g.name+"]", "namespaces: ["+guarded+"]", 1)).succeeds(t)
	}
	eventually(t, soon, "Gatekeeper enforces the policy", func() error { return g.enforced(t) })
	return g.carryOut(intruders)
}

// lookAround records every Pod of the ground. Later Pods came under the policy.
func (g *ground) lookAround(t *testing.T) {
	t.Helper()
	list, err := administrator(t).send(t.Context(), http.MethodGet, target("v1/pods").path("", ""), asJSON, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list["items"].([]any) {
		g.seePod(o.(object))
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.policy = true
}

// atOnce calls a function for every intruder, eight at a time.
func atOnce(intruders []*intruder, do func(*intruder)) {
	var group sync.WaitGroup
	places := make(chan struct{}, 8)
	for _, i := range intruders {
		places <- struct{}{}
		group.Go(func() {
			do(i)
			<-places
		})
	}
	group.Wait()
}

// carryOut runs attacks and waits for their outcomes.
func (g *ground) carryOut(intruders []*intruder) []outcome {
	outcomes := make([]outcome, len(intruders))
	rest := make(chan struct{})
	var certain, all sync.WaitGroup
	index := make(map[*intruder]int)
	for n, i := range intruders {
		index[i] = n
	}
	atOnce(intruders, func(i *intruder) {
		i.err = i.attack.run(i)
		wait := func() {
			o := g.settle(i, rest)
			outcomes[index[i]] = o
			for _, undo := range i.made {
				_ = undo() // its namespace goes anyway
			}
		}
		if i.attack.stops != inert {
			certain.Add(1)
			all.Go(func() { defer certain.Done(); wait() })
			return
		}
		all.Go(wait)
	})
	if slices.ContainsFunc(intruders, func(i *intruder) bool { return i.attack.stops == inert }) {
		<-time.After(settleTime)
	}
	certain.Wait()
	close(rest)
	all.Wait()
	return outcomes
}

// check fails the test if an image was admitted, or if the attack proves nothing.
func (o outcome) check(t *testing.T) {
	t.Helper()
	expected := o.attack.stops
	switch {
	case errors.As(o.err, new(unprepared)):
		t.Errorf("%s: preparing it in %s: %v", o.attack.name, o.namespace, o.err)
	case o.guarded && o.arrived:
		t.Errorf("%s: an unsigned image was admitted", o.attack.name)
	case o.guarded && expected == "" && o.stopped == inert:
		t.Errorf("%s: it was not denied, and had no effect", o.attack.name)
	case !o.guarded && expected == "" && !o.arrived:
		t.Errorf("%s: it fails even without a policy: %s", o.attack.name, o.stopped)
	case !o.guarded && expected != "" && o.arrived:
		t.Errorf("%s: it succeeds without a policy; want %q to stop it", o.attack.name, expected)
	case !o.guarded && expected != "" && !strings.Contains(o.stopped, expected):
		t.Errorf("%s: without a policy it fails with: %s; want %q", o.attack.name, o.stopped, expected)
	}
}

// elsewhere sends, as the owner, every request that changes the cluster or carries
// something into another namespace. It returns the answers other than RBAC's refusal.
func (g *ground) elsewhere(t *testing.T, requests []attacksurface.Request) map[string]string {
	t.Helper()
	answers := make(map[string]string)
	for _, w := range requests {
		r := target(w.Target())
		if !w.Writes() && !w.Connects || w.Namespaced && len(w.Carries) == 0 {
			continue
		}
		namespace := ""
		if w.Namespaced {
			namespace = "kube-system"
		}
		name := g.name
		if w.Subresource == "" && slices.Contains([]string{"create", "deletecollection"}, w.Verb) {
			name = ""
		}
		_, err := g.owner.send(t.Context(), methods[w.Verb], r.path(namespace, name), cmp.Or(map[string]form{"patch": merge}[w.Verb], asJSON), url.Values{"dryRun": {"All"}}, object{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "cannot") {
			answers[w.String()] = "admitted"
			if err != nil {
				answers[w.String()] = err.Error()
			}
			if len(w.Carries) > 0 {
				t.Errorf("%s, outside of the owner's namespaces: %v; want it to be forbidden", w, err)
			}
		}
	}
	return answers
}

var methods = map[string]string{
	"create": http.MethodPost, "get": http.MethodGet, "update": http.MethodPut, "patch": http.MethodPatch, "delete": http.MethodDelete, "deletecollection": http.MethodDelete,
}

// unattacked returns the requests that can carry something and that no attack used
// under the policy.
func unattacked(requests []attacksurface.Request, outcomes []outcome) []attacksurface.Request {
	used := make(map[string]bool)
	for _, o := range outcomes {
		for _, request := range o.used {
			used[request] = used[request] || o.guarded
		}
	}
	return slices.DeleteFunc(slices.Clone(requests), func(w attacksurface.Request) bool {
		return len(w.Carries) == 0 || used[w.String()] || outOfReach(w)
	})
}

// outOfReach reports whether a request leaves the owner's namespaces. The method
// elsewhere tries these requests.
func outOfReach(w attacksurface.Request) bool {
	return !w.Namespaced && w.Resource != "namespaces" || w.String() == "v1/namespaces create"
}

// report prints every attack with its outcome, and what was not tried.
func report(t *testing.T, requests []attacksurface.Request, outcomes []outcome, elsewhere map[string]string) {
	t.Helper()
	var text strings.Builder
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	control := make(map[string]outcome)
	for _, o := range outcomes {
		if !o.guarded {
			control[o.attack.name] = o
		}
	}
	fmt.Fprintln(table, "ATTACK\tWITHOUT A POLICY\tWITH THE POLICY")
	for _, o := range outcomes {
		if !o.guarded {
			continue
		}
		without := "(not tried)"
		if c, ok := control[o.attack.name]; ok {
			without = c.by()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", o.attack.name, without, o.by())
	}
	fmt.Fprintln(table, "\nNOT FORBIDDEN BY RBAC OUTSIDE OF THE NAMESPACE\tANSWER")
	for _, w := range slices.Sorted(maps.Keys(elsewhere)) {
		fmt.Fprintf(table, "%s\t%s\n", w, elsewhere[w])
	}
	none := make(map[string][]string) // verbs by target
	for _, w := range requests {
		if w.Writes() && !w.Connects && !outOfReach(w) && len(w.Carries) == 0 {
			none[w.Target()] = append(none[w.Target()], w.Verb)
		}
	}
	fmt.Fprintln(table, "\nCARRIES NOTHING, BY ITS SCHEMA\tVERBS")
	for _, r := range slices.Sorted(maps.Keys(none)) {
		fmt.Fprintf(table, "%s\t%s\n", r, strings.Join(none[r], " "))
	}
	fmt.Fprintln(table, "\nNOT TRIED\tVERB\tWHY")
	for _, w := range requests {
		if w.Connects && !outOfReach(w) {
			fmt.Fprintf(table, "%s\t%s\tstores nothing, and Nodes here have no kubelet that would answer\n", w.Target(), w.Verb)
		}
	}
	for _, w := range unattacked(requests, outcomes) {
		fmt.Fprintf(table, "%s\t%s\tNO ATTACK IS WRITTEN\n", w.Target(), w.Verb)
	}
	_ = table.Flush()
	t.Logf("%d requests, %d attacks, %d of them also tried without a policy\n%s", len(requests), len(outcomes)-len(control), len(control), text.String())
}

func decode(text string) (string, error) {
	plain, err := base64.StdEncoding.DecodeString(text)
	return string(plain), err
}
