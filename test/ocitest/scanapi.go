package ocitest

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

func scanRoutes() []route {
	const s, base, op = "vss", "/20210215", "vulnerabilityscanning."
	return []route{
		to(s, "POST", base+"/containerScanRecipes", op+"CreateContainerScanRecipe", (*call).createRecipe).creating(),
		to(s, "GET", base+"/containerScanRecipes", op+"ListContainerScanRecipes", (*call).listRecipes),
		to(s, "GET", base+"/containerScanRecipes/{id}", op+"GetContainerScanRecipe", (*call).getRecipe),
		to(s, "PUT", base+"/containerScanRecipes/{id}", op+"UpdateContainerScanRecipe", (*call).updateRecipe),
		to(s, "DELETE", base+"/containerScanRecipes/{id}", op+"DeleteContainerScanRecipe", (*call).deleteRecipe),
		to(s, "POST", base+"/containerScanTargets", op+"CreateContainerScanTarget", (*call).createTarget).creating(),
		to(s, "GET", base+"/containerScanTargets", op+"ListContainerScanTargets", (*call).listTargets),
		to(s, "GET", base+"/containerScanTargets/{id}", op+"GetContainerScanTarget", (*call).getTarget),
		to(s, "PUT", base+"/containerScanTargets/{id}", op+"UpdateContainerScanTarget", (*call).updateTarget),
		to(s, "DELETE", base+"/containerScanTargets/{id}", op+"DeleteContainerScanTarget", (*call).deleteTarget),
		to(s, "GET", base+"/containerScanResults", op+"ListContainerScanResults", (*call).listResults),
		to(s, "GET", base+"/containerScanResults/{id}", op+"GetContainerScanResult", (*call).getResult),
		to(s, "DELETE", base+"/containerScanResults/{id}", op+"DeleteContainerScanResult", (*call).deleteResult),
		to(s, "GET", base+"/workRequests", op+"ListWorkRequests", (*call).listWorkRequests),
		to(s, "GET", base+"/workRequests/{id}", op+"GetWorkRequest", (*call).getWorkRequest),
		to(s, "GET", base+"/workRequests/{id}/errors", op+"ListWorkRequestErrors", (*call).listWorkRequestErrors),
		to(s, "GET", base+"/workRequests/{id}/logs", op+"ListWorkRequestLogs", (*call).listWorkRequestLogs),
	}
}

// request starts a work request and names it in the answer.
func (c *call) request(operation, entity, id, compartmentID string) *workRequest {
	verb, _, _ := strings.Cut(operation, "_")
	r := &workRequest{
		born:        c.birth(c.globalOCID("coreservicesworkrequest", c.region.Realm())),
		Compartment: compartmentID, Operation: operation, Entity: entity, Resource: id,
		Action: map[string]string{"CREATE": "CREATED", "UPDATE": "UPDATED", "DELETE": "DELETED"}[verb],
	}
	r.pass(c.now(), c.cloud.cfg.Settle, "IN_PROGRESS", "SUCCEEDED")
	c.WorkRequests[r.ID] = r
	c.out.Set("Opc-Work-Request-Id", r.ID)
	return r
}

type scanSettings struct {
	Level string `json:"scanLevel"`
}

type recipeView struct {
	ID            string       `json:"id"`
	DisplayName   string       `json:"displayName"`
	CompartmentID string       `json:"compartmentId"`
	State         string       `json:"lifecycleState"`
	TimeCreated   string       `json:"timeCreated"`
	TimeUpdated   string       `json:"timeUpdated"`
	Settings      scanSettings `json:"scanSettings"`
	ImageCount    int          `json:"imageCount,omitempty"`
	tags
}

func (c *call) viewRecipe(r *scanRecipe) recipeView {
	return recipeView{
		ID: r.ID, DisplayName: r.Name, CompartmentID: r.Compartment, State: r.at(c.now()), TimeCreated: stamp(r.Created),
		TimeUpdated: stamp(r.Updated), Settings: scanSettings{r.Level}, ImageCount: r.ImageCount, tags: r.Tags.full(),
	}
}

