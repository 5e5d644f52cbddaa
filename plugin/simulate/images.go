package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// ImageStatus is an image that runs, in Pods of which the same becomes.
type ImageStatus struct {
	Image      string                `json:"image"`
	Running    string                `json:"running,omitempty"` // by its digest, where the Pod names none
	Registry   string                `json:"registry"`          // oci-registry, other, ambiguous
	Pinned     bool                  `json:"pinned"`
	Verdict    *verdict.Verdict      `json:"verdict,omitempty"` // on the keys of all constraints
	Scan       *vulnreport.Report    `json:"scan,omitempty"`    // where a constraint asks for scans
	KeyName    string                `json:"keyName,omitempty"`
	SignedBy   string                `json:"signedBy,omitempty"`
	Result     string                `json:"result"`
	NotAsked   string                `json:"notAsked,omitempty"`   // why Gatekeeper is not
	Violations []workload.Violation  `json:"violations,omitempty"` // in one of the Pods; lifted by what lets it in
	Pods       int                   `json:"pods"`
	Workloads  []workload.ObjectName `json:"workloads"`
	Error      string                `json:"error,omitempty"`

	Err error `json:"-"`
}

// RunningDigests are, by the reference of a Pod's image that has no digest, what a
// node says it runs for it.
func RunningDigests(pod *unstructured.Unstructured) map[string]string {
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

// ImageStatuses sorts what was judged by image: first what is worst.
func ImageStatuses(j Simulation, pods []workload.Document, workloads []workload.ObjectName) []*ImageStatus {
	type group struct{ image, running, result string }
	by := make(map[group]*ImageStatus)
	var found []*ImageStatus
	for i := range j.Groups {
		s := &j.Groups[i]
		images, err := manifest.Images(s.Pod)
		if err != nil {
			images = []manifest.Image{{Ref: "?"}}
		}
		for _, n := range s.Pods {
			running := RunningDigests(pods[n].Object)
			seen := make(map[string]bool)
			for _, image := range images {
				if seen[image.Ref] {
					continue
				}
				seen[image.Ref] = true
				became, why := s.ResultOf(image.Ref)
				at := group{image.Ref, running[image.Ref], became}
				if by[at] == nil {
					by[at] = describe(j, at.image, at.running)
					by[at].Result = became
					by[at].fail(s.Err)
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
	slices.SortStableFunc(found, func(a, b *ImageStatus) int {
		return cmp.Or(cmp.Compare(slices.Index(ImageResults, a.Result), slices.Index(ImageResults, b.Result)), strings.Compare(a.Image, b.Image))
	})
	return found
}

func (s *ImageStatus) fail(err error) { s.Err = cmp.Or(s.Err, err) }

// describe is what there is to say about an image whoever runs it.
func describe(j Simulation, ref, running string) *ImageStatus {
	s := &ImageStatus{Image: ref, Running: running, Registry: image.Classify(ref).String(), Workloads: []workload.ObjectName{}}
	_, digest, _ := strings.Cut(ref, "@")
	s.Pinned = image.ValidDigest(digest)
	if a, ok := j.signed[cmp.Or(running, ref)]; ok {
		if v, ok := a.Value.(verdict.Verdict); ok && a.Err == nil {
			s.Verdict = &v
		} else {
			s.fail(a.Err)
		}
	}
	if a, ok := j.Scans[cmp.Or(running, ref)]; ok {
		if r, ok := a.Value.(vulnreport.Report); ok && a.Err == nil {
			s.Scan = &r
		} else {
			s.fail(a.Err)
		}
	}
	return s
}

// SeverityCounts is how many problems there are of each severity.
func SeverityCounts(counts map[vulnreport.Severity]int) string {
	var parts []string
	for _, s := range vulnreport.Severities() {
		if n := counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing found")
}

// Signed is yes, no, unknown, or - if no key could have signed the image.
func (s *ImageStatus) Signed() string {
	switch {
	case s.Verdict == nil && s.Err != nil && s.Registry == image.OCIRegistry.String():
		return "unknown"
	case s.Verdict == nil:
		return "-" // no key to ask about, or nothing that a key could sign
	case s.Verdict.Signed():
		return "yes"
	}
	return "no"
}

// Scanned is what the newest scan found, in short.
func (s *ImageStatus) Scanned() string {
	switch {
	case s.Scan == nil && s.Err != nil && s.Registry == image.OCIRegistry.String():
		return "unknown"
	case s.Scan == nil:
		return "-" // nobody asks, or nothing that OCI scans
	case !s.Scan.Known:
		return string(s.Scan.Reason)
	}
	return SeverityCounts(s.Scan.Counts)
}
