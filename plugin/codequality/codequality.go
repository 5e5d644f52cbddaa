// Package codequality writes findings as a Code Quality report, which GitLab shows in
// merge requests beside the lines. It has the members that GitLab requires.
//
// See https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format.
package codequality

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
)

// Severities that GitLab knows, from the least to the worst.
const (
	Info     = "info"
	Minor    = "minor"
	Major    = "major"
	Critical = "critical"
	Blocker  = "blocker"
)

// Issue is one finding.
type Issue struct {
	Description string   `json:"description"`
	Check       string   `json:"check_name"`
	Fingerprint string   `json:"fingerprint"` // Report sets it
	Severity    string   `json:"severity"`
	Location    Location `json:"location"`
}

// Location is a line of a file.
type Location struct {
	Path  string `json:"path"`
	Lines Lines  `json:"lines"`
}

// Lines begin at a line.
type Lines struct {
	Begin int `json:"begin"`
}

// At returns a line of a file, or the first line if none is known. GitLab knows files by
// their path below the repository, which is the working directory of a job.
func At(file string, line int) Location {
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
	return Location{filepath.ToSlash(file), Lines{max(line, 1)}}
}

// Report returns the issues with their fingerprints. GitLab compares two branches by
// fingerprint, and drops an issue whose fingerprint another one has. So a fingerprint
// leaves out the line, which moves, and counts equal issues.
func Report(issues []Issue) []Issue {
	report := make([]Issue, 0, len(issues)) // null is no report
	seen := make(map[string]int)
	for _, i := range issues {
		key := fmt.Sprintf("%q %q %q", i.Check, i.Location.Path, i.Description)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", key, seen[key]))
		seen[key]++
		i.Fingerprint = hex.EncodeToString(sum[:])
		report = append(report, i)
	}
	return report
}
