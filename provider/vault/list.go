package vault

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

const maxListed = 5000

// Vault is a vault of the identity's region.
type Vault struct {
	ID                 string
	Name               string
	CompartmentID      string
	State              string // such as ACTIVE
	ManagementEndpoint string
	CryptoEndpoint     string
	TimeCreated        time.Time
}

// Vaults lists the vaults of a compartment in the identity's region.
func (c *Client) Vaults(ctx context.Context, compartment string) ([]Vault, error) {
	call := c.vaults("ListVaults", http.MethodGet, "/vaults")
	request := keymanagement.ListVaultsRequest{CompartmentId: common.String(compartment)}
	var vaults []Vault
	err := pages(func(page *string) (*string, error) {
		request.Page = page
		items, next, err := oci.ReadItems[keymanagement.VaultSummary](ctx, c.who, call, request)
		if err != nil {
			return nil, notFound(err)
		}
		for _, item := range items {
			v := Vault{
				ID: deref(item.Id), Name: oci.Text(item.DisplayName), CompartmentID: deref(item.CompartmentId),
				State:              string(item.LifecycleState),
				ManagementEndpoint: deref(item.ManagementEndpoint), CryptoEndpoint: deref(item.CryptoEndpoint),
			}
			if item.TimeCreated != nil {
				v.TimeCreated = item.TimeCreated.Time
			}
			if !oci.Segment(v.ID) || v.State == "" {
				return nil, call.Malformed("a vault with the id %.120q and the state %.20q", v.ID, v.State)
			}
			if vaults = append(vaults, v); len(vaults) > maxListed {
				return nil, call.Malformed("more than %d vaults", maxListed)
			}
		}
		return next, nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing vaults: %w", err)
	}
	return vaults, nil
}

// Keys lists the keys of a vault that are in a compartment, which may differ from the
// vault's compartment. The list does not show the lengths of keys.
func (c *Client) Keys(ctx context.Context, in Vault, compartment string) ([]Key, error) {
	endpoint, err := ParseEndpoint(c.who.Region(), in.ManagementEndpoint)
	if err != nil {
		return nil, err
	}
	call := oci.Call{
		Service: "keymanagement", Operation: "ListKeys", Method: http.MethodGet,
		Host: endpoint.host(management), Path: basePath + "/keys",
	}
	request := keymanagement.ListKeysRequest{CompartmentId: common.String(compartment)}
	var keys []Key
	err = pages(func(page *string) (*string, error) {
		request.Page = page
		items, next, err := oci.ReadItems[keymanagement.KeySummary](ctx, c.who, call, request)
		if err != nil {
			return nil, notFound(err)
		}
		for _, item := range items {
			id, err := signature.ParseKeyID(deref(item.Id))
			if err != nil {
				return nil, call.Malformed("%w", err)
			}
			if item.LifecycleState == "" {
				return nil, call.Malformed("key %s without a lifecycleState", id.Short())
			}
			key := Key{
				ID: id, Name: oci.Text(item.DisplayName), CompartmentID: deref(item.CompartmentId), VaultID: deref(item.VaultId),
				State: string(item.LifecycleState), Algorithm: string(item.Algorithm), Protection: string(item.ProtectionMode),
			}
			if item.TimeCreated != nil {
				key.TimeCreated = item.TimeCreated.Time
			}
			if keys = append(keys, key); len(keys) > maxListed {
				return nil, call.Malformed("more than %d keys", maxListed)
			}
		}
		return next, nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the keys of vault %s: %w", in.Name, err)
	}
	return keys, nil
}

// vaults returns a call to the host that knows all vaults.
func (c *Client) vaults(operation, method, path string) oci.Call {
	region := c.who.Region()
	return oci.Call{
		Service: "keymanagement", Operation: operation, Method: method,
		Host: "kms." + region.ID() + "." + region.Domain(), Path: basePath + path,
	}
}
