package ocitest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/provider/image"
)

// scanService is the name in policies of the service that scans images.
const scanService = "vulnerability-scanning-service"

// keepResults is how long the service stores the results of scans.
const keepResults = 13 * 30 * 24 * time.Hour

type scanRecipe struct {
	born
	Region      string    `json:"region"`
	Compartment string    `json:"compartment"`
	Name        string    `json:"name"`
	Level       string    `json:"scanLevel"`
	ImageCount  int       `json:"imageCount"` // 0: not given
	Updated     time.Time `json:"updated"`
	Tags        tags      `json:"tags"`
	lifecycle
}

type scanTarget struct {
	born
	Region       string    `json:"region"`
	Compartment  string    `json:"compartment"`
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	Recipe       string    `json:"recipe"`
	URL          string    `json:"url"`
	Repositories []string  `json:"repositories"` // none: all
	In           string    `json:"in"`           // compartment of the repositories
	Updated      time.Time `json:"updated"`
	Tags         tags      `json:"tags"`
	lifecycle
}

// scan is a queued or running scan. When it starts, it reads the image that its tag
// names then.
type scan struct {
	Target     string    `json:"target"`
	Repository string    `json:"repository"` // OCID
	Tag        string    `json:"tag"`
	Digest     string    `json:"digest"` // empty until it begins
	Due        time.Time `json:"due"`
	Starts     time.Time `json:"starts"` // as it will say
}

// scanResult is the result of a scan in the API. It has no digest, and OCI's has
// none either.
type scanResult struct {
	born
	Region      string    `json:"region"`
	Compartment string    `json:"compartment"` // of the target
	Target      string    `json:"target"`
	In          string    `json:"in"`
	URL         string    `json:"url"`
	Repository  string    `json:"repository"` // by name
	Tag         string    `json:"tag"`
	Started     time.Time `json:"started"`
	Finished    time.Time `json:"finished"`
	Problems    []Problem `json:"problems"`
}

// Problem is a problem that a scan finds in an image, as the API shows it.
type Problem struct {
	Name          string    `json:"name"`
	Severity      string    `json:"severity"` // NONE, LOW, MEDIUM, HIGH or CRITICAL
	Description   string    `json:"description,omitempty"`
	State         string    `json:"state,omitempty"` // OPEN, FIXED or NOT_APPLICABLE
	Reference     string    `json:"cveReference,omitempty"`
	FirstDetected time.Time `json:"timeFirstDetected,omitzero"`
	LastDetected  time.Time `json:"timeLastDetected,omitzero"`
	Packages      []Package `json:"vulnerablePackages,omitempty"`
}

// Package is a package with a problem.
type Package struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Type       string   `json:"type"` // such as DEB
	FixVersion string   `json:"cveFixVersion,omitempty"`
	Locations  []string `json:"locations,omitempty"`
}

// severities returns OCI's severities, the lowest first.
func severities() []string { return []string{"NONE", "LOW", "MEDIUM", "HIGH", "CRITICAL"} }

func (r *scanResult) highest() string {
	worst := "NONE"
	for _, p := range r.Problems {
		if slices.Index(severities(), p.Severity) > slices.Index(severities(), worst) {
			worst = p.Severity
		}
	}
	return worst
}

// workRequest is the progress of an operation. Clients wait for its end.
type workRequest struct {
	born
	Compartment string `json:"compartment"`
	Operation   string `json:"operation"`
	Entity      string `json:"entity"`
	Action      string `json:"action"`
	Resource    string `json:"resource"`
	Problem     string `json:"problem"` // why it failed
	lifecycle
}

// scanOCID makes an OCID for a recipe, a target or a result.
func (w *world) scanOCID(kind string, r image.Region, sw Switches) string {
	return fmt.Sprintf("ocid1.vsscontainerscan%s.%s.%s.aaaaaaaa%s", kind, r.Realm(), regionPart(r, sw), w.unique(52))
}

