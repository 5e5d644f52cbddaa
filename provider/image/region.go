package image

import (
	"fmt"
	"maps"
	"slices"
)

// Region is one region of Oracle Cloud Infrastructure. Regions are comparable, and as small
// as a pointer, because every cached image and key has one. The zero Region is no region.
type Region struct{ *facts }

type facts struct{ key, id, realm string }

// known returns the facts about r. The zero Region has empty facts.
func (r Region) known() facts {
	if r.facts == nil {
		return facts{}
	}
	return *r.facts
}

// Key returns the three-letter region key in registry hosts and older OCIDs: "iad".
func (r Region) Key() string { return r.known().key }

// ID returns the region identifier: "us-ashburn-1".
func (r Region) ID() string { return r.known().id }

// Realm returns the isolated group of regions to which the region belongs: "oc1".
func (r Region) Realm() string { return r.known().realm }

// Domain returns the second-level domain of the realm's service endpoints:
// "oraclecloud.com".
func (r Region) Domain() string { return realmDomains[r.Realm()] }

// IsZero reports whether r is no region.
func (r Region) IsZero() bool { return r == Region{} }

func (r Region) String() string { return r.ID() }

// canonicalHost returns the registry host that all realms have.
func canonicalHost(r Region) string { return "ocir." + r.ID() + ".oci." + r.Domain() }

// ParseRegion finds a region by its identifier or its key, both in lower case as OCI writes
// them. It rejects regions that are not in the table, because hosts are derived only from
// the table.
func ParseRegion(s string) (Region, error) {
	if r, ok := byName[s]; ok {
		return r, nil
	}
	return Region{}, fmt.Errorf("unknown OCI region %.80q", s)
}

// Regions returns all known regions, ordered by realm and identifier.
func Regions() []Region { return slices.Clone(regions) }

// Domains returns the domains of OCI's endpoints in alphabetical order.
func Domains() []string { return slices.Clone(domains) }

var domains = func() []string {
	list := slices.Collect(maps.Values(realmDomains))
	list = append(list, dedicatedDomain)
	slices.Sort(list)
	return slices.Compact(list)
}()

// dedicatedDomain holds the endpoints that OCI gives to one tenancy each, such as
// <namespace>.objectstorage.<region>.oci.customer-oci.com.
const dedicatedDomain = "customer-oci.com"

// byName and the registry's hosts are derived from the table once. Nothing changes them
// afterwards.
var (
	byName = func() map[string]Region {
		m := make(map[string]Region, 2*len(regions))
		for _, r := range regions {
			m[r.id], m[r.key] = r, r
		}
		return m
	}()

	// OCI Registry answers under <key>.ocir.io and <identifier>.ocir.io in realm
	// oc1, and under ocir.<identifier>.oci.<domain> in every realm.
	byHost = func() map[string]Region {
		m := make(map[string]Region, 3*len(regions))
		for _, r := range regions {
			if r.realm == "oc1" {
				m[r.key+".ocir.io"], m[r.id+".ocir.io"] = r, r
			}
			m["ocir."+r.id+".oci."+r.Domain()] = r
		}
		return m
	}()
)

// The tables below carry the facts of oci-go-sdk v65.129.0, common/regions.json.
// The SDK's own table is not used at run time because environment variables,
// files and instance metadata can redirect it.

var realmDomains = map[string]string{
	"oc1":  "oraclecloud.com",
	"oc2":  "oraclegovcloud.com",
	"oc3":  "oraclegovcloud.com",
	"oc4":  "oraclegovcloud.uk",
	"oc8":  "oraclecloud8.com",
	"oc9":  "oraclecloud9.com",
	"oc10": "oraclecloud10.com",
	"oc14": "oraclecloud14.com",
	"oc15": "oraclecloud15.com",
	"oc19": "oraclecloud.eu",
	"oc20": "oraclecloud20.com",
	"oc21": "oraclecloud21.com",
	"oc23": "oraclecloud23.com",
	"oc24": "oraclecloud24.com",
	"oc26": "oraclecloud26.com",
	"oc29": "oraclecloud29.com",
	"oc35": "oraclecloud35.com",
	"oc42": "oraclecloud42.com",
	"oc51": "oraclecloud51.com",
	"oc52": "oraclecloud52.com",
}

