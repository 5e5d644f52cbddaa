package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// changeOptions are the flags that all changes of the policy share.
type changeOptions struct {
	*connect.Session
	yes      bool
	preview  bool
	gitops   bool
	allowAny bool
	apart    bool // from constraints that this command does not manage
	files    []string
	dryRun   cli.DryRun
	out      cli.Output
}

func (o *changeOptions) bind(flags *pflag.FlagSet) {
	cli.BindYes(flags, &o.yes, "the check of what the change would deny")
	flags.BoolVar(&o.preview, "preview", false, "List the running workloads that the change would deny, and change nothing.")
	flags.BoolVar(&o.gitops, "gitops", false, "Print the manifests of the changed policy, and change nothing.")
	cli.BindDryRun(flags, &o.dryRun, "lets the cluster check it")
	o.out.Bind(flags)
}

// bindFiles adds the flag of changes that work on manifests.
func (o *changeOptions) bindFiles(flags *pflag.FlagSet) {
	flags.StringArrayVarP(&o.files, "filename", "f", nil, "`FILE` or directory with the constraints to change, instead of the cluster's; needs --gitops. May be repeated.")
}

func (o *changeOptions) bindAllowAny(flags *pflag.FlagSet) {
	flags.BoolVar(&o.allowAny, "allow-any", false, "Admit every image of OCI Registry, signed or not: a policy without keys.")
}

func (o *changeOptions) validate(cmd *cobra.Command) error {
	if o.gitops && (o.preview || o.dryRun.On()) {
		return cli.Usage("--gitops excludes --preview and --dry-run", "use one of them: --gitops also changes nothing")
	}
	if len(o.files) > 0 && !o.gitops {
		return cli.Usage("-f names manifests, which no command changes in place", "add --gitops, which prints the changed manifests")
	}
	return cmp.Or(clusterWide(cmd), o.ValidateFlags(), o.out.Validate())
}

// editing returns the new policy, or nil for no policy. It may ask the user, so it has no
// deadline.
type editing func(ctx context.Context, before Enforced) (*constraint.Policy, error)

func (o *changeOptions) change(ctx context.Context, edit editing) error {
	return cli.WithErrorDocument(&o.Terminal, &o.out, func() error { return o.changed(ctx, edit) })
}

func (o *changeOptions) changed(ctx context.Context, edit editing) error {
	before, err := o.now(ctx)
	if err != nil {
		return err
	}
	after, err := edit(ctx, before)
	if err != nil {
		return err
	}
	if after != nil && len(after.Keys) == 0 && !o.allowAny && (before.Policy == nil || len(before.Policy.Keys) > 0) {
		return cli.Usage("without a key, the policy would admit every image of OCI Registry, signed or not", "name a key, or add --allow-any if you want that")
	}
	steps := before.Plan(after)
	showDiff(o.Remark, before, after, steps)
	o.besides(before, after)
	if o.gitops {
		return o.printManifests(before, after)
	}
	client, err := o.Kube.Objects()
	if err != nil {
		return err
	}
	var kinds []string
	for _, s := range steps {
		kinds = append(kinds, s.Object().GetKind())
	}
	if err := before.installed(ctx, client, kinds...); err != nil {
		return err
	}
	if o.preview {
		return o.showPreview(ctx, "", o.out, before, after)
	}
	if len(steps) == 0 || o.dryRun == cli.DryRunClient {
		return o.printChanges(steps)
	}
	for _, s := range constraint.Merged(steps) {
		if manager := constraint.ManagerOf(s.Object()); manager != "" {
			o.Remark("%s is managed by %s, which may undo the change; --gitops prints the manifests to change there", constraint.Name(s.Object()), manager)
		}
	}
	if err := o.reach(ctx, before, after); err != nil {
		return err
	}
	if !o.yes {
		if err := o.look(ctx, before, after); err != nil {
			return err
		}
		if !o.dryRun.On() && o.Interactive() {
			if err := o.Confirm(ctx, "Change the image policy?"); err != nil {
				return err
			}
		}
	}
	bounded, cancel := o.WithTimeout(ctx)
	defer cancel()
	if err := apply(bounded, client, steps, o.dryRun == cli.DryRunServer); err != nil {
		return cli.StopCause(bounded, err)
	}
	if err := o.printChanges(steps); err != nil {
		return err
	}
	if !o.dryRun.On() && after != nil {
		warnOf(&o.Terminal, *after)
	}
	return nil
}

