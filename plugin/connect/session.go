// Package connect turns flags and environment into clients: who asks OCI, and which
// cluster. It reads nothing before a command asks for a client, apart from flags.
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

// Session holds the flags that all commands share: who asks OCI, and where.
type Session struct {
	cli.Terminal
	Kube      *Kube
	ConfigDir string // of the user

	who          ociauth.Config
	Words        []string // of the command line
	getenv       func(string) string
	tenancies    []string
	Compartments []string
}

// Bind adds the flags that all commands share. getenv reads the environment, which has
// defaults for some of them.
func (s *Session) Bind(flags *pflag.FlagSet, getenv func(string) string) {
	s.Kube.bind(flags)
	s.bindIdentity(flags, getenv)
	flags.StringArrayVar(&s.tenancies, "tenancy", nil,
		"`NAMESPACE=OCID` of another tenancy that images may lie in. May be repeated.")
	flags.StringArrayVar(&s.Compartments, "compartment", nil,
		"`OCID` of a compartment to look in, instead of the whole tenancy. May be repeated.")
	flags.DurationVar(&s.Timeout, "timeout", 2*time.Minute, "`TIME` after which the command gives up; 0 means never.")
}

// Compartment is the one of --compartment, for commands that make something in
// it.
func (s *Session) Compartment() (string, error) {
	if len(s.Compartments) != 1 {
		return "", cli.Usage("--compartment must name one compartment", "it is where the repositories lie; oci iam compartment list shows the OCIDs")
	}
	return s.Compartments[0], nil
}

// bindIdentity binds the flags that say who asks OCI. Their defaults are the values
// of the environment, which are not the same on every machine; help is.
func (s *Session) bindIdentity(flags *pflag.FlagSet, getenv func(string) string) {
	s.who, s.getenv = ociauth.FromEnvironment(getenv), getenv
	text := func(p *string, name, usage string) {
		flags.StringVar(p, name, *p, usage)
		flags.Lookup(name).DefValue = ""
	}
	text(&s.who.Kind, "auth", "How to sign in to OCI, a `KIND` by the names of Oracle's CLI: "+strings.Join(ociauth.Kinds()[:6], ", ")+
		"; or oidc. Default: OCI_CLI_AUTH, else the profile's authentication_type, else api_key.")
	text(&s.who.ConfigFile, "config-file", "OCI configuration `FILE`; ~/.oci/config unless OCI_CLI_CONFIG_FILE or OCI_CONFIG_FILE names another.")
	text(&s.who.Profile, "profile", "Profile `NAME` in the configuration file; OCI_CLI_PROFILE sets the default.")
	text(&s.who.Region, "region", "`REGION` to work in, instead of the profile's; OCI_CLI_REGION sets the default.")
	text(&s.who.OIDC.Domain, "oidc-domain", "`URL` of the identity domain that trusts the OIDC token; OCI_DOMAIN_URL sets the default.")
	text(&s.who.OIDC.Client, "oidc-client", "`ID` of the application in the identity domain; OCI_OIDC_CLIENT_ID sets the default.")
	text(&s.who.OIDC.SecretFile, "oidc-client-secret-file", "`FILE` with the application's secret, instead of OCI_OIDC_CLIENT_SECRET.")
	text(&s.who.OIDC.TokenFile, "oidc-token-file", "`FILE` with the OIDC token, instead of OCI_OIDC_TOKEN or the token of a job of GitHub.")
}

// ValidateFlags rejects values that can be seen to be wrong before anything is asked.
func (s *Session) ValidateFlags() error {
	switch {
	case s.who.Kind != "" && !slices.Contains(ociauth.Kinds(), s.who.Kind):
		return cli.Usage(fmt.Sprintf("--auth %q is not known", s.who.Kind), "use one of "+strings.Join(ociauth.Kinds(), ", ")+"; OCI_CLI_AUTH sets the default")
	case s.Timeout < 0:
		return cli.Usage(fmt.Sprintf("--timeout %s lies in the past", s.Timeout), "use a time such as --timeout 2m")
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