// named returns name, or a default name if it is empty.
func (c *call) named(kind, name string) string {
	if name == "" {
		return kind + c.now().UTC().Format("20060102150405")
	}
	return name
}

// recipeTakes is the time between a recipe's creation and its first update, which
// the service makes.
const recipeTakes = 42 * time.Millisecond

func (c *call) createRecipe() (any, error) {
	var in struct {
		CompartmentID, DisplayName string
		ScanSettings               *scanSettings
		ImageCount                 int
		FreeformTags               map[string]string
		DefinedTags                map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if in.ScanSettings == nil {
		return nil, missing("scanSettings")
	}
	if err := cmp.Or(required("compartmentId", in.CompartmentID, "scanLevel", in.ScanSettings.Level),
		oneOf("scanLevel", in.ScanSettings.Level, "NONE", "STANDARD"), c.need("VSS_CONTAINERSCANRECIPE_CREATE", in.CompartmentID)); err != nil {
		return nil, err
	}
	if in.ImageCount < 0 {
		return nil, invalid("imageCount: %d is negative", in.ImageCount)
	}
	r := &scanRecipe{
		born: c.birth(c.scanOCID("recipe", c.region, c.sw)), Region: c.region.ID(), Compartment: in.CompartmentID,
		Name: c.named("containerscanrecipe", in.DisplayName), Level: in.ScanSettings.Level, ImageCount: in.ImageCount,
		Tags: c.created(tags{Freeform: in.FreeformTags, Defined: in.DefinedTags}), lifecycle: lifecycle{State: "ACTIVE"},
	}
	r.Updated = r.Created.Add(recipeTakes)
	c.ScanRecipes[r.ID] = r
	c.request("CREATE_CONTAINER_SCAN_RECIPE", "ContainerScanRecipe", r.ID, r.Compartment)
	return c.tagged(c.viewRecipe(r))
}

func (c *call) listRecipes() (any, error) {
	in, err := c.scope("VSS_CONTAINERSCANRECIPE_INSPECT")
	if err != nil {
		return nil, err
	}
	var found []*scanRecipe
	for _, r := range c.ScanRecipes {
		state := r.at(c.now())
		if r.Region == c.region.ID() && in(r.Compartment) && c.shown(state) && c.filtered(r.Name, state) {
			found = append(found, r)
		}
	}
	if err := c.orderByName(func(desc bool) {
		slices.SortFunc(found, func(a, b *scanRecipe) int { return c.compare(a.Name, b.Name, a.Seq, b.Seq, desc) })
	}); err != nil {
		return nil, err
	}
	return pageOf(c, found, c.viewRecipe)
}

// filtered reports whether a recipe or target passes the filters of a list.
func (c *call) filtered(name, state string) bool {
	return exactly(c.query.Get("displayName"), name) && exactly(c.query.Get("lifecycleState"), state)
}

// orderByName sorts a list of recipes or targets. The newest comes first, unless the
// caller says otherwise.
func (c *call) orderByName(by func(desc bool)) error {
	order := c.query.Get("sortOrder")
	if err := cmp.Or(oneOf("sortBy", c.query.Get("sortBy"), "timeCreated", "displayName"), oneOf("sortOrder", order, "ASC", "DESC"),
		oneOf("lifecycleState", c.query.Get("lifecycleState"), "CREATING", "UPDATING", "ACTIVE", "DELETING", "DELETED", "FAILED")); err != nil {
		return err
	}
	by(order == "DESC" || order == "" && c.query.Get("sortBy") != "displayName")
	return nil
}

func (c *call) compare(name, otherName string, seq, otherSeq int64, desc bool) int {
	n := cmp.Compare(seq, otherSeq)
	if c.query.Get("sortBy") == "displayName" {
		n = cmp.Or(strings.Compare(name, otherName), n)
	}
	if desc {
		return -n
	}
	return n
}

// pageOf answers with one page of a list. This API does not count the items after
// it.
func pageOf[T, V any](c *call, found []T, view func(T) V) (any, error) {
	found, _, err := page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]V, len(found))
	for i, f := range found {
		items[i] = view(f)
	}
	return map[string]any{"items": items}, nil
}

