package doctor

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/provider/image"
)

// checkEndpoints finds Providers with the path of another endpoint, and Providers whose
// time-out is shorter than the provider's.
func checkEndpoints(f *facts) []finding {
	var found []finding
	seen := make(map[string]bool)
	for _, c := range f.constraints.is {
		if c.GetKind() != policies.SignedImages && c.GetKind() != policies.ScannedImages {
			continue
		}
		by := endpointOf(c.GetKind())
		name, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "provider")
		name = cmp.Or(name, by.provider)
		p := f.provider(name)
		if p == nil || seen[c.GetKind()+name] {
			continue // another check reports it
		}
		seen[c.GetKind()+name] = true
		found = append(found, checkEndpoint(f, *p, c, by)...)
	}
	return found
}

func checkEndpoint(f *facts, p, c unstructured.Unstructured, by endpoint) []finding {
	address, _, _ := unstructured.NestedString(p.Object, "spec", "url")
	u, err := url.Parse(address)
	if err != nil {
		return nil // another check reports it
	}
	if u.Path != by.path {
		u.Path = by.path
		fix := fmt.Sprintf(`kubectl patch provider %s --type merge -p '{"spec":{"url":%q}}'`, p.GetName(), u)
		if p.GetName() != by.provider { // it may be right for others
			fix = fmt.Sprintf(`kubectl patch %s %s --type merge -p '{"spec":{"parameters":{"provider":%q}}}'`, strings.ToLower(c.GetKind()), c.GetName(), by.provider)
		}
		return []finding{fails(fix, "%s has the address %s, and %s/%s needs the path %s: every image of OCI Registry is denied",
			p.GetName(), cli.Clip(address, 100), c.GetKind(), c.GetName(), by.path)}
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
		return []finding{warns(fmt.Sprintf("set --%s of the provider below %s, as the chart does", by.flag, limit),
			"the provider may answer after %s, and Gatekeeper waits %s for %s: a late answer loses all answers of the request", within, limit, p.GetName())}
	}
	return []finding{holds("%s: within %s of %d s", p.GetName(), within, seconds)}
}

// checkScans finds constraints on scans that deny nothing, or nearly everything.
func checkScans(f *facts) []finding {
	if f.constraints.err != nil {
		return nil // another check reports it
	}
	var found []finding
	asked, denies := 0, false
	for _, c := range f.constraints.is {
		if c.GetKind() != policies.ScannedImages {
			continue
		}
		asked++
		name := c.GetKind() + "/" + c.GetName()
		if !enforcement.ActsAt(c, "deny") || !enforcement.MatchesKind(c, "", "Pod") {
			action, _, _ := unstructured.NestedString(c.Object, "spec", "enforcementAction")
			why, fix := "its action is "+action, fmt.Sprintf("kubectl patch %s %s --type merge -p '{\"spec\":{\"enforcementAction\":\"deny\"}}'", strings.ToLower(c.GetKind()), c.GetName())
			switch {
			case enforcement.ActsAt(c, "deny"):
				why, fix = "it does not match Pods", "kubectl edit "+strings.ToLower(name)
			case enforcement.ActsAt(c, "warn"): // an action may be scoped
				why = "it only warns"
			}
			found = append(found, warns(fix, "%s denies no Pod: %s", name, why))
			continue
		}
		unknown, _, _ := unstructured.NestedString(c.Object, "spec", "parameters", "unknown")
		denies = denies || unknown != enforcement.AllowUnknown
		found = append(found, checkReach(f, c)...)
	}
	if asked == 0 {
		return []finding{holds("no constraint requires scans")}
	}
	if x, ok := unscanned(f.running.is); ok && denies {
		found = append(found, x)
	}
	if len(found) == 0 {
		found = append(found, holds("required by %s", cli.Count(asked, "constraint")))
	}
	return found
}

// unscanned returns a finding if an image that runs has no known scan.
func unscanned(running []*simulate.ImageStatus) (finding, bool) {
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
	return warns("kubectl oke-sign scan setup --compartment OCID scans the images of a compartment; kubectl oke-sign scan results pods -A shows the reason for each",
		"%d of %s that run have no known scan, and would be denied when their Pods restart: %s", all-known, cli.Count(all, "image"), strings.Join(reasons, ", ")), true
}
