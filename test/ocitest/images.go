package ocitest

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// stamp formats a time as OCI does.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

type repository struct {
	born
	Region      string    `json:"region"`
	Compartment string    `json:"compartment"`
	Name        string    `json:"name"`
	Public      bool      `json:"public"`
	Immutable   bool      `json:"immutable"`
	CreatedBy   string    `json:"createdBy"`
	Pushed      time.Time `json:"pushed"`
	State       string    `json:"lifecycleState"`
	Tags        tags      `json:"tags"`
}

// containerImage is a manifest in a repository. Each push of a new digest makes one.
type containerImage struct {
	born
	Repository string        `json:"repository"`
	Digest     string        `json:"digest"`
	MediaType  string        `json:"mediaType"`
	Manifest   []byte        `json:"manifest"`
	Versions   []version     `json:"versions"` // newest first
	LastTag    string        `json:"lastTag"`  // the last version it had
	Child      bool          `json:"child"`    // of an image index
	CreatedBy  string        `json:"createdBy"`
	State      string        `json:"lifecycleState"`
	Pulls      int64         `json:"pulls"`
	LastPull   time.Time     `json:"lastPull"`
	Deleted    time.Time     `json:"deleted"`
	Tags       tags          `json:"tags"`
	Layers     []layerOfBlob `json:"layers"`
}

type version struct {
	Version string    `json:"version"`
	By      string    `json:"by"`
	Created time.Time `json:"created"`
}

