package simulate

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// ImageStatus is a running image, in Pods with the same simulated result.
type ImageStatus struct {
	Image      string                `json:"image"`
	Running    string                `json:"running,omitempty"` // the pinned reference that the node reports, if Image has a tag
	Registry   string                `json:"registry"`          // oci-registry, other, ambiguous
	Pinned     bool                  `json:"pinned"`
	Verdict    *verdict.Verdict      `json:"verdict,omitempty"` // with the keys of all constraints as allowed keys
	Scan       *vulnreport.Report    `json:"scan,omitempty"`    // if a constraint requires scans
	KeyName    string                `json:"keyName,omitempty"`
	SignedBy   string                `json:"signedBy,omitempty"`
	Result     string                `json:"result"`
	NotAsked   string                `json:"notAsked,omitempty"`   // why Gatekeeper does not see the Pods
	Violations []workload.Violation  `json:"violations,omitempty"` // in one of the Pods; of an admitted image, those that its exemption lifts
	Pods       int                   `json:"pods"`
	Workloads  []workload.ObjectName `json:"workloads"`
	Error      string                `json:"error,omitempty"`

	Err error `json:"-"`
}

// RunningDigests returns the pinned references that the node reports for images of a Pod
// without a digest, by image reference.
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
			// Some container runtimes put a scheme before the reference.
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

// ImageStatuses returns the images of a simulation, those with the worst result first.
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
				to.NotAsked = s.notAsked()
				if s.live != nil && s.outside == "" && s.live.Gatekeeper.Err != nil {
					to.fail(cli.SharedError(s.live.Gatekeeper.Err))
				}
				for _, v := range why {
					if !slices.Contains(to.Violations, v) {
						to.Violations = append(to.Violations, v)
					}
					switch h := s.healthOf(v); {
					case v.Reason != NoAnswer || became == DeniedImage:
					case h.Err != nil:
						to.fail(cli.SharedError(h.Err))
					default:
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

// notAsked returns why Gatekeeper does not check the Pods, or "".
func (s *PodGroup) notAsked() string {
	if s.outside == "" && s.live != nil {
		return s.live.Unchecked
	}
	return s.outside
}

func (s *ImageStatus) fail(err error) { s.Err = cmp.Or(s.Err, err) }

// describe returns the part of a status that is the same in every Pod.
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

// SeverityCounts formats the number of problems of each severity.
func SeverityCounts(counts map[vulnreport.Severity]int) string {
	var parts []string
	for _, s := range vulnreport.Severities() {
		if n := counts[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "nothing found")
}

// Signed returns yes, no, unknown, or - if there is no question about the image.
func (s *ImageStatus) Signed() string {
	switch {
	case s.Verdict == nil && s.Err != nil && s.Registry == image.OCIRegistry.String():
		return "unknown"
	case s.Verdict == nil:
		return "-" // no allowed key, or an image that cannot be signed
	case s.Verdict.Signed():
		return "yes"
	}
	return "no"
}

// Scanned summarizes what the newest scan found.
func (s *ImageStatus) Scanned() string {
	switch {
	case s.Scan == nil && s.Err != nil && s.Registry == image.OCIRegistry.String():
		return "unknown"
	case s.Scan == nil:
		return "-" // no constraint requires scans, or OCI does not scan the image
	case !s.Scan.Known:
		return string(s.Scan.Reason)
	}
	return SeverityCounts(s.Scan.Counts)
}
