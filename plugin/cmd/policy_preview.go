package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/pager"

	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

type policyPreviewOptions struct {
	changeOptions
	policyFlags
}

func newPolicyPreview(g *global) *cobra.Command {
	o := &policyPreviewOptions{changeOptions: changeOptions{global: g}}
	cmd := &cobra.Command{
		Use:   "preview [--key KEY]... [--mode MODE] [...]",
		Short: "List what the image policy would refuse of what runs now",
		Long: `List what the image policy would refuse of what runs now, and why: the policy as
it is, as the flags of policy set would make it, or as constraints in files have
it. Every other command that changes the policy has --preview for the same. What
the constraints on scans refuse, OKEScannedImages, is among it.

Running Pods are judged as if they were made anew, and so are the Pods that
Deployments, StatefulSets, DaemonSets and CronJobs would make. OCI is asked as
you, not as the provider in the cluster. What Gatekeeper is told to leave out is
left out.

Exit code 0: nothing would be refused. 3: something would be. 1: it could not be
found out.`,
		Example: `  # What would be refused if the policy that only warns were enforced?
  kubectl oke-sign policy preview --mode deny

  # Does a merge request's policy refuse what runs in the shop?
  kubectl oke-sign policy preview -f policy/ -n shop`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.policyFlags.validate(), o.global.validate(), o.out.validate()); err != nil {
				return err
			}
			if len(o.files) > 0 && (o.given() || o.allowAny) {
				return usage("-f names a whole policy, and flags would change it", "leave one or the other out")
			}
			namespace := ""
			if cmd.Flags().Changed("namespace") {
				namespace = *o.kube.Namespace
			}
			return told(&o.terminal, &o.out, func() error { return o.run(cmd.Context(), namespace) })
		},
	}
	cmd.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "`FILE` or directory with the constraints of a policy, in the place of the cluster's; so with those on scans. May be repeated.")
	o.policyFlags.bind(cmd.Flags())
	o.bindAllowAny(cmd.Flags())
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *policyPreviewOptions) run(ctx context.Context, namespace string) error {
	if len(o.files) > 0 {
		bounded, cancel := o.within(ctx)
		defer cancel()
		objects, err := o.policyFiles(bounded, append(constraint.Kinds(), policies.ScannedImages)...)
		if err != nil {
			return because(bounded, err)
		}
		var scans []*unstructured.Unstructured
		objects = slices.DeleteFunc(objects, func(c *unstructured.Unstructured) bool {
			if c.GetKind() == policies.ScannedImages {
				scans = append(scans, c)
				return true
			}
			return false
		})
		before, err := o.now(ctx)
		if err != nil {
			return err
		}
		is := before.After(before.Policy)
		if len(objects) == 0 {
			objects = is
		}
		if len(scans) == 0 {
			scans = before.scans()
		}
		return o.foreseen(ctx, namespace, o.out, slices.Concat(is, before.scans()), slices.Concat(objects, scans))
	}
	before, err := o.now(ctx)
	if err != nil {
		return err
	}
	if !o.given() && !o.allowAny {
		is := slices.Concat(before.After(before.Policy), before.scans())
		if len(is) == 0 {
			_, err := before.existing()
			return err
		}
		return o.foreseen(ctx, namespace, o.out, nil, is)
	}
	after, err := (&policySetOptions{o.changeOptions, o.policyFlags}).edit(ctx, before)
	if err != nil {
		return err
	}
	return o.showPreview(ctx, namespace, o.out, before, after)
}

// showPreview prints what a change of the policy would refuse.
func (o *changeOptions) showPreview(ctx context.Context, namespace string, out output, before enforcedPolicy, after *constraint.Policy) error {
	scans := before.scans()
	return o.foreseen(ctx, namespace, out, slices.Concat(before.After(before.Policy), scans), slices.Concat(before.After(after), scans))
}

func (o *changeOptions) foreseen(ctx context.Context, namespace string, out output, before, after []*unstructured.Unstructured) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	p, err := o.foresee(ctx, namespace, before, after)
	if err != nil {
		return because(ctx, err)
	}
	found := slices.DeleteFunc(slices.Clone(p.workloads), func(w foreseenWorkload) bool { return w.Result == resultAllowed })
	if err := out.print(o.streams.Out, p.data(found, out.format == "wide")); err != nil {
		return err
	}
	o.remark("%s", p.summary())
	switch {
	case len(p.only(false, resultUnknown)) > 0:
		return errFailed
	case len(p.only(false, resultRefused)) > 0:
		return errNo
	}
	return nil
}

// Results of a workload under a policy.
const (
	resultAllowed = "allowed"
	resultRefused = "refused"
	resultWarned  = "warned"
	resultCounted = "counted" // by the audit; in a dry run
	resultUnknown = "unknown"
)

// foreseenWorkload is what becomes of a workload when its Pods are made anew.
type foreseenWorkload struct {
	Workload   objectName  `json:"workload"`
	Pods       int         `json:"pods"` // that run
	Result     string      `json:"result"`
	New        bool        `json:"new"` // the policy as it is lets it in
	Violations []violation `json:"violations"`
	Error      string      `json:"error,omitempty"`
}