func (c *call) findRecipe(id, permission string) (*scanRecipe, error) {
	r := c.ScanRecipes[id]
	if r == nil || r.Region != c.region.ID() || !c.shown(r.at(c.now())) {
		return nil, notFound("no recipe " + id)
	}
	return r, c.need(permission, r.Compartment)
}

func (c *call) getRecipe() (any, error) {
	r, err := c.findRecipe(c.path["id"], "VSS_CONTAINERSCANRECIPE_READ")
	if err != nil {
		return nil, err
	}
	return c.tagged(c.viewRecipe(r))
}

func (c *call) updateRecipe() (any, error) {
	r, err := c.findRecipe(c.path["id"], "VSS_CONTAINERSCANRECIPE_UPDATE")
	if err != nil {
		return nil, err
	}
	var in struct {
		DisplayName  string
		ScanSettings *scanSettings
		ImageCount   int
	}
	if err := cmp.Or(c.ifMatch(c.viewRecipe(r)), c.decode(&in)); err != nil {
		return nil, err
	}
	if in.ScanSettings != nil {
		if err := oneOf("scanLevel", in.ScanSettings.Level, "NONE", "STANDARD"); err != nil {
			return nil, err
		}
		r.Level = cmp.Or(in.ScanSettings.Level, r.Level)
	}
	r.Name, r.ImageCount, r.Updated = cmp.Or(in.DisplayName, r.Name), cmp.Or(in.ImageCount, r.ImageCount), c.now()
	c.request("UPDATE_CONTAINER_SCAN_RECIPE", "ContainerScanRecipe", r.ID, r.Compartment)
	return c.tagged(c.viewRecipe(r))
}

func (c *call) deleteRecipe() (any, error) {
	r, err := c.findRecipe(c.path["id"], "VSS_CONTAINERSCANRECIPE_DELETE")
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(c.viewRecipe(r)); err != nil {
		return nil, err
	}
	for _, t := range c.ScanTargets {
		if state := t.at(c.now()); t.Recipe == r.ID && state != "DELETED" && state != "DELETING" {
			return nil, conflict("IncorrectState", "The recipe is in use by target %s.", t.ID)
		}
	}
	if state := r.at(c.now()); state != "ACTIVE" {
		return nil, conflict("IncorrectState", "The recipe is %s.", state)
	}
	r.pass(c.now(), c.cloud.cfg.Settle, "DELETING", "DELETED")
	c.request("DELETE_CONTAINER_SCAN_RECIPE", "ContainerScanRecipe", r.ID, r.Compartment)
	return nil, nil
}

type registryView struct {
	Type          string   `json:"type"`
	CompartmentID string   `json:"compartmentId"`
	URL           string   `json:"url"`
	Repositories  []string `json:"repositories"`
}

type targetView struct {
	ID            string       `json:"id"`
	DisplayName   string       `json:"displayName"`
	Description   *string      `json:"description"`
	CompartmentID string       `json:"compartmentId"`
	RecipeID      string       `json:"containerScanRecipeId"`
	Registry      registryView `json:"targetRegistry"`
	State         string       `json:"lifecycleState"`
	TimeCreated   string       `json:"timeCreated"`
	TimeUpdated   string       `json:"timeUpdated"`
	tags
}

func (c *call) viewTarget(t *scanTarget) targetView {
	v := targetView{
		ID: t.ID, DisplayName: t.Name, CompartmentID: t.Compartment, RecipeID: t.Recipe, State: t.at(c.now()),
		Registry:    registryView{"OCIR", t.In, t.URL, t.Repositories},
		TimeCreated: stamp(t.Created), TimeUpdated: stamp(t.Updated), tags: t.Tags.full(),
	}
	if t.Description != "" {
		v.Description = &t.Description
	}
	return v
}

