package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/policies"
)

// attack is one way to run an unsigned image. The owner of two namespaces tries each
// attack twice: under the policy, and without a policy. An attack proves something
// about the policy only if it succeeds without one.
type attack struct {
	name   string                // what the attack does
	before func(*intruder) error // creates objects, as the administrator, before the policy
	run    func(*intruder) error // ends with the first request that is denied
	// stops says why the attack fails even without a policy. It is inert, or a part of
	// the message with which Kubernetes rejects the request.
	stops string
	alone bool // runs in its own namespace, and only under the policy
}

// inert marks an attack that the API server accepts and that has no effect.
const inert = "no effect"

// intruder carries out one attack in one namespace. Its objects have its name. Its
// image references are unique, so each Pod shows which attack created it.
type intruder struct {
	context.Context
	attack    attack
	ground    *ground
	namespace string
	guarded   bool
	name      string
	good      string // signed
	bad       string // not signed, by digest
	tagged    string // not signed, by tag
	admin     account
	owner     account
	bearer    func(token string) account

	used   []string // requests that the attack used, as attacksurface.Request prints them
	made   []func() error
	result object // the object that the last strike returned
	landed bool   // the image is stored in a kind whose controller does not run here
	inert  bool   // the API server stored nothing of the request
	err    error  // of run
}

// strike sends, as the owner, the request that carries the attack.
func (i *intruder) strike(verb string, r target, f form, body any) error {
	i.used = append(i.used, string(r)+" "+verb)
	o, err := i.as(i.owner, verb, r, f, body)
	i.result = o
	return err
}

// persist repeats a change until it does not conflict with another.
func (i *intruder) persist(change func() error) error {
	for {
		if err := change(); !apierrors.IsConflict(err) || i.Err() != nil {
			return err
		}
	}
}

// prepare creates, as the owner, an object that the attack needs.
func (i *intruder) prepare(r target, body object) (object, error) {
	o, err := i.as(i.owner, "create", r, asJSON, body)
	if err != nil {
		return nil, unprepared{err}
	}
	return o, nil
}

// unprepared is the error of an attack that was never tried.
type unprepared struct{ error }

func (u unprepared) Unwrap() error { return u.error }

// as sends a request about the object in the body, or else about the object with the
// intruder's name.
func (i *intruder) as(who account, verb string, r target, f form, body any) (object, error) {
	namespace, name := i.namespace, i.name
	if r.base() == "v1/namespaces" {
		namespace, name = "", i.namespace
	}
	if o, ok := body.(object); ok && nameOf(o) != "" {
		name = nameOf(o)
	}
	if namespace != "" && (verb == "create" && r.sub() == "" || f == apply) {
		i.made = append(i.made, func() error { return i.admin.remove(context.Background(), r.base(), namespace, name) })
	}
	switch verb {
	case "create":
		if f != asJSON {
			return who.send(i, "POST", r.path(namespace, ""), f, nil, body)
		}
		return who.create(i, r, namespace, body.(object))
	case "update":
		return who.update(i, r, namespace, body.(object))
	case "patch":
		return who.patch(i, r, namespace, name, f, body)
	}
	return nil, fmt.Errorf("no request is known for verb %s", verb)
}

// now reads the object with the intruder's name.
func (i *intruder) now(r target) (object, error) { return i.admin.get(i, r, i.namespace, i.name) }

// awaits waits until the object with the intruder's name meets a condition.
func (i *intruder) awaits(r target, is func(object) bool) (object, error) {
	return i.admin.await(i, r, i.namespace, i.name, is)
}

// pod waits until a Pod of that name exists.
func (i *intruder) pod(name string) error {
	_, err := i.admin.await(i, "v1/pods", i.namespace, name, func(o object) bool { return true })
	return err
}

// spot is an image in a field of a Pod.
type spot struct {
	pod   types.UID
	place string
	image string
}

// ground has the namespaces of the attacks, and the events in them.
type ground struct {
	space
	labels object // of the namespaces
	owner  account
	mu     sync.Mutex
	came   chan struct{} // closed when a Pod or Event arrives
	spots  map[spot]bool // images that the API server stored in Pods; true: before the policy
	events []corev1.Event
	policy bool // the policy applies from now on
}

// newGround prepares an owner with every right in the ground's namespaces and no right
// elsewhere.
func newGround(t *testing.T) *ground {
	t.Helper()
	g := &ground{space: newSpace(t), came: make(chan struct{}), spots: make(map[spot]bool)}
	g.kubectl(t, "create", "serviceaccount", "owner").succeeds(t)
	token := g.kubectl(t, "create", "token", "owner", "--duration=1h").succeeds(t).stdout
	g.owner = bearer(t, strings.TrimSpace(token))
	g.eyes(t)
	return g
}

