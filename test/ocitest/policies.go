package ocitest

import "cmp"

// policy is an IAM policy that a client made through the API. A tenancy's first
// statements form a policy of the root compartment, which has no entry here.
type policy struct {
	born
	Compartment string   `json:"compartment"` // that it is attached to
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Statements  []string `json:"statements"`
}

func (c *call) viewPolicy(p *policy) map[string]any {
	return map[string]any{
		"id": p.ID, "compartmentId": p.Compartment, "name": p.Name, "description": p.Description, "statements": p.Statements,
		"timeCreated": stamp(p.Created), "lifecycleState": "ACTIVE",
		"freeformTags": map[string]string{}, "definedTags": map[string]any{},
	}
}

func (c *call) listPolicies() (any, error) {
	in, err := c.scope("POLICY_READ")
	if err != nil {
		return nil, err
	}
	var found []*policy
	for _, t := range c.Tenancies {
		if in(t.ID) {
			first := born{ID: c.globalOCID("policy", t.realm()), Seq: t.Seq, Created: t.Created}
			found = append(found, &policy{born: first, Compartment: t.ID, Name: "Tenant Admin Policy", Description: "Tenant Admin Policy", Statements: t.Policies})
		}
	}
	for _, p := range c.Policies {
		if in(p.Compartment) {
			found = append(found, p)
		}
	}
	if err := sorted(c, found, func(p *policy) string { return p.Name }); err != nil {
		return nil, err
	}
	found, _, err = page(c, found)
	if err != nil {
		return nil, err
	}
	items := make([]any, len(found))
	for i, p := range found {
		items[i] = c.viewPolicy(p)
	}
	return items, nil
}

func (c *call) createPolicy() (any, error) {
	var in struct {
		CompartmentID, Name, Description string
		Statements                       []string
	}
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	if err := cmp.Or(required("compartmentId", in.CompartmentID, "name", in.Name, "description", in.Description),
		c.need("POLICY_CREATE", in.CompartmentID)); err != nil {
		return nil, err
	}
	if len(in.Statements) == 0 {
		return nil, missing("statements")
	}
	for _, s := range in.Statements {
		if err := ValidateStatement(s); err != nil {
			return nil, invalid("statements: %v", err)
		}
	}
	p := &policy{
		born: c.birth(c.globalOCID("policy", c.region.Realm())), Compartment: in.CompartmentID,
		Name: in.Name, Description: in.Description, Statements: in.Statements,
	}
	c.Policies[p.ID] = p
	return c.tagged(c.viewPolicy(p))
}
