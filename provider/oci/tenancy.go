package oci

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/identity"
	"github.com/oracle/oci-go-sdk/v65/objectstorage"
)

// Limits for the lists of a tenancy. OCI allows a few thousand compartments.
const (
	maxCompartments = 10_000
	maxPages        = 200
)

// Namespace returns the tenancy's namespace, which begins the names of its images.
// Object Storage tells it to every identity without any permission. The registry's
// configuration has it too, but needs a right on the root compartment. An identity
// with rights on single compartments does not have that right.
func (c *Client) Namespace(ctx context.Context) (string, error) {
	call := Call{
		Service: "objectstorage", Operation: "GetNamespace", Method: http.MethodGet,
		Host: "objectstorage." + c.id.Region.ID() + "." + c.id.Region.Domain(), Path: "/n/",
	}
	var namespace string
	if _, err := c.Do(ctx, call, objectstorage.GetNamespaceRequest{}, &namespace); err != nil {
		return "", fmt.Errorf("finding the namespace of the tenancy: %w", err)
	}
	if !Segment(namespace) || strings.Contains(namespace, ".") {
		return "", fmt.Errorf("finding the namespace of the tenancy: %w", call.Malformed("no namespace: %.80q", namespace))
	}
	return namespace, nil
}

// Compartment is a part of the tenancy. The tenancy itself is its root compartment.
type Compartment struct {
	ID, Name string
}

// Compartments lists the root compartment and all compartments below it on which the
// identity has any rights.
func (c *Client) Compartments(ctx context.Context) ([]Compartment, error) {
	call := Call{
		Service: "identity", Operation: "ListCompartments", Method: http.MethodGet,
		Host: "identity." + c.id.Region.ID() + ".oci." + c.id.Region.Domain(), Path: "/20160918/compartments",
	}
	request := identity.ListCompartmentsRequest{
		CompartmentId:          common.String(c.id.Tenancy),
		CompartmentIdInSubtree: common.Bool(true),
		AccessLevel:            identity.ListCompartmentsAccessLevelAccessible,
		LifecycleState:         identity.CompartmentLifecycleStateActive,
	}
	found := []Compartment{{ID: c.id.Tenancy, Name: "(root)"}}
	seen := map[string]bool{c.id.Tenancy: true}
	err := Pages(func(page *string) (*string, error) {
		request.Page = page
		items, next, err := ReadItems[identity.Compartment](ctx, c, call, request)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if item.Id == nil || !IsOCID(*item.Id, "compartment") {
				return nil, call.Malformed("a compartment without an OCID")
			}
			if seen[*item.Id] || item.LifecycleState != identity.CompartmentLifecycleStateActive {
				continue
			}
			if len(found) > maxCompartments {
				return nil, call.Malformed("more than %d compartments", maxCompartments)
			}
			seen[*item.Id] = true
			found = append(found, Compartment{ID: *item.Id, Name: Text(item.Name)})
		}
		return next, nil
	}, maxPages)
	if err != nil {
		return nil, fmt.Errorf("listing compartments: %w", err)
	}
	slices.SortFunc(found[1:], func(a, b Compartment) int {
		return strings.Compare(a.Name+"\x00"+a.ID, b.Name+"\x00"+b.ID)
	})
	return found, nil
}

// Lineage returns a compartment and its parents. The compartment itself comes first,
// and the tenancy last.
func (c *Client) Lineage(ctx context.Context, id string) ([]Compartment, error) {
	const deepest = 16 // OCI has six levels
	call := Call{
		Service: "identity", Operation: "GetCompartment", Method: http.MethodGet,
		Host: "identity." + c.id.Region.ID() + ".oci." + c.id.Region.Domain(), Path: "/20160918/compartments/{compartmentId}",
	}
	var line []Compartment
	for range deepest {
		if id == c.id.Tenancy {
			return append(line, Compartment{ID: id, Name: "(root)"}), nil
		}
		if !IsOCID(id, "compartment") {
			return nil, fmt.Errorf("not the OCID of a compartment: %.120q", id)
		}
		var got identity.Compartment
		if _, err := c.Do(ctx, call, identity.GetCompartmentRequest{CompartmentId: common.String(id)}, &got); err != nil {
			return nil, fmt.Errorf("reading compartment %s: %w", id, err)
		}
		if got.Id == nil || *got.Id != id || got.CompartmentId == nil {
			return nil, call.Malformed("asked for compartment %s, got another one or one without a parent", id)
		}
		line = append(line, Compartment{ID: id, Name: Text(got.Name)})
		id = *got.CompartmentId
	}
	return nil, call.Malformed("the compartments are nested too deeply")
}

// Statements returns the statements of the IAM policies that are attached to a
// compartment.
func (c *Client) Statements(ctx context.Context, compartment string) ([]string, error) {
	const most = 10_000
	call := Call{
		Service: "identity", Operation: "ListPolicies", Method: http.MethodGet,
		Host: "identity." + c.id.Region.ID() + ".oci." + c.id.Region.Domain(), Path: "/20160918/policies",
	}
	request := identity.ListPoliciesRequest{CompartmentId: common.String(compartment)}
	var statements []string
	err := Pages(func(page *string) (*string, error) {
		request.Page = page
		items, next, err := ReadItems[identity.Policy](ctx, c, call, request)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if item.LifecycleState == identity.PolicyLifecycleStateActive {
				statements = append(statements, item.Statements...)
			}
		}
		if len(statements) > most {
			return nil, call.Malformed("more than %d statements", most)
		}
		return next, nil
	}, maxPages)
	if err != nil {
		return nil, fmt.Errorf("listing policies: %w", err)
	}
	return statements, nil
}
