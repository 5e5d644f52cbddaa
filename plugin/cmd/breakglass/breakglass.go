// Package breakglass has kubectl oke-sign break-glass: it sets, ends and lists break-glass,
// the annotation that lets a workload run without signatures. The cluster decides who may
// set it, by OKEBreakGlass. The package does not check that itself.
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
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/util/retry"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
)

type breakGlassOptions struct {
	*connect.Session
	reason   string
	duration time.Duration
	yes      bool
	dryRun   cli.DryRun
	end      bool
	out      cli.Output
}

// New makes the command.
func New(s *connect.Session) *cobra.Command {
	o := &breakGlassOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "break-glass TYPE/NAME... --reason TEXT --for TIME",
		Short: "Let unsigned images of OCI Registry run for a limited time",
		Long: `Let a workload run any image of OCI Registry, signed or not, for a limited time
and with a reason. Images of other registries stay denied.

The command sets annotations. On a workload such as a Deployment it sets them
in the template of the Pods, and the Pods restart under break-glass. On a Pod
it covers later changes of that Pod: kubectl debug, or another image. A denied
Pod does not exist, so it cannot get annotations.

The constraint OKEBreakGlass limits who may use break-glass, and for how long.
Without one, everybody who may write the workload may use it. After the time no
new Pod starts; running Pods run on until they end.

At a terminal the command asks before it acts; elsewhere it needs --yes.`,
		Example: `  kubectl oke-sign break-glass deployment/web -n shop --for 2h \
    --reason "INC-4711: key disabled"

  # Who runs without signatures, and until when?
  kubectl oke-sign break-glass list -A

  kubectl oke-sign break-glass end deployment/web -n shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			if err := o.validate(cmd, args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	cmd.Flags().StringVar(&o.reason, "reason", "", "`TEXT` that gives the reason, such as a ticket.")
	cli.BindDuration(cmd.Flags(), &o.duration, "for", "`TIME` until the image policy applies again, such as 30m, 8h or 2d.")
	o.bind(cmd)
	cmd.AddCommand(newList(s), newEnd(s))
	return cmd
}

func newEnd(s *connect.Session) *cobra.Command {
	o := &breakGlassOptions{Session: s, end: true}
	cmd := &cobra.Command{
		Use:   "end TYPE/NAME...",
		Short: "End break-glass for a workload",
		Long: `End break-glass for a workload or a Pod. The Pods of a workload restart, and the
image policy applies to them again: kubectl oke-sign break-glass list -o wide
shows the images that only break-glass admits.

The command waits until no Pod of the workload runs under break-glass, at most
as long as --timeout. If the cluster denies the new Pods, the old ones run on,
and their ReplicaSet can start others until the announced end. The command then
shows them with the command that ends them.

Exit code 0: nothing is under break-glass. 3: something still is. 1: unknown.

At a terminal the command asks before it acts; elsewhere it needs --yes.`,
		Example: `  kubectl oke-sign break-glass end deployment/web -n shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(cmd, args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	o.bind(cmd)
	return cmd
}

func (o *breakGlassOptions) bind(cmd *cobra.Command) {
	cli.BindYes(cmd.Flags(), &o.yes, "")
	cli.BindDryRun(cmd.Flags(), &o.dryRun, "lets the cluster check it")
	o.out.Bind(cmd.Flags())
}

// maxReason bounds the reason, which the API server stores with the object, in bytes.
const maxReason = 1000

func (o *breakGlassOptions) validate(cmd *cobra.Command, args []string) error {
	for _, arg := range args {
		if !workload.IsObject(arg) {
			return cli.Usage(fmt.Sprintf("%q is not TYPE/NAME", arg), "name a workload, such as deployment/web")
		}
	}
	switch {
	case len(args) == 0:
		return cli.Usage("no workload is named", "name one, such as deployment/web; kubectl oke-sign break-glass list -A shows those under break-glass")
	case o.end:
	case strings.TrimSpace(o.reason) == "":
		return cli.Usage("--reason is missing", `say why, such as --reason "INC-4711: key disabled"`)
	case len(o.reason) > maxReason:
		return cli.Usage(fmt.Sprintf("--reason has %d bytes, and %d is the most", len(o.reason), maxReason), "shorten it, and name the ticket")
	case o.duration == 0 && !cmd.Flags().Changed("for"):
		return cli.Usage("--for is missing", "give the time, such as --for 2h")
	case o.duration < time.Minute:
		return cli.Usage(fmt.Sprintf("--for %s is too short for a Pod to start", o.duration), "use a minute at least, such as --for 30m")
	}
	if !o.yes && !o.dryRun.On() && !o.Interactive() {
		return cli.Usage("no terminal to ask at", "add --yes to do it, or --dry-run=server to see whether it would be allowed")
	}
	return cmp.Or(o.ValidateFlags(), o.out.Validate())
}

// result is an object on which break-glass is set or ended.
type result struct {
	workload.ObjectName
	Until  string `json:"until,omitempty"`
	Reason string `json:"reason,omitempty"`
	Result string `json:"result"` // set, ended, unchanged; "would be set" and "would be ended" of a dry run

	Left []leftover `json:"left,omitempty"` // what is still under break-glass after its end
}

var resultColumns = []cli.Column{{Name: "object"}, {Name: "result"}, {Name: "until"}, {Name: "reason"}}

func (o *breakGlassOptions) run(ctx context.Context, args []string) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	changes, err := o.plan(ctx, args)
	if err != nil {
		return o.Finish(o.out, resultColumns, cli.AllFailed([]string{strings.Join(args, " ")}, cli.StopCause(ctx, err)))
	}
	left := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return c.patch == nil })
	if len(left) > 0 && !o.dryRun.On() {
		for _, c := range left {
			o.Remark("%s", c.means)
		}
		if !o.yes {
			if err := o.Confirm(ctx, "Go on?"); err != nil {
				return err
			}
		}
	}
	names := make([]string, len(changes))
	for i, c := range changes {
		names[i] = c.of.Name()
	}
	results := cli.ForEach(ctx, names, func(ctx context.Context, i int) cli.Result {
		c := changes[i]
		g := result{ObjectName: workload.NameOf(c.of.Object), Until: c.until, Reason: c.reason, Result: "unchanged"}
		if c.patch != nil {
			g.Result = c.done
			if o.dryRun.On() {
				g.Result = "would be " + c.done
			} else if err := c.apply(ctx, false); err != nil {
				return cli.Result{Err: err}
			}
		}
		return cli.Result{Value: g, Names: []string{names[i]}, Rows: [][]string{{names[i], g.Result, g.Until, cli.Clip(g.Reason, 60)}}}
	})
	if o.end && !o.dryRun.On() {
		return o.finishEnd(ctx, changes, results)
	}
	return o.Finish(o.out, resultColumns, results)
}