// foresight is what becomes of everything that runs.
type foresight struct {
	workloads  []foreseenWorkload
	pods       int
	namespaces int
	leftOut    []string // namespaces that Gatekeeper does not judge
}

func (p foresight) only(news bool, result string) []foreseenWorkload {
	var list []foreseenWorkload
	for _, w := range p.workloads {
		if w.Result == result && (w.New || !news) {
			list = append(list, w)
		}
	}
	return list
}

// foresee judges everything that runs in a namespace, or in all if it is "", under
// the constraints after, and finds out what those before let in.
func (g *global) foresee(ctx context.Context, namespace string, before, after []*unstructured.Unstructured) (foresight, error) {
	e, err := g.surroundings(ctx, namespace)
	if err != nil {
		return foresight{}, err
	}
	then, now := policy{namespaces: e.namespaces, constraints: documentsOf(after)}, policy{namespaces: e.namespaces, constraints: documentsOf(before)}
	e.constraints = slices.Concat(then.constraints, now.constraints)
	pods, err := g.runningPods(ctx, namespace, "")
	if err != nil {
		return foresight{}, err
	}
	owners, err := g.workloads(ctx, namespace, pods)
	if err != nil {
		return foresight{}, err
	}
	var p foresight
	var subjects []*unstructured.Unstructured
	var of []*foreseenWorkload // of each subject
	found := make(map[objectName]*foreseenWorkload)
	left, in := make(map[string]bool), make(map[string]bool)
	add := func(pod *unstructured.Unstructured, owner objectName, running int) {
		at := pod.GetNamespace()
		if e.outside(at) != "" {
			left[at] = true
			return
		}
		in[at] = true
		p.pods += running
		if found[owner] == nil {
			found[owner] = &foreseenWorkload{Workload: owner, Result: resultAllowed, Violations: []violation{}}
		}
		found[owner].Pods += running
		subjects, of = append(subjects, pod), append(of, found[owner])
	}
	for i, pod := range pods {
		add(pod.object, owners[i], 1)
	}
	if err := g.eachTemplate(ctx, namespace, func(owner, pod *unstructured.Unstructured) { add(pod, nameOf(owner), 0) }); err != nil {
		return foresight{}, err
	}
	p.leftOut, p.namespaces = slices.Sorted(maps.Keys(left)), len(in)

	kinds := e.alike(subjects)
	for _, k := range kinds {
		then.manifests = append(then.manifests, document{object: k.pod})
	}
	now.manifests = then.manifests
	asked, err := g.allQuestions(ctx, then, now)
	if err != nil {
		return foresight{}, err
	}
	answers, err := g.answer(ctx, slices.Sorted(maps.Keys(asked)))
	if err != nil {
		return foresight{}, err
	}
	j, err := newJudges(ctx, fromAnswers(answers), then, now)
	if err != nil {
		return foresight{}, err
	}
	defer j.close()
	results := make([]foreseenWorkload, len(kinds))
	done := g.progress("judged %d of %d kinds of Pods", len(kinds))
	group := limited()
	for i, k := range kinds {
		group.Go(func() error {
			defer done()
			results[i] = j.foresee(ctx, k.pod)
			return nil
		})
	}
	_ = group.Wait() // each result has its own error
	if err := ctx.Err(); err != nil {
		return foresight{}, err
	}
	for i, k := range kinds {
		for _, n := range k.pods {
			of[n].worsen(results[i])
		}
	}
	for _, w := range found {
		p.workloads = append(p.workloads, *w)
	}
	slices.SortFunc(p.workloads, func(a, b foreseenWorkload) int {
		x, y := a.Workload, b.Workload
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name), cmp.Compare(x.APIVersion, y.APIVersion))
	})
	return p, nil
}

func documentsOf(objects []*unstructured.Unstructured) []document {
	var documents []document
	for _, o := range objects {
		documents = append(documents, document{file: constraint.Name(o), object: constraint.Manifest(o)})
	}
	return documents
}

