package enforcement

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/match"
	mutationtypes "github.com/open-policy-agent/gatekeeper/v3/pkg/mutation/types"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/wildcard"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

// Reach has the reasons why the match of a constraint selects no Pod of a cluster.
type Reach struct {
	// Empty is the reason why no Pod of the cluster could match, or "".
	Empty string
	// Idle is the reason why no running Pod matches, although Pods run, or "".
	Idle string
}

// Why returns why the constraint applies to no Pod, or "".
func (r Reach) Why() string { return cmp.Or(r.Empty, r.Idle) }

// ReadReach returns the reach of a constraint among the Pods that run, and among those that
// workloads would make. It reads Pods only if the match may exclude all of them.
func (e State) ReadReach(ctx context.Context, s *connect.Session, c *unstructured.Unstructured) (Reach, error) {
	return e.Reach(c, podsOf(ctx, s))
}

// Reach returns the reach of a constraint among Pods. It matches as Gatekeeper does. The
// reach is an error if it depends on something that could not be read.
func (e State) Reach(c *unstructured.Unstructured, pods iter.Seq2[*unstructured.Unstructured, error]) (Reach, error) {
	of, err := matchOf(c)
	if err != nil {
		return Reach{}, err
	}
	if why, err := noPod(of); why != "" || err != nil {
		return Reach{Empty: why}, err
	}
	choosesNamespaces := len(of.Namespaces)+len(of.ExcludedNamespaces) > 0 || of.NamespaceSelector != nil
	if e.Unlisted != nil && choosesNamespaces {
		return Reach{}, e.Unlisted
	}
	if e.Unlisted == nil {
		if why, err := e.noNamespace(c, of); why != "" || err != nil {
			return Reach{Empty: why}, err
		}
	}
	narrow := len(of.Namespaces) > 0 || of.NamespaceSelector != nil || of.LabelSelector != nil || of.Name != ""
	if !narrow || pods == nil {
		return Reach{}, nil
	}
	return e.idle(c, of, pods)
}