// registryDetails is the registry in a request to create or update a target.
type registryDetails struct {
	Type, CompartmentID, URL string
	Repositories             []string
}

// registryOf checks a target's registry. A switch says whether the named
// repositories must exist.
func (c *call) registryOf(in *registryDetails) error {
	if in == nil {
		return missing("targetRegistry")
	}
	if err := cmp.Or(required("type", in.Type, "compartmentId", in.CompartmentID), oneOf("type", in.Type, "OCIR")); err != nil {
		return err
	}
	if _, ok := c.Compartments[in.CompartmentID]; !ok {
		return notFound("no compartment " + in.CompartmentID)
	}
	if in.URL == "" {
		in.URL = "https://ocir." + c.region.ID() + ".oci." + c.region.Domain()
		if c.region.Realm() == "oc1" {
			in.URL = "https://" + c.region.Key() + ".ocir.io"
		}
	}
	if registryRegion(in.URL) == "" {
		return invalid("url: %.100q is not the address of a registry", in.URL)
	}
	for _, name := range in.Repositories {
		repo := c.repositoryByName(registryRegion(in.URL), c.who.Tenancy, name)
		if c.sw.TargetRepository == "checked" && (repo == nil || repo.Compartment != in.CompartmentID) {
			return notFound("no repository " + name + " in " + in.CompartmentID)
		}
	}
	return nil
}

