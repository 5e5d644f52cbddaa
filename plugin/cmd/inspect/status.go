// Package inspect has the commands status and explain. They simulate what the cluster
// would do with the images that run or that are named. They change nothing, and no result
// is a promise: the cluster decides.
package inspect

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
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

type statusOptions struct {
	*connect.Session
	allNamespaces bool
	watch         bool
	selector      string
	out           cli.Output

	scans bool // a constraint requires scans
}

// NewStatus makes the command.
func NewStatus(s *connect.Session) *cobra.Command {
	o := &statusOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "status [-A]",
		Short: "Show the images that run, who signed them, and why they may run",
		Long: `Show every image that runs in a namespace, or in all: whether it is pinned, by
which key and when it was signed, what its newest scan found if a constraint
requires scans, and what would happen if its Pods restarted now:

  allowed      admitted
  exempt       admitted only by an exemption of the policy
  break-glass  admitted only under break-glass
  warned       admitted with a warning, or counted by a dry run
  denied       denied, or in a Pod of which another part is denied; also
               because the provider or Gatekeeper does not answer
  unmatched    no constraint matches the Pod
  not-asked    Gatekeeper exempts the namespace
  unchecked    Gatekeeper is missing, or does not answer and may be ignored
  unknown      a question had no answer

status simulates the Pods here, with the Gatekeeper engine and the cluster's
constraints. It asks OCI as you, once about each image. For an image without a
digest it asks about the digest that the node reports. It needs the rights to
get Providers and to list EndpointSlices, Pods and Namespaces. While OCI does
not answer, it still lists what runs.

Exit code 0: all is known. 1: something is unknown.`,
		Example: `  kubectl oke-sign status -A

  # What a new policy, or a node that fails, would cost
  kubectl oke-sign status -A -o json |
    jq '.[] | select(.result == "denied") | .workloads'`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(workload.CheckSelector(o.selector), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			if o.watch {
				return cli.Watch(cmd.Context(), &o.Terminal, o.run)
			}
			return o.run(cmd.Context())
		},
	}
	workload.BindAllNamespaces(cmd.Flags(), &o.allNamespaces)
	workload.BindSelector(cmd.Flags(), &o.selector, "Pods")
	cli.BindWatch(cmd.Flags(), &o.watch)
	o.out.Bind(cmd.Flags())
	return cmd
}

var statusColumns = []cli.Column{{Name: "image"}, {Name: "pods"}, {Name: "pinned"}, {Name: "signed"}, {Name: "key"}, {Name: "signed at", Wide: true},
	{Name: "signed by", Wide: true}, {Name: "scan", Wide: true}, {Name: "result"}, {Name: "workloads"}, {Name: "why"}}

// columns returns the columns. The scan is a wide one unless a constraint requires scans.
func (o *statusOptions) columns() []cli.Column {
	columns := slices.Clone(statusColumns)
	for i := range columns {
		if columns[i].Name == "scan" && o.scans {
			columns[i].Wide = false
		}
	}
	return columns
}

func (o *statusOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	results, err := o.results(ctx)
	if err != nil {
		results = cli.AllFailed([]string{""}, cli.StopCause(ctx, err))
	}
	return o.Finish(o.out, o.columns(), results)
}