// now returns the current policy, of the cluster or of the files of -f. Without either,
// --gitops starts a new policy.
func (o *changeOptions) now(ctx context.Context) (Enforced, error) {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	var p Enforced
	var err error
	switch {
	case o.gitops && len(o.files) > 0:
		p.place = "what -f names has"
		if p.found, err = o.policyFiles(ctx, constraint.Kinds()...); err == nil {
			p.Current = constraint.Read(p.found)
		}
	case o.gitops && !o.Kube.Leads():
		p.place = "without a cluster, or -f FILE, there is"
		o.Remark("no kubeconfig names a cluster, and -f no policy: this is a new policy, made of the flags alone")
	default:
		p, err = ReadPolicy(ctx, o.Session)
	}
	if err == nil && o.apart {
		p.Current = constraint.Apart(p.found)
	}
	if err == nil {
		err = p.plain()
	}
	return p, cli.StopCause(ctx, err)
}

// policyFiles returns the constraints of these kinds in the files of -f.
func (o *changeOptions) policyFiles(ctx context.Context, kinds ...string) ([]*unstructured.Unstructured, error) {
	documents, err := workload.ReadFiles(ctx, o.Streams.In, o.files, true)
	if err != nil {
		return nil, err
	}
	var objects []*unstructured.Unstructured
	for _, d := range documents {
		if d.Object.GroupVersionKind().Group == constraint.Group && slices.Contains(kinds, d.Object.GetKind()) {
			objects = append(objects, d.Object)
		}
	}
	if len(objects) == 0 {
		return nil, cli.Usage("the files of -f have no constraint of the image policy", "kubectl oke-sign policy set --gitops prints some")
	}
	return objects, nil
}

// warnOf warns of a policy that denies less than its name promises.
func warnOf(t *cli.Terminal, p constraint.Policy) {
	if len(p.Keys) == 0 {
		t.Remark("WARNING: the policy lists no key, so every image of OCI Registry may run, signed or not")
	}
	if p.Mode != constraint.Deny {
		t.Remark("nothing is denied: the policy's mode is %s", p.Mode)
	}
	if p.Scope.PodSelector != "" {
		t.Remark("the creator of a Pod chooses its labels, and so whether the policy applies")
	}
}

// showDiff shows the change of the policy. It also shows the constraints if they drifted
// from the policy.
func showDiff(remark func(string, ...any), before Enforced, after *constraint.Policy, steps []constraint.Step) {
	text := func(p *constraint.Policy) string {
		if p == nil {
			return ""
		}
		b, _ := p.YAML() // strings, lists and flags always encode
		return string(b)
	}
	diff := udiff.Unified("image policy", "image policy, changed", text(before.Policy), text(after))
	if len(before.Drift) > 0 || diff == "" {
		for _, s := range constraint.Merged(steps) {
			diff += udiff.Unified(constraint.Name(s.Object()), constraint.Name(s.Object())+", changed", manifestText(s.Old), manifestText(s.New))
		}
	}
	for line := range strings.Lines(diff) {
		remark("%s", strings.TrimSuffix(line, "\n"))
	}
	if len(steps) == 0 {
		remark("nothing to change: the policy is already as requested")
	}
}

// besides names constraints outside the policy that differ from its new mode: those that
// still deny after it ends, and those on scans that deny nothing after it begins.
func (o *changeOptions) besides(before Enforced, after *constraint.Policy) {
	enforced := after != nil && after.Mode == constraint.Deny
	if enforced && before.Policy != nil && before.Policy.Mode == constraint.Deny {
		return
	}
	for _, c := range before.Others {
		denies := enforcement.ActsAt(*c, "deny") && enforcement.MatchesKind(*c, "", "Pod")
		action := constraint.Deny
		if !enforced {
			action = constraint.DryRun
		}
		change := fmt.Sprintf(`kubectl patch %s %s --type merge -p '{"spec":{"enforcementAction":%q}}'`, constraint.Resource(c.GetKind()), c.GetName(), action)
		switch {
		case !enforced && denies:
			o.Remark("%s is not part of the policy, and still denies; %s ends that", constraint.Name(c), change)
		case enforced && !denies && c.GetKind() == policies.ScannedImages:
			o.Remark("%s is not part of the policy, and denies nothing; %s has it do so", constraint.Name(c), change)
		}
	}
}

func manifestText(object *unstructured.Unstructured) string {
	if object == nil {
		return ""
	}
	text, _ := yaml.Marshal(constraint.Manifest(object).Object) // it was read as JSON
	return string(text)
}