func (c *call) createTarget() (any, error) {
	var in struct {
		CompartmentID, DisplayName, Description, ContainerScanRecipeID string
		TargetRegistry                                                 *registryDetails
		FreeformTags                                                   map[string]string
		DefinedTags                                                    map[string]map[string]any
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := cmp.Or(required("compartmentId", in.CompartmentID, "containerScanRecipeId", in.ContainerScanRecipeID),
		c.need("VSS_CONTAINERSCANTARGET_CREATE", in.CompartmentID), c.registryOf(in.TargetRegistry)); err != nil {
		return nil, err
	}
	recipe, err := c.findRecipe(in.ContainerScanRecipeID, "VSS_CONTAINERSCANRECIPE_READ")
	if err != nil {
		return nil, err
	}
	if state := recipe.at(c.now()); state != "ACTIVE" {
		return nil, conflict("IncorrectState", "The recipe is %s.", state)
	}
	t := &scanTarget{
		born: c.birth(c.scanOCID("target", c.region, c.sw)), Region: c.region.ID(), Compartment: in.CompartmentID,
		Name: c.named("containerscantarget", in.DisplayName), Description: in.Description, Recipe: recipe.ID,
		URL: in.TargetRegistry.URL, Repositories: in.TargetRegistry.Repositories, In: in.TargetRegistry.CompartmentID,
		Tags: c.created(tags{Freeform: in.FreeformTags, Defined: in.DefinedTags}),
	}
	t.Updated = t.Created
	c.ScanTargets[t.ID] = t
	done := c.request("CREATE_CONTAINER_SCAN_TARGET", "ContainerScanTarget", t.ID, t.Compartment)
	next := "ACTIVE"
	if c.sw.ScanDenied == "failed" && !c.scannerMay(t.In) {
		next = "FAILED"
		done.Problem = "the service may not read the repositories of the target's compartment"
		done.pass(c.now(), c.cloud.cfg.Settle, "IN_PROGRESS", "FAILED")
	}
	// The answer says CREATING, also if Settle is zero.
	t.State, t.Next, t.NextAt = "CREATING", next, c.now().Add(c.cloud.cfg.Settle)
	v := c.viewTarget(t)
	v.State = "CREATING"
	c.firstScans(t, cmp.Or(recipe.ImageCount, c.sw.FirstScans))
	return c.tagged(v)
}

func (c *call) listTargets() (any, error) {
	in, err := c.scope("VSS_CONTAINERSCANTARGET_INSPECT")
	if err != nil {
		return nil, err
	}
	var found []*scanTarget
	for _, t := range c.ScanTargets {
		state := t.at(c.now())
		if t.Region == c.region.ID() && in(t.Compartment) && c.shown(state) && c.filtered(t.Name, state) {
			found = append(found, t)
		}
	}
	if err := c.orderByName(func(desc bool) {
		slices.SortFunc(found, func(a, b *scanTarget) int { return c.compare(a.Name, b.Name, a.Seq, b.Seq, desc) })
	}); err != nil {
		return nil, err
	}
	return pageOf(c, found, c.viewTarget)
}

func (c *call) findTarget(permission string) (*scanTarget, error) {
	t := c.ScanTargets[c.path["id"]]
	if t == nil || t.Region != c.region.ID() || !c.shown(t.at(c.now())) {
		return nil, notFound("no target " + c.path["id"])
	}
	return t, c.need(permission, t.Compartment)
}

func (c *call) getTarget() (any, error) {
	t, err := c.findTarget("VSS_CONTAINERSCANTARGET_READ")
	if err != nil {
		return nil, err
	}
	return c.tagged(c.viewTarget(t))
}

func (c *call) updateTarget() (any, error) {
	t, err := c.findTarget("VSS_CONTAINERSCANTARGET_UPDATE")
	if err != nil {
		return nil, err
	}
	var in struct {
		DisplayName, Description, ContainerScanRecipeID string
		TargetRegistry                                  *registryDetails
	}
	if err := cmp.Or(c.ifMatch(c.viewTarget(t)), c.decode(&in)); err != nil {
		return nil, err
	}
	if in.ContainerScanRecipeID != "" {
		if _, err := c.findRecipe(in.ContainerScanRecipeID, "VSS_CONTAINERSCANRECIPE_READ"); err != nil {
			return nil, err
		}
	}
	if in.TargetRegistry != nil {
		in.TargetRegistry.CompartmentID = cmp.Or(in.TargetRegistry.CompartmentID, t.In)
		if err := c.registryOf(in.TargetRegistry); err != nil {
			return nil, err
		}
		t.URL, t.In, t.Repositories = in.TargetRegistry.URL, in.TargetRegistry.CompartmentID, in.TargetRegistry.Repositories
	}
	t.Name, t.Description = cmp.Or(in.DisplayName, t.Name), cmp.Or(in.Description, t.Description)
	t.Recipe, t.Updated = cmp.Or(in.ContainerScanRecipeID, t.Recipe), c.now()
	t.pass(c.now(), c.cloud.cfg.Settle, "UPDATING", "ACTIVE")
	c.request("UPDATE_CONTAINER_SCAN_TARGET", "ContainerScanTarget", t.ID, t.Compartment)
	return c.tagged(c.viewTarget(t))
}

func (c *call) deleteTarget() (any, error) {
	t, err := c.findTarget("VSS_CONTAINERSCANTARGET_DELETE")
	if err != nil {
		return nil, err
	}
	if err := c.ifMatch(c.viewTarget(t)); err != nil {
		return nil, err
	}
	if state := t.at(c.now()); state != "ACTIVE" && state != "FAILED" {
		return nil, conflict("IncorrectState", "The target is %s.", state)
	}
	t.pass(c.now(), c.cloud.cfg.Settle, "DELETING", "DELETED")
	c.request("DELETE_CONTAINER_SCAN_TARGET", "ContainerScanTarget", t.ID, t.Compartment)
	return nil, nil
}

type resultSummary struct {
	ID            string `json:"id"`
	Repository    string `json:"repository"`
	Image         string `json:"image"`
	CompartmentID string `json:"compartmentId"`
	Highest       string `json:"highestProblemSeverity"`
	ProblemCount  int    `json:"problemCount"`
	TimeStarted   string `json:"timeStarted"`
	TimeFinished  string `json:"timeFinished"`
	TargetID      string `json:"containerScanTargetId,omitempty"`
}

type resultView struct {
	resultSummary
	Problems            []Problem `json:"problems"`
	RegistryURL         string    `json:"registryUrl,omitempty"`
	TargetCompartmentID string    `json:"targetCompartmentId"`
}

// imageName returns the name of an image in a result. A switch sets its form.
func (c *call) imageName(r *scanResult) string {
	if c.sw.ScanImage == "name" {
		return r.Repository + ":" + r.Tag
	}
	return r.Tag
}

func (c *call) summariseResult(r *scanResult) resultSummary {
	return resultSummary{
		ID: r.ID, Repository: r.Repository, Image: c.imageName(r), CompartmentID: r.Compartment, Highest: r.highest(),
		ProblemCount: len(r.Problems), TimeStarted: stamp(r.Started), TimeFinished: stamp(r.Finished), TargetID: r.Target,
	}
}

func (c *call) listResults() (any, error) {
	in, err := c.resultScope()
	if err != nil {
		return nil, err
	}
	q := c.query
	from, err := c.instant("timeStartedGreaterThanOrEqualTo")
	if err != nil {
		return nil, err
	}
	until, err := c.instant("timeStartedLessThanOrEqualTo")
	if err != nil {
		return nil, err
	}
	var found []*scanResult
	for _, r := range c.ScanResults {
		if r.Region == c.region.ID() && in(r.Compartment) && c.now().Sub(r.Started) < keepResults &&
			exactly(q.Get("repository"), r.Repository) && exactly(q.Get("image"), c.imageName(r)) &&
			exactly(q.Get("highestProblemSeverity"), r.highest()) && !r.Started.Before(from) && (until.IsZero() || !r.Started.After(until)) {
			found = append(found, r)
		}
	}
	if err := c.orderResults(found); err != nil {
		return nil, err
	}
	if strings.EqualFold(q.Get("isLatestOnly"), "true") {
		newest := make(map[[3]string]*scanResult)
		for _, r := range found {
			k := [3]string{r.Target, r.Repository, r.Tag}
			if n := newest[k]; n == nil || r.Started.After(n.Started) {
				newest[k] = r
			}
		}
		found = slices.DeleteFunc(found, func(r *scanResult) bool { return newest[[3]string{r.Target, r.Repository, r.Tag}] != r })
	}
	return pageOf(c, found, c.summariseResult)
}

// resultScope returns the compartments of a list of results: one, or also those
// below it. A list of the latter kind needs a filter.
func (c *call) resultScope() (func(string) bool, error) {
	const permission = "VSS_CONTAINERSCAN_INSPECT"
	below := strings.EqualFold(c.query.Get("areSubcompartmentsIncluded"), "true")
	filters := slices.ContainsFunc([]string{"repository", "image", "highestProblemSeverity", "timeStartedGreaterThanOrEqualTo", "timeStartedLessThanOrEqualTo"},
		func(name string) bool { return c.query.Get(name) != "" })
	in := c.Compartments[c.query.Get("compartmentId")]
	if !below || !filters || in == nil || c.who == nil || in.Tenancy != c.who.Tenancy {
		return c.scope(permission)
	}
	inside, err := c.below(permission, in)
	if err != nil && c.sw.ListDenied == "empty" {
		return func(string) bool { return false }, nil
	}
	return inside, err
}

func (c *call) instant(name string) (time.Time, error) {
	text := c.query.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, invalid("%s: %.40q is no time", name, text)
	}
	return at, nil
}