// change is a change of an object's annotations.
type change struct {
	of     workload.Document
	at     []string // the path to the metadata of the Pods
	helper *resource.Helper
	patch  map[string]any // nil: nothing to change
	means  string         // the effect, for the question at the terminal
	until  string
	reason string
	done   string
}

// plan finds the objects, and lets the cluster check every change by a dry run before the
// first one is made.
func (o *breakGlassOptions) plan(ctx context.Context, args []string) ([]change, error) {
	namespace, err := o.Kube.CurrentNamespace()
	if err != nil {
		return nil, err
	}
	var changes []change
	err = bounded(ctx, func() error {
		return o.Kube.Builder().NamespaceParam(namespace).DefaultNamespace().ResourceTypeOrNameArgs(true, args...).Do().Visit(func(info *resource.Info, err error) error {
			if err != nil {
				return err
			}
			object, ok := info.Object.(*unstructured.Unstructured)
			if !ok {
				return fmt.Errorf("%s/%s: %T is no object", info.Mapping.GroupVersionKind.Kind, info.Name, info.Object)
			}
			c, err := o.change(workload.Document{Object: object})
			c.helper = resource.NewHelper(info.Client, info.Mapping).WithFieldManager("kubectl-oke_sign")
			changes = append(changes, c)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if !o.end {
		o.tellLimits(ctx, changes)
	}
	for _, c := range changes {
		if c.patch == nil {
			o.Remark("%s is not under break-glass", c.of.Name())
		} else if o.dryRun == cli.DryRunClient {
			continue
		} else if err := c.apply(ctx, true); err != nil {
			return nil, fmt.Errorf("%s: %w", c.of.Name(), err)
		}
	}
	return changes, nil
}

// bounded runs work, which takes no context, until the context ends.
func bounded(ctx context.Context, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *breakGlassOptions) change(of workload.Document) (change, error) {
	c := change{of: of}
	var ok bool
	if c.at, ok = manifest.PodMetadata(of.Object); !ok {
		return c, &cli.HintedError{What: fmt.Errorf("%s has no template of Pods", of.Name()), Hint: "name the workload that creates the Pods, such as deployment/web"}
	}
	if owner := workload.Controller(of.Object); owner != workload.NameOf(of.Object) && (of.Object.GetKind() != "Pod" || o.end) {
		return c, &cli.HintedError{What: fmt.Errorf("%s belongs to %s/%s, which would undo or ignore the change", of.Name(), owner.Kind, owner.Name),
			Hint: fmt.Sprintf("name %s/%s", strings.ToLower(owner.Kind), owner.Name)}
	}
	if of.Object.GetKind() == "Job" {
		return c, &cli.HintedError{What: fmt.Errorf("the template of %s cannot be changed once it is made", of.Name()),
			Hint: "put the annotations " + simulate.BreakGlassAnnotation + `: "true", ` + simulate.ReasonAnnotation + " and " + simulate.UntilAnnotation + " into its manifest, delete it, and create it again"}
	}
	annotations := map[string]any{simulate.BreakGlassAnnotation: "true", simulate.ReasonAnnotation: o.reason, simulate.UntilAnnotation: cli.Timestamp(time.Now().Add(o.duration))}
	if o.end {
		now, _, _ := unstructured.NestedStringMap(of.Object.Object, append(slices.Clone(c.at), "annotations")...)
		found := false
		for name := range annotations {
			_, is := now[name]
			found = found || is
			annotations[name] = nil
		}
		if !found {
			return c, nil
		}
		c.done = "ended"
	} else {
		c.done, c.reason = "set", o.reason
		c.until, _ = annotations[simulate.UntilAnnotation].(string)
	}
	c.means = o.means(of, c)
	c.patch = map[string]any{}
	return c, unstructured.SetNestedMap(c.patch, annotations, append(slices.Clone(c.at), "annotations")...)
}

func (o *breakGlassOptions) means(of workload.Document, c change) string {
	name, pod := of.Name(), of.Object.GetKind() == "Pod"
	owner := workload.Controller(of.Object)
	switch {
	case o.end && pod:
		return name + ": the image policy applies to its changes from now on. The Pod runs on."
	case o.end && !restarts(of.Object):
		return name + ": the image policy applies to its new Pods. Running Pods run on."
	case o.end:
		return name + ": its Pods restart, and the image policy applies to them."
	case pod && owner != workload.NameOf(of.Object):
		return fmt.Sprintf("%s: until %s it may be given images of OCI Registry, signed or not. This does not cover other Pods of %s/%s: name it instead to cover them.", name, c.until, owner.Kind, owner.Name)
	case pod:
		return fmt.Sprintf("%s: until %s it may be given images of OCI Registry, signed or not.", name, c.until)
	case !restarts(of.Object):
		return fmt.Sprintf("%s: until %s its new Pods may run images of OCI Registry, signed or not. Running Pods run on.", name, c.until)
	default:
		return fmt.Sprintf("%s: its Pods restart, and until %s they may run images of OCI Registry, signed or not.", name, c.until)
	}
}

// tellLimits reports constraints that ignore break-glass, and images that it does not
// admit.
func (o *breakGlassOptions) tellLimits(ctx context.Context, changes []change) {
	for _, kind := range []string{policies.SignedImages, policies.ImageDigests, policies.ScannedImages} {
		found, err := enforcement.ListConstraints(ctx, o.Session, kind)
		if err != nil {
			continue // break-glass needs no right to list constraints
		}
		for _, c := range found {
			if honor, _, _ := unstructured.NestedString(c.Object.Object, "spec", "parameters", "breakGlass"); honor == "Ignore" {
				o.Remark("constraint %s/%s ignores break-glass, and still denies images", kind, c.Object.GetName())
			}
		}
	}
	for _, c := range changes {
		images, _ := manifest.Images(c.of.Object)
		for _, i := range images {
			if image.Classify(i.Ref) != image.OCIRegistry {
				o.Remark("%s: %s is not an image of OCI Registry, so break-glass does not admit it", c.of.Name(), cli.Printable(i.Ref))
			}
		}
	}
}

var errChanged = errors.New("somebody else changed it in the meantime, so it was not changed")

// write patches the object if it still has the version.
func (c change) write(version string, dry bool) error {
	if err := unstructured.SetNestedField(c.patch, version, "metadata", "resourceVersion"); err != nil {
		return err
	}
	patch, err := json.Marshal(c.patch)
	if err != nil {
		return err
	}
	_, err = c.helper.DryRun(dry).Patch(c.of.Object.GetNamespace(), c.of.Object.GetName(), types.MergePatchType, patch, &metav1.PatchOptions{})
	return err
}

// same reports whether an object is unchanged in all that the change depends on: its UID,
// owners, spec, and the annotations of its Pods.
func (c change) same(object *unstructured.Unstructured) bool {
	old, annotations := c.of.Object, append(slices.Clone(c.at), "annotations")
	was, _, _ := unstructured.NestedFieldNoCopy(old.Object, annotations...)
	is, _, _ := unstructured.NestedFieldNoCopy(object.Object, annotations...)
	return old.GetUID() == object.GetUID() && equality.Semantic.DeepEqual(was, is) &&
		equality.Semantic.DeepEqual(old.Object["spec"], object.Object["spec"]) &&
		equality.Semantic.DeepEqual(old.GetOwnerReferences(), object.GetOwnerReferences())
}

// apply makes the change if the object is still the same. Controllers write the status
// often, so a conflict over nothing else is tried again.
func (c change) apply(ctx context.Context, dry bool) error {
	latest := c.of.Object
	err := bounded(ctx, func() error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
			conflict := c.write(latest.GetResourceVersion(), dry)
			if !apierrors.IsConflict(conflict) {
				return conflict
			}
			read, err := c.helper.Get(latest.GetNamespace(), latest.GetName())
			if err != nil {
				return err
			}
			before := latest.GetResourceVersion()
			object, ok := read.(*unstructured.Unstructured)
			if !ok || object.GetResourceVersion() == before || !c.same(object) {
				return errChanged
			}
			latest = object
			return conflict
		})
	})
	switch {
	case apierrors.IsConflict(err), errors.Is(err, errChanged):
		return &cli.HintedError{What: errChanged, Hint: "run the command again"}
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "admission webhook"):
		return &cli.HintedError{What: fmt.Errorf("the cluster denies it: %w", err), Hint: "OKEBreakGlass limits who may use break-glass, and for how long: kubectl get okebreakglass -o yaml"}
	case apierrors.IsForbidden(err):
		return &cli.HintedError{What: err, Hint: "break-glass needs the right to patch " + c.of.Object.GetKind() + "s"}
	}
	return err
}
