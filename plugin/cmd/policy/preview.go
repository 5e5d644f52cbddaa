package policy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
)

type policyPreviewOptions struct {
	changeOptions
	policyFlags
}

func newPreview(s *connect.Session) *cobra.Command {
	o := &policyPreviewOptions{changeOptions: changeOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "preview [--key KEY]... [--mode MODE] [...]",
		Short: "List the running workloads that the image policy would deny",
		Long: `List the running workloads that the image policy would deny, and why: the policy
of the cluster, the policy that the flags of policy set would make, or the
policy in files. Every other command that changes the policy has --preview for
the same. Denials by constraints on scans, OKEScannedImages, are listed too.

preview simulates a restart of running Pods, and new Pods of Deployments,
StatefulSets, DaemonSets and CronJobs. It asks OCI as you, not as the provider
in the cluster. It skips namespaces that Gatekeeper exempts.

Exit code 0: nothing would be denied. 3: something would be. 1: the answer is
unknown.`,
		Example: `  # What would the policy deny if it were enforced?
  kubectl oke-sign policy preview --mode deny

  # Does the policy of a merge request deny anything that runs in the shop?
  kubectl oke-sign policy preview -f policy/ -n shop`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.policyFlags.validate(), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			if len(o.files) > 0 && (o.given() || o.allowAny) {
				return cli.Usage("-f names a whole policy, which excludes flags that change one", "use -f or the flags")
			}
			namespace := ""
			if cmd.Flags().Changed("namespace") {
				namespace = *o.Kube.Namespace
			}
			return cli.WithErrorDocument(&o.Terminal, &o.out, func() error { return o.run(cmd.Context(), namespace) })
		},
	}
	cmd.Flags().StringArrayVarP(&o.files, "filename", "f", nil, "`FILE` or directory with the constraints of a policy, instead of the cluster's; the same for those on scans. May be repeated.")
	o.policyFlags.bind(cmd.Flags())
	o.bindAllowAny(cmd.Flags())
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *policyPreviewOptions) run(ctx context.Context, namespace string) error {
	if len(o.files) > 0 {
		bounded, cancel := o.WithTimeout(ctx)
		defer cancel()
		objects, err := o.policyFiles(bounded, append(constraint.Kinds(), policies.ScannedImages)...)
		if err != nil {
			return cli.StopCause(bounded, err)
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
		return o.previewed(ctx, namespace, o.out, slices.Concat(is, before.scans()), slices.Concat(objects, scans))
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
		return o.previewed(ctx, namespace, o.out, nil, is)
	}
	after, err := (&policySetOptions{o.changeOptions, o.policyFlags}).edit(ctx, before)
	if err != nil {
		return err
	}
	return o.showPreview(ctx, namespace, o.out, before, after)
}

// showPreview prints what a change of the policy would deny.
func (o *changeOptions) showPreview(ctx context.Context, namespace string, out cli.Output, before Enforced, after *constraint.Policy) error {
	scans := before.scans()
	return o.previewed(ctx, namespace, out, slices.Concat(before.After(before.Policy), scans), slices.Concat(before.After(after), scans))
}

func (o *changeOptions) previewed(ctx context.Context, namespace string, out cli.Output, before, after []*unstructured.Unstructured) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	p, err := previewChange(ctx, o.Session, namespace, before, after)
	if err != nil {
		return cli.StopCause(ctx, err)
	}
	found := slices.DeleteFunc(slices.Clone(p.workloads), func(w workloadPreview) bool { return w.Result == resultAllowed })
	if err := out.Print(o.Streams.Out, p.data(found, out.Format == "wide")); err != nil {
		return err
	}
	o.Remark("%s", p.summary())
	if why, err := unreached(ctx, o.Session, enforcement.Scope(ctx, o.Session, ""), after); err == nil && len(why) > 0 {
		o.Remark("WARNING: %s", strings.Join(why, "; "))
	}
	switch {
	case len(p.only(false, resultUnknown)) > 0:
		return cli.ErrFailed
	case len(p.only(false, resultDenied)) > 0:
		return cli.ErrNo
	}
	return nil
}

// Results of a workload under a policy.
const (
	resultAllowed = "allowed"
	resultDenied  = "denied"
	resultWarned  = "warned"
	resultCounted = "counted" // by the audit; in a dry run
	resultUnknown = "unknown"
)

