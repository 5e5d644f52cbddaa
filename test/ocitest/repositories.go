package ocitest

import (
	"net/http"
)

func repositoryRoutes() []route {
	const s = "artifacts"
	return []route{
		to(s, "GET", "/20160918/container/repositories", "artifacts.ListContainerRepositories", (*call).listRepositories),
		to(s, "POST", "/20160918/container/repositories", "artifacts.CreateContainerRepository", (*call).createRepository).creating(),
		to(s, "GET", "/20160918/container/repositories/{id}", "artifacts.GetContainerRepository", (*call).getRepository),
		to(s, "PUT", "/20160918/container/repositories/{id}", "artifacts.UpdateContainerRepository", (*call).updateRepository),
		to(s, "DELETE", "/20160918/container/repositories/{id}", "artifacts.DeleteContainerRepository", (*call).deleteRepository).with(http.StatusNoContent),
	}
}

type repositorySummary struct {
	CompartmentID string `json:"compartmentId"`
	DisplayName   string `json:"displayName"`
	ID            string `json:"id"`
	ImageCount    int    `json:"imageCount"`
	IsPublic      bool   `json:"isPublic"`
	LayerCount    int    `json:"layerCount"`
	LayersSize    int64  `json:"layersSizeInBytes"`
	State         string `json:"lifecycleState"`
	TimeCreated   string `json:"timeCreated"`
	BillableGB    int64  `json:"billableSizeInGBs"`
	Namespace     string `json:"namespace"`
	Type          string `json:"repositoryType"`
	tags
}

type repositoryView struct {
	repositorySummary
	CreatedBy      string `json:"createdBy"`
	IsImmutable    bool   `json:"isImmutable"`
	TimeLastPushed string `json:"timeLastPushed,omitempty"`
}

func (c *call) summariseRepository(r *repository) repositorySummary {
	v := repositorySummary{
		CompartmentID: r.Compartment, DisplayName: r.Name, ID: r.ID, IsPublic: r.Public, State: r.State,
		TimeCreated: stamp(r.Created), Namespace: c.tenancyOf(r.Compartment).Namespace, Type: "STANDARD", tags: r.Tags.full(),
	}
	layers := map[string]int64{}
	for _, i := range c.Images {
		if i.Repository != r.ID || i.State != "AVAILABLE" {
			continue
		}
		v.ImageCount++
		for _, l := range i.Layers {
			layers[l.Digest] = l.Size
		}
	}
	v.LayerCount = len(layers)
	for _, size := range layers {
		v.LayersSize += size
	}
	v.BillableGB = (v.LayersSize + 1<<30 - 1) >> 30
	return v
}

func (c *call) viewRepository(r *repository) repositoryView {
	v := repositoryView{repositorySummary: c.summariseRepository(r), CreatedBy: r.CreatedBy, IsImmutable: r.Immutable}
	if !r.Pushed.IsZero() {
		v.TimeLastPushed = stamp(r.Pushed)
	}
	return v
}

func (c *call) listRepositories() (any, error) {
	in, err := c.scope("REPOSITORY_INSPECT")
	if err != nil {
		return nil, err
	}
	q := c.query
	var found []*repository
	for _, r := range c.Repositories {
		if r.Region == c.region.ID() && in(r.Compartment) && c.shown(r.State) && exactly(q.Get("repositoryId"), r.ID) &&
			matches(q.Get("displayName"), r.Name) && exactly(q.Get("lifecycleState"), r.State) &&
			(q.Get("isPublic") == "" || q.Get("isPublic") == boolText(r.Public)) {
			found = append(found, r)
		}
	}
	if err := sorted(c, found, func(r *repository) string { return r.Name }); err != nil {
		return nil, err
	}
	layers, images, size := 0, 0, int64(0)
	for _, r := range found {
		v := c.summariseRepository(r)
		layers, images, size = layers+v.LayerCount, images+v.ImageCount, size+v.LayersSize
	}
	total := len(found)
	found, remaining, err := page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]repositorySummary, len(found))
	for i, r := range found {
		items[i] = c.summariseRepository(r)
	}
	return map[string]any{
		"items": items, "remainingItemsCount": remaining, "layerCount": layers, "imageCount": images,
		"layersSizeInBytes": size, "repositoryCount": total,
	}, nil
}

func boolText(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

func (c *call) createRepository() (any, error) {
	var in struct {
		CompartmentID, DisplayName string
		IsImmutable, IsPublic      bool
		FreeformTags               map[string]string
		DefinedTags                map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := required("compartmentId", in.CompartmentID, "displayName", in.DisplayName); err != nil {
		return nil, err
	}
	if err := c.need("REPOSITORY_CREATE", in.CompartmentID, "target.repo.name", in.DisplayName); err != nil {
		return nil, err
	}
	r, err := c.newRepository(c.region.ID(), in.CompartmentID, in.DisplayName, c.sw)
	if err != nil {
		return nil, err
	}
	r.CreatedBy, r.Public, r.Immutable = c.who.ID, in.IsPublic, in.IsImmutable
	r.Tags = c.created(tags{Freeform: in.FreeformTags, Defined: in.DefinedTags})
	v := c.viewRepository(r)
	return c.tagged(v)
}

func (c *call) findRepository(permission string) (*repository, error) {
	r, ok := c.Repositories[c.path["id"]]
	if !ok || !c.shown(r.State) || r.Region != c.region.ID() {
		return nil, notFound("no repository " + c.path["id"])
	}
	return r, c.need(permission, r.Compartment, "target.repo.name", r.Name)
}

func (c *call) getRepository() (any, error) {
	r, err := c.findRepository("REPOSITORY_READ")
	if err != nil {
		return nil, err
	}
	v := c.viewRepository(r)
	return c.tagged(v)
}

func (c *call) updateRepository() (any, error) {
	r, err := c.findRepository("REPOSITORY_MANAGE")
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(c.viewRepository(r)); err != nil {
		return nil, err
	}
	var in struct{ IsImmutable, IsPublic *bool }
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.IsPublic != nil {
		r.Public = *in.IsPublic
	}
	if in.IsImmutable != nil {
		r.Immutable = *in.IsImmutable
	}
	v := c.viewRepository(r)
	return c.tagged(v)
}

func (c *call) deleteRepository() (any, error) {
	r, err := c.findRepository("REPOSITORY_DELETE")
	if err != nil {
		return nil, err
	}
	if r.State != "AVAILABLE" {
		return nil, conflict("IncorrectState", "The repository is %s.", r.State)
	}
	if err := c.ifMatch(c.viewRepository(r)); err != nil {
		return nil, err
	}
	r.State = "DELETED"
	for _, i := range c.Images {
		if i.Repository == r.ID && i.State == "AVAILABLE" {
			i.State, i.Deleted = "DELETED", c.now()
		}
	}
	return nil, nil
}
