// Package vault reads keys of OCI Vault and signs with them, through the Key
// Management API.
//
// It derives the hosts that it contacts from the OCID of a key, from the region table of
// package image, or from OCI's own list of vaults if they are under the realm's domain.
// Therefore callers must pass only allowed keys, and never a key that only a signature
// record names.
//
// The package returns keys and versions as they are now. It caches only which of its two
// names a vault's host has. OCI Vault answers ten reads a second for a whole tenancy, so
// callers that ask often need a cache.
package vault

import (
	"context"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/oracle/oci-go-sdk/v65/common"
	"github.com/oracle/oci-go-sdk/v65/keymanagement"

	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// ErrNotFound means that OCI has no such key, version, vault or compartment, or that this
// identity may not read it. OCI does not say which.
var ErrNotFound = errors.New("not found, or this identity may not read it")

const (
	basePath    = "/20180608"
	maxPages    = 60
	maxVersions = 2000
)

// Config configures a Client.
type Config struct {
	// Endpoints are the endpoints of vaults whose hosts cannot be derived from the
	// OCIDs of their keys.
	Endpoints []Endpoint
}

// Client calls OCI Vault with one identity. It is safe for concurrent use.
type Client struct {
	who       *oci.Client
	endpoints *endpoints
}

// New makes a Client. It makes no call.
func New(who *oci.Client, cfg Config) *Client {
	return &Client{who: who, endpoints: newEndpoints(cfg.Endpoints)}
}

// Key is a master key.
type Key struct {
	ID            signature.KeyID
	Name          string
	CompartmentID string
	VaultID       string
	State         string // such as ENABLED
	Algorithm     string // AES, RSA or ECDSA
	Bits          int    // zero for an ECDSA key, and in lists
	CurveID       string // of an ECDSA key, such as NIST_P256
	Protection    string // HSM, SOFTWARE or EXTERNAL
	Current       signature.KeyVersionID
	TimeCreated   time.Time
}

// Version is a version of a key.
type Version struct {
	ID          signature.KeyVersionID
	State       string // such as ENABLED
	TimeCreated time.Time
}

// Key reads a key.
func (c *Client) Key(ctx context.Context, id signature.KeyID) (Key, error) {
	var key Key
	err := c.manage(ctx, id, "GetKey", "/keys/{keyId}", func(call oci.Call) error {
		var got keymanagement.Key
		if _, err := c.who.Do(ctx, call, keymanagement.GetKeyRequest{KeyId: common.String(id.String())}, &got); err != nil {
			return err
		}
		var err error
		key, err = readKey(call, id, got)
		return err
	})
	if err != nil {
		return Key{}, fmt.Errorf("reading key %s: %w", id.Short(), err)
	}
	return key, nil
}

func readKey(call oci.Call, id signature.KeyID, got keymanagement.Key) (Key, error) {
	if deref(got.Id) != id.String() {
		return Key{}, call.Malformed("asked for key %s, got %.120q", id.Short(), deref(got.Id))
	}
	key := Key{
		ID: id, Name: oci.Text(got.DisplayName), CompartmentID: deref(got.CompartmentId), VaultID: deref(got.VaultId),
		State: string(got.LifecycleState), Protection: string(got.ProtectionMode),
	}
	if key.State == "" || got.KeyShape == nil || got.KeyShape.Algorithm == "" {
		return Key{}, call.Malformed("a key without a state or a shape")
	}
	key.Algorithm = string(got.KeyShape.Algorithm)
	if key.Algorithm == string(keymanagement.KeyShapeAlgorithmEcdsa) {
		key.CurveID = string(got.KeyShape.CurveId)
	} else if n := got.KeyShape.Length; n != nil && *n > 0 && *n <= 1<<13 {
		key.Bits = *n * 8
	}
	if current := deref(got.CurrentKeyVersion); current != "" { // a key that is being created has none
		version, err := signature.ParseKeyVersionID(current)
		if err != nil {
			return Key{}, call.Malformed("currentKeyVersion: %w", err)
		}
		key.Current = version
	}
	if got.TimeCreated != nil {
		key.TimeCreated = got.TimeCreated.Time
	}
	return key, nil
}

// Versions lists all versions of a key, newest first.
func (c *Client) Versions(ctx context.Context, id signature.KeyID) ([]Version, error) {
	var versions []Version
	err := c.manage(ctx, id, "ListKeyVersions", "/keys/{keyId}/keyVersions", func(call oci.Call) error {
		versions = nil
		request := keymanagement.ListKeyVersionsRequest{KeyId: common.String(id.String())}
		return pages(func(page *string) (*string, error) {
			request.Page = page
			items, next, err := oci.ReadItems[keymanagement.KeyVersionSummary](ctx, c.who, call, request)
			if err != nil {
				return nil, err
			}
			for _, item := range items {
				v, err := readVersion(call, id, item)
				if err != nil {
					return nil, err
				}
				if versions = append(versions, v); len(versions) > maxVersions {
					return nil, call.Malformed("more than %d versions", maxVersions)
				}
			}
			return next, nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("listing the versions of key %s: %w", id.Short(), err)
	}
	slices.SortStableFunc(versions, func(a, b Version) int { return b.TimeCreated.Compare(a.TimeCreated) })
	return versions, nil
}

func readVersion(call oci.Call, key signature.KeyID, item keymanagement.KeyVersionSummary) (Version, error) {
	if deref(item.KeyId) != key.String() {
		return Version{}, call.Malformed("asked for versions of key %s, got one of %.120q", key.Short(), deref(item.KeyId))
	}
	id, err := signature.ParseKeyVersionID(deref(item.Id))
	if err != nil {
		return Version{}, call.Malformed("%w", err)
	}
	if item.LifecycleState == "" {
		return Version{}, call.Malformed("version %s without a lifecycleState", id.Short())
	}
	v := Version{ID: id, State: string(item.LifecycleState)}
	if item.TimeCreated != nil {
		v.TimeCreated = item.TimeCreated.Time
	}
	return v, nil
}

// PublicKey reads the public key of a version, which Versions has listed for the key. An
// answer about another key or version is an error.
func (c *Client) PublicKey(ctx context.Context, id signature.KeyID, version signature.KeyVersionID) (*rsa.PublicKey, error) {
	var public *rsa.PublicKey
	err := c.manage(ctx, id, "GetKeyVersion", "/keys/{keyId}/keyVersions/{keyVersionId}", func(call oci.Call) error {
		var got keymanagement.KeyVersion
		_, err := c.who.Do(ctx, call, keymanagement.GetKeyVersionRequest{
			KeyId: common.String(id.String()), KeyVersionId: common.String(version.String()),
		}, &got)
		if err != nil {
			return err
		}
		if deref(got.Id) != version.String() || deref(got.KeyId) != id.String() {
			return call.Malformed("asked for version %s of key %s, got %.120q of %.120q", version.Short(), id.Short(), deref(got.Id), deref(got.KeyId))
		}
		if got.PublicKey == nil {
			return errors.New("it has no public key, so it is not an RSA key")
		}
		if public, err = signature.ParsePublicKey(*got.PublicKey); err != nil {
			return call.Malformed("publicKey: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading version %s of key %s: %w", version.Short(), id.Short(), err)
	}
	return public, nil
}

// Sign has OCI Vault sign a message. It sends the whole message and no hash of it. The
// caller verifies the signature that Sign returns.
func (c *Client) Sign(ctx context.Context, id signature.KeyID, version signature.KeyVersionID, alg signature.Algorithm, message []byte) ([]byte, error) {
	if len(message) > signature.MaxMessage {
		return nil, fmt.Errorf("signing with key %s: the message has %d bytes; OCI Vault signs %d at most", id.Short(), len(message), signature.MaxMessage)
	}
	var signed []byte
	err := c.at(ctx, id, crypto, func(host string) error {
		call := oci.Call{
			Service: "keymanagement", Operation: "Sign", Method: http.MethodPost, Host: host,
			Path: basePath + "/sign", Repeatable: true, // a second signature is as good as the first
		}
		var got keymanagement.SignedData
		_, err := c.who.Do(ctx, call, keymanagement.SignRequest{SignDataDetails: keymanagement.SignDataDetails{
			Message:          common.String(base64.StdEncoding.EncodeToString(message)),
			KeyId:            common.String(id.String()),
			KeyVersionId:     common.String(version.String()),
			SigningAlgorithm: keymanagement.SignDataDetailsSigningAlgorithmEnum(alg),
			MessageType:      keymanagement.SignDataDetailsMessageTypeRaw,
		}}, &got)
		if err != nil {
			return err
		}
		if deref(got.KeyId) != id.String() || deref(got.KeyVersionId) != version.String() || string(got.SigningAlgorithm) != string(alg) {
			return call.Malformed("asked key %s, version %s, for %s; %.120q, %.120q, answered with %.40q", id.Short(), version.Short(), alg,
				deref(got.KeyId), deref(got.KeyVersionId), got.SigningAlgorithm)
		}
		signed, err = base64.StdEncoding.Strict().DecodeString(deref(got.Signature))
		if err != nil || len(signed) == 0 {
			return call.Malformed("the signature is no base64")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", id.Short(), err)
	}
	return signed, nil
}

// manage makes a read call to the management host of a key's vault.
func (c *Client) manage(ctx context.Context, id signature.KeyID, operation, path string, do func(oci.Call) error) error {
	return c.at(ctx, id, management, func(host string) error {
		err := do(oci.Call{Service: "keymanagement", Operation: operation, Method: http.MethodGet, Host: host, Path: basePath + path})
		return notFound(err)
	})
}

// notFound wraps OCI's answer that there is no such thing in ErrNotFound.
func notFound(err error) error {
	if oci.IsNotFound(err) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}

func pages(fetch func(page *string) (*string, error)) error {
	return oci.Pages(fetch, maxPages)
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// at calls do with the host of a key's vault. The host has one of two names, and only a
// call shows that a name does not exist.
func (c *Client) at(ctx context.Context, id signature.KeyID, p plane, do func(host string) error) error {
	if id.IsZero() {
		return fmt.Errorf("no key: %w", ErrNotFound)
	}
	region := id.Region()
	if region.Realm() != c.who.Realm() {
		return fmt.Errorf("the key is in realm %s, but this identity is in %s and reaches no other", region.Realm(), c.who.Realm())
	}
	if e, ok := c.endpoints.configured[id.VaultExtension()]; ok {
		if e.domain != region.Domain() {
			return fmt.Errorf("the endpoint given for its vault is not under %s", region.Domain())
		}
		return do(e.host(p))
	}
	short, long := "kms."+region.ID()+"."+region.Domain(), "kms."+region.ID()+".oci."+region.Domain()
	first, second := long, short
	if withoutOCI(region) {
		first, second = short, long
	}
	vault := id.VaultExtension() + "." + region.ID()
	if c.endpoints.get(vault) == second {
		first, second = second, first
	}
	host := func(suffix string) string { return id.VaultExtension() + "-" + string(p) + "." + suffix }
	err := do(host(first))
	if !oci.NoSuchHost(err) {
		c.endpoints.set(vault, first)
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	other := do(host(second))
	if oci.NoSuchHost(other) {
		return fmt.Errorf("%w; %w", err, other)
	}
	c.endpoints.set(vault, second)
	return other
}
