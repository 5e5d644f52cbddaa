// Package sarif writes findings as SARIF 2.1.0, the format of static analysis results that
// code hosting services show beside the code. It has the parts of the format that
// oke-sign fills in.
//
// See https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
package sarif

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// The parts of SARIF 2.1.0 that show violations in files.
type (
	Log struct {
		Schema  string `json:"$schema"`
		Version string `json:"version"`
		Runs    []Run  `json:"runs"`
	}
	Run struct {
		Tool        Tool         `json:"tool"`
		Results     []Result     `json:"results"`
		Invocations []Invocation `json:"invocations"`
	}
	Tool struct {
		Driver Driver `json:"driver"`
	}
	Driver struct {
		Name  string `json:"name"`
		Rules []Rule `json:"rules"`
	}
	Rule struct {
		ID         string      `json:"id"`
		HelpURI    string      `json:"helpUri,omitempty"`
		Properties *Properties `json:"properties,omitempty"`
	}
	Properties struct {
		Severity string `json:"security-severity,omitempty"`
	}
	Invocation struct {
		ExecutionSuccessful bool           `json:"executionSuccessful"`
		Notifications       []Notification `json:"toolExecutionNotifications,omitempty"`
	}
	Notification struct {
		Level   string  `json:"level"`
		Message Message `json:"message"`
	}
	Result struct {
		RuleID    string     `json:"ruleId"`
		Level     string     `json:"level"`
		Message   Message    `json:"message"`
		Locations []Location `json:"locations"`
	}
	Message struct {
		Text string `json:"text"`
	}
	Location struct {
		Physical PhysicalLocation  `json:"physicalLocation"`
		Logical  []LogicalLocation `json:"logicalLocations"`
	}
	PhysicalLocation struct {
		Artifact ArtifactLocation `json:"artifactLocation"`
		Region   Region           `json:"region"`
	}
	ArtifactLocation struct {
		URI string `json:"uri"`
	}
	Region struct {
		StartLine int `json:"startLine"`
	}
	LogicalLocation struct {
		Name string `json:"fullyQualifiedName"`
		Kind string `json:"kind"`
	}
)

// At returns a location: a line of a file, and what is there. For line 0, it returns
// the first line.
func At(file string, line int, what string) Location {
	return Location{
		Physical: PhysicalLocation{ArtifactLocation{uri(file)}, Region{max(line, 1)}},
		Logical:  []LogicalLocation{{what, "resource"}},
	}
}

// uri returns the address of a file. Below the working directory, it is the relative
// path: in pipelines this directory is the repository, and code hosting services
// know only its files.
func uri(file string) string {
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

// New returns a document with findings and with the errors of unknown results. It
// sets no fingerprints. The uploader makes them from the text of the line, so that a
// result follows its line.
func New(tool string, rules []Rule, found []Result, failures []string) Log {
	run := Run{Results: []Result{}, Invocations: []Invocation{{ExecutionSuccessful: len(failures) == 0}}}
	run.Tool.Driver = Driver{Name: tool, Rules: append([]Rule{}, rules...)}
	seen := make(map[string]bool)
	for _, f := range found { // two constraints may give the same finding; the stricter one comes first
		key := fmt.Sprint(f.RuleID, f.Message, f.Locations)
		if !seen[key] {
			run.Results = append(run.Results, f)
		}
		seen[key] = true
	}
	for _, f := range failures {
		run.Invocations[0].Notifications = append(run.Invocations[0].Notifications, Notification{"error", Message{f}})
	}
	return Log{
		Schema:  "https://json.schemastore.org/sarif-2.1.0.json",
		Version: "2.1.0",
		Runs:    []Run{run},
	}
}
