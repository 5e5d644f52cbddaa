package cmd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// parallel is how many images or keys are worked on at once. OCI Vault answers
// ten reads a second for a whole tenancy, and others want some of them.
const parallel = 6

// global holds the flags that all commands share: who asks OCI, and where.
type global struct {
	terminal
	kube      *kube
	configDir string // of the user

	who          ociauth.Config
	words        []string // of the command line
	getenv       func(string) string
	tenancies    []string
	compartments []string
}

func (g *global) bind(flags *pflag.FlagSet, getenv func(string) string) {
	g.kube.bind(flags)
	g.bindIdentity(flags, getenv)
	flags.StringArrayVar(&g.tenancies, "tenancy", nil,
		"`NAMESPACE=OCID` of another tenancy that images may lie in. May be repeated.")
	flags.StringArrayVar(&g.compartments, "compartment", nil,
		"`OCID` of a compartment to look in, instead of the whole tenancy. May be repeated.")
	flags.DurationVar(&g.timeout, "timeout", 2*time.Minute, "`TIME` after which the command gives up; 0 means never.")
}

// bindIdentity binds the flags that say who asks OCI. Their defaults are the values
// of the environment, which are not the same on every machine; help is.
func (g *global) bindIdentity(flags *pflag.FlagSet, getenv func(string) string) {
	g.who, g.getenv = ociauth.FromEnvironment(getenv), getenv
	text := func(p *string, name, usage string) {
		flags.StringVar(p, name, *p, usage)
		flags.Lookup(name).DefValue = ""
	}
	text(&g.who.Kind, "auth", "How to sign in to OCI, a `KIND` by the names of Oracle's CLI: "+strings.Join(ociauth.Kinds()[:6], ", ")+
		"; or oidc. Default: OCI_CLI_AUTH, else the profile's authentication_type, else api_key.")
	text(&g.who.ConfigFile, "config-file", "OCI configuration `FILE`; ~/.oci/config unless OCI_CLI_CONFIG_FILE or OCI_CONFIG_FILE names another.")
	text(&g.who.Profile, "profile", "Profile `NAME` in the configuration file; OCI_CLI_PROFILE sets the default.")
	text(&g.who.Region, "region", "`REGION` to work in, instead of the profile's; OCI_CLI_REGION sets the default.")
	text(&g.who.OIDC.Domain, "oidc-domain", "`URL` of the identity domain that trusts the OIDC token; OCI_DOMAIN_URL sets the default.")
	text(&g.who.OIDC.Client, "oidc-client", "`ID` of the application in the identity domain; OCI_OIDC_CLIENT_ID sets the default.")
	text(&g.who.OIDC.SecretFile, "oidc-client-secret-file", "`FILE` with the application's secret, instead of OCI_OIDC_CLIENT_SECRET.")
	text(&g.who.OIDC.TokenFile, "oidc-token-file", "`FILE` with the OIDC token, instead of OCI_OIDC_TOKEN or the token of a job of GitHub.")
}

func (g *global) validate() error {
	switch {
	case g.who.Kind != "" && !slices.Contains(ociauth.Kinds(), g.who.Kind):
		return usage(fmt.Sprintf("--auth %q is not known", g.who.Kind), "use one of "+strings.Join(ociauth.Kinds(), ", ")+"; OCI_CLI_AUTH sets the default")
	case g.timeout < 0:
		return usage(fmt.Sprintf("--timeout %s lies in the past", g.timeout), "use a time such as --timeout 2m")
	}
	if _, err := g.tenancyMap(); err != nil {
		return err
	}
	for _, c := range g.compartments {
		if !strings.HasPrefix(c, "ocid1.compartment.") && !strings.HasPrefix(c, "ocid1.tenancy.") || !ociauth.Segment(c) {
			return usage(fmt.Sprintf("--compartment %q is not the OCID of a compartment", c), "it begins with ocid1.compartment. or ocid1.tenancy.")
		}
	}
	return nil
}

func (g *global) tenancyMap() (map[string]string, error) {
	m := make(map[string]string, len(g.tenancies))
	for _, t := range g.tenancies {
		namespace, ocid, ok := strings.Cut(t, "=")
		if !ok || !strings.HasPrefix(ocid, "ocid1.tenancy.") || !ociauth.Segment(ocid) || !ociauth.Segment(namespace) {
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
	who      *ociauth.Principal
	registry *registry.Client
	vault    *vault.Client
	scanning *vulnscan.Client
}

// connect says who asks OCI and makes the clients.
func (g *global) connect(ctx context.Context) (*cloud, error) {
	tenancies, err := g.tenancyMap()
	if err != nil {
		return nil, err
	}
	who, err := g.signIn(ctx)
	if err != nil {
		return nil, err
	}
	images, err := registry.New(who, registry.Config{Tenancies: tenancies, Compartments: g.compartments})
	if err != nil {
		return nil, err
	}
	return &cloud{
		who: who, registry: images, vault: vault.New(who, vault.Config{}),
		scanning: vulnscan.New(who, vulnscan.Config{Tenancy: images.Tenancy, Compartments: g.compartments}),
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