// printManifests prints all constraints of the policy after the change.
func (o *changeOptions) printManifests(before Enforced, after *constraint.Policy) error {
	items := []any{}
	var text strings.Builder
	for _, object := range before.After(after) {
		items = append(items, constraint.Manifest(object).Object)
		if text.Len() > 0 {
			text.WriteString("---\n")
		}
		text.WriteString(manifestText(object))
	}
	if o.out.Format == "json" {
		out := o.out
		return out.Print(o.Streams.Out, cli.Document{Value: map[string]any{"apiVersion": "v1", "kind": "List", "items": items}})
	}
	_, err := fmt.Fprint(o.Streams.Out, text.String())
	return err
}

// look returns an error for a change that would deny running workloads, or whose effect
// is unknown.
func (o *changeOptions) look(ctx context.Context, before Enforced, after *constraint.Policy) error {
	if after == nil || !after.Denies(before.Policy) {
		return nil
	}
	bounded, cancel := o.WithTimeout(ctx)
	defer cancel()
	p, err := previewChange(bounded, o.Session, "", before.After(before.Policy), before.After(after))
	if err != nil {
		return &cli.HintedError{What: fmt.Errorf("checking running workloads: %w", cli.StopCause(bounded, err)), Hint: "nothing was changed; --yes changes the policy without this check"}
	}
	newly, unknown := p.only(true, resultDenied), p.only(false, resultUnknown)
	if len(newly) == 0 && len(unknown) == 0 {
		return nil
	}
	shown := cli.Output{Format: "table"}
	o.Bar.Clear(o.Streams.ErrOut)
	if err := shown.Print(o.Streams.ErrOut, p.data(slices.Concat(newly, unknown), false)); err != nil {
		return err
	}
	if len(unknown) > 0 {
		return &cli.HintedError{What: fmt.Errorf("it is unknown whether the change would deny %s", running(len(unknown))),
			Hint: "nothing was changed; --yes changes the policy anyway"}
	}
	what := fmt.Errorf("the change would deny %s, when their Pods restart", running(len(newly)))
	cli.Complain(o.Streams.ErrOut, what, "nothing was changed; sign or exempt their images, use --mode warn first, or add --yes")
	return fmt.Errorf("%w: %w", cli.ErrNo, what)
}

// running returns a number of running workloads as a text.
func running(n int) string {
	if n == 1 {
		return "1 workload that runs"
	}
	return cli.Count(n, "workload") + " that run"
}

// apply makes all steps, after the API server and Gatekeeper have checked each one by a
// dry run. With dry it stops after the checks.
func apply(ctx context.Context, client dynamic.Interface, steps []constraint.Step, dry bool) error {
	for _, s := range constraint.Merged(steps) {
		if err := take(ctx, client, s, []string{metav1.DryRunAll}); err != nil {
			return fmt.Errorf("checking the change: %w", err)
		}
	}
	if dry {
		return nil
	}
	for i, s := range steps {
		err := take(ctx, client, s, nil)
		switch {
		case err == nil:
		case i == 0:
			return err
		default:
			var done, left []string
			for n, s := range steps {
				if n < i {
					done = append(done, s.String())
				} else {
					left = append(left, s.String())
				}
			}
			return &cli.HintedError{What: fmt.Errorf("the change stopped in the middle: %w; done: %s; not done: %s", err, strings.Join(done, ", "), strings.Join(left, ", ")),
				Hint: "make the change again to finish it; until then the cluster admits nothing that both the old and the new policy deny"}
		}
	}
	return nil
}

// maxTries bounds the tries of a write. Gatekeeper writes the status of constraints at any
// time, which causes conflicts.
const maxTries = 10