func (o *statusOptions) results(ctx context.Context) ([]cli.Result, error) {
	namespace := ""
	if !o.allNamespaces {
		var err error
		if namespace, err = o.Kube.CurrentNamespace(); err != nil {
			return nil, err
		}
	}
	e, err := enforcement.Read(ctx, o.Session)
	if err != nil {
		return nil, err
	}
	e.Live = enforcement.ReadLive(ctx, o.Session, e)
	pods, err := workload.RunningPods(ctx, o.Session, namespace, o.selector)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 && namespace != "" {
		if err := existing(e, namespace); err != nil {
			return nil, err
		}
	}
	if len(pods) == 0 {
		what := "no Pod"
		if o.selector != "" {
			what = "no Pod that -l selects"
		}
		o.Remark("%s runs in %s", what, cmp.Or(namespace, "any namespace"))
		return nil, nil
	}
	workloads, err := workload.Workloads(ctx, o.Session, namespace, pods)
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(pods))
	var running []string
	for i, pod := range pods {
		objects[i] = pod.Object
		for _, digest := range simulate.RunningDigests(pod.Object) {
			running = append(running, digest)
		}
	}
	j, err := simulate.Pods(ctx, &o.Terminal, simulate.Within(o.Timeout/2, simulate.OCI(o.Session)), e, objects, running...)
	if err != nil {
		return nil, err
	}
	o.scans = j.Scans != nil
	found := simulate.ImageStatuses(j, pods, workloads)
	o.nameKeys(ctx, found)
	results := make([]cli.Result, len(found))
	for i, s := range found {
		results[i] = o.result(*s)
	}
	ofImages, ofPods := summary(j, found, len(pods))
	o.Remark("%s", ofImages)
	if o.scans {
		o.Remark("%s", scanSummary(found))
	}
	o.Remark("%s", ofPods)
	o.warn(e.Live)
	return results, nil
}

// warn tells what keeps the cluster from answering, whatever OCI says.
func (o *statusOptions) warn(live *enforcement.Live) {
	switch {
	case live.Unchecked != "":
		o.Remark("%s: the API server admits every object unchecked; run kubectl oke-sign doctor", live.Unchecked)
	case live.Gatekeeper.Down != "":
		o.Remark("%s, so the API server denies every Pod; run kubectl oke-sign doctor", live.Gatekeeper.Down)
	case live.Loose != "":
		o.Remark("%s; run kubectl oke-sign doctor", live.Loose)
	}
	for _, name := range slices.Sorted(maps.Keys(live.Providers)) {
		if h := live.Providers[name]; h.Down != "" {
			o.Remark("%s: images that need its answer are denied; run kubectl oke-sign doctor", h.Down)
		}
	}
}

// nameKeys looks up the names of keys and, if the format shows it, who signed. Neither
// proves anything, so it skips unknown ones.
func (o *statusOptions) nameKeys(ctx context.Context, found []*simulate.ImageStatus) {
	if !slices.ContainsFunc(found, func(s *simulate.ImageStatus) bool { return s.Verdict != nil && s.Verdict.Signed() }) {
		return
	}
	c, err := o.Connect(ctx)
	if err != nil {
		return
	}
	names := make(map[string]string)
	group := cli.Limited()
	who := o.out.Format != "table" && o.out.Format != "name"
	for _, s := range found {
		if s.Verdict == nil || !s.Verdict.Signed() {
			continue
		}
		if id, err := signature.ParseKeyID(s.Verdict.Key); err == nil && names[s.Verdict.Key] == "" {
			key, err := c.Vault.Key(ctx, id)
			names[s.Verdict.Key] = "?"
			if err == nil {
				names[s.Verdict.Key] = key.Name
			}
		}
		if s.KeyName = names[s.Verdict.Key]; s.KeyName == "?" {
			s.KeyName = ""
		}
		if who {
			group.Go(func() error {
				ref, err := image.Parse(cmp.Or(s.Running, s.Image))
				if err != nil {
					return nil
				}
				if rec, err := c.Registry.Record(ctx, ref, s.Verdict.Signature); err == nil {
					s.SignedBy = rec.CreatedBy
				}
				return nil
			})
		}
	}
	_ = group.Wait()
}

func (o *statusOptions) result(s simulate.ImageStatus) cli.Result {
	if s.Err != nil {
		s.Error = cli.Clip(s.Err.Error(), 1000)
	}
	r := cli.Result{Target: s.Image, Value: s, PartialErr: s.Err, Names: []string{s.Image}}
	v := verdict.Verdict{}
	if s.Verdict != nil {
		v = *s.Verdict
	}
	pinned := "no"
	if s.Pinned {
		pinned = "yes"
	}
	why := s.NotAsked
	if len(s.Violations) > 0 {
		why = s.Violations[0].Brief(s.Image)
	}
	name, key, at := cli.Brief(s.Image), cli.Clip(cmp.Or(s.KeyName, signature.Short(v.Key)), 40), v.SignedAt
	if o.out.Format == "wide" {
		name, key = s.Image, cmp.Or(v.Key)
	}
	var owners []string
	for _, w := range s.Workloads {
		if name := w.Kind + "/" + w.Name; o.allNamespaces || o.out.Format == "wide" {
			owners = append(owners, w.Title())
		} else {
			owners = append(owners, name)
		}
	}
	shown := 1
	if o.out.Format == "wide" {
		shown = 3
	}
	if more := len(owners) - shown; more > 0 {
		owners = append(owners[:shown], fmt.Sprintf("and %d more", more))
	}
	r.Rows = [][]string{{name, fmt.Sprint(s.Pods), pinned, s.Signed(), key, at, s.SignedBy, s.Scanned(), s.Result, strings.Join(owners, ", "), why}}
	return r
}

