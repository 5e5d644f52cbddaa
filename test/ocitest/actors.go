package ocitest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
)

// instanceType is the type of a compute instance in IAM's variables.
const instanceType = "instance"

// resource is a thing in OCI that acts for itself: a compute instance, or a resource
// such as a build pipeline of DevOps.
type resource struct {
	born
	Tenancy     string `json:"tenancy"`
	Compartment string `json:"compartment"`
	Type        string `json:"type"` // as IAM has it: "instance", "devopsbuildpipeline"
	// Keeper is the OCID of the instance that runs the resource, or of the resource
	// that contains it. The service of the resource gives the keeper its tokens. If
	// Keeper is empty, nobody gets tokens.
	Keeper string `json:"keeper,omitempty"`
}

func (w *world) newResource(region image.Region, compartmentID, kind string, sw Switches) (*resource, error) {
	in, ok := w.Compartments[compartmentID]
	if !ok {
		return nil, fmt.Errorf("no compartment %s", compartmentID)
	}
	r := &resource{
		born:    w.birth(strings.Join([]string{"ocid1." + kind, region.Realm(), regionPart(region, sw), "aaaaaaaa" + w.unique(52)}, ".")),
		Tenancy: in.Tenancy, Compartment: in.ID, Type: kind,
	}
	w.Resources[r.ID] = r
	return r, nil
}

// actor returns the user or resource with this ID as IAM sees it, or nil. A resource
// is only in the dynamic groups whose rules match it.
func (w *world) actor(id string) *user {
	if u, ok := w.Users[id]; ok {
		return u
	}
	r, ok := w.Resources[id]
	if !ok {
		return nil
	}
	return &user{
		born: r.born, Tenancy: r.Tenancy, Name: r.Type + " " + r.ID, dynamic: w.matching(r),
		Principal: map[string]string{
			"request.principal.type": r.Type, "request.principal.id": r.ID, "request.principal.compartment.id": r.Compartment,
		},
	}
}

// dynamicGroup contains all resources of a tenancy that its rule matches.
type dynamicGroup struct {
	born
	Tenancy     string `json:"tenancy"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Rule        string `json:"rule"`
}

func (w *world) newDynamicGroup(tenancyID, name, rule string) (*dynamicGroup, error) {
	t, ok := w.Tenancies[tenancyID]
	if !ok {
		return nil, fmt.Errorf("no tenancy %s", tenancyID)
	}
	if _, err := parseRule(rule); err != nil {
		return nil, err
	}
	g := &dynamicGroup{born: w.birth(w.globalOCID("dynamicgroup", t.realm())), Tenancy: tenancyID, Name: name, Description: name, Rule: rule}
	w.Groups[g.ID] = g
	return g, nil
}

// matching returns the names and OCIDs of the dynamic groups that contain a
// resource.
func (w *world) matching(r *resource) []string {
	vars := map[string]string{"resource.id": r.ID, "resource.type": r.Type, "resource.compartment.id": r.Compartment}
	if r.Type == instanceType {
		vars = map[string]string{"instance.id": r.ID, "instance.compartment.id": r.Compartment}
	}
	var in []string
	for _, g := range w.Groups {
		rule, err := parseRule(g.Rule)
		if err == nil && g.Tenancy == r.Tenancy && rule.fulfilled(vars) {
			in = append(in, g.Name, g.ID)
		}
	}
	return in
}

// parseRule reads a matching rule: one comparison, or several in All {} or Any {}.
// It rejects rules on tags and nested rules.
func parseRule(text string) (statement, error) {
	toks, err := words(text)
	if err != nil {
		return statement{}, fmt.Errorf("matching rule %q: %w", text, err)
	}
	var s statement
	p := parser{toks: toks}
	if err := p.conditions(&s); err != nil {
		return statement{}, fmt.Errorf("matching rule %q: %w", text, err)
	}
	for _, c := range s.conditions {
		if !slices.Contains([]string{"instance.id", "instance.compartment.id", "resource.id", "resource.type", "resource.compartment.id"}, c.variable) {
			return statement{}, fmt.Errorf("matching rule %q: variable %q is not known here", text, c.variable)
		}
		if c.pattern {
			return statement{}, fmt.Errorf("matching rule %q: patterns are for policy statements", text)
		}
	}
	return s, nil
}

func dynamicGroupRoutes() []route {
	const s = "identity"
	return []route{
		to(s, "GET", "/20160918/dynamicGroups", "identity.ListDynamicGroups", (*call).listDynamicGroups),
		to(s, "POST", "/20160918/dynamicGroups", "identity.CreateDynamicGroup", (*call).createDynamicGroup).creating(),
		to(s, "GET", "/20160918/dynamicGroups/{id}", "identity.GetDynamicGroup", (*call).getDynamicGroup),
	}
}

func (c *call) viewDynamicGroup(g *dynamicGroup) map[string]any {
	return map[string]any{
		"id": g.ID, "compartmentId": g.Tenancy, "name": g.Name, "description": g.Description, "matchingRule": g.Rule,
		"timeCreated": stamp(g.Created), "lifecycleState": "ACTIVE", "freeformTags": map[string]string{}, "definedTags": map[string]any{},
	}
}

// listDynamicGroups lists the dynamic groups of the tenancy. They are all in the
// root compartment.
func (c *call) listDynamicGroups() (any, error) {
	in, err := c.scope("DYNAMIC_GROUP_INSPECT")
	if err != nil {
		return nil, err
	}
	var found []*dynamicGroup
	for _, g := range c.Groups {
		if in(g.Tenancy) && exactly(c.query.Get("name"), g.Name) {
			found = append(found, g)
		}
	}
	if err := sorted(c, found, func(g *dynamicGroup) string { return g.Name }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]any, len(found))
	for i, g := range found {
		items[i] = c.viewDynamicGroup(g)
	}
	return items, nil
}

func (c *call) getDynamicGroup() (any, error) {
	g, ok := c.Groups[c.path["id"]]
	if !ok {
		return nil, notFound("no dynamic group " + c.path["id"])
	}
	if err := c.need("DYNAMIC_GROUP_INSPECT", g.Tenancy); err != nil {
		return nil, err
	}
	return c.tagged(c.viewDynamicGroup(g))
}

func (c *call) createDynamicGroup() (any, error) {
	var in struct{ CompartmentID, Name, Description, MatchingRule string }
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := cmp.Or(required("compartmentId", in.CompartmentID, "name", in.Name, "description", in.Description, "matchingRule", in.MatchingRule),
		c.need("DYNAMIC_GROUP_CREATE", in.CompartmentID)); err != nil {
		return nil, err
	}
	if c.Tenancies[in.CompartmentID] == nil {
		return nil, invalid("compartmentId: dynamic groups are in the tenancy")
	}
	for _, g := range c.Groups {
		if g.Tenancy == in.CompartmentID && strings.EqualFold(g.Name, in.Name) {
			return nil, conflict("DynamicGroupAlreadyExists", "Dynamic group %s already exists.", in.Name)
		}
	}
	g, err := c.newDynamicGroup(in.CompartmentID, in.Name, in.MatchingRule)
	if err != nil {
		return nil, invalid("matchingRule: %v", err)
	}
	g.Description = in.Description
	return c.tagged(c.viewDynamicGroup(g))
}
