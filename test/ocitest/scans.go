package ocitest

import (
	"fmt"
	"net/http"
	"time"
)

// Problems has what scans find in an image. It replaces what they found before.
type Problems struct {
	Image    string    `json:"image"` // a reference with a tag or a digest
	Problems []Problem `json:"problems"`
}

// Publish sets what scans find in an image. The image is scanned again under each
// tag that a target covers.
func (c *Cloud) Publish(p Problems) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.scan()
	img, err := c.world.imageOf(Record{Image: p.Image})
	if err != nil {
		return fmt.Errorf("publishing problems: %w", err)
	}
	c.world.publish(img, p.Problems)
	return nil
}

func (c *Cloud) postProblems(w http.ResponseWriter, r *http.Request) {
	var p Problems
	err := strictly(r.Body, &p)
	if err == nil {
		err = c.Publish(p)
	}
	done(w, err)
}

// AllowScanning adds the two statements that let the service scan the tenancy's
// images.
func (t *Tenancy) AllowScanning() {
	t.tb.Helper()
	t.Allow("Allow service "+scanService+" to read repos in tenancy", "Allow service "+scanService+" to read compartments in tenancy")
}

// ScanTarget is a target, whose repositories are scanned.
type ScanTarget struct {
	ID       string
	RecipeID string

	tenancy *Tenancy
	t       *scanTarget
}

// NewScanTarget makes a recipe and a target in a compartment, or in the root if
// compartmentID is empty. The target covers these repositories of that compartment,
// or all of them if there are no names.
func (t *Tenancy) NewScanTarget(compartmentID string, repositories ...string) *ScanTarget {
	t.tb.Helper()
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	if compartmentID == "" {
		compartmentID = t.ID
	}
	w, sw := c.world, c.switches(c.world, t.ID)
	recipe := &scanRecipe{
		born: w.birth(w.scanOCID("recipe", t.Region, sw)), Region: t.Region.ID(), Compartment: compartmentID,
		Name: "recipe", Level: "STANDARD", lifecycle: lifecycle{State: "ACTIVE"},
	}
	w.ScanRecipes[recipe.ID] = recipe
	target := &scanTarget{
		born: w.birth(w.scanOCID("target", t.Region, sw)), Region: t.Region.ID(), Compartment: compartmentID, Name: "target",
		Recipe: recipe.ID, URL: "https://ocir." + t.Region.ID() + ".oci." + t.Region.Domain(), Repositories: repositories, In: compartmentID,
		lifecycle: lifecycle{State: "ACTIVE"},
	}
	w.ScanTargets[target.ID] = target
	w.firstScans(target, sw.FirstScans)
	return &ScanTarget{ID: target.ID, RecipeID: recipe.ID, tenancy: t, t: target}
}

// Result is the result of a scan that the emulator stores without checks.
type Result struct {
	Repository, Tag   string
	Started, Finished time.Time
	Problems          []Problem
	URL               string // the registry's URL; the target's if empty
}

// AddResult stores results of the target without any check, and returns their OCIDs.
func (s *ScanTarget) AddResult(results ...Result) []string {
	s.tenancy.tb.Helper()
	c := s.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for _, r := range results {
		if r.URL == "" {
			r.URL = s.t.URL
		}
		kept := &scanResult{
			Region: s.t.Region, Compartment: s.t.Compartment, Target: s.t.ID, In: s.t.In, URL: r.URL,
			Repository: r.Repository, Tag: r.Tag, Started: r.Started, Finished: r.Finished, Problems: r.Problems,
		}
		c.world.keepResult(kept)
		ids = append(ids, kept.ID)
	}
	return ids
}

// Publish sets what later scans find in the image; see [Cloud.Publish].
func (i *Image) Publish(problems ...Problem) {
	i.tenancy.tb.Helper()
	if err := i.tenancy.cloud.Publish(Problems{Image: i.Ref(), Problems: problems}); err != nil {
		i.tenancy.tb.Fatal(err)
	}
}

// Tag moves a tag to the image, as a push under the tag does.
func (i *Image) Tag(tag string) {
	t := i.tenancy
	t.tb.Helper()
	c := t.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	img := c.world.Images[i.ID]
	repo := c.world.Repositories[img.Repository]
	if _, err := c.world.putManifest(repo, img.MediaType, img.Manifest, img.Digest, tag, img.CreatedBy, c.switches(c.world, t.ID)); err != nil {
		t.tb.Fatalf("tagging an image: %v", err)
	}
}

// Untag removes a tag from the image.
func (i *Image) Untag(tag string) {
	c := i.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.scan()
	c.world.Images[i.ID].dropTag(tag)
}

// Delete removes the image and its tags.
func (i *Image) Delete() {
	c := i.tenancy.cloud
	c.mu.Lock()
	defer c.mu.Unlock()
	c.world.scan()
	img := c.world.Images[i.ID]
	img.State, img.Deleted, img.Versions = "DELETED", c.world.now(), nil
}
