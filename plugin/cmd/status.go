package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

type statusOptions struct {
	*global
	allNamespaces bool
	selector      string
	out           output

	scans bool // a constraint asks for them
}

func newStatus(g *global) *cobra.Command {
	o := &statusOptions{global: g}
	cmd := &cobra.Command{
		Use:   "status [-A]",
		Short: "Show the images that run, who signed them, and what lets them run",
		Long: `Show every image that runs in a namespace, or in all: whether it is pinned to a
digest, by which key and when it was signed, what its newest scan found where a
constraint asks for that, and what would become of it if its Pods were made again
now:

  allowed      let in
  exempt       let in by an exemption of the policy, and only by that
  break-glass  let in by the break-glass annotation, and only by that
  warned       let in, with a warning, or counted by a dry run
  refused      kept out; so is an image beside which another part of the Pod is
  unmatched    no constraint is about the Pod
  not-asked    Gatekeeper leaves the namespace out
  unknown      could not be found out

The Pods are judged here, with Gatekeeper's own engine, by the constraints of
the cluster; OCI is asked as you, about each image once. Of an image without a
digest, what runs is asked about, as the node names it.

Exit code 0: all is shown. 1: something could not be found out.`,
		Example: `  kubectl oke-sign status -A

  # What a new policy, or a node that fails, would cost
  kubectl oke-sign status -A -o json | jq '.[] | select(.result == "refused") | .workloads'`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(checkSelector(o.selector), o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "Show the Pods of all namespaces.")
	cmd.Flags().StringVarP(&o.selector, "selector", "l", "", "Label `SELECTOR` of the Pods.")
	o.out.bind(cmd.Flags())
	return cmd
}

// imageStatus is an image that runs, in Pods of which the same becomes.
type imageStatus struct {
	Image      string             `json:"image"`
	Running    string             `json:"running,omitempty"` // by its digest, where the Pod names none
	Registry   string             `json:"registry"`          // oci-registry, other, doubtful
	Pinned     bool               `json:"pinned"`
	Verdict    *verdict.Verdict   `json:"verdict,omitempty"` // on the keys of all constraints
	Scan       *vulnreport.Report `json:"scan,omitempty"`    // where a constraint asks for scans
	KeyName    string             `json:"keyName,omitempty"`
	SignedBy   string             `json:"signedBy,omitempty"`
	Result     string             `json:"result"`
	NotAsked   string             `json:"notAsked,omitempty"`   // why Gatekeeper is not
	Violations []violation        `json:"violations,omitempty"` // in one of the Pods; lifted by what lets it in
	Pods       int                `json:"pods"`
	Workloads  []objectName       `json:"workloads"`
	Error      string             `json:"error,omitempty"`

	err error `json:"-"`
}

var statusColumns = []column{{name: "image"}, {name: "pods"}, {name: "pinned"}, {name: "signed"}, {name: "key"}, {name: "signed at", wide: true},
	{name: "signed by", wide: true}, {name: "scan", wide: true}, {name: "result"}, {name: "workloads", wide: true}, {name: "why"}}

// columns are those to show: what scans say where it matters, or is asked for.
func (o *statusOptions) columns() []column {
	columns := slices.Clone(statusColumns)
	for i := range columns {
		if columns[i].name == "scan" && o.scans {
			columns[i].wide = false
		}
	}
	return columns
}

func (o *statusOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	results, err := o.results(ctx)
	if err != nil {
		results = allFailed([]string{""}, because(ctx, err))
	}
	return o.finish(o.out, o.columns(), results)
}

func (o *statusOptions) results(ctx context.Context) ([]result, error) {
	namespace := ""
	if !o.allNamespaces {
		var err error
		if namespace, err = o.kube.namespace(); err != nil {
			return nil, err
		}
	}
	e, err := o.enforced(ctx)
	if err != nil {
		return nil, err
	}
	pods, err := o.runningPods(ctx, namespace, o.selector)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		what := "no Pod"
		if o.selector != "" {
			what = "no Pod that -l chooses"
		}
		o.remark("%s runs in %s", what, cmp.Or(namespace, "any namespace"))
		return nil, nil
	}
	workloads, err := o.workloads(ctx, namespace, pods)
	if err != nil {
		return nil, err
	}
	objects := make([]*unstructured.Unstructured, len(pods))
	var running []string
	for i, pod := range pods {
		objects[i] = pod.object
		for _, digest := range runningDigests(pod.object) {
			running = append(running, digest)
		}
	}
	j, err := o.judgePods(ctx, e, objects, running)
	if err != nil {
		return nil, err
	}
	o.scans = j.scans != nil
	found := collectStatus(j, pods, workloads)
	o.nameKeys(ctx, found)
	results := make([]result, len(found))
	for i, s := range found {
		results[i] = o.result(*s)
	}
	ofImages, ofPods := summary(j, found, len(pods))
	o.remark("%s", ofImages)
	if o.scans {
		o.remark("%s", scanSummary(found))
	}
	o.remark("%s", ofPods)
	return results, nil
}