// open creates a namespace of the owner.
func (g *ground) open(t *testing.T, name string) {
	t.Helper()
	admin := administrator(t)
	_, err := admin.create(t.Context(), "v1/namespaces", "", object{"metadata": object{"name": name, "labels": g.labels}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := admin.remove(context.Background(), "v1/namespaces", "", name); err != nil {
			t.Error(err)
		}
	})
	_, err = admin.create(t.Context(), "rbac.authorization.k8s.io/v1/rolebindings", name, object{
		"metadata": object{"name": "owner"},
		"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
		"subjects": []object{{"kind": "ServiceAccount", "name": "owner", "namespace": g.name}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// eyes watches the Pods and Events of all namespaces until the test ends.
func (g *ground) eyes(t *testing.T) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	var watches sync.WaitGroup
	admin := administrator(t)
	for r, see := range map[target]func(object){"v1/pods": g.seePod, "v1/events": g.seeEvent} {
		watches.Go(func() {
			err := admin.watch(ctx, r, "", nil, func(o object) bool {
				if namespace, _ := at(o, "metadata", "namespace").(string); strings.HasPrefix(namespace, g.name+"-") {
					see(o)
				}
				return false
			})
			if ctx.Err() == nil {
				t.Errorf("the watch ended: %v", err)
			}
		})
	}
	t.Cleanup(func() { end(); watches.Wait() })
}

func (g *ground) seePod(o object) {
	var pod corev1.Pod
	convert(o, &pod)
	g.mu.Lock()
	defer g.mu.Unlock()
	for place, image := range imagesOf(pod.Spec) {
		if s := (spot{pod.UID, place, image}); !g.spots[s] {
			g.spots[s] = !g.policy
		}
	}
	g.new()
}

func (g *ground) seeEvent(o object) {
	var event corev1.Event
	convert(o, &event)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = append(g.events, event)
	g.new()
}

func (g *ground) new() {
	close(g.came)
	g.came = make(chan struct{})
}

func convert(from object, to any) {
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	if err != nil {
		panic(err) // both are objects of the API server
	}
}

// imagesOf returns the images of a Pod by field.
func imagesOf(spec corev1.PodSpec) map[string]string {
	images := make(map[string]string)
	for _, c := range spec.InitContainers {
		images["initContainers/"+c.Name] = c.Image
	}
	for _, c := range spec.Containers {
		images["containers/"+c.Name] = c.Image
	}
	for _, c := range spec.EphemeralContainers {
		images["ephemeralContainers/"+c.Name] = c.Image
	}
	for _, v := range spec.Volumes {
		if v.Image != nil {
			images["volumes/"+v.Name] = v.Image.Reference
		}
	}
	return images
}

// arrived reports whether an image of the attack entered a field of a Pod after the
// policy applied.
func (g *ground) arrived(i *intruder) bool {
	return i.landed || slices.ContainsFunc(g.since(), func(image string) bool { return image == i.bad || image == i.tagged })
}

// since returns the images that came under the policy.
func (g *ground) since() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var images []string
	for s, before := range g.spots {
		if !before {
			images = append(images, s.image)
		}
	}
	return images
}

// refused returns the last message of a controller that could not create a Pod for the
// attack because Gatekeeper denied it, or "".
func (g *ground) refused(i *intruder) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range slices.Backward(g.events) {
		if e.Namespace == i.namespace && e.Reason == "FailedCreate" && strings.HasPrefix(e.InvolvedObject.Name, i.name) && strings.Contains(e.Message, denies) {
			return e.Message
		}
	}
	return ""
}

// policyFile returns the image policy that make cluster writes, limited to namespaces
// of the test. Only oncall may use break-glass; the owner may not.
func (g *ground) policyFile(t *testing.T, namespaces ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(os.Getenv("OKE_SIGN_CLUSTER"), "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var c object
		if err := yaml.Unmarshal([]byte(document), &c); err != nil {
			t.Fatal(err)
		}
		if c["kind"] == policies.BreakGlass {
			at(c, "spec").(object)["parameters"] = object{"users": []string{"oncall"}, "requireReason": true, "maxDuration": "1h", "requireDigest": true}
		}
		at(c, "spec", "match").(object)["namespaces"] = namespaces
		c["metadata"] = object{"name": g.name + "-" + nameOf(c), "labels": object{"e2e": g.name}}
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "---\n%s", text)
	}
	return all.String()
}

// outcome is the outcome of an attack.
type outcome struct {
	*intruder
	arrived bool   // the image is in a Pod, or landed
	stopped string // the message of the refusal, or inert
}

// settle waits until the image of an attack arrives or the attack is denied. Attacks
// without effect end when rest is closed.
func (g *ground) settle(i *intruder, rest <-chan struct{}) outcome {
	for {
		g.mu.Lock()
		came := g.came
		g.mu.Unlock()
		switch message := g.refused(i); {
		case g.arrived(i):
			return outcome{intruder: i, arrived: true}
		case i.err != nil:
			return outcome{intruder: i, stopped: i.err.Error()}
		case i.inert:
			return outcome{intruder: i, stopped: inert}
		case message != "":
			return outcome{intruder: i, stopped: message}
		}
		select {
		case <-came:
		case <-rest:
			return outcome{intruder: i, arrived: g.arrived(i), stopped: inert}
		case <-i.Done():
			return outcome{intruder: i, stopped: inert}
		}
	}
}

// by returns who stopped an attack, and the reason.
func (o outcome) by() string {
	message := o.stopped
	short := func(s string) string { return strings.TrimSpace(s[:min(len(s), 90)]) }
	after := func(mark string) string {
		_, rest, _ := strings.Cut(message, mark)
		return strings.ReplaceAll(rest, "\n", " ")
	}
	var status *apierrors.StatusError
	switch {
	case o.arrived:
		return "the image is in"
	case strings.Contains(message, denies):
		reason := after(denies)
		if _, rest, found := strings.Cut(reason, "] "); found {
			reason = rest
		}
		words := strings.SplitN(reason, ": ", 3)
		return "Gatekeeper: " + short(strings.Join(words[:min(len(words), 2)], ": "))
	case strings.Contains(message, "check-ignore-label.gatekeeper.sh"):
		return "Gatekeeper's guard of its label"
	case strings.Contains(message, "ValidatingAdmissionPolicy"):
		return "the API server: " + short(after("denied request: "))
	case errors.As(o.err, &status) && status.ErrStatus.Code == 403:
		return "RBAC: " + short(message)
	}
	return short(message)
}

// settleTime is how long inert attacks are watched after the last attack.
const settleTime = 20 * time.Second