func (c *call) orderResults(found []*scanResult) error {
	by, order := c.query.Get("sortBy"), c.query.Get("sortOrder")
	if err := cmp.Or(oneOf("sortBy", by, "timeStarted", "problemCount", "highestProblemSeverity"), oneOf("sortOrder", order, "ASC", "DESC")); err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b *scanResult) int {
		n := 0
		switch by {
		case "problemCount":
			n = cmp.Compare(len(a.Problems), len(b.Problems))
		case "highestProblemSeverity":
			n = cmp.Compare(slices.Index(severities(), a.highest()), slices.Index(severities(), b.highest()))
		}
		n = cmp.Or(n, a.Started.Compare(b.Started), cmp.Compare(a.Seq, b.Seq))
		if order != "ASC" {
			return -n
		}
		return n
	})
	return nil
}

func (c *call) findResult(permission string) (*scanResult, error) {
	r := c.ScanResults[c.path["id"]]
	if r == nil || r.Region != c.region.ID() {
		return nil, notFound("no result " + c.path["id"])
	}
	return r, c.need(permission, r.Compartment)
}

func (c *call) getResult() (any, error) {
	r, err := c.findResult("VSS_CONTAINERSCAN_READ")
	if err != nil {
		return nil, err
	}
	v := resultView{resultSummary: c.summariseResult(r), Problems: r.Problems, TargetCompartmentID: r.In}
	if v.Problems == nil {
		v.Problems = []Problem{}
	}
	if c.sw.ResultURL == "given" {
		v.RegistryURL = r.URL
	}
	return c.tagged(v)
}