// runningDigests are, by the reference of a Pod's image that has no digest, what a
// node says it runs for it.
func runningDigests(pod *unstructured.Unstructured) map[string]string {
	found := make(map[string]string)
	images, _ := manifest.Images(pod)
	for _, i := range images {
		ref, err := image.Parse(i.Ref)
		if err != nil || ref.Digest() != "" {
			continue
		}
		list, _, _ := unstructured.NestedSlice(pod.Object, "status", strings.TrimSuffix(i.Field, "s")+"Statuses")
		for _, item := range list {
			status, _ := item.(map[string]any)
			id, _ := status["imageID"].(string)
			// Some runtimes put a scheme before it.
			if _, after, ok := strings.Cut(id, "://"); ok {
				id = after
			}
			if at, err := image.Parse(id); status["name"] == i.Name && err == nil && at.Digest() != "" && at.Name() == ref.Name() {
				found[i.Ref] = at.String()
			}
		}
	}
	return found
}

// collectStatus sorts what was judged by image: first what is worst.
func collectStatus(j judgement, pods []document, workloads []objectName) []*imageStatus {
	type group struct{ image, running, result string }
	by := make(map[group]*imageStatus)
	var found []*imageStatus
	for i := range j.standings {
		s := &j.standings[i]
		images, err := manifest.Images(s.pod)
		if err != nil {
			images = []manifest.Image{{Ref: "?"}}
		}
		for _, n := range s.pods {
			running := runningDigests(pods[n].object)
			seen := make(map[string]bool)
			for _, image := range images {
				if seen[image.Ref] {
					continue
				}
				seen[image.Ref] = true
				became, why := s.of(image.Ref)
				at := group{image.Ref, running[image.Ref], became}
				if by[at] == nil {
					by[at] = describe(j, at.image, at.running)
					by[at].Result = became
					by[at].fail(s.err)
					found = append(found, by[at])
				}
				to := by[at]
				to.Pods++
				if !slices.Contains(to.Workloads, workloads[n]) {
					to.Workloads = append(to.Workloads, workloads[n])
				}
				to.NotAsked = s.outside
				for _, v := range why {
					if !slices.Contains(to.Violations, v) {
						to.Violations = append(to.Violations, v)
					}
					if v.Reason == "no-answer" {
						to.fail(errors.New(v.Message))
					}
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b *imageStatus) int {
		return cmp.Or(cmp.Compare(slices.Index(imageResults, a.Result), slices.Index(imageResults, b.Result)), strings.Compare(a.Image, b.Image))
	})
	return found
}

func (s *imageStatus) fail(err error) { s.err = cmp.Or(s.err, err) }

// describe is what there is to say about an image whoever runs it.
func describe(j judgement, ref, running string) *imageStatus {
	s := &imageStatus{Image: ref, Running: running, Registry: image.Classify(ref).String(), Workloads: []objectName{}}
	_, digest, _ := strings.Cut(ref, "@")
	s.Pinned = image.ValidDigest(digest)
	if a, ok := j.signed[cmp.Or(running, ref)]; ok {
		if v, ok := a.value.(verdict.Verdict); ok && a.err == nil {
			s.Verdict = &v
		} else {
			s.fail(a.err)
		}
	}
	if a, ok := j.scans[cmp.Or(running, ref)]; ok {
		if r, ok := a.value.(vulnreport.Report); ok && a.err == nil {
			s.Scan = &r
		} else {
			s.fail(a.err)
		}
	}
	return s
}

// nameKeys finds the names of keys and, where it is shown, who signed. Neither
// proves anything, and what cannot be found out is left out.
func (o *statusOptions) nameKeys(ctx context.Context, found []*imageStatus) {
	if !slices.ContainsFunc(found, func(s *imageStatus) bool { return s.Verdict != nil && s.Verdict.Signed }) {
		return
	}
	c, err := o.connect(ctx)
	if err != nil {
		return
	}
	names := make(map[string]string)
	group := limited()
	who := o.out.format != "table" && o.out.format != "name"
	for _, s := range found {
		if s.Verdict == nil || !s.Verdict.Signed {
			continue
		}
		if id, err := signature.ParseKeyID(s.Verdict.Key); err == nil && names[s.Verdict.Key] == "" {
			key, err := c.vault.Key(ctx, id)
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
				if rec, err := c.registry.Record(ctx, ref, s.Verdict.Signature); err == nil {
					s.SignedBy = rec.CreatedBy
				}
				return nil
			})
		}
	}
	_ = group.Wait()
}