// scanSummary counts the images by the worst problem of their scans.
func scanSummary(found []*simulate.ImageStatus) string {
	worst := make(map[string]string) // by image
	for _, s := range found {
		if s.Registry != image.OCIRegistry.String() {
			continue
		}
		word := "none"
		if s.Scan == nil || !s.Scan.Known {
			word = "not known"
		} else if i := slices.IndexFunc(vulnreport.Severities(), func(x vulnreport.Severity) bool { return s.Scan.Counts[x] > 0 }); i >= 0 {
			word = string(vulnreport.Severities()[i])
		}
		worst[cmp.Or(s.Running, s.Image)] = word
	}
	tally := make(map[string]int)
	for _, word := range worst {
		tally[word]++
	}
	var parts []string
	for _, word := range []string{"CRITICAL", "HIGH", "MEDIUM", "LOW", "none", "not known"} {
		if tally[word] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", tally[word], word))
		}
	}
	return fmt.Sprintf("%s of OCI Registry, by the worst problem that scans found: %s", cli.Count(len(worst), "image"), cmp.Or(strings.Join(parts, ", "), "-"))
}

// summary counts the images by signature, and the Pods by what would happen to them.
func summary(j simulate.Simulation, found []*simulate.ImageStatus, pods int) (ofImages, ofPods string) {
	images, worst := make(map[string]string), make(map[string]int)
	for _, s := range found {
		word := "of other registries"
		switch {
		case s.Registry == image.Ambiguous.String():
			word = "with an ambiguous name"
		case s.Signed() == "yes":
			word = "signed"
		case s.Signed() == "no":
			word = "not signed"
		case s.Registry == image.OCIRegistry.String():
			word = "unknown"
		}
		images[cmp.Or(s.Running, s.Image)] = word
	}
	for i := range j.Groups {
		s := &j.Groups[i]
		found, _ := manifest.Images(s.Pod)
		at := len(simulate.ImageResults) - 1
		if len(found) == 0 || s.Err != nil {
			at = 0
		}
		for _, image := range found {
			became, _ := s.ResultOf(image.Ref)
			at = min(at, slices.Index(simulate.ImageResults, became))
		}
		worst[simulate.ImageResults[at]] += len(s.Pods)
	}
	tally := make(map[string]int)
	for _, word := range images {
		tally[word]++
	}
	list := func(counts map[string]int, words ...string) string {
		var parts []string
		for _, word := range words {
			if counts[word] > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", counts[word], word))
			}
		}
		return strings.Join(parts, ", ")
	}
	again := map[string]int{
		"admitted": worst[simulate.AllowedImage], "admitted with a warning": worst[simulate.WarnedImage], "under break-glass": worst[simulate.BreakGlassImage], "exempt": worst[simulate.ExemptImage],
		"denied": worst[simulate.DeniedImage], "not known": worst[simulate.UnknownImage], "not checked": worst[simulate.OutsideImage] + worst[simulate.UnmatchedImage] + worst[simulate.UncheckedImage],
	}
	return fmt.Sprintf("%s: %s", cli.Count(len(images), "image"), list(tally, "signed", "not signed", "unknown", "of other registries", "with an ambiguous name")),
		fmt.Sprintf("%s, if they restarted now: %s", cli.Count(pods, "Pod"), list(again, "admitted", "admitted with a warning", "under break-glass", "exempt", "denied", "not known", "not checked"))
}
