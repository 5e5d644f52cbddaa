// Package connect makes the clients of OCI and of the cluster from flags, environment,
// OCI configuration and kubeconfig. Apart from flags, it reads nothing before a command
// asks for a client.
//
// The package trusts what the user has configured. It decides nothing about images.
package connect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/ociauth"
)

// Session has the flags that all commands share, and makes their clients.
type Session struct {
	cli.Terminal
	Kube      *Kube
	ConfigDir string // the user's configuration directory

	who          ociauth.Config
	Words        []string // the words of the command line
	getenv       func(string) string
	tenancies    []string
	Compartments []string
}

// Bind adds the flags that all commands share. getenv reads the environment, which sets
// the defaults of some.
func (s *Session) Bind(flags *pflag.FlagSet, getenv func(string) string) {
	s.Kube.bind(flags)
	s.bindIdentity(flags, getenv)
	flags.StringArrayVar(&s.tenancies, "tenancy", nil,
		"`NAMESPACE=OCID` of another tenancy with images. May be repeated.")
	flags.StringArrayVar(&s.Compartments, "compartment", nil,
		"`OCID` of a compartment to look in, instead of the whole tenancy. May be repeated.")
	s.Timeout = 2 * time.Minute
	cli.BindDuration(flags, &s.Timeout, "timeout", "`TIME` after which the command stops; 0 means never.")
}

// Compartment returns the only --compartment, for commands that create something in it.
func (s *Session) Compartment() (string, error) {
	if len(s.Compartments) != 1 {
		return "", cli.Usage("--compartment must name one compartment", "name the repositories' compartment; oci iam compartment list shows the OCIDs")
	}
	return s.Compartments[0], nil
}

// bindIdentity adds the flags of the sign-in to OCI. Their defaults come from the
// environment. Help leaves them out, because it is the same on every machine.
func (s *Session) bindIdentity(flags *pflag.FlagSet, getenv func(string) string) {
	s.who, s.getenv = ociauth.FromEnvironment(getenv), getenv
	text := func(p *string, name, usage string) {
		flags.StringVar(p, name, *p, usage)
		flags.Lookup(name).DefValue = ""
	}
	text(&s.who.Kind, "auth", "`KIND` of sign-in to OCI, as in Oracle's CLI: "+strings.Join(ociauth.Kinds()[:6], ", ")+
		"; or oidc. Default: OCI_CLI_AUTH, else the profile's authentication_type, else api_key.")
	text(&s.who.ConfigFile, "config-file", "OCI configuration `FILE`. Default: OCI_CLI_CONFIG_FILE, else OCI_CONFIG_FILE, else ~/.oci/config.")
	text(&s.who.Profile, "profile", "Profile `NAME` in the configuration file. Default: OCI_CLI_PROFILE.")
	text(&s.who.Region, "region", "`REGION` of OCI. Default: OCI_CLI_REGION, else the profile's.")
	text(&s.who.OIDC.Domain, "oidc-domain", "`URL` of the identity domain that trusts the OIDC token. Default: OCI_DOMAIN_URL.")
	text(&s.who.OIDC.Client, "oidc-client", "`ID` of the application in the identity domain. Default: OCI_OIDC_CLIENT_ID.")
	text(&s.who.OIDC.SecretFile, "oidc-client-secret-file", "`FILE` with the application's secret. Default: the value of OCI_OIDC_CLIENT_SECRET.")
	text(&s.who.OIDC.TokenFile, "oidc-token-file", "`FILE` with the OIDC token. Default: the value of OCI_OIDC_TOKEN, else the token of the GitHub job.")
}

// ValidateFlags rejects malformed values before the command asks anything.
func (s *Session) ValidateFlags() error {
	switch {
	case s.who.Kind != "" && !slices.Contains(ociauth.Kinds(), s.who.Kind):
		return cli.Usage(fmt.Sprintf("unknown sign-in --auth %q", s.who.Kind), "use one of "+strings.Join(ociauth.Kinds(), ", ")+"; OCI_CLI_AUTH sets the default")
	case s.Timeout < 0:
		return cli.Usage(fmt.Sprintf("--timeout %s is negative", s.Timeout), "use a time such as --timeout 2m")
	}
	if _, err := s.tenancyMap(); err != nil {
		return err
	}
	for _, c := range s.Compartments {
		if !strings.HasPrefix(c, "ocid1.compartment.") && !strings.HasPrefix(c, "ocid1.tenancy.") || !oci.Segment(c) {
			return cli.Usage(fmt.Sprintf("--compartment %q is not the OCID of a compartment", c), "it begins with ocid1.compartment. or ocid1.tenancy.")
		}
	}
	return nil
}

func (s *Session) tenancyMap() (map[string]string, error) {
	m := make(map[string]string, len(s.tenancies))
	for _, t := range s.tenancies {
		namespace, ocid, ok := strings.Cut(t, "=")
		if !ok || !strings.HasPrefix(ocid, "ocid1.tenancy.") || !oci.Segment(ocid) || !oci.Segment(namespace) {
			return nil, cli.Usage(fmt.Sprintf("--tenancy %q is not NAMESPACE=OCID", t), "for instance --tenancy idwpqivumvev=ocid1.tenancy.oc1..aaaa...")
		}
		if _, again := m[namespace]; again {
			return nil, cli.Usage(fmt.Sprintf("--tenancy gives namespace %q twice", namespace), "a namespace belongs to one tenancy")
		}
		m[namespace] = ocid
	}
	return m, nil
}