// workloadPreview is what would happen to a workload when its Pods restart.
type workloadPreview struct {
	Workload   workload.ObjectName  `json:"workload"`
	Pods       int                  `json:"pods"` // that run
	Result     string               `json:"result"`
	New        bool                 `json:"new"` // the current policy admits it
	Violations []workload.Violation `json:"violations"`
	Error      string               `json:"error,omitempty"`
}

// previewResult is what would happen to everything that runs.
type previewResult struct {
	workloads  []workloadPreview
	pods       int
	namespaces int
	leftOut    []string // namespaces that Gatekeeper does not judge
}

func (p previewResult) only(news bool, result string) []workloadPreview {
	var list []workloadPreview
	for _, w := range p.workloads {
		if w.Result == result && (w.New || !news) {
			list = append(list, w)
		}
	}
	return list
}

// previewChange simulates everything that runs in a namespace, or in all if it is "",
// under the constraints after. It compares the result with the constraints before.
func previewChange(ctx context.Context, s *connect.Session, namespace string, before, after []*unstructured.Unstructured) (previewResult, error) {
	e, err := enforcement.ReadScope(ctx, s, namespace)
	if err != nil {
		return previewResult{}, err
	}
	then, now := workload.Input{Namespaces: e.Namespaces, Constraints: documentsOf(after)}, workload.Input{Namespaces: e.Namespaces, Constraints: documentsOf(before)}
	e.Constraints = slices.Concat(then.Constraints, now.Constraints)
	pods, err := workload.RunningPods(ctx, s, namespace, "")
	if err != nil {
		return previewResult{}, err
	}
	owners, err := workload.Workloads(ctx, s, namespace, pods)
	if err != nil {
		return previewResult{}, err
	}
	var p previewResult
	var subjects []*unstructured.Unstructured
	var of []*workloadPreview // of each subject
	found := make(map[workload.ObjectName]*workloadPreview)
	left, in := make(map[string]bool), make(map[string]bool)
	add := func(pod *unstructured.Unstructured, owner workload.ObjectName, running int) {
		at := pod.GetNamespace()
		if e.WhyNotAsked(at) != "" {
			left[at] = true
			return
		}
		in[at] = true
		p.pods += running
		if found[owner] == nil {
			found[owner] = &workloadPreview{Workload: owner, Result: resultAllowed, Violations: []workload.Violation{}}
		}
		found[owner].Pods += running
		subjects, of = append(subjects, pod), append(of, found[owner])
	}
	for i, pod := range pods {
		add(pod.Object, owners[i], 1)
	}
	if err := simulate.EachTemplate(ctx, s, namespace, func(owner, pod *unstructured.Unstructured) { add(pod, workload.NameOf(owner), 0) }); err != nil {
		return previewResult{}, err
	}
	p.leftOut, p.namespaces = slices.Sorted(maps.Keys(left)), len(in)

	kinds := simulate.GroupPods(e, subjects)
	for _, k := range kinds {
		then.Manifests = append(then.Manifests, workload.Document{Object: k.Pod})
	}
	now.Manifests = then.Manifests
	asked, err := simulate.AllQuestions(ctx, then, now)
	if err != nil {
		return previewResult{}, err
	}
	answers, err := simulate.OCI(s)(ctx, slices.Sorted(maps.Keys(asked)))
	if err != nil {
		return previewResult{}, err
	}
	j, err := simulate.NewEngines(ctx, simulate.FromAnswers(answers), then, now)
	if err != nil {
		return previewResult{}, err
	}
	defer j.Close()
	results := make([]workloadPreview, len(kinds))
	done := s.Progress("judged %d of %d kinds of Pods", len(kinds))
	group := cli.Limited()
	for i, k := range kinds {
		group.Go(func() error {
			defer done()
			results[i] = previewPod(ctx, j, k.Pod)
			return nil
		})
	}
	_ = group.Wait() // each result has its own error
	if err := ctx.Err(); err != nil {
		return previewResult{}, err
	}
	for i, k := range kinds {
		for _, n := range k.Pods {
			of[n].worsen(results[i])
		}
	}
	for _, w := range found {
		p.workloads = append(p.workloads, *w)
	}
	slices.SortFunc(p.workloads, func(a, b workloadPreview) int {
		x, y := a.Workload, b.Workload
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name), cmp.Compare(x.APIVersion, y.APIVersion))
	})
	return p, nil
}

