package ocitest

import (
	"regexp"
	"slices"
	"strings"

	"github.com/oke-sign/oke-sign/provider/image"
)

// endpoint is what a host name of OCI serves.
type endpoint struct {
	service string // "artifacts", "auth", "kms", "management", "crypto", "identity", "objectstorage", "containerengine", "vss" or "ocir"
	region  image.Region
	vault   string // the extension in a vault's host name
	tenancy string // the tenancy of an identity domain
}

// withoutOCI reports whether a vault's host name in the region lacks ".oci.", by the
// list in oci-cli.
func withoutOCI(region string) bool {
	return slices.Contains([]string{
		"us-ashburn-1", "us-phoenix-1", "us-seattle-1", "eu-frankfurt-1", "uk-london-1", "ap-melbourne-1",
		"ap-mumbai-1", "ap-osaka-1", "ap-seoul-1", "ap-sydney-1", "ap-tokyo-1", "eu-amsterdam-1", "eu-zurich-1",
		"ca-montreal-1", "ca-toronto-1", "me-jeddah-1", "sa-saopaulo-1", "us-luke-1", "us-langley-1",
		"us-gov-ashburn-1", "us-gov-chicago-1", "us-gov-phoenix-1", "uk-gov-london-1",
	}, region)
}

// fixedHosts returns the host names that every region has for all customers.
func fixedHosts() map[string]endpoint {
	hosts := map[string]endpoint{githubHost: {service: "github"}}
	for _, r := range image.Regions() {
		short, long := r.ID()+"."+r.Domain(), r.ID()+".oci."+r.Domain()
		hosts["artifacts."+long] = endpoint{service: "artifacts", region: r}
		hosts["vss-cp-api."+long] = endpoint{service: "vss", region: r}
		for _, service := range []string{"identity", "objectstorage", "kms"} {
			hosts[service+"."+short] = endpoint{service: service, region: r}
			hosts[service+"."+long] = endpoint{service: service, region: r}
		}
		hosts["auth."+short] = endpoint{service: "auth", region: r}
		hosts["devops."+long] = endpoint{service: "devops", region: r}
		hosts["containerengine."+long] = endpoint{service: "containerengine", region: r}
		hosts["ocir."+long] = endpoint{service: "ocir", region: r}
		if r.Realm() == "oc1" {
			hosts[r.Key()+".ocir.io"] = endpoint{service: "ocir", region: r}
			hosts[r.ID()+".ocir.io"] = endpoint{service: "ocir", region: r}
		}
	}
	return hosts
}

// vaultHost splits the host name of a vault into extension, service, and the rest.
func vaultHost(host string) (ext, service, rest string, ok bool) {
	m := vaultHostPattern().FindStringSubmatch(host)
	if m == nil {
		return "", "", "", false
	}
	return m[1], m[2], m[3], true
}

func vaultHostPattern() *regexp.Regexp {
	return regexp.MustCompile(`^([a-z0-9]{1,63})-(crypto|management)\.kms\.([a-z0-9.-]+)$`)
}

// resolve is the name server. It returns the endpoint of a host name, if the name
// exists.
func (c *Cloud) resolve(host string) (endpoint, bool) {
	if e, ok := c.hosts[host]; ok {
		return e, true
	}
	if ext, service, rest, ok := vaultHost(host); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		v := c.world.vaultByExtension(ext)
		if v == nil {
			return endpoint{}, false
		}
		for _, form := range c.vaultForms(v) {
			if rest == form {
				r, err := image.ParseRegion(v.Region)
				return endpoint{service: service, region: r, vault: ext}, err == nil
			}
		}
		return endpoint{}, false
	}
	if strings.HasPrefix(host, "idcs-") {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.resolveDomain(host)
	}
	// Realm-specific names of Object Storage start with the namespace.
	if _, rest, ok := strings.Cut(host, ".objectstorage."); ok {
		if id, ok := strings.CutSuffix(rest, ".oci.customer-oci.com"); ok {
			r, err := image.ParseRegion(id)
			return endpoint{service: "objectstorage", region: r}, err == nil
		}
	}
	return endpoint{}, false
}

// vaultForms returns the endings of a vault's host names. The first is in the
// vault's own answers. Cloud.mu is held.
func (c *Cloud) vaultForms(v *vault) []string {
	r, err := image.ParseRegion(v.Region)
	if err != nil {
		return nil
	}
	listed, other := r.ID()+".oci."+r.Domain(), r.ID()+"."+r.Domain()
	if withoutOCI(r.ID()) {
		listed, other = other, listed
	}
	switch c.switches(c.world, v.Compartment).VaultHosts {
	case "inverse":
		return []string{other}
	case "both":
		return []string{listed, other}
	default:
		return []string{listed}
	}
}