var regions = []Region{
	{&facts{"lej", "af-casablanca-1", "oc1"}},
	{&facts{"jnb", "af-johannesburg-1", "oc1"}},
	{&facts{"hsg", "ap-batam-1", "oc1"}},
	{&facts{"yny", "ap-chuncheon-1", "oc1"}},
	{&facts{"onm", "ap-delhi-1", "oc1"}},
	{&facts{"hyd", "ap-hyderabad-1", "oc1"}},
	{&facts{"jbp", "ap-kulai-2", "oc1"}},
	{&facts{"mel", "ap-melbourne-1", "oc1"}},
	{&facts{"bom", "ap-mumbai-1", "oc1"}},
	{&facts{"kix", "ap-osaka-1", "oc1"}},
	{&facts{"icn", "ap-seoul-1", "oc1"}},
	{&facts{"sin", "ap-singapore-1", "oc1"}},
	{&facts{"xsp", "ap-singapore-2", "oc1"}},
	{&facts{"syd", "ap-sydney-1", "oc1"}},
	{&facts{"nrt", "ap-tokyo-1", "oc1"}},
	{&facts{"yul", "ca-montreal-1", "oc1"}},
	{&facts{"yyz", "ca-toronto-1", "oc1"}},
	{&facts{"ams", "eu-amsterdam-1", "oc1"}},
	{&facts{"fra", "eu-frankfurt-1", "oc1"}},
	{&facts{"mad", "eu-madrid-1", "oc1"}},
	{&facts{"orf", "eu-madrid-3", "oc1"}},
	{&facts{"mrs", "eu-marseille-1", "oc1"}},
	{&facts{"lin", "eu-milan-1", "oc1"}},
	{&facts{"cdg", "eu-paris-1", "oc1"}},
	{&facts{"arn", "eu-stockholm-1", "oc1"}},
	{&facts{"nrq", "eu-turin-1", "oc1"}},
	{&facts{"zrh", "eu-zurich-1", "oc1"}},
	{&facts{"mtz", "il-jerusalem-1", "oc1"}},
	{&facts{"auh", "me-abudhabi-1", "oc1"}},
	{&facts{"dxb", "me-dubai-1", "oc1"}},
	{&facts{"jed", "me-jeddah-1", "oc1"}},
	{&facts{"ruh", "me-riyadh-1", "oc1"}},
	{&facts{"mty", "mx-monterrey-1", "oc1"}},
	{&facts{"qro", "mx-queretaro-1", "oc1"}},
	{&facts{"bog", "sa-bogota-1", "oc1"}},
	{&facts{"scl", "sa-santiago-1", "oc1"}},
	{&facts{"gru", "sa-saopaulo-1", "oc1"}},
	{&facts{"vap", "sa-valparaiso-1", "oc1"}},
	{&facts{"vcp", "sa-vinhedo-1", "oc1"}},
	{&facts{"cwl", "uk-cardiff-1", "oc1"}},
	{&facts{"lhr", "uk-london-1", "oc1"}},
	{&facts{"iad", "us-ashburn-1", "oc1"}},
	{&facts{"ord", "us-chicago-1", "oc1"}},
	{&facts{"phx", "us-phoenix-1", "oc1"}},
	{&facts{"aga", "us-saltlake-2", "oc1"}},
	{&facts{"sjc", "us-sanjose-1", "oc1"}},
	{&facts{"lfi", "us-langley-1", "oc2"}},
	{&facts{"luf", "us-luke-1", "oc2"}},
	{&facts{"ric", "us-gov-ashburn-1", "oc3"}},
	{&facts{"pia", "us-gov-chicago-1", "oc3"}},
	{&facts{"tus", "us-gov-phoenix-1", "oc3"}},
	{&facts{"brs", "uk-gov-cardiff-1", "oc4"}},
	{&facts{"ltn", "uk-gov-london-1", "oc4"}},
	{&facts{"nja", "ap-chiyoda-1", "oc8"}},
	{&facts{"ukb", "ap-ibaraki-1", "oc8"}},
	{&facts{"mct", "me-dcc-muscat-1", "oc9"}},
	{&facts{"ibr", "me-ibri-1", "oc9"}},
	{&facts{"wga", "ap-dcc-canberra-1", "oc10"}},
	{&facts{"ork", "eu-dcc-dublin-1", "oc14"}},
	{&facts{"snn", "eu-dcc-dublin-2", "oc14"}},
	{&facts{"bgy", "eu-dcc-milan-1", "oc14"}},
	{&facts{"mxp", "eu-dcc-milan-2", "oc14"}},
	{&facts{"dus", "eu-dcc-rating-1", "oc14"}},
	{&facts{"dtm", "eu-dcc-rating-2", "oc14"}},
	{&facts{"dac", "ap-dcc-gazipur-1", "oc15"}},
	{&facts{"str", "eu-frankfurt-2", "oc19"}},
	{&facts{"vll", "eu-madrid-2", "oc19"}},
	{&facts{"beg", "eu-jovanovac-1", "oc20"}},
	{&facts{"vve", "me-alrayyan-1", "oc21"}},
	{&facts{"doh", "me-dcc-doha-1", "oc21"}},
	{&facts{"ebb", "us-somerset-1", "oc23"}},
	{&facts{"ebl", "us-thames-1", "oc23"}},
	{&facts{"avf", "eu-crissier-1", "oc24"}},
	{&facts{"avz", "eu-dcc-zurich-1", "oc24"}},
	{&facts{"ahu", "me-abudhabi-3", "oc26"}},
	{&facts{"rba", "me-alain-1", "oc26"}},
	{&facts{"rkt", "me-abudhabi-2", "oc29"}},
	{&facts{"shj", "me-abudhabi-4", "oc29"}},
	{&facts{"bno", "ap-chuncheon-2", "oc35"}},
	{&facts{"dtz", "ap-seoul-2", "oc35"}},
	{&facts{"dln", "ap-suwon-1", "oc35"}},
	{&facts{"yxj", "us-ashburn-2", "oc42"}},
	{&facts{"pgc", "us-newark-1", "oc42"}},
	{&facts{"jsk", "eu-budapest-1", "oc51"}},
	{&facts{"hnw", "sa-riodejaneiro-1", "oc52"}},
}
