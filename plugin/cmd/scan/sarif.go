package scan

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/sarif"
)

// finishSARIF prints the problems as SARIF, and returns the same outcome as finish.
// An image without a known scan is a result too: without it, the list would look as
// if the image had no problems.
func (o *scanResultsOptions) finishSARIF(results []cli.Result) error {
	var rules []sarif.Rule
	var found []sarif.Result
	known := make(map[string]bool)
	add := func(rule sarif.Rule, level, text string, at []sarif.Location) {
		if !known[rule.ID] {
			known[rule.ID] = true
			rules = append(rules, rule)
		}
		found = append(found, sarif.Result{RuleID: rule.ID, Level: cmp.Or(level, "note"), Message: sarif.Message{Text: cli.Clip(text, 1000)}, Locations: at})
	}
	for _, r := range results {
		v, ok := r.Value.(scannedImage)
		if !ok {
			continue // its error is reported
		}
		at := v.locations()
		if !v.Known {
			level := "note"
			if r.Denied {
				level = "error"
			}
			add(sarif.Rule{ID: v.Reason}, level, "no scan of this image is known: "+v.Detail, at)
		}
		for _, p := range v.Problems {
			text := p.Severity + ": " + cmp.Or(p.Description, p.ID)
			for _, pkg := range p.Packages {
				text += fmt.Sprintf("; %s %s, fixed in %s", pkg.Name, pkg.Version, cmp.Or(pkg.FixedIn, "no version"))
			}
			level := map[string]string{"CRITICAL": "error", "HIGH": "error", "MEDIUM": "warning"}[p.Severity]
			add(sarif.Rule{ID: p.ID, HelpURI: p.Link, Properties: securitySeverity(p.Severity)}, level, text, at)
		}
	}
	return o.FinishDocument(sarif.New("kubectl oke-sign scan results", rules, found, cli.Failures(results)), results)
}

// locations returns the manifests that name the image, or the image itself.
func (v scannedImage) locations() []sarif.Location {
	if len(v.places) == 0 {
		name, _, _ := strings.Cut(v.Reference, "@")
		return []sarif.Location{sarif.At(name, 0, v.Reference)}
	}
	var found []sarif.Location
	for _, p := range v.places {
		found = append(found, sarif.At(p.file, p.line, v.Reference))
	}
	return found
}

// securitySeverity returns a severity as a number, by which code hosting services
// sort.
func securitySeverity(severity string) *sarif.Properties {
	return &sarif.Properties{Severity: map[string]string{"CRITICAL": "9.5", "HIGH": "8.0", "MEDIUM": "5.5", "LOW": "2.0"}[severity]}
}