// take makes a step, unless somebody changed the constraint since it was read.
func take(ctx context.Context, client dynamic.Interface, s constraint.Step, dry []string) error {
	of := client.Resource(enforcement.Resource(s.Object().GetKind()))
	version, name := "", s.Object().GetName()
	if s.Old != nil {
		version = s.Old.GetResourceVersion()
	}
	for range maxTries {
		var err error
		switch {
		case s.Old == nil:
			_, err = of.Create(ctx, s.New, metav1.CreateOptions{FieldManager: connect.FieldManager, FieldValidation: metav1.FieldValidationStrict, DryRun: dry})
		case s.New != nil:
			object := s.New.DeepCopy()
			object.SetResourceVersion(version)
			_, err = of.Update(ctx, object, metav1.UpdateOptions{FieldManager: connect.FieldManager, FieldValidation: metav1.FieldValidationStrict, DryRun: dry})
		case version == "": // a guard of ours
			err = of.Delete(ctx, name, metav1.DeleteOptions{DryRun: dry})
		default:
			err = of.Delete(ctx, name, metav1.DeleteOptions{DryRun: dry, Preconditions: &metav1.Preconditions{ResourceVersion: &version}})
		}
		switch {
		case err == nil:
			return nil
		case s.Old == nil && apierrors.IsAlreadyExists(err), s.Old != nil && apierrors.IsNotFound(err):
			return changedMeanwhile(s)
		case s.Old == nil || !apierrors.IsConflict(err):
			return fmt.Errorf("%s: %w", s, err)
		}
		latest, err := of.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return changedMeanwhile(s)
		case err != nil:
			return fmt.Errorf("%s: %w", s, err)
		case !constraint.Same(latest, s.Old):
			return changedMeanwhile(s)
		}
		version = latest.GetResourceVersion()
	}
	return fmt.Errorf("%s: its status changes too often to write it; try again", s)
}

func changedMeanwhile(s constraint.Step) error {
	return &cli.HintedError{What: fmt.Errorf("%s: somebody else changed it in the meantime", s), Hint: "check kubectl oke-sign policy get, and make the change again"}
}

// madeChange is a change of a constraint.
type madeChange struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Change string `json:"change"`
}

func (o *changeOptions) printChanges(steps []constraint.Step) error {
	changes := []madeChange{}
	var rows [][]string
	var names []string
	for _, s := range constraint.Merged(steps) {
		word := "changed"
		if s.Old == nil {
			word = "created"
		} else if s.New == nil {
			word = "deleted"
		}
		if o.dryRun.On() {
			word += fmt.Sprintf(" (%s dry run)", o.dryRun)
		}
		c := madeChange{s.Object().GetKind(), s.Object().GetName(), word}
		changes = append(changes, c)
		names = append(names, resourceName(c.Kind, c.Name))
		rows = append(rows, []string{c.Kind + "/" + c.Name, c.Change})
	}
	d := cli.Document{Value: changes, Columns: []cli.Column{{Name: "constraint"}, {Name: "change"}}, Sections: []cli.Section{{Rows: rows}}, Names: names}
	if len(changes) == 0 && o.out.Format != "json" && o.out.Format != "yaml" {
		return nil
	}
	out := o.out
	return out.Print(o.Streams.Out, d)
}

// addable returns the keys that are named, by OCID or name, after OCI Vault confirmed that
// each can sign images. It does not ask about keys that the policy already lists.
func addable(ctx context.Context, s *connect.Session, named []string, listed []string) ([]string, error) {
	ctx, cancel := s.WithTimeout(ctx)
	defer cancel()
	var found []string
	var c *connect.Cloud
	for _, name := range named {
		id := name
		if !slices.Contains(listed, name) {
			if strings.HasPrefix(name, "ocid1.") {
				if _, err := keyring.ParseIDs([]string{name}); err != nil {
					return nil, err
				}
			}
			if c == nil {
				var err error
				if c, err = s.Connect(ctx); err != nil {
					return nil, &cli.HintedError{What: fmt.Errorf("looking at key %s: %w", name, cli.StopCause(ctx, err)), Hint: "OCI Vault must confirm that a key can sign images before it is added"}
				}
			}
			key, err := usable(ctx, s, c, name)
			if err != nil {
				return nil, cli.StopCause(ctx, err)
			}
			id = key.String()
		}
		if !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	return found, nil
}

// usable returns the key that is named, if it can sign images.
func usable(ctx context.Context, s *connect.Session, c *connect.Cloud, name string) (signature.KeyID, error) {
	id, err := keyring.Find(ctx, s, c, name)
	if err != nil {
		return signature.KeyID{}, err
	}
	key, err := c.Vault.MasterKey(ctx, id)
	if err != nil {
		return signature.KeyID{}, err
	}
	return id, keyring.SigningKeyError(key)
}

func sixth(keys []string) error {
	if len(keys) <= constraint.MaxKeys {
		return nil
	}
	return cli.Usage(fmt.Sprintf("the policy would list %d keys, and the most is %d", len(keys), constraint.MaxKeys), "remove one first: kubectl oke-sign policy remove-key KEY")
}
