package vault

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// plane is which of a vault's two hosts is meant.
type plane string

const (
	management plane = "management"
	crypto     plane = "crypto"
)

const maxForms = 1000

// withoutOCI are the regions whose vaults have hosts without ".oci" in their
// names, as Oracle's CLI has it. Vaults elsewhere have it, and there may be
// vaults that know better, so this says only which form to try first.
func withoutOCI(r image.Region) bool {
	return slices.Contains([]string{
		"us-ashburn-1", "us-phoenix-1", "us-seattle-1", "eu-frankfurt-1", "uk-london-1", "ap-melbourne-1", "ap-mumbai-1",
		"ap-osaka-1", "ap-seoul-1", "ap-sydney-1", "ap-tokyo-1", "eu-amsterdam-1", "eu-zurich-1", "ca-montreal-1",
		"ca-toronto-1", "me-jeddah-1", "sa-saopaulo-1", "us-luke-1", "us-langley-1", "us-gov-ashburn-1", "us-gov-chicago-1",
		"us-gov-phoenix-1", "uk-gov-london-1",
	}, r.ID())
}

// Endpoint is where a vault is, as OCI shows it with the vault.
type Endpoint struct {
	extension string // of the vault
	suffix    string // what its hosts' names end in, after "-management."
	domain    string // of the realm
}

// ParseEndpoint reads a vault's management or crypto endpoint, such as
// https://b5q4c5lnaahik-management.kms.us-ashburn-1.oraclecloud.com. It has to
// lie under the domain of the region's realm, because requests to it are signed
// by the principal and its answers are believed.
func ParseEndpoint(in image.Region, s string) (Endpoint, error) {
	bad := func(why string) (Endpoint, error) {
		return Endpoint{}, fmt.Errorf("not the endpoint of a vault: %.120q: %s", s, why)
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("not a URL")
	}
	if u.Scheme != "https" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return bad("want https and a host, and nothing else")
	}
	host := u.Host
	for _, p := range []plane{management, crypto} {
		extension, suffix, ok := strings.Cut(host, "-"+string(p)+".")
		if !ok {
			continue
		}
		if !name(extension) || strings.Contains(extension, ".") || !name(suffix) {
			return bad("not a host's name")
		}
		if in.IsZero() || !strings.HasSuffix(suffix, "."+in.Domain()) {
			return bad("not under " + in.Domain())
		}
		return Endpoint{extension, suffix, in.Domain()}, nil
	}
	return bad("want <vault>-management.… or <vault>-crypto.…")
}

// name reports whether s is labels of a host's name in lower case.
func name(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(s) <= 253
}

// String is the vault's management endpoint.
func (e Endpoint) String() string { return "https://" + e.host(management) }

func (e Endpoint) host(p plane) string { return e.extension + "-" + string(p) + "." + e.suffix }

// hosts knows where vaults are.
type hosts struct {
	given map[string]Endpoint // by extension

	mu    sync.Mutex
	works map[string]string // by extension and region: the suffix that answered
}

func newHosts(given []Endpoint) *hosts {
	h := &hosts{given: make(map[string]Endpoint), works: make(map[string]string)}
	for _, e := range given {
		h.given[e.extension] = e
	}
	return h
}

// at calls do with the host of a key's vault. A vault's host goes by one of two
// names. That one does not exist is seen only when it is called.
func (c *Client) at(ctx context.Context, id signature.KeyID, p plane, do func(host string) error) error {
	if id.IsZero() {
		return fmt.Errorf("no key: %w", ErrNotFound)
	}
	region := id.Region()
	if region.Realm() != c.who.Realm() {
		return fmt.Errorf("the key is in realm %s, and this principal in %s reaches no other", region.Realm(), c.who.Realm())
	}
	if e, ok := c.hosts.given[id.VaultExtension()]; ok {
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
	if c.hosts.recall(vault) == second {
		first, second = second, first
	}
	host := func(suffix string) string { return id.VaultExtension() + "-" + string(p) + "." + suffix }
	err := do(host(first))
	if !oci.NoSuchHost(err) {
		c.hosts.remember(vault, first)
		return err
	}
	if ctx.Err() != nil {
		return err
	}
	other := do(host(second))
	if oci.NoSuchHost(other) {
		return fmt.Errorf("%w; %w", err, other)
	}
	c.hosts.remember(vault, second)
	return other
}

func (h *hosts) recall(vault string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.works[vault]
}

// remember keeps which name to try first. That may turn out wrong, after a
// time-out say; then the call that finds out tries the other.
func (h *hosts) remember(vault, suffix string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.works) >= maxForms {
		clear(h.works) // vaults are few; this is for keys made up by somebody
	}
	h.works[vault] = suffix
}
