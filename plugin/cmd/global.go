package cmd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/provider/principal"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/scanning"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// parallel is how many images or keys are worked on at once. OCI Vault answers
// ten reads a second for a whole tenancy, and others want some of them.
const parallel = 6

// global holds the flags that all commands share: who asks OCI, and where.
type global struct {
	streams   genericiooptions.IOStreams
	kube      *kube
	bar       bar
	configDir string // of the user

	interrupts *Interrupts

	auth         string
	configFile   string
	profile      string
	region       string
	caFile       string // not a flag: Oracle's own tools know the variable only
	tenancies    []string
	compartments []string
	timeout      time.Duration
}

func (g *global) bind(flags *pflag.FlagSet, getenv func(string) string) {
	g.kube.bind(flags)
	flags.StringVar(&g.auth, "auth", principal.KindAPIKey,
		"How to prove to OCI who asks, a `KIND`: api_key (API key of the profile) or security_token (its session token).")
	flags.StringVar(&g.configFile, "config-file", cmp.Or(getenv("OCI_CONFIG_FILE"), getenv("OCI_CLI_CONFIG_FILE")),
		"OCI configuration `FILE`; ~/.oci/config unless OCI_CONFIG_FILE or OCI_CLI_CONFIG_FILE names another.")
	flags.StringVar(&g.profile, "profile", cmp.Or(getenv("OCI_CLI_PROFILE"), "DEFAULT"),
		"Profile `NAME` in the configuration file; OCI_CLI_PROFILE sets the default.")
	flags.StringVar(&g.region, "region", getenv("OCI_CLI_REGION"),
		"`REGION` to work in, instead of the profile's; OCI_CLI_REGION sets the default.")
	g.caFile = getenv("OCI_DEFAULT_CERTS_PATH")
	flags.StringArrayVar(&g.tenancies, "tenancy", nil,
		"`NAMESPACE=OCID` of another tenancy that images may lie in. May be repeated.")
	flags.StringArrayVar(&g.compartments, "compartment", nil,
		"`OCID` of a compartment to look in, instead of the whole tenancy. May be repeated.")
	flags.DurationVar(&g.timeout, "timeout", 2*time.Minute, "`TIME` after which the command gives up; 0 means never.")
	// The values of the environment are not the same on every machine; help is.
	for _, name := range []string{"config-file", "profile", "region"} {
		flags.Lookup(name).DefValue = ""
	}
}

func (g *global) validate() error {
	kinds := []string{principal.KindAPIKey, principal.KindSecurityToken}
	switch {
	case !slices.Contains(kinds, g.auth):
		return usage(fmt.Sprintf("--auth %q is not known", g.auth), "use --auth "+strings.Join(kinds, " or --auth "))
	case g.timeout < 0:
		return usage(fmt.Sprintf("--timeout %s lies in the past", g.timeout), "use a time such as --timeout 2m")
	}
	if _, err := g.tenancyMap(); err != nil {
		return err
	}
	for _, c := range g.compartments {
		if !strings.HasPrefix(c, "ocid1.compartment.") && !strings.HasPrefix(c, "ocid1.tenancy.") || !principal.Segment(c) {
			return usage(fmt.Sprintf("--compartment %q is not the OCID of a compartment", c), "it begins with ocid1.compartment. or ocid1.tenancy.")
		}
	}
	return nil
}

func (g *global) tenancyMap() (map[string]string, error) {
	m := make(map[string]string, len(g.tenancies))
	for _, t := range g.tenancies {
		namespace, ocid, ok := strings.Cut(t, "=")
		if !ok || !strings.HasPrefix(ocid, "ocid1.tenancy.") || !principal.Segment(ocid) || !principal.Segment(namespace) {
			return nil, usage(fmt.Sprintf("--tenancy %q is not NAMESPACE=OCID", t), "for instance --tenancy idwpqivumvev=ocid1.tenancy.oc1..aaaa...")
		}
		if _, again := m[namespace]; again {
			return nil, usage(fmt.Sprintf("--tenancy gives namespace %q twice", namespace), "a namespace belongs to one tenancy")
		}
		m[namespace] = ocid
	}
	return m, nil
}

// cloud is OCI as one principal sees it.
type cloud struct {
	who      *principal.Principal
	registry *registry.Client
	vault    *vault.Client
	scanning *scanning.Client
}

// connect says who asks OCI and makes the clients.
func (g *global) connect(ctx context.Context) (*cloud, error) {
	tenancies, err := g.tenancyMap()
	if err != nil {
		return nil, err
	}
	who, err := principal.New(ctx, principal.Config{Kind: g.auth, ConfigFile: g.configFile, Profile: g.profile, Region: g.region, CAFile: g.caFile})
	if principal.IsNoConfig(err) {
		return nil, &refusal{err, "oci setup config, of Oracle's CLI, makes it; --config-file names another"}
	}
	if err != nil {
		return nil, err
	}
	images, err := registry.New(who, registry.Config{Tenancies: tenancies, Compartments: g.compartments})
	if err != nil {
		return nil, err
	}
	return &cloud{
		who: who, registry: images, vault: vault.New(who, vault.Config{}),
		scanning: scanning.New(who, scanning.Config{Tenancy: images.Tenancy, Compartments: g.compartments}),
	}, nil
}

// connectImages connects for questions about images, which begin with whose
// they are.
func (g *global) connectImages(ctx context.Context) (*cloud, error) {
	c, err := g.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.registry.Discover(ctx); err != nil {
		return nil, err
	}
	return c, nil
}