func documentsOf(objects []*unstructured.Unstructured) []workload.Document {
	var documents []workload.Document
	for _, o := range objects {
		documents = append(documents, workload.Document{File: constraint.Name(o), Object: constraint.Manifest(o)})
	}
	return documents
}

// previewPod returns what happens to a Pod under the first policy, and whether the second
// one differs.
func previewPod(ctx context.Context, j *simulate.Engines, pod *unstructured.Unstructured) workloadPreview {
	d, err := j.Review(ctx, 0, pod)
	if err != nil {
		return workloadPreview{Result: resultUnknown, Error: cli.Clip(err.Error(), 1000)}
	}
	var c simulate.ObjectResult
	c.Add("deny", d.Denied)
	c.Add("warn", d.Warnings)
	c.Add("dryrun", d.DryRun)
	w := workloadPreview{Result: resultAllowed, Violations: c.Violations}
	for _, v := range c.Violations {
		result := map[string]string{"deny": resultDenied, "warn": resultWarned, "dryrun": resultCounted}[v.Action]
		if v.Reason == simulate.NoAnswer {
			result = resultUnknown
		}
		w.Result = worse(w.Result, result)
	}
	before, err := j.Review(ctx, 1, pod)
	w.New = w.Result != resultAllowed && (err != nil || !slices.ContainsFunc(before.Denied, func(v gatekeeper.Violation) bool { return v.Details["reason"] != simulate.NoAnswer }))
	return w
}

// worse returns the result that outweighs the other. A Pod that is denied for one reason
// is denied, whatever else is unknown.
func worse(a, b string) string {
	order := []string{resultAllowed, resultCounted, resultWarned, resultUnknown, resultDenied}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// worsen adds the result of another Pod of the workload.
func (w *workloadPreview) worsen(other workloadPreview) {
	w.Result, w.New, w.Error = worse(w.Result, other.Result), w.New || other.New, cmp.Or(w.Error, other.Error)
	for _, v := range other.Violations {
		if !slices.Contains(w.Violations, v) {
			w.Violations = append(w.Violations, v)
		}
	}
}

// data returns the workloads as a table, by namespace.
func (p previewResult) data(workloads []workloadPreview, wide bool) cli.Document {
	d := cli.Document{Columns: []cli.Column{{Name: "workload"}, {Name: "pods"}, {Name: "result"}, {Name: "constraint", Wide: true}, {Name: "message"}}, Names: []string{}}
	if workloads == nil {
		workloads = []workloadPreview{}
	}
	d.Value = workloads
	for _, w := range workloads {
		title := "namespace " + w.Workload.Namespace
		if n := len(d.Sections); n == 0 || d.Sections[n-1].Title != title {
			d.Sections = append(d.Sections, cli.Section{Title: title})
		}
		at := &d.Sections[len(d.Sections)-1]
		result := w.Result
		if result == resultDenied && !w.New {
			result = "denied already"
		}
		if w.Result == resultDenied {
			d.Names = append(d.Names, w.Workload.Namespace+"/"+w.Workload.Kind+"/"+w.Workload.Name)
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
				message = cli.Brief(message)
			}
			at.Rows = append(at.Rows, []string{name, pods, result, v.Kind + "/" + v.Constraint, message})
			name, pods, result = "", "", ""
		}
		if w.Error != "" {
			at.Rows = append(at.Rows, []string{name, pods, result, "", w.Error})
		}
	}
	return d
}

func (p previewResult) summary() string {
	tally := make(map[string]int)
	for _, w := range p.workloads {
		tally[w.Result]++
	}
	var parts []string
	for _, r := range []string{resultAllowed, resultDenied, resultWarned, resultCounted, resultUnknown} {
		if tally[r] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", tally[r], r))
		}
	}
	text := fmt.Sprintf("%s of %s in %s: %s", cli.Count(p.pods, "running Pod"), cli.Count(len(p.workloads), "workload"), cli.Count(p.namespaces, "namespace"), cmp.Or(strings.Join(parts, ", "), "nothing to judge"))
	if n := len(p.only(true, resultDenied)); n > 0 && n < tally[resultDenied] {
		text += fmt.Sprintf(" (%d of them newly)", n)
	}
	if len(p.leftOut) > 0 {
		text += "; Gatekeeper leaves out " + strings.Join(p.leftOut, ", ")
	}
	return text
}
