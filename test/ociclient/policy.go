package ociclient

import (
	"context"

	"github.com/oracle/oci-go-sdk/v65/identity"
)

// Tenancy returns the OCID of the tenancy.
func (c *Cloud) Tenancy() (string, error) { return c.config.TenancyOCID() }

// AddPolicy attaches a policy to a compartment, or to the tenancy.
func (c *Cloud) AddPolicy(ctx context.Context, compartment, name string, statements ...string) error {
	policies, err := identity.NewIdentityClientWithConfigurationProvider(c.config)
	if err != nil {
		return err
	}
	policies.HTTPClient = c.oci
	_, err = policies.CreatePolicy(ctx, identity.CreatePolicyRequest{CreatePolicyDetails: identity.CreatePolicyDetails{
		CompartmentId: &compartment, Name: &name, Description: &name, Statements: statements,
	}})
	return err
}