// eachTemplate calls f for each Pod that a workload would make.
func (g *global) eachTemplate(ctx context.Context, namespace string, f func(workload, pod *unstructured.Unstructured)) error {
	client, err := g.kube.objects()
	if err != nil {
		return err
	}
	for _, of := range []schema.GroupVersionResource{
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "apps", Version: "v1", Resource: "statefulsets"},
		{Group: "apps", Version: "v1", Resource: "daemonsets"},
		{Group: "batch", Version: "v1", Resource: "cronjobs"},
	} {
		err := eachObject(ctx, client, of, namespace, metav1.ListOptions{}, func(o *unstructured.Unstructured) error {
			for _, pod := range manifest.Pods(o) {
				f(o, trimmed(pod))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// eachObject calls f for each object of a list, which is read page by page.
func eachObject(ctx context.Context, client dynamic.Interface, of schema.GroupVersionResource, namespace string, options metav1.ListOptions, f func(*unstructured.Unstructured) error) error {
	objects := client.Resource(of).Namespace(namespace)
	pages := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return objects.List(ctx, options)
	})
	pages.PageSize = pageSize
	err := pages.EachListItem(ctx, options, func(o runtime.Object) error {
		object, err := meta.Accessor(o)
		if object, ok := object.(*unstructured.Unstructured); ok && err == nil {
			return f(object)
		}
		return errors.Join(err, fmt.Errorf("%T is no object", o))
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", of.Resource, err)
	}
	return nil
}

// noAnswer is the reason of a violation that comes of not knowing.
const noAnswer = "no-answer"

// foresee says what becomes of a Pod under the first policy, and whether that is news
// to the second.
func (j *judges) foresee(ctx context.Context, pod *unstructured.Unstructured) foreseenWorkload {
	d, err := j.review(ctx, 0, pod)
	if err != nil {
		return foreseenWorkload{Result: resultUnknown, Error: clip(err.Error(), 1000)}
	}
	var c checked
	c.add("deny", d.Denied)
	c.add("warn", d.Warnings)
	c.add("dryrun", d.DryRun)
	w := foreseenWorkload{Result: resultAllowed, Violations: c.Violations}
	for _, v := range c.Violations {
		result := map[string]string{"deny": resultRefused, "warn": resultWarned, "dryrun": resultCounted}[v.Action]
		if v.Reason == noAnswer {
			result = resultUnknown
		}
		w.Result = worse(w.Result, result)
	}
	before, err := j.review(ctx, 1, pod)
	w.New = w.Result != resultAllowed && (err != nil || !slices.ContainsFunc(before.Denied, func(v gatekeeper.Violation) bool { return v.Details["reason"] != noAnswer }))
	return w
}

// worse is the result that outweighs the other. A Pod that is refused for one
// reason is refused, whatever could not be found out beside it.
func worse(a, b string) string {
	order := []string{resultAllowed, resultCounted, resultWarned, resultUnknown, resultRefused}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// worsen adds what becomes of another Pod of the workload.
func (w *foreseenWorkload) worsen(other foreseenWorkload) {
	w.Result, w.New, w.Error = worse(w.Result, other.Result), w.New || other.New, cmp.Or(w.Error, other.Error)
	for _, v := range other.Violations {
		if !slices.Contains(w.Violations, v) {
			w.Violations = append(w.Violations, v)
		}
	}
}

// data shows workloads by namespace.
func (p foresight) data(workloads []foreseenWorkload, wide bool) data {
	d := data{columns: []column{{name: "workload"}, {name: "pods"}, {name: "result"}, {name: "constraint", wide: true}, {name: "message"}}, names: []string{}}
	if workloads == nil {
		workloads = []foreseenWorkload{}
	}
	d.value = workloads
	for _, w := range workloads {
		title := "namespace " + w.Workload.Namespace
		if n := len(d.blocks); n == 0 || d.blocks[n-1].title != title {
			d.blocks = append(d.blocks, block{title: title})
		}
		at := &d.blocks[len(d.blocks)-1]
		result := w.Result
		if result == resultRefused && !w.New {
			result = "refused already"
		}
		if w.Result == resultRefused {
			d.names = append(d.names, w.Workload.Namespace+"/"+w.Workload.Kind+"/"+w.Workload.Name)
		}
		name, pods := w.Workload.Kind+"/"+w.Workload.Name, fmt.Sprint(w.Pods)
		told := make(map[string]bool)
		for _, v := range w.Violations {
			// Several constraints say the same of an image that has no digest.
			place, _, _ := strings.Cut(v.Message, ":")
			if told[place+v.Reason] && !wide {
				continue
			}
			told[place+v.Reason] = true
			message := v.Message
			if !wide {
				message = brief(message)
			}
			at.rows = append(at.rows, []string{name, pods, result, v.Kind + "/" + v.Constraint, message})
			name, pods, result = "", "", ""
		}
		if w.Error != "" {
			at.rows = append(at.rows, []string{name, pods, result, "", w.Error})
		}
	}
	return d
}

func (p foresight) summary() string {
	tally := make(map[string]int)
	for _, w := range p.workloads {
		tally[w.Result]++
	}
	var parts []string
	for _, r := range []string{resultAllowed, resultRefused, resultWarned, resultCounted, resultUnknown} {
		if tally[r] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", tally[r], r))
		}
	}
	text := fmt.Sprintf("%s of %s in %s: %s", count(p.pods, "running Pod"), count(len(p.workloads), "workload"), count(p.namespaces, "namespace"), cmp.Or(strings.Join(parts, ", "), "nothing to judge"))
	if n := len(p.only(true, resultRefused)); n > 0 && n < tally[resultRefused] {
		text += fmt.Sprintf(" (%d of them newly)", n)
	}
	if len(p.leftOut) > 0 {
		text += "; Gatekeeper leaves out " + strings.Join(p.leftOut, ", ")
	}
	return text
}
