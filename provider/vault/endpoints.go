package vault

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/oke-sign/oke-sign/provider/image"
)

// plane names one of a vault's two hosts.
type plane string

const (
	management plane = "management"
	crypto     plane = "crypto"
)

const maxVaults = 1000

// withoutOCI reports whether vaults of a region have hosts without ".oci" in their names,
// as Oracle's CLI says. Vaults of other regions have ".oci". Single vaults may differ, so
// this chooses only the form to try first.
func withoutOCI(r image.Region) bool {
	return slices.Contains([]string{
		"us-ashburn-1", "us-phoenix-1", "us-seattle-1", "eu-frankfurt-1", "uk-london-1", "ap-melbourne-1", "ap-mumbai-1",
		"ap-osaka-1", "ap-seoul-1", "ap-sydney-1", "ap-tokyo-1", "eu-amsterdam-1", "eu-zurich-1", "ca-montreal-1",
		"ca-toronto-1", "me-jeddah-1", "sa-saopaulo-1", "us-luke-1", "us-langley-1", "us-gov-ashburn-1", "us-gov-chicago-1",
		"us-gov-phoenix-1", "uk-gov-london-1",
	}, r.ID())
}

// Endpoint is the endpoint of a vault, as OCI shows it with the vault.
type Endpoint struct {
	extension string // of the vault
	suffix    string // what its hosts' names end in, after "-management."
	domain    string // of the realm
}

// ParseEndpoint reads a vault's management or crypto endpoint, such as
// https://b5q4c5lnaahik-management.kms.us-ashburn-1.oraclecloud.com. The endpoint must be
// under the domain of the region's realm, because the OCI client signs its requests to
// the endpoint and believes the answers.
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

// name reports whether s is a host name, or a part of one, in lower case.
func name(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(s) <= 253
}

// String returns the vault's management endpoint.
func (e Endpoint) String() string { return "https://" + e.host(management) }

func (e Endpoint) host(p plane) string { return e.extension + "-" + string(p) + "." + e.suffix }

// endpoints holds the endpoints of vaults, as configured or as found.
type endpoints struct {
	configured map[string]Endpoint // by extension

	mu       sync.Mutex
	suffixes map[string]string // by extension and region: the suffix that answered
}

func newEndpoints(configured []Endpoint) *endpoints {
	e := &endpoints{configured: make(map[string]Endpoint), suffixes: make(map[string]string)}
	for _, endpoint := range configured {
		e.configured[endpoint.extension] = endpoint
	}
	return e
}

func (e *endpoints) get(vault string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.suffixes[vault]
}

// set caches the suffix to try first. A suffix may be wrong, for instance after a timeout.
// The next call then tries the other one.
func (e *endpoints) set(vault, suffix string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.suffixes) >= maxVaults {
		clear(e.suffixes) // vaults are few; more of them come from invented keys
	}
	e.suffixes[vault] = suffix
}
