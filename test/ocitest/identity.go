package ocitest

import (
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
)

func identityRoutes() []route {
	const s = "identity"
	return []route{
		to(s, "GET", "/20160918/compartments", "identity.ListCompartments", (*call).listCompartments),
		to(s, "GET", "/20160918/compartments/{id}", "identity.GetCompartment", (*call).getCompartment),
		to(s, "GET", "/20160918/tenancies/{id}", "identity.GetTenancy", (*call).getTenancy),
		to(s, "GET", "/20160918/tenancies/{id}/regionSubscriptions", "identity.ListRegionSubscriptions", (*call).listRegionSubscriptions),
		to(s, "GET", "/20160918/regions", "identity.ListRegions", (*call).listRegions),
		to(s, "GET", "/20160918/users/{id}", "identity.GetUser", (*call).getUser),
		to(s, "GET", "/20160918/policies", "identity.ListPolicies", (*call).listPolicies),
		to(s, "POST", "/20160918/policies", "identity.CreatePolicy", (*call).createPolicy).creating(),
	}
}

type compartmentView struct {
	ID            string `json:"id"`
	CompartmentID string `json:"compartmentId"`
	Name          string `json:"name"`
	Description   string `json:"description"`
	TimeCreated   string `json:"timeCreated"`
	State         string `json:"lifecycleState"`
	Accessible    *bool  `json:"isAccessible,omitempty"`
	tags
}

func viewCompartment(c *compartment) compartmentView {
	parent := c.Parent
	if parent == "" {
		parent = c.ID // the root is its own parent
	}
	return compartmentView{
		ID: c.ID, CompartmentID: parent, Name: c.Name, Description: c.Description, TimeCreated: stamp(c.Created),
		State: c.State, tags: tags{}.full(),
	}
}

// listCompartments lists the children of a compartment. With compartmentIdInSubtree
// it lists all compartments below the root. No list contains the root.
func (c *call) listCompartments() (any, error) {
	id, q := c.query.Get("compartmentId"), c.query
	if id == "" {
		return nil, missing("compartmentId")
	}
	in, ok := c.Compartments[id]
	if !ok || in.Tenancy != c.who.Tenancy {
		return nil, notFound("no compartment " + id)
	}
	level := q.Get("accessLevel")
	if err := oneOf("accessLevel", level, "ANY", "ACCESSIBLE"); err != nil {
		return nil, err
	}
	subtree := strings.EqualFold(q.Get("compartmentIdInSubtree"), "true")
	if subtree && in.ID != in.Tenancy {
		return nil, invalid("compartmentIdInSubtree can only be true for the tenancy (root compartment)")
	}
	if level != "ACCESSIBLE" {
		if err := c.need("COMPARTMENT_INSPECT", id); err != nil {
			return nil, err
		}
	}
	var found []*compartment
	for _, o := range c.Compartments {
		below := o.Parent == id || subtree && o.Parent != "" && c.within(o.ID, id)
		if below && exactly(q.Get("name"), o.Name) && exactly(q.Get("lifecycleState"), o.State) &&
			(level != "ACCESSIBLE" || c.may("COMPARTMENT_INSPECT", o.ID)) {
			found = append(found, o)
		}
	}
	if err := sorted(c, found, func(o *compartment) string { return o.Name }); err != nil {
		return nil, err
	}
	found, _, err := page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]compartmentView, len(found))
	for i, o := range found {
		items[i] = viewCompartment(o)
	}
	return items, nil
}

func (c *call) getCompartment() (any, error) {
	o, ok := c.Compartments[c.path["id"]]
	if !ok {
		return nil, notFound("no compartment " + c.path["id"])
	}
	if err := c.need("COMPARTMENT_INSPECT", o.ID); err != nil {
		return nil, err
	}
	return c.tagged(viewCompartment(o))
}

func (c *call) getTenancy() (any, error) {
	t, ok := c.Tenancies[c.path["id"]]
	if !ok {
		return nil, notFound("no tenancy " + c.path["id"])
	}
	if err := c.need("TENANCY_INSPECT", t.ID); err != nil {
		return nil, err
	}
	return c.tagged(map[string]any{
		"id": t.ID, "name": t.Name, "description": t.Name, "homeRegionKey": regionKey(t.HomeRegion),
		"freeformTags": map[string]string{}, "definedTags": map[string]any{},
	})
}

func regionKey(id string) string { return strings.ToUpper(parseRegion(id).Key()) }

func (c *call) listRegionSubscriptions() (any, error) {
	t, ok := c.Tenancies[c.path["id"]]
	if !ok {
		return nil, notFound("no tenancy " + c.path["id"])
	}
	if err := c.need("TENANCY_INSPECT", t.ID); err != nil {
		return nil, err
	}
	items := []map[string]any{}
	for _, id := range t.Regions {
		items = append(items, map[string]any{
			"regionKey": regionKey(id), "regionName": id, "status": "READY", "isHomeRegion": id == t.HomeRegion,
		})
	}
	return items, nil
}

func (c *call) listRegions() (any, error) {
	items := []map[string]string{}
	for _, r := range image.Regions() {
		if r.Realm() == c.region.Realm() {
			items = append(items, map[string]string{"key": strings.ToUpper(r.Key()), "name": r.ID()})
		}
	}
	return items, nil
}

// getUser tells users about themselves only.
func (c *call) getUser() (any, error) {
	if c.path["id"] != c.who.ID {
		return nil, notFound("another user")
	}
	return c.tagged(map[string]any{
		"id": c.who.ID, "compartmentId": c.who.Tenancy, "name": c.who.Name, "description": c.who.Name,
		"timeCreated": stamp(c.who.Created), "lifecycleState": "ACTIVE", "isMfaActivated": false,
		"freeformTags": map[string]string{}, "definedTags": map[string]any{},
	})
}

func objectStorageRoutes() []route {
	const s = "objectstorage"
	return []route{
		to(s, "GET", "/n", "objectstorage.GetNamespace", (*call).getNamespace),
		to(s, "GET", "/n/", "objectstorage.GetNamespace", (*call).getNamespace),
		to(s, "GET", "/n/{namespace}", "objectstorage.GetNamespaceMetadata", (*call).getNamespaceMetadata),
	}
}

// getNamespace tells every caller the namespace of the caller's own tenancy. A
// request with a compartment needs a right.
func (c *call) getNamespace() (any, error) {
	t := c.Tenancies[c.who.Tenancy]
	if id := c.query.Get("compartmentId"); id != "" && id != t.ID {
		if err := c.need("OBJECTSTORAGE_NAMESPACE_READ", id); err != nil {
			return nil, err
		}
		t = c.tenancyOf(id)
	}
	return t.Namespace, nil
}

func (c *call) getNamespaceMetadata() (any, error) {
	t := c.Tenancies[c.who.Tenancy]
	if c.path["namespace"] != t.Namespace {
		return nil, &failure{status: 404, code: "NamespaceNotFound", message: "You do not have authorization to perform this request, or the requested resource could not be found.", why: ""}
	}
	if err := c.need("OBJECTSTORAGE_NAMESPACE_READ", t.ID); err != nil {
		return nil, err
	}
	return map[string]string{"namespace": t.Namespace, "defaultS3CompartmentId": t.ID, "defaultSwiftCompartmentId": t.ID}, nil
}
