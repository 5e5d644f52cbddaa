package cmd

import (
	"cmp"
	"fmt"
	"strings"
)

// finishSARIF prints the problems, and makes of the results what finish does. An
// image of which nothing is known is a result too: a list without it would look as
// if it had been found clean.
func (o *scanResultsOptions) finishSARIF(results []result) error {
	var rules []sarifRule
	var found []sarifResult
	known := make(map[string]bool)
	add := func(rule sarifRule, level, text string, at []sarifLocation) {
		if !known[rule.ID] {
			known[rule.ID] = true
			rules = append(rules, rule)
		}
		found = append(found, sarifResult{RuleID: rule.ID, Level: cmp.Or(level, "note"), Message: sarifText{clip(text, 1000)}, Locations: at})
	}
	for _, r := range results {
		v, ok := r.value.(scannedImage)
		if !ok {
			continue // its error is told
		}
		at := v.locations()
		if !v.Known {
			level := "note"
			if r.no {
				level = "error"
			}
			add(sarifRule{ID: v.Reason}, level, "no scan of this image is known: "+v.Detail, at)
		}
		for _, p := range v.Problems {
			text := p.Severity + ": " + cmp.Or(p.Description, p.ID)
			for _, pkg := range p.Packages {
				text += fmt.Sprintf("; %s %s, fixed in %s", pkg.Name, pkg.Version, cmp.Or(pkg.FixedIn, "no version"))
			}
			level := map[string]string{"CRITICAL": "error", "HIGH": "error", "MEDIUM": "warning"}[p.Severity]
			add(sarifRule{ID: p.ID, HelpURI: p.Link, Properties: securitySeverity(p.Severity)}, level, text, at)
		}
	}
	return o.finishDocument(newSARIF("kubectl oke-sign scan results", rules, found, failures(results)), results)
}

// locations are the manifests that name the image, or the image itself.
func (v scannedImage) locations() []sarifLocation {
	if len(v.places) == 0 {
		name, _, _ := strings.Cut(v.Reference, "@")
		return []sarifLocation{sarifAt(name, 0, v.Reference)}
	}
	var found []sarifLocation
	for _, p := range v.places {
		found = append(found, sarifAt(p.file, p.line, v.Reference))
	}
	return found
}

// securitySeverity is a severity as a number, which code hosting services sort by.
func securitySeverity(severity string) *sarifProperties {
	return &sarifProperties{map[string]string{"CRITICAL": "9.5", "HIGH": "8.0", "MEDIUM": "5.5", "LOW": "2.0"}[severity]}
}
