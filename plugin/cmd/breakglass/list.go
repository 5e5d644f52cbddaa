package breakglass

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

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
)

type breakGlassListOptions struct {
	*connect.Session
	allNamespaces bool
	selector      string
	out           cli.Output
}

func newList(s *connect.Session) *cobra.Command {
	o := &breakGlassListOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "list [-A]",
		Short: "List workloads and Pods under break-glass",
		Long: `List the workloads and Pods under break-glass: until when, why, set by which
tool, how many Pods run so, and which images only break-glass admits. Expired
uses are listed too: their Pods run on, and no new Pod starts. So are old
ReplicaSets that bring such Pods back after break-glass end.

The API server stores which tool set an annotation, but not which person. Its
audit log has both.`,
		Example: `  kubectl oke-sign break-glass list -A

  # What to clean up
  kubectl oke-sign break-glass list -A -o json |
    jq '.[] | select(.state == "expired")'`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(workload.CheckSelector(o.selector), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	workload.BindAllNamespaces(cmd.Flags(), &o.allNamespaces)
	workload.BindSelector(cmd.Flags(), &o.selector, "workloads and Pods")
	o.out.Bind(cmd.Flags())
	return cmd
}

// use is a break-glass use: an object and what is known about it.
type use struct {
	workload.ObjectName
	State      string               `json:"state"` // in-use, expired, no-end, no-effect
	Until      string               `json:"until,omitempty"`
	Reason     string               `json:"reason,omitempty"`
	SetBy      string               `json:"setBy,omitempty"` // the field manager
	Since      string               `json:"since,omitempty"`
	Pods       int                  `json:"pods"`
	Images     []string             `json:"images"` // that only break-glass admits; null: unknown
	Violations []workload.Violation `json:"violations,omitempty"`
	Error      string               `json:"error,omitempty"`

	err error
}

var useColumns = []cli.Column{{Name: "object"}, {Name: "state"}, {Name: "until"}, {Name: "pods"}, {Name: "images"},
	{Name: "set by", Wide: true}, {Name: "since", Wide: true}, {Name: "against it", Wide: true}, {Name: "reason"}}

// workloadKinds are Kubernetes' kinds with a template of Pods. ReplicaSets and Jobs of
// another workload repeat its template. The list shows them only after the workload's
// break-glass has ended, while they still start Pods.
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
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	results, err := o.results(ctx)
	if err != nil {
		results = append(results, cli.AllFailed([]string{""}, cli.StopCause(ctx, err))...)
	} else if len(results) == 0 {
		o.Remark("nothing is under break-glass")
	}
	return o.Finish(o.out, useColumns, results)
}

func (o *breakGlassListOptions) results(ctx context.Context) ([]cli.Result, error) {
	namespace := ""
	if !o.allNamespaces {
		var err error
		if namespace, err = o.Kube.CurrentNamespace(); err != nil {
			return nil, err
		}
	}
	found, heirs, hidden, err := o.annotated(ctx, namespace)
	if err != nil {
		return nil, err
	}
	all, err := workload.RunningPods(ctx, o.Session, namespace, o.selector)
	if err != nil {
		return nil, err
	}
	found = append(found, orphaned(found, heirs)...)
	pods := slices.DeleteFunc(all, func(d workload.Document) bool {
		_, ok := d.Object.GetAnnotations()[simulate.BreakGlassAnnotation]
		return !ok
	})
	workloads, err := workload.Workloads(ctx, o.Session, namespace, pods)
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(pods))
	of := make([]*use, len(pods))
	for i, pod := range pods {
		objects[i] = pod.Object
		at := slices.IndexFunc(found, func(u *use) bool { return u.ObjectName == workloads[i] })
		if direct := workload.Controller(pod.Object); at < 0 {
			at = slices.IndexFunc(found, func(u *use) bool { return u.ObjectName == direct })
		}
		if at < 0 { // a Pod without a workload, or with one that is not under break-glass now
			found = append(found, o.singlePod(ctx, pod))
			at = len(found) - 1
		}
		of[i] = found[at]
		of[i].Pods++
	}
	if err := o.simulate(ctx, objects, of); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *use) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	results := make([]cli.Result, len(found))
	for i, u := range found {
		results[i] = o.result(*u)
	}
	if len(hidden) > 0 {
		err = &cli.HintedError{What: fmt.Errorf("you may not list %s: only running Pods show break-glass there", strings.Join(hidden, ", ")),
			Hint: "ask for the right to list them: one without Pods may be under break-glass"}
	}
	return results, err
}

// heir is a ReplicaSet or Job that repeats the template of its workload.
type heir struct {
	*use
	of workload.ObjectName
}

// orphaned returns the heirs of workloads without break-glass. Heirs bring such
// Pods back until the announced end.
func orphaned(found []*use, heirs []heir) (all []*use) {
	for _, h := range heirs {
		if !slices.ContainsFunc(found, func(u *use) bool { return u.ObjectName == h.of }) {
			all = append(all, h.use)
		}
	}
	return all
}

// startsPods reports whether a ReplicaSet or Job starts Pods by itself.
func startsPods(object *unstructured.Unstructured) bool {
	if object.GetKind() == "Job" {
		return !finished(object)
	}
	replicas, _, _ := unstructured.NestedInt64(object.Object, "spec", "replicas")
	return replicas > 0
}

