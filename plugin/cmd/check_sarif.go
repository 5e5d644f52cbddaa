package cmd

import (
	"cmp"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// SARIF 2.1.0, as far as it is needed to show violations beside the files that
// they are about.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Results     []sarifResult     `json:"results"`
		Invocations []sarifInvocation `json:"invocations"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name  string      `json:"name"`
		Rules []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID         string           `json:"id"`
		HelpURI    string           `json:"helpUri,omitempty"`
		Properties *sarifProperties `json:"properties,omitempty"`
	}
	sarifProperties struct {
		Severity string `json:"security-severity,omitempty"`
	}
	sarifInvocation struct {
		ExecutionSuccessful bool                `json:"executionSuccessful"`
		Notifications       []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
)

// finishSARIF prints the violations, and makes of the results what finish does.
func (o *checkOptions) finishSARIF(results []result) error {
	var rules []sarifRule
	var found []sarifResult
	for _, r := range results {
		v, _ := r.value.(checked)
		for _, x := range v.Violations {
			rule := sarifRule{ID: x.Kind + "/" + cmp.Or(x.Reason, "violation")}
			if !slices.Contains(rules, rule) {
				rules = append(rules, rule)
			}
			found = append(found, sarifResult{
				RuleID:    rule.ID,
				Level:     map[string]string{"deny": "error", "warn": "warning", "dryrun": "note"}[x.Action],
				Message:   sarifText{r.target + ": " + x.Message},
				Locations: []sarifLocation{sarifAt(v.File, x.Line, r.target)},
			})
		}
	}
	return o.finishDocument(newSARIF("kubectl oke-sign check", rules, found, failures(results)), results)
}

// sarifAt is a line of a file, or its first if none is known, and what is there.
func sarifAt(file string, line int, what string) sarifLocation {
	return sarifLocation{
		Physical: sarifPhysical{sarifArtifact{sarifURI(file)}, sarifRegion{max(line, 1)}},
		Logical:  []sarifLogical{{what, "resource"}},
	}
}

// sarifURI names a file by where it lies below the working directory, if it does:
// in pipelines that is the repository, and code hosting services know no other.
func sarifURI(file string) string {
	if file == "-" {
		file = "stdin"
	}
	here, err := os.Getwd()
	if err == nil && !filepath.IsAbs(file) {
		file = filepath.Join(here, file)
	}
	if below, err := filepath.Rel(here, file); err == nil && filepath.IsLocal(below) {
		file = below
	}
	u := url.URL{Path: filepath.ToSlash(file)}
	if filepath.IsAbs(file) {
		u.Scheme, u.Path = "file", "/"+strings.TrimPrefix(u.Path, "/")
	}
	return u.String()
}

// newSARIF is what a tool found, and the errors of what it could not find out.
// Fingerprints are left to what uploads them: it makes them of the text of the line,
// which follows a result when lines move.
func newSARIF(tool string, rules []sarifRule, found []sarifResult, failures []string) sarifLog {
	run := sarifRun{Results: []sarifResult{}, Invocations: []sarifInvocation{{ExecutionSuccessful: len(failures) == 0}}}
	run.Tool.Driver = sarifDriver{Name: tool, Rules: append([]sarifRule{}, rules...)}
	seen := make(map[string]bool)
	for _, f := range found { // two constraints may say the same; the stricter comes first
		key := fmt.Sprint(f.RuleID, f.Message, f.Locations)
		if !seen[key] {
			run.Results = append(run.Results, f)
		}
		seen[key] = true
	}
	for _, f := range failures {
		run.Invocations[0].Notifications = append(run.Invocations[0].Notifications, sarifNotification{"error", sarifText{f}})
	}
	return sarifLog{
		Schema:  "https://json.schemastore.org/sarif-2.1.0.json",
		Version: "2.1.0",
		Runs:    []sarifRun{run},
	}
}