// matchOf returns the match of a constraint.
func matchOf(c *unstructured.Unstructured) (match.Match, error) {
	var text struct {
		Spec struct {
			Match match.Match `json:"match"`
		} `json:"spec"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(c.Object, &text); err != nil {
		return match.Match{}, fmt.Errorf("spec.match: %w", err)
	}
	return text.Spec.Match, nil
}

// matched reports whether Gatekeeper matches an object of a namespace that somebody sends
// to the API server.
func matched(of match.Match, object *unstructured.Unstructured, namespace *corev1.Namespace) (bool, error) {
	ok, err := match.Matches(&of, &match.Matchable{Object: object, Namespace: namespace, Source: mutationtypes.SourceTypeOriginal})
	if err != nil {
		return false, fmt.Errorf("spec.match: %w", err)
	}
	return ok, nil
}

// podIn returns a Pod of a namespace, without labels.
func podIn(namespace string) *unstructured.Unstructured {
	pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod"}}
	pod.SetNamespace(namespace)
	return pod
}

// noPod returns why a match excludes every Pod, in whatever namespace.
func noPod(of match.Match) (string, error) {
	for _, part := range []struct {
		is  match.Match
		why string
	}{
		{match.Match{Kinds: of.Kinds}, "spec.match.kinds does not include Pods"},
		{match.Match{Scope: of.Scope}, fmt.Sprintf("spec.match.scope is %s, and Pods are in namespaces", of.Scope)},
		{match.Match{Source: of.Source}, fmt.Sprintf("spec.match.source is %s, and nobody sends such objects", of.Source)},
	} {
		ok, err := matched(part.is, podIn("default"), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
		if err != nil {
			return "", err
		}
		if !ok {
			return part.why, nil
		}
	}
	return "", nil
}

// noNamespace returns why a match leaves no namespace that Gatekeeper checks.
func (e State) noNamespace(c *unstructured.Unstructured, of match.Match) (string, error) {
	of.LabelSelector, of.Name = nil, ""
	var exempt []string
	for _, name := range slices.Sorted(maps.Keys(e.Namespaces)) {
		ok, err := matched(of, podIn(name), e.Namespaces[name])
		switch {
		case err != nil:
			return "", err
		case ok && e.WhyNotAsked(name) == "":
			return "", nil
		case ok:
			exempt = append(exempt, name)
		}
	}
	if len(exempt) > 0 {
		return "it covers only namespaces that Gatekeeper does not check: " + cli.Clip(strings.Join(exempt, ", "), 200), nil
	}
	return "no namespace matches: " + strings.Join(Narrowed(*c), "; "), nil
}

// idle returns why a match excludes all Pods that Gatekeeper checks. If the cluster has no
// such Pods, it returns no reason.
func (e State) idle(c *unstructured.Unstructured, of match.Match, pods iter.Seq2[*unstructured.Unstructured, error]) (Reach, error) {
	checked := 0
	for pod, err := range pods {
		if err != nil {
			return Reach{}, err
		}
		namespace := e.Namespaces[pod.GetNamespace()]
		if namespace == nil && e.Unlisted == nil || e.WhyNotAsked(pod.GetNamespace()) != "" {
			continue
		}
		checked++
		if ok, err := matched(of, pod, namespace); ok || err != nil {
			return Reach{}, err
		}
	}
	if checked == 0 {
		return Reach{}, nil
	}
	return Reach{Idle: fmt.Sprintf("none of %s matches: %s", cli.Count(checked, "Pod"), strings.Join(Narrowed(*c), "; "))}, nil
}

// errStop ends a list early.
var errStop = errors.New("stop")

// podsOf reads the Pods of a cluster page by page: first the running Pods, then the Pods
// that workloads would create. A workload has no running Pod if every Pod is denied.
func podsOf(ctx context.Context, s *connect.Session) iter.Seq2[*unstructured.Unstructured, error] {
	return func(yield func(*unstructured.Unstructured, error) bool) {
		each := func(of schema.GroupVersionResource, options metav1.ListOptions, pods func(*unstructured.Unstructured) []*unstructured.Unstructured) bool {
			client, err := s.Kube.Objects()
			if err == nil {
				err = workload.EachObject(ctx, client, of, "", options, func(o *unstructured.Unstructured) error {
					for _, pod := range pods(o) {
						if !yield(pod, nil) {
							return errStop
						}
					}
					return nil
				})
			}
			if err != nil && !errors.Is(err, errStop) {
				yield(nil, err)
			}
			return err == nil
		}
		running := metav1.ListOptions{FieldSelector: "status.phase!=Succeeded,status.phase!=Failed"}
		itself := func(pod *unstructured.Unstructured) []*unstructured.Unstructured {
			return []*unstructured.Unstructured{pod}
		}
		more := each(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, running, itself)
		for _, of := range workload.Templated() {
			more = more && each(of, metav1.ListOptions{}, manifest.Pods)
		}
	}
}

// Narrowed returns how a constraint's match excludes objects, one line for each field.
func Narrowed(c unstructured.Unstructured) []string {
	var found []string
	match, _, _ := unstructured.NestedMap(c.Object, "spec", "match")
	for _, field := range []struct{ name, text string }{
		{"namespaces", "only namespaces %s"}, {"excludedNamespaces", "not namespaces %s"}, {"namespaceSelector", "only namespaces with %s, so the owner of a Namespace can exempt it"},
		{"labelSelector", "only objects with %s, and the creator of a Pod chooses its labels"}, {"name", "only objects named %s"},
		{"source", "only objects of source %s"}, {"scope", "only %s objects"},
	} {
		value := match[field.name]
		empty, isMap := value.(map[string]any)
		if value == nil || isMap && len(empty) == 0 || value == "*" || value == "" || value == "All" || field.name == "scope" && value == "Namespaced" {
			continue
		}
		text, err := json.Marshal(value) // YAML of the constraint would span lines
		if err != nil {
			text = []byte("an invalid value")
		}
		found = append(found, cli.Clip(fmt.Sprintf(field.text, text), 200))
	}
	return found
}

// WithoutExempt returns a constraint without the excluded namespaces that Gatekeeper does
// not check anyway.
func (e State) WithoutExempt(c unstructured.Unstructured) unstructured.Unstructured {
	excluded, _, err := unstructured.NestedStringSlice(c.Object, "spec", "match", "excludedNamespaces")
	if err != nil || len(excluded) == 0 {
		return c
	}
	left := slices.DeleteFunc(excluded, func(name string) bool { return e.WhyNotAsked(name) != "" })
	if c = *c.DeepCopy(); len(left) == 0 {
		unstructured.RemoveNestedField(c.Object, "spec", "match", "excludedNamespaces")
	} else if unstructured.SetNestedStringSlice(c.Object, left, "spec", "match", "excludedNamespaces") != nil {
		return c // excludedNamespaces is a list, so its parents are objects
	}
	return c
}

// Uncovered returns how the match of a rule excludes objects of namespaces in which another
// constraint matches Pods, or "". It compares the matches, not today's namespaces. A rule
// that selects by labels or names covers too little: workloads have others than their Pods.
func (e State) Uncovered(rule, c unstructured.Unstructured) string {
	left := e.WithoutExempt(rule)
	of, err := matchOf(&left)
	if err != nil {
		return err.Error()
	}
	left = *left.DeepCopy()
	other, err := matchOf(&c)
	if err != nil {
		return "" // Gatekeeper does not enforce it
	}
	within := func(a, b []string, covers func(a, b string) bool) bool {
		return !slices.ContainsFunc(a, func(name string) bool {
			return !slices.ContainsFunc(b, func(pattern string) bool { return covers(name, pattern) })
		})
	}
	if len(other.Namespaces) > 0 && within(texts(other.Namespaces), texts(of.Namespaces), func(name, pattern string) bool {
		return name == pattern || !strings.Contains(name, "*") && wildcard.Wildcard(pattern).Matches(name)
	}) {
		unstructured.RemoveNestedField(left.Object, "spec", "match", "namespaces")
	}
	if within(texts(of.ExcludedNamespaces), texts(other.ExcludedNamespaces), func(name, pattern string) bool { return name == pattern }) {
		unstructured.RemoveNestedField(left.Object, "spec", "match", "excludedNamespaces")
	}
	if equality.Semantic.DeepEqual(of.NamespaceSelector, other.NamespaceSelector) {
		unstructured.RemoveNestedField(left.Object, "spec", "match", "namespaceSelector")
	}
	return strings.Join(Narrowed(left), "; ")
}

func texts(patterns []wildcard.Wildcard) []string {
	list := make([]string, len(patterns))
	for i, p := range patterns {
		list[i] = string(p)
	}
	return list
}