// annotated returns the workloads whose templates have the annotation, their heirs, and
// the resources that the user may not list.
func (o *breakGlassListOptions) annotated(ctx context.Context, namespace string) (found []*use, heirs []heir, hidden []string, err error) {
	client, err := o.Kube.Objects()
	if err != nil {
		return nil, nil, nil, err
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
			switch u, of := useOf(object), workload.Controller(object); {
			case u == nil:
			case of == workload.NameOf(object):
				found = append(found, u)
			case startsPods(object):
				heirs = append(heirs, heir{u, of})
			}
			return nil
		})
		switch {
		case apierrors.IsForbidden(err):
			hidden = append(hidden, kind.Resource)
		case err != nil:
			return nil, nil, nil, fmt.Errorf("listing %s: %w", kind.Resource, err)
		}
	}
	return found, heirs, hidden, nil
}

// useOf returns the break-glass use that an object declares, or nil.
func useOf(object *unstructured.Unstructured) *use {
	at, ok := manifest.PodMetadata(object)
	if !ok {
		return nil
	}
	annotations, _, _ := unstructured.NestedStringMap(object.Object, append(slices.Clone(at), "annotations")...)
	value, ok := annotations[simulate.BreakGlassAnnotation]
	if !ok {
		return nil
	}
	u := &use{ObjectName: workload.NameOf(object), State: "in-use", Until: annotations[simulate.UntilAnnotation], Reason: annotations[simulate.ReasonAnnotation], Images: []string{}}
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

// setBy returns the field manager that set the annotation, and when.
func setBy(object *unstructured.Unstructured, at []string) (manager, since string) {
	for _, entry := range object.GetManagedFields() {
		var fields map[string]any
		if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
			continue
		}
		var path []string
		for _, step := range append(slices.Clone(at), "annotations", simulate.BreakGlassAnnotation) {
			path = append(path, "f:"+step)
		}
		if _, ok, _ := unstructured.NestedFieldNoCopy(fields, path...); ok {
			manager = entry.Manager
			if entry.Time != nil {
				since = cli.Timestamp(entry.Time.Time)
			}
		}
	}
	return manager, since
}

// singlePod returns the use of a Pod without an annotated workload. It reads the Pod
// again, because RunningPods drops managed fields, which name the field manager.
func (o *breakGlassListOptions) singlePod(ctx context.Context, pod workload.Document) *use {
	object := pod.Object
	if client, err := o.Kube.Objects(); err == nil {
		full, err := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(object.GetNamespace()).Get(ctx, object.GetName(), metav1.GetOptions{})
		if err == nil && useOf(full) != nil {
			object = full
		}
	}
	return useOf(object)
}

// simulate finds the images that only break-glass admits.
func (o *breakGlassListOptions) simulate(ctx context.Context, pods []*unstructured.Unstructured, of []*use) error {
	if len(pods) == 0 {
		return nil
	}
	e, err := enforcement.Read(ctx, o.Session)
	if err != nil { // the list itself needs no simulation
		none := errors.Is(err, enforcement.ErrNoConstraints)
		if none {
			o.Remark("the images that need it are unknown: %v", err)
		}
		for _, u := range of {
			u.Images = nil
			if !none {
				u.err = cli.SharedError(fmt.Errorf("the images that need break-glass are unknown: %w", err))
			}
		}
		return nil
	}
	j, err := simulate.Pods(ctx, &o.Terminal, simulate.OCI(o.Session), e, pods)
	if err != nil {
		return err
	}
	for i := range j.Groups {
		s := &j.Groups[i]
		images, _ := manifest.Images(s.Pod)
		for _, n := range s.Pods {
			u := of[n]
			u.err = cmp.Or(u.err, s.Err)
			for _, image := range images {
				needed := slices.ContainsFunc(s.WithoutBreakGlass.Denied, func(v gatekeeper.Violation) bool {
					same := func(w gatekeeper.Violation) bool { return simulate.NewViolation("", v) == simulate.NewViolation("", w) }
					return v.Details["subject"] == image.Ref && !slices.ContainsFunc(s.Decision.Denied, same)
				})
				if needed && !slices.Contains(u.Images, image.Ref) {
					u.Images = append(u.Images, image.Ref)
				}
			}
			for _, v := range s.Decision.Denied {
				if x := simulate.NewViolation("deny", v); strings.HasPrefix(v.Message, "break-glass: ") && !slices.Contains(u.Violations, x) {
					u.Violations = append(u.Violations, x)
				}
			}
		}
	}
	return nil
}

func (o *breakGlassListOptions) result(u use) cli.Result {
	name := u.Title()
	if u.err != nil {
		u.Error = cli.Clip(u.err.Error(), 1000)
	}
	var against []string
	for _, v := range u.Violations {
		against = append(against, v.Reason)
	}
	images := fmt.Sprint(len(u.Images))
	switch {
	case u.Images == nil:
		images = "unknown"
	case o.out.Format == "wide":
		images = strings.Join(u.Images, ", ")
	}
	return cli.Result{Target: name, Value: u, PartialErr: u.err, Names: []string{name},
		Rows: [][]string{{name, u.State, u.Until, fmt.Sprint(u.Pods), images, u.SetBy, u.Since, strings.Join(against, ", "), cli.Clip(u.Reason, 60)}}}
}
