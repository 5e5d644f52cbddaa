package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/pager"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
)

type breakGlassListOptions struct {
	*global
	allNamespaces bool
	selector      string
	out           output
}

func newBreakGlassList(g *global) *cobra.Command {
	o := &breakGlassListOptions{global: g}
	cmd := &cobra.Command{
		Use:   "list [-A]",
		Short: "List what is under break-glass, since when and until when",
		Long: `List the workloads and Pods under break-glass: until when, why, by which tool it
was set, how many Pods run so, and which of their images nothing else would let
in. Those whose time is over are listed too: their Pods run on, and no new one
starts.

The API server keeps which tool set an annotation, and not which person; its
audit log has both.`,
		Example: `  kubectl oke-sign break-glass list -A

  # What to clean up
  kubectl oke-sign break-glass list -A -o json | jq '.[] | select(.state == "expired")'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(checkSelector(o.selector), o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "List those of all namespaces.")
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "Label `SELECTOR` of workloads and Pods.")
	o.out.bind(cmd.Flags())
	return cmd
}

// underGlass is an object under break-glass, with what is known of it.
type underGlass struct {
	objectName
	State      string      `json:"state"` // in-use, expired, no-end, no-effect
	Until      string      `json:"until,omitempty"`
	Reason     string      `json:"reason,omitempty"`
	SetBy      string      `json:"setBy,omitempty"` // the field manager
	Since      string      `json:"since,omitempty"`
	Pods       int         `json:"pods"`
	Images     []string    `json:"images"` // that nothing else lets in; null if that was not judged
	Violations []violation `json:"violations,omitempty"`
	Error      string      `json:"error,omitempty"`

	err error
}

var underGlassColumns = []column{{name: "object"}, {name: "state"}, {name: "until"}, {name: "pods"}, {name: "images"},
	{name: "set by", wide: true}, {name: "since", wide: true}, {name: "against it", wide: true}, {name: "reason"}}

// workloadKinds are the kinds in whose templates Kubernetes itself finds Pods.
// ReplicaSets and Jobs that others make repeat what those say.
var workloadKinds = []schema.GroupVersionResource{
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "apps", Version: "v1", Resource: "statefulsets"},
	{Group: "apps", Version: "v1", Resource: "daemonsets"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "batch", Version: "v1", Resource: "cronjobs"},
	{Group: "batch", Version: "v1", Resource: "jobs"},
	{Version: "v1", Resource: "replicationcontrollers"},
}

func (o *breakGlassListOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	results, err := o.results(ctx)
	if err != nil {
		results = append(results, allFailed([]string{""}, because(ctx, err))...)
	} else if len(results) == 0 {
		o.remark("nothing is under break-glass")
	}
	return o.finish(o.out, underGlassColumns, results)
}

func (o *breakGlassListOptions) results(ctx context.Context) ([]result, error) {
	namespace := ""
	if !o.allNamespaces {
		var err error
		if namespace, err = o.kube.namespace(); err != nil {
			return nil, err
		}
	}
	found, hidden, err := o.annotated(ctx, namespace)
	if err != nil {
		return nil, err
	}
	all, err := o.runningPods(ctx, namespace, o.selector)
	if err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(all, func(d document) bool { _, ok := d.object.GetAnnotations()[glassAnnotation]; return !ok })
	workloads, err := o.workloads(ctx, namespace, pods)
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(pods))
	of := make([]*underGlass, len(pods))
	for i, pod := range pods {
		objects[i] = pod.object
		at := slices.IndexFunc(found, func(u *underGlass) bool { return u.objectName == workloads[i] })
		if at < 0 { // a Pod by itself, or of a workload that no longer says so
			found = append(found, o.bare(ctx, pod))
			at = len(found) - 1
		}
		of[i] = found[at]
		of[i].Pods++
	}
	if err := o.judge(ctx, objects, of); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *underGlass) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	results := make([]result, len(found))
	for i, u := range found {
		results[i] = o.result(*u)
	}
	if len(hidden) > 0 {
		err = &refusal{fmt.Errorf("you may not list %s: of those, only what Pods that run say is known", strings.Join(hidden, ", ")),
			"one that runs no Pod now may be under break-glass; you need the right to list them"}
	}
	return results, err
}

// annotated are the workloads whose templates say something of break-glass, and the
// resources that may not be listed.
func (o *breakGlassListOptions) annotated(ctx context.Context, namespace string) (found []*underGlass, hidden []string, err error) {
	client, err := o.kube.objects()
	if err != nil {
		return nil, nil, err
	}
	for _, kind := range workloadKinds {
		pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return client.Resource(kind).Namespace(namespace).List(ctx, options)
		})
		err := pages.EachListItem(ctx, metav1.ListOptions{LabelSelector: o.selector}, func(item runtime.Object) error {
			object, ok := item.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("%T is no object", item)
			}
			if u := glassOf(object); u != nil && controller(object) == nameOf(object) {
				found = append(found, u)
			}
			return nil
		})
		switch {
		case apierrors.IsForbidden(err):
			hidden = append(hidden, kind.Resource)
		case err != nil:
			return nil, nil, fmt.Errorf("listing %s: %w", kind.Resource, err)
		}
	}
	return found, hidden, nil
}

// glassOf is what an object says of break-glass, or nil.
func glassOf(object *unstructured.Unstructured) *underGlass {
	at, ok := manifest.PodMetadata(object)
	if !ok {
		return nil
	}
	annotations, _, _ := unstructured.NestedStringMap(object.Object, append(slices.Clone(at), "annotations")...)
	value, ok := annotations[glassAnnotation]
	if !ok {
		return nil
	}
	u := &underGlass{objectName: nameOf(object), State: "in-use", Until: annotations[untilAnnotation], Reason: annotations[reasonAnnotation], Images: []string{}}
	end, err := time.Parse(time.RFC3339, u.Until)
	switch {
	case value != "true":
		u.State = "no-effect"
	case u.Until == "":
		u.State = "no-end"
	case err != nil || end.Before(time.Now()):
		u.State = "expired"
	}
	u.SetBy, u.Since = setBy(object, at)
	return u
}

// setBy is the field manager that set the annotation, and when.
func setBy(object *unstructured.Unstructured, at []string) (manager, since string) {
	for _, entry := range object.GetManagedFields() {
		var fields map[string]any
		if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		var path []string
		for _, step := range append(slices.Clone(at), "annotations", glassAnnotation) {
			path = append(path, "f:"+step)
		}
		if _, ok, _ := unstructured.NestedFieldNoCopy(fields, path...); ok {
			manager = entry.Manager
			if entry.Time != nil {
				since = timestamp(entry.Time.Time)
			}
		}
	}
	return manager, since
}

// bare is a Pod that stands for itself. Who set the annotation is not among what
// is kept of Pods.
func (o *breakGlassListOptions) bare(ctx context.Context, pod document) *underGlass {
	object := pod.object
	if client, err := o.kube.objects(); err == nil {
		full, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(object.GetNamespace()).Get(ctx, object.GetName(), metav1.GetOptions{})
		if err == nil && glassOf(full) != nil {
			object = full
		}
	}
	return glassOf(object)
}

// judge finds out which images nothing but break-glass lets in.
func (o *breakGlassListOptions) judge(ctx context.Context, pods []*unstructured.Unstructured, of []*underGlass) error {
	if len(pods) == 0 {
		return nil
	}
	e, err := o.enforced(ctx)
	if err != nil { // what is under break-glass is known without it
		none := errors.Is(err, errNoConstraints)
		if none {
			o.remark("which images need it was not judged: %v", err)
		}
		for _, u := range of {
			u.Images = nil
			if !none {
				u.err = forAll(fmt.Errorf("which images need break-glass was not judged: %w", err))
			}
		}
		return nil
	}
	j, err := o.judgePods(ctx, e, pods, nil)
	if err != nil {
		return err
	}
	for i := range j.standings {
		s := &j.standings[i]
		images, _ := manifest.Images(s.pod)
		for _, n := range s.pods {
			u := of[n]
			u.err = cmp.Or(u.err, s.err)
			for _, image := range images {
				lifted := slices.ContainsFunc(s.unglassed.Denied, func(v gatekeeper.Violation) bool {
					same := func(w gatekeeper.Violation) bool { return violated("", v) == violated("", w) }
					return v.Details["subject"] == image.Ref && !slices.ContainsFunc(s.decision.Denied, same)
				})
				if lifted && !slices.Contains(u.Images, image.Ref) {
					u.Images = append(u.Images, image.Ref)
				}
			}
			for _, v := range s.decision.Denied {
				if x := violated("deny", v); strings.HasPrefix(v.Message, "break-glass: ") && !slices.Contains(u.Violations, x) {
					u.Violations = append(u.Violations, x)
				}
			}
		}
	}
	return nil
}

func (o *breakGlassListOptions) result(u underGlass) result {
	name := u.title()
	if u.err != nil {
		u.Error = clip(u.err.Error(), 1000)
	}
	var against []string
	for _, v := range u.Violations {
		against = append(against, v.Reason)
	}
	images := fmt.Sprint(len(u.Images))
	switch {
	case u.Images == nil:
		images = "unknown"
	case o.out.format == "wide":
		images = strings.Join(u.Images, ", ")
	}
	return result{target: name, value: u, part: u.err, names: []string{name},
		rows: [][]string{{name, u.State, u.Until, fmt.Sprint(u.Pods), images, u.SetBy, u.Since, strings.Join(against, ", "), clip(u.Reason, 60)}}}
}