// covers reports whether a target names a repository, and scans it now or soon.
func (w *world) covers(t *scanTarget, repo *repository) bool {
	state := t.at(w.now())
	recipe := w.ScanRecipes[t.Recipe]
	return (state == "ACTIVE" || state == "CREATING" || state == "UPDATING") && recipe != nil && recipe.Level == "STANDARD" &&
		t.In == repo.Compartment && registryRegion(t.URL) == repo.Region &&
		(len(t.Repositories) == 0 || slices.Contains(t.Repositories, repo.Name)) && w.scannerMay(repo.Compartment)
}

// scannerMay reports whether the policies let the service read the repositories of a
// compartment.
func (w *world) scannerMay(compartmentID string) bool {
	return w.serviceMay(scanService, "REPOSITORY_READ", compartmentID) && w.serviceMay(scanService, "COMPARTMENT_READ", compartmentID)
}

// registryRegion returns the region in the address of a registry, or "".
func registryRegion(url string) string {
	host := strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/")
	ref, err := image.Parse(host + "/x/x:x")
	if err != nil || !strings.HasPrefix(url, "https://") {
		return ""
	}
	return ref.Region().ID()
}

// pushed queues a scan of a tag for each target that covers its repository.
func (w *world) pushed(repo *repository, tag string) {
	for _, t := range oldestFirst(w.ScanTargets) {
		if tag != "" && w.covers(t, repo) {
			w.queue(t, repo, tag)
		}
	}
	w.scan()
}

func (w *world) queue(t *scanTarget, repo *repository, tag string) {
	due := w.now()
	if t.Next != "" && t.NextAt.After(due) {
		due = t.NextAt
	}
	due = due.Add(w.scanAfter)
	starts := w.moment()
	if due.After(starts) {
		starts = due.UTC().Truncate(time.Millisecond)
	}
	w.Scans = append(w.Scans, &scan{Target: t.ID, Repository: repo.ID, Tag: tag, Due: due, Starts: starts})
}

// scan completes queued scans whose time has come. Every change of a tag calls it
// first, so that each scan sees the state at its own time.
func (w *world) scan() {
	now := w.now()
	w.Scans = slices.DeleteFunc(w.Scans, func(s *scan) bool {
		if s.Due.After(now) {
			return false
		}
		if s.Digest == "" {
			img := w.imageBy(s.Repository, s.Tag, "")
			if img == nil {
				return true // deleted before the scan started
			}
			s.Digest = img.Digest
		}
		if s.Due.Add(w.scanTakes).After(now) {
			return false
		}
		t, repo := w.ScanTargets[s.Target], w.Repositories[s.Repository]
		w.keepResult(&scanResult{
			Region: t.Region, Compartment: t.Compartment, Target: t.ID, In: t.In, URL: t.URL,
			Repository: repo.Name, Tag: s.Tag, Started: s.Starts, Finished: s.Starts.Add(w.scanTakes), Problems: w.Problems[s.Digest],
		})
		return true
	})
}

func (w *world) keepResult(r *scanResult) {
	r.born = w.birth(w.scanOCID("result", parseRegion(r.Region), Switches{}))
	w.ScanResults[r.ID] = r
}

// publish sets what later scans find in an image. The service scans covered images
// again when problems are published, so publish does too.
func (w *world) publish(img *containerImage, problems []Problem) {
	w.Problems[img.Digest] = problems
	for _, other := range oldestFirst(w.Images) {
		if other.Digest != img.Digest || other.State != "AVAILABLE" {
			continue
		}
		for _, v := range other.Versions {
			w.pushed(w.Repositories[other.Repository], v.Version)
		}
	}
}

// firstScans queues scans of the newest images of a target's repositories.
func (w *world) firstScans(t *scanTarget, most int) {
	for _, repo := range oldestFirst(w.Repositories) {
		if repo.State != "AVAILABLE" || !w.covers(t, repo) {
			continue
		}
		left := most
		images := oldestFirst(w.Images)
		slices.Reverse(images)
		for _, img := range images {
			if img.Repository == repo.ID && img.State == "AVAILABLE" && len(img.Versions) > 0 && left > 0 {
				left--
				for _, v := range img.Versions {
					w.queue(t, repo, v.Version)
				}
			}
		}
	}
	w.scan()
}
