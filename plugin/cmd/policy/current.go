package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/policies"
)

// Enforced is the image policy of a cluster or of manifests, with the kinds of constraints
// that the cluster lacks.
type Enforced struct {
	constraint.Current
	found   []*unstructured.Unstructured // all constraints of oke-sign's kinds
	missing []string
	place   string // that has it, with the verb, if not the cluster
}

// ReadPolicy reads the policy of the cluster.
func ReadPolicy(ctx context.Context, s *connect.Session) (Enforced, error) {
	client, err := s.Kube.Objects()
	if err != nil {
		return Enforced{}, err
	}
	var p Enforced
	for _, kind := range policies.Kinds() {
		list, err := client.Resource(enforcement.Resource(kind)).List(ctx, metav1.ListOptions{})
		switch {
		case apierrors.IsNotFound(err):
			p.missing = append(p.missing, kind)
		case err != nil:
			return Enforced{}, fmt.Errorf("listing constraints %s: %w", kind, err)
		default:
			for i := range list.Items {
				p.found = append(p.found, &list.Items[i])
			}
		}
	}
	p.Current = constraint.Read(p.found)
	return p, nil
}

// scans returns the constraints on scans. They are not part of the policy, and deny
// images whatever the policy says.
func (p Enforced) scans() []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(p.found), func(o *unstructured.Unstructured) bool { return o.GetKind() != policies.ScannedImages })
}

// installed returns an error if the cluster lacks templates for kinds of constraints.
func (p Enforced) installed(ctx context.Context, client dynamic.Interface, kinds ...string) error {
	var lacking []string
	for _, kind := range kinds {
		if slices.Contains(p.missing, kind) && !slices.Contains(lacking, kind) {
			lacking = append(lacking, kind)
		}
	}
	if len(lacking) == 0 {
		return nil
	}
	templates := schema.GroupVersionResource{Group: "templates.gatekeeper.sh", Version: "v1", Resource: "constrainttemplates"}
	if _, err := client.Resource(templates).List(ctx, metav1.ListOptions{Limit: 1}); apierrors.IsNotFound(err) {
		return &cli.HintedError{What: errors.New("the cluster has no Gatekeeper, which enforces the image policy"),
			Hint: "install Gatekeeper with oke-sign's gatekeeper-values.yaml, then oke-sign itself"}
	}
	return &cli.HintedError{What: fmt.Errorf("the cluster has no ConstraintTemplate for %s", strings.Join(lacking, ", ")),
		Hint: "install oke-sign in the cluster with its chart; new templates need some seconds"}
}

// plain returns an error if the constraints do not form one policy.
func (p Enforced) plain() error {
	if p.Unclear == "" {
		return nil
	}
	return &cli.HintedError{What: fmt.Errorf("the constraints do not form one policy: %s", p.Unclear),
		Hint: "kubectl oke-sign policy set --new makes a policy beside them; or label the constraints that form one: " + constraint.Label + "=pods, =workloads or =report"}
}

// existing returns the policy, or an error if no policy exists.
func (p Enforced) existing() (constraint.Policy, error) {
	if p.Policy == nil {
		return constraint.Policy{}, &cli.HintedError{What: errors.New(cmp.Or(p.place, "the cluster has") + " no image policy"), Hint: "kubectl oke-sign policy set --key KEY makes one"}
	}
	return p.Policy.Clone(), nil
}

// clusterWide rejects -n. A user who wants a policy for one namespace would otherwise get
// one for the whole cluster.
func clusterWide(cmd *cobra.Command) error {
	if cmd.Flags().Changed("namespace") {
		return cli.Usage("-n does not apply: the image policy is for the whole cluster", "choose namespaces with policy set --namespaces or --exclude-namespaces")
	}
	return nil
}

// notEnforced returns why the cluster does not enforce a policy, by the constraints, the
// Pods that they cover, and Gatekeeper's webhook.
func notEnforced(ctx context.Context, s *connect.Session, p Enforced) []string {
	var why []string
	switch {
	case p.Unclear != "":
		return []string{p.Unclear}
	case p.Policy == nil:
		return []string{"no policy exists"}
	}
	if p.Policy.Mode != constraint.Deny {
		why = append(why, "its mode is "+p.Policy.Mode)
	}
	if len(p.Policy.Keys) == 0 {
		why = append(why, "it lists no key, so every image of OCI Registry may run, signed or not")
	}
	why = append(why, p.Drift...)
	if len(p.Guards) > 0 {
		why = append(why, "an earlier change stopped in the middle; make it again")
	}
	e := enforcement.Scope(ctx, s, "")
	hook, err := e.Webhook, e.Unknown
	var asked []string
	if err == nil && hook != nil && hook.ClientConfig.Service != nil {
		asked, err = enforcement.ReadyPods(ctx, s, hook.ClientConfig.Service.Namespace, hook.ClientConfig.Service.Name)
	}
	var parts []*unstructured.Unstructured
	for _, part := range p.Parts {
		if part.Role == constraint.Pods {
			parts = append(parts, part.Object)
		}
	}
	reach, unread := unreached(ctx, s, e, parts)
	why = append(why, reach...)
	if unread != nil && e.Unknown == nil {
		why = append(why, fmt.Sprintf("unknown: whether it applies to a Pod: %v", unread))
	}
	behind := make(map[string][]string)
	for _, part := range p.Parts {
		if problem := lagging(part.Object, asked); problem != "" {
			behind[problem] = append(behind[problem], constraint.Name(part.Object))
		}
	}
	for _, problem := range slices.Sorted(maps.Keys(behind)) {
		if names := behind[problem]; len(names) == len(p.Parts) {
			why = append(why, "none of its constraints is loaded by "+problem)
		} else {
			why = append(why, fmt.Sprintf("%s: not loaded by %s", strings.Join(names, ", "), problem))
		}
	}
	switch {
	case err != nil:
		why = append(why, fmt.Sprintf("unknown: Gatekeeper's webhook could not be read: %v", err))
	case hook == nil:
		why = append(why, "Gatekeeper's webhook is not installed")
	case hook.FailurePolicy != nil && *hook.FailurePolicy == admissionregistrationv1.Ignore:
		why = append(why, "Gatekeeper's failurePolicy is Ignore: the API server admits objects when Gatekeeper does not answer in time")
	}
	return why
}

// lagging returns the part of Gatekeeper that does not enforce the current state of a
// constraint, or "". A Pod that has not reported the constraint may not know it.
func lagging(o *unstructured.Unstructured, asked []string) string {
	pods, _, _ := unstructured.NestedSlice(o.Object, "status", "byPod")
	switch {
	case len(pods) == 0:
		return "Gatekeeper"
	case !slices.ContainsFunc(pods, enforcement.Enforces):
		return "Gatekeeper's webhook"
	}
	told := make(map[string]bool)
	for _, pod := range pods {
		pod, _ := pod.(map[string]any)
		seen, _, _ := unstructured.NestedInt64(pod, "observedGeneration")
		enforced, _, _ := unstructured.NestedBool(pod, "enforced")
		id, _, _ := unstructured.NestedString(pod, "id")
		if !enforced || seen < o.GetGeneration() {
			return cmp.Or(id, "a Pod of Gatekeeper")
		}
		told[id] = true
	}
	for _, name := range asked {
		if !told[name] {
			return name
		}
	}
	return ""
}