type layerOfBlob struct {
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

// restorable is how long after its deletion an image can be restored.
const restorable = 48 * time.Hour

func imageRoutes() []route {
	const s = "artifacts"
	return []route{
		to(s, "GET", "/20160918/container/images", "artifacts.ListContainerImages", (*call).listImages),
		to(s, "GET", "/20160918/container/images/{id}", "artifacts.GetContainerImage", (*call).getImage),
		to(s, "DELETE", "/20160918/container/images/{id}", "artifacts.DeleteContainerImage", (*call).deleteImage),
		to(s, "POST", "/20160918/container/images/actions/lookupImageByUri", "artifacts.LookupContainerImageByUri", (*call).lookupImage),
		to(s, "POST", "/20160918/container/images/{id}/actions/removeVersion", "artifacts.RemoveContainerVersion", (*call).removeVersion).creating(),
		to(s, "POST", "/20160918/container/images/{id}/actions/restore", "artifacts.RestoreContainerImage", (*call).restoreImage).creating(),
	}
}

// newRepository makes a repository. The caller has checked the permission.
func (w *world) newRepository(region, compartmentID, name string, sw Switches) (*repository, error) {
	if !repositoryName().MatchString(name) || len(name) > 255 {
		return nil, invalid("displayName: %.80q is no repository name", name)
	}
	t := w.tenancyOf(compartmentID)
	if t == nil {
		return nil, notFound("no compartment " + compartmentID)
	}
	// Names are unique in the tenancy, not in the compartment.
	if w.repositoryByName(region, t.ID, name) != nil {
		return nil, conflict("NotAuthorizedOrResourceAlreadyExists", "A repository %s exists in the tenancy.", name)
	}
	r := &repository{
		born:        w.birth(w.registryOCID("containerrepo", parseRegion(region), t, sw)),
		Region:      region,
		Compartment: compartmentID,
		Name:        name,
		State:       "AVAILABLE",
	}
	w.Repositories[r.ID] = r
	return r, nil
}

func repositoryName() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$`)
}

func (w *world) repositoryByName(region, tenancyID, name string) *repository {
	for _, r := range w.Repositories {
		if r.Name == name && r.Region == region && r.State == "AVAILABLE" && w.tenancyOf(r.Compartment).ID == tenancyID {
			return r
		}
	}
	return nil
}

// imageBy returns the image of a repository with a digest, or with a tag that names
// it now.
func (w *world) imageBy(repositoryID, tag, digest string) *containerImage {
	for _, img := range w.Images {
		if img.Repository != repositoryID || img.State != "AVAILABLE" {
			continue
		}
		if digest != "" && img.Digest == digest || digest == "" && img.hasTag(tag) {
			return img
		}
	}
	return nil
}

func (i *containerImage) hasTag(tag string) bool {
	return slices.ContainsFunc(i.Versions, func(v version) bool { return v.Version == tag })
}

func (i *containerImage) displayName(repo *repository) string {
	switch {
	case len(i.Versions) > 0:
		return repo.Name + ":" + i.Versions[0].Version
	case i.LastTag != "":
		return repo.Name + ":" + i.LastTag + "@" + i.Digest
	default:
		return repo.Name + ":unknown@" + i.Digest
	}
}

// putManifest stores a manifest in a repository and moves a tag to it. A second push
// of a digest makes no new image.
func (w *world) putManifest(repo *repository, mediaType string, manifest []byte, digest, tag, by string, sw Switches) (*containerImage, error) {
	var parsed struct {
		Layers []struct {
			Digest string
			Size   int64
		}
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(manifest, &parsed); err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	w.scan()
	img := w.imageBy(repo.ID, "", digest)
	if img == nil {
		img = &containerImage{
			born:       w.birth(w.registryOCID("containerimage", parseRegion(repo.Region), w.tenancyOf(repo.Compartment), sw)),
			Repository: repo.ID, Digest: digest, MediaType: mediaType, Manifest: manifest, CreatedBy: by, State: "AVAILABLE",
		}
		for _, l := range parsed.Layers {
			img.Layers = append(img.Layers, layerOfBlob{l.Digest, l.Size})
		}
		w.Images[img.ID] = img
	}
	for _, child := range parsed.Manifests {
		if c := w.imageBy(repo.ID, "", child.Digest); c != nil {
			c.Child = true
		}
	}
	if tag != "" && !img.hasTag(tag) {
		if old := w.imageBy(repo.ID, tag, ""); old != nil {
			old.dropTag(tag)
		}
		img.Versions = slices.Insert(img.Versions, 0, version{Version: tag, By: by, Created: w.moment()})
	}
	repo.Pushed = w.now().UTC().Truncate(time.Millisecond)
	w.pushed(repo, tag)
	return img, nil
}

func (i *containerImage) dropTag(tag string) {
	i.Versions = slices.DeleteFunc(i.Versions, func(v version) bool { return v.Version == tag })
	i.LastTag = tag
}

// shownImage reports whether the API shows an image. A switch says whether it shows
// the manifests inside an index.
func (c *call) shownImage(i *containerImage) bool {
	if i.Child && len(i.Versions) == 0 && c.sw.IndexChildren == "hidden" {
		return false
	}
	return c.shown(i.State)
}

func (c *call) findImage(id, permission string) (*containerImage, *repository, error) {
	img, ok := c.Images[id]
	if !ok || !c.shownImage(img) {
		return nil, nil, notFound("no image " + id)
	}
	repo := c.Repositories[img.Repository]
	if repo.Region != c.region.ID() {
		return nil, nil, notFound("the image is in " + repo.Region)
	}
	return img, repo, c.need(permission, repo.Compartment, "target.repo.name", repo.Name)
}

type layerView struct {
	Digest      string `json:"digest"`
	Size        int64  `json:"sizeInBytes"`
	TimeCreated string `json:"timeCreated"`
}

type versionView struct {
	CreatedBy   string `json:"createdBy"`
	TimeCreated string `json:"timeCreated"`
	Version     string `json:"version"`
}

type imageSummary struct {
	CompartmentID  string `json:"compartmentId"`
	Digest         string `json:"digest"`
	DisplayName    string `json:"displayName"`
	ID             string `json:"id"`
	State          string `json:"lifecycleState"`
	RepositoryID   string `json:"repositoryId"`
	RepositoryName string `json:"repositoryName"`
	TimeCreated    string `json:"timeCreated"`
	Version        string `json:"version,omitempty"`
	tags
}

type imageView struct {
	imageSummary
	CreatedBy      string        `json:"createdBy"`
	Layers         []layerView   `json:"layers"`
	LayersSize     int64         `json:"layersSizeInBytes"`
	ManifestSize   int           `json:"manifestSizeInBytes"`
	PullCount      int64         `json:"pullCount"`
	Versions       []versionView `json:"versions"`
	TimeLastPulled string        `json:"timeLastPulled,omitempty"`
}

func summarise(i *containerImage, repo *repository) imageSummary {
	v := imageSummary{
		CompartmentID: repo.Compartment, Digest: i.Digest, DisplayName: i.displayName(repo), ID: i.ID, State: i.State,
		RepositoryID: repo.ID, RepositoryName: repo.Name, TimeCreated: stamp(i.Created), tags: i.Tags.full(),
	}
	if len(i.Versions) > 0 {
		v.Version = i.Versions[0].Version
	}
	return v
}

func viewImage(i *containerImage, repo *repository) imageView {
	v := imageView{
		imageSummary: summarise(i, repo), CreatedBy: i.CreatedBy, Layers: []layerView{}, ManifestSize: len(i.Manifest),
		PullCount: i.Pulls, Versions: []versionView{},
	}
	for _, l := range i.Layers {
		v.Layers = append(v.Layers, layerView{l.Digest, l.Size, stamp(i.Created)})
		v.LayersSize += l.Size
	}
	for _, t := range i.Versions {
		v.Versions = append(v.Versions, versionView{t.By, stamp(t.Created), t.Version})
	}
	if !i.LastPull.IsZero() {
		v.TimeLastPulled = stamp(i.LastPull)
	}
	return v
}

func (c *call) listImages() (any, error) {
	in, err := c.scope("REPOSITORY_INSPECT")
	if err != nil {
		return nil, err
	}
	q := c.query
	repositories := c.repositoriesIn(in)
	var found []*containerImage
	for _, i := range c.Images {
		if !repositories[i.Repository] || !c.shownImage(i) {
			continue
		}
		tagged := fmt.Sprint(len(i.Versions) > 0)
		if exactly(q.Get("displayName"), i.displayName(c.Repositories[i.Repository])) && exactly(q.Get("imageId"), i.ID) &&
			exactly(strings.ToLower(q.Get("isVersioned")), tagged) && i.hasVersion(q.Get("version")) &&
			exactly(q.Get("lifecycleState"), i.State) && exactly(q.Get("imageDigest"), i.Digest) {
			found = append(found, i)
		}
	}
	if err := sorted(c, found, func(i *containerImage) string { return i.displayName(c.Repositories[i.Repository]) }); err != nil {
		return nil, err
	}
	found, remaining, err := page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]imageSummary, len(found))
	for n, i := range found {
		items[n] = summarise(i, c.Repositories[i.Repository])
	}
	return map[string]any{"items": items, "remainingItemsCount": remaining}, nil
}

// repositoriesIn returns the repositories of the region that a list of images or
// signature records covers.
func (c *call) repositoriesIn(in func(compartmentID string) bool) map[string]bool {
	found := make(map[string]bool)
	for id, repo := range c.Repositories {
		if repo.Region == c.region.ID() && in(repo.Compartment) &&
			exactly(c.query.Get("repositoryId"), id) && matches(c.query.Get("repositoryName"), repo.Name) {
			found[id] = true
		}
	}
	return found
}

func (i *containerImage) hasVersion(filter string) bool {
	return filter == "" || slices.ContainsFunc(i.Versions, func(v version) bool { return matches(filter, v.Version) })
}

func (c *call) getImage() (any, error) {
	i, repo, err := c.findImage(c.path["id"], "REPOSITORY_READ")
	if err != nil {
		return nil, err
	}
	v := viewImage(i, repo)
	return c.tagged(v)
}

// lookupImage returns the image with namespace/repository and :tag or @digest.
func (c *call) lookupImage() (any, error) {
	var in struct{ ImageURI string }
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.ImageURI == "" {
		return nil, missing("imageUri")
	}
	namespace, rest, ok := strings.Cut(in.ImageURI, "/")
	name, digest, pinned := strings.Cut(rest, "@")
	tag := ""
	if colon := strings.LastIndexByte(name, ':'); colon >= 0 {
		name, tag = name[:colon], name[colon+1:]
	}
	if !ok || !repositoryName().MatchString(name) || pinned == (tag != "") {
		return nil, invalid("imageUri: %.100q is not namespace/repository:version or namespace/repository@digest", in.ImageURI)
	}
	t := c.tenancyByNamespace(namespace, c.region.Realm())
	if t == nil {
		return nil, notFound("no namespace " + namespace)
	}
	repo := c.repositoryByName(c.region.ID(), t.ID, name)
	if repo == nil {
		return nil, notFound("no repository " + name)
	}
	if err := c.need(c.sw.LookupPermission, repo.Compartment, "target.repo.name", repo.Name); err != nil {
		return nil, err
	}
	i := c.imageBy(repo.ID, tag, digest)
	if i == nil || !c.shownImage(i) {
		return nil, notFound("no image " + in.ImageURI)
	}
	v := viewImage(i, repo)
	return c.tagged(v)
}

func (c *call) deleteImage() (any, error) {
	i, repo, err := c.findImage(c.path["id"], "REPOSITORY_UPDATE")
	if err != nil {
		return nil, err
	}
	if i.State != "AVAILABLE" {
		return nil, conflict("IncorrectState", "The image is %s.", i.State)
	}
	if err := c.ifMatch(viewImage(i, repo)); err != nil {
		return nil, err
	}
	for _, v := range slices.Clone(i.Versions) {
		i.dropTag(v.Version)
	}
	i.State, i.Deleted = "DELETED", c.now()
	return nil, nil
}

func (c *call) removeVersion() (any, error) {
	i, repo, err := c.findImage(c.path["id"], "REPOSITORY_UPDATE")
	if err != nil {
		return nil, err
	}
	var in struct{ Version string }
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if !i.hasTag(in.Version) {
		return nil, notFound("the image has no version " + in.Version)
	}
	if err := c.ifMatch(viewImage(i, repo)); err != nil {
		return nil, err
	}
	i.dropTag(in.Version)
	v := viewImage(i, repo)
	return c.tagged(v)
}

// restoreImage restores a deleted image and its signature records.
func (c *call) restoreImage() (any, error) {
	i, ok := c.Images[c.path["id"]]
	if !ok || i.State == "DELETED" && c.now().Sub(i.Deleted) > restorable {
		return nil, notFound("no image " + c.path["id"])
	}
	repo := c.Repositories[i.Repository]
	if err := c.need("REPOSITORY_UPDATE", repo.Compartment, "target.repo.name", repo.Name); err != nil {
		return nil, err
	}
	var in struct{ Version string }
	if len(c.body) > 0 {
		if err := c.decode(&in); err != nil {
			return nil, err
		}
	}
	if i.State != "DELETED" {
		return nil, conflict("IncorrectState", "The image is %s.", i.State)
	}
	if c.imageBy(repo.ID, "", i.Digest) != nil {
		return nil, conflict("IncorrectState", "The digest was pushed again.")
	}
	i.State = "AVAILABLE"
	if in.Version != "" && c.imageBy(repo.ID, in.Version, "") == nil {
		i.Versions = []version{{Version: in.Version, By: c.who.ID, Created: c.moment()}}
	}
	v := viewImage(i, repo)
	return c.tagged(v)
}
