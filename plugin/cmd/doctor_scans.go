package cmd

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
)

// answerer is how constraints of a kind have the provider asked.
type answerer struct {
	path    string
	timeout int // seconds that the Provider is given
	flag    string
	within  time.Duration // in which it answers, unless the flag says otherwise
}

// answererOf is the one for a constraint, KIND/NAME.
func answererOf(constraint string) answerer {
	if kind, _, _ := strings.Cut(constraint, "/"); kind == policies.ScannedImages {
		return answerer{"/v1/scans", 1, "scan-timeout", 300 * time.Millisecond}
	}
	return answerer{"/v1/signatures", 2, "timeout", 1300 * time.Millisecond}
}

// checkAnswerers finds Providers that lead to the answers to another question, or
// that are given up before the provider gives up.
func checkAnswerers(f *facts) []finding {
	var found []finding
	wanted := f.wantedProviders()
	for _, p := range f.providers.is {
		constraint, ok := wanted[p.GetName()]
		if !ok {
			continue
		}
		by := answererOf(constraint)
		address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
		u, err := url.Parse(address)
		if err != nil {
			continue // said already
		}
		if u.Path != by.path {
			u.Path = by.path
			found = append(found, fails(fmt.Sprintf("kubectl patch provider %s --type merge -p '{\"spec\":{\"url\":%q}}'", p.GetName(), u),
				"%s leads to %s, and what %s asks is answered under %s: every image of OCI Registry is refused", p.GetName(), clip(address, 100), constraint, by.path))
			continue
		}
		seconds, _, _ := unstructured.NestedInt64(p.Object, "spec", "timeout")
		within := by.within
		for _, pod := range f.backends[p.GetName()].pods {
			for _, value := range flagsOf(pod.Spec, by.flag) {
				if parsed, err := time.ParseDuration(value); err == nil {
					within = max(within, parsed)
				}
			}
		}
		if limit := time.Duration(seconds) * time.Second; limit > 0 && within >= limit {
			found = append(found, warns(fmt.Sprintf("set --%s of the provider below %s: the chart's values say how", by.flag, limit),
				"the provider takes up to %s for an answer, and Gatekeeper waits %s for %s: what is late is lost, with all that was in time", within, limit, p.GetName()))
			continue
		}
		found = append(found, holds("%s: answers within %s of %d s", p.GetName(), within, seconds))
	}
	return found
}

// checkScans finds what makes constraints on scans refuse nothing, or everything.
func checkScans(f *facts) []finding {
	if f.constraints.err != nil {
		return nil // said already
	}
	var found []finding
	asked, denies := 0, false
	for _, c := range f.constraints.is {
		if c.GetKind() != policies.ScannedImages {
			continue
		}
		asked++
		name := c.GetKind() + "/" + c.GetName()
		if !actsAt(c, "deny") || !matchesKind(c, "", "Pod") {
			action, _, _ := unstructured.NestedString(c.Object, "spec", "enforcementAction")
			found = append(found, warns(fmt.Sprintf("kubectl patch %s %s --type merge -p '{\"spec\":{\"enforcementAction\":\"deny\"}}'", strings.ToLower(c.GetKind()), c.GetName()),
				"%s refuses no Pod: its action is %s", name, cmp.Or(action, "deny, and it is not about Pods")))
			continue
		}
		unknown, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "unknown")
		denies = denies || unknown != allowUnknown
		for _, narrow := range narrowed(c) {
			found = append(found, warns("kubectl edit "+strings.ToLower(name), "%s is not about everything: %s", name, narrow))
		}
	}
	if asked == 0 {
		return []finding{holds("no constraint asks for them")}
	}
	if x, ok := unscanned(f.running.is); ok && denies {
		found = append(found, x)
	}
	if len(found) == 0 {
		found = append(found, holds("asked for by %s", count(asked, "constraint")))
	}
	return found
}

// unscanned is a finding if scans are known of no image that runs, or of few.
func unscanned(running []*imageStatus) (finding, bool) {
	all, known := 0, 0
	why := make(map[string]int)
	for _, s := range running {
		if s.Registry != image.OCIRegistry.String() || s.Scan == nil {
			continue
		}
		all++
		if s.Scan.Known {
			known++
		} else {
			why[string(s.Scan.Reason)]++
		}
	}
	if all == known {
		return finding{}, false
	}
	var reasons []string
	for reason, n := range why {
		reasons = append(reasons, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(reasons)
	return warns("kubectl oke-sign scan setup --compartment OCID has the images of a compartment scanned; kubectl oke-sign scan results pods -A says why of each",
		"no scan is known of %d of %s that run, and they are refused if made anew: %s", all-known, count(all, "image"), strings.Join(reasons, ", ")), true
}
