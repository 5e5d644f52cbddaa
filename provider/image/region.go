package image

import (
	"fmt"
	"maps"
	"slices"
)

// Region is one region of Oracle Cloud Infrastructure. Its zero value is no
// region.
type Region struct {
	key, id, realm string
}

// Key is the three-letter region key that registry hosts and older OCIDs carry:
// "iad".
func (r Region) Key() string { return r.key }

// ID is the region identifier: "us-ashburn-1".
func (r Region) ID() string { return r.id }

// Realm is the isolated group of regions that the region belongs to: "oc1".
func (r Region) Realm() string { return r.realm }

// Domain is the second-level domain of the realm's service endpoints:
// "oraclecloud.com".
func (r Region) Domain() string { return realmDomains[r.realm] }

// IsZero reports whether r is no region.
func (r Region) IsZero() bool { return r == Region{} }

func (r Region) String() string { return r.id }

// ParseRegion finds a region by its identifier or its key, both in lower case,
// as OCI writes them. A region that the table does not hold is refused: hosts
// are only ever derived from the table.
func ParseRegion(s string) (Region, error) {
	if r, ok := byName[s]; ok {
		return r, nil
	}
	return Region{}, fmt.Errorf("unknown OCI region %.80q", s)
}

// Regions returns every region known, in the order of realm and identifier.
func Regions() []Region { return slices.Clone(regions) }

// Domains returns the domains that endpoints of OCI lie under, in the order of the
// alphabet.
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

// byName and the registry's hosts are derived from the table once; nothing
// writes to them afterwards.
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
	{"lej", "af-casablanca-1", "oc1"},
	{"jnb", "af-johannesburg-1", "oc1"},
	{"hsg", "ap-batam-1", "oc1"},
	{"yny", "ap-chuncheon-1", "oc1"},
	{"onm", "ap-delhi-1", "oc1"},
	{"hyd", "ap-hyderabad-1", "oc1"},
	{"jbp", "ap-kulai-2", "oc1"},
	{"mel", "ap-melbourne-1", "oc1"},
	{"bom", "ap-mumbai-1", "oc1"},
	{"kix", "ap-osaka-1", "oc1"},
	{"icn", "ap-seoul-1", "oc1"},
	{"sin", "ap-singapore-1", "oc1"},
	{"xsp", "ap-singapore-2", "oc1"},
	{"syd", "ap-sydney-1", "oc1"},
	{"nrt", "ap-tokyo-1", "oc1"},
	{"yul", "ca-montreal-1", "oc1"},
	{"yyz", "ca-toronto-1", "oc1"},
	{"ams", "eu-amsterdam-1", "oc1"},
	{"fra", "eu-frankfurt-1", "oc1"},
	{"mad", "eu-madrid-1", "oc1"},
	{"orf", "eu-madrid-3", "oc1"},
	{"mrs", "eu-marseille-1", "oc1"},
	{"lin", "eu-milan-1", "oc1"},
	{"cdg", "eu-paris-1", "oc1"},
	{"arn", "eu-stockholm-1", "oc1"},
	{"nrq", "eu-turin-1", "oc1"},
	{"zrh", "eu-zurich-1", "oc1"},
	{"mtz", "il-jerusalem-1", "oc1"},
	{"auh", "me-abudhabi-1", "oc1"},
	{"dxb", "me-dubai-1", "oc1"},
	{"jed", "me-jeddah-1", "oc1"},
	{"ruh", "me-riyadh-1", "oc1"},
	{"mty", "mx-monterrey-1", "oc1"},
	{"qro", "mx-queretaro-1", "oc1"},
	{"bog", "sa-bogota-1", "oc1"},
	{"scl", "sa-santiago-1", "oc1"},
	{"gru", "sa-saopaulo-1", "oc1"},
	{"vap", "sa-valparaiso-1", "oc1"},
	{"vcp", "sa-vinhedo-1", "oc1"},
	{"cwl", "uk-cardiff-1", "oc1"},
	{"lhr", "uk-london-1", "oc1"},
	{"iad", "us-ashburn-1", "oc1"},
	{"ord", "us-chicago-1", "oc1"},
	{"phx", "us-phoenix-1", "oc1"},
	{"aga", "us-saltlake-2", "oc1"},
	{"sjc", "us-sanjose-1", "oc1"},
	{"lfi", "us-langley-1", "oc2"},
	{"luf", "us-luke-1", "oc2"},
	{"ric", "us-gov-ashburn-1", "oc3"},
	{"pia", "us-gov-chicago-1", "oc3"},
	{"tus", "us-gov-phoenix-1", "oc3"},
	{"brs", "uk-gov-cardiff-1", "oc4"},
	{"ltn", "uk-gov-london-1", "oc4"},
	{"nja", "ap-chiyoda-1", "oc8"},
	{"ukb", "ap-ibaraki-1", "oc8"},
	{"mct", "me-dcc-muscat-1", "oc9"},
	{"ibr", "me-ibri-1", "oc9"},
	{"wga", "ap-dcc-canberra-1", "oc10"},
	{"ork", "eu-dcc-dublin-1", "oc14"},
	{"snn", "eu-dcc-dublin-2", "oc14"},
	{"bgy", "eu-dcc-milan-1", "oc14"},
	{"mxp", "eu-dcc-milan-2", "oc14"},
	{"dus", "eu-dcc-rating-1", "oc14"},
	{"dtm", "eu-dcc-rating-2", "oc14"},
	{"dac", "ap-dcc-gazipur-1", "oc15"},
	{"str", "eu-frankfurt-2", "oc19"},
	{"vll", "eu-madrid-2", "oc19"},
	{"beg", "eu-jovanovac-1", "oc20"},
	{"vve", "me-alrayyan-1", "oc21"},
	{"doh", "me-dcc-doha-1", "oc21"},
	{"ebb", "us-somerset-1", "oc23"},
	{"ebl", "us-thames-1", "oc23"},
	{"avf", "eu-crissier-1", "oc24"},
	{"avz", "eu-dcc-zurich-1", "oc24"},
	{"ahu", "me-abudhabi-3", "oc26"},
	{"rba", "me-alain-1", "oc26"},
	{"rkt", "me-abudhabi-2", "oc29"},
	{"shj", "me-abudhabi-4", "oc29"},
	{"bno", "ap-chuncheon-2", "oc35"},
	{"dtz", "ap-seoul-2", "oc35"},
	{"dln", "ap-suwon-1", "oc35"},
	{"yxj", "us-ashburn-2", "oc42"},
	{"pgc", "us-newark-1", "oc42"},
	{"jsk", "eu-budapest-1", "oc51"},
	{"hnw", "sa-riodejaneiro-1", "oc52"},
}