func (c *call) deleteResult() (any, error) {
	r, err := c.findResult("VSS_CONTAINERSCAN_DELETE")
	if err != nil {
		return nil, err
	}
	delete(c.ScanResults, r.ID)
	c.request("DELETE_CONTAINER_SCAN_RESULT", "ContainerScanResult", r.ID, r.Compartment)
	return nil, nil
}

func (c *call) viewWorkRequest(r *workRequest) map[string]any {
	state := r.at(c.now())
	v := map[string]any{
		"id": r.ID, "operationType": r.Operation, "status": state, "compartmentId": r.Compartment, "percentComplete": 0,
		"timeAccepted": stamp(r.Created), "timeStarted": stamp(r.Created),
		"resources": []any{map[string]string{"entityType": r.Entity, "actionType": r.Action, "identifier": r.Resource}},
	}
	if state != "IN_PROGRESS" {
		v["percentComplete"], v["timeFinished"] = 100, stamp(r.Created.Add(c.cloud.cfg.Settle))
	}
	return v
}

func (c *call) listWorkRequests() (any, error) {
	in, err := c.scope("VSS_WORKREQUEST_INSPECT")
	if err != nil {
		return nil, err
	}
	found := slices.DeleteFunc(oldestFirst(c.WorkRequests), func(r *workRequest) bool { return !in(r.Compartment) })
	slices.Reverse(found)
	return pageOf(c, found, c.viewWorkRequest)
}

func (c *call) findWorkRequest() (*workRequest, error) {
	r := c.WorkRequests[c.path["id"]]
	if r == nil {
		return nil, notFound("no work request " + c.path["id"])
	}
	return r, c.need("VSS_WORKREQUEST_READ", r.Compartment)
}

func (c *call) getWorkRequest() (any, error) {
	r, err := c.findWorkRequest()
	if err != nil {
		return nil, err
	}
	c.out.Set("Retry-After", "1")
	return c.viewWorkRequest(r), nil
}

func (c *call) listWorkRequestErrors() (any, error) {
	r, err := c.findWorkRequest()
	if err != nil {
		return nil, err
	}
	var found []string
	if r.at(c.now()) == "FAILED" {
		found = []string{r.Problem}
	}
	return pageOf(c, found, func(text string) map[string]string {
		return map[string]string{"code": "NotAuthorizedOrNotFound", "message": text, "timestamp": stamp(r.Created)}
	})
}

func (c *call) listWorkRequestLogs() (any, error) {
	r, err := c.findWorkRequest()
	if err != nil {
		return nil, err
	}
	return pageOf(c, []string{r.Operation}, func(text string) map[string]string {
		return map[string]string{"message": text, "timestamp": stamp(r.Created)}
	})
}