func (s *imageStatus) signed() string {
	switch {
	case s.Verdict == nil && s.err != nil && s.Registry == image.OCIRegistry.String():
		return "unknown"
	case s.Verdict == nil:
		return "-" // no key to ask about, or nothing that a key could sign
	case s.Verdict.Signed:
		return "yes"
	}
	return "no"
}

// scanned is what the newest scan found, in short.
func (s *imageStatus) scanned() string {
	switch {
	case s.Scan == nil && s.err != nil && s.Registry == image.OCIRegistry.String():
		return "unknown"
	case s.Scan == nil:
		return "-" // nobody asks, or nothing that OCI scans
	case !s.Scan.Known:
		return string(s.Scan.Reason)
	}
	return tally(s.Scan.Counts)
}

func (o *statusOptions) result(s imageStatus) result {
	if s.err != nil {
		s.Error = clip(s.err.Error(), 1000)
	}
	r := result{target: s.Image, value: s, part: s.err, names: []string{s.Image}}
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
		why = s.Violations[0].brief(s.Image)
	}
	name, key, at := brief(s.Image), clip(cmp.Or(s.KeyName, short(v.Key)), 40), v.SignedAt
	if o.out.format == "wide" {
		name, key = s.Image, cmp.Or(v.Key)
	} else {
		why = clip(why, 80)
	}
	var owners []string
	for _, w := range s.Workloads {
		owners = append(owners, w.title())
	}
	if more := len(owners) - 3; more > 0 {
		owners = append(owners[:3], fmt.Sprintf("and %d more", more))
	}
	r.rows = [][]string{{name, fmt.Sprint(s.Pods), pinned, s.signed(), key, at, s.SignedBy, s.scanned(), s.Result, strings.Join(owners, ", "), why}}
	return r
}

// scanSummary says how the images stand by their scans.
func scanSummary(found []*imageStatus) string {
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
	return fmt.Sprintf("%s of OCI Registry, by the worst problem that scans found: %s", count(len(worst), "image"), cmp.Or(strings.Join(parts, ", "), "-"))
}

// summary says how things stand to whoever must answer for them.
func summary(j judgement, found []*imageStatus, pods int) (ofImages, ofPods string) {
	images, worst := make(map[string]string), make(map[string]int)
	for _, s := range found {
		word := "of other registries"
		switch {
		case s.Registry == image.Doubtful.String():
			word = "with a doubtful name"
		case s.signed() == "yes":
			word = "signed"
		case s.signed() == "no":
			word = "not signed"
		case s.Registry == image.OCIRegistry.String():
			word = "of which it is not known"
		}
		images[cmp.Or(s.Running, s.Image)] = word
	}
	for i := range j.standings {
		s := &j.standings[i]
		found, _ := manifest.Images(s.pod)
		at := len(imageResults) - 1
		if len(found) == 0 || s.err != nil {
			at = 0
		}
		for _, image := range found {
			became, _ := s.of(image.Ref)
			at = min(at, slices.Index(imageResults, became))
		}
		worst[imageResults[at]] += len(s.pods)
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
		"let in": worst[allowedImage], "let in with a warning": worst[warnedImage], "under break-glass": worst[glassImage], "exempt": worst[exemptImage],
		"refused": worst[refusedImage], "not known": worst[unknownImage], "that nobody asks about": worst[outsideImage] + worst[unmatchedImage],
	}
	return fmt.Sprintf("%s: %s", count(len(images), "image"), list(tally, "signed", "not signed", "of which it is not known", "of other registries", "with a doubtful name")),
		fmt.Sprintf("%s, if they were made again now: %s", count(pods, "Pod"), list(again, "let in", "let in with a warning", "under break-glass", "exempt", "refused", "not known", "that nobody asks about"))
}
