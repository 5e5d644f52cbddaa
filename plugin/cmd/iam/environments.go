package iam

import (
	"cmp"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// Environments are the values of --for: where jobs and people sign.
var Environments = []string{"cloud-shell", "devops", "github", "gitlab", "instance", "workload"}

// flagsFor has the flags of each environment. Flags of the command without --for are
// under "".
var flagsFor = map[string][]string{
	"":            {"cluster", "workload", "signers", "scans"},
	"cloud-shell": {"signers"},
	"devops":      {"dynamic-group", "runs-in"},
	"github":      {"signers", "project", "branch", "issuer", "audience"},
	"gitlab":      {"signers", "project", "branch", "issuer", "audience"},
	"instance":    {"dynamic-group", "runs-in"},
	"workload":    {"cluster", "workload"},
}

// fitting rejects flags of other environments, because they would have no effect on
// the output.
func (o *iamOptions) fitting(cmd *cobra.Command) error {
	fit, known := flagsFor[o.environment]
	if !known {
		return cli.Usage(fmt.Sprintf("--for %.120q is not known", o.environment), "use --for "+strings.Join(Environments, ", --for "))
	}
	for _, name := range []string{"cluster", "workload", "signers", "scans", "dynamic-group", "runs-in", "project", "branch", "issuer", "audience"} {
		if !cmd.Flags().Changed(name) || slices.Contains(fit, name) {
			continue
		}
		if o.environment == "" {
			return cli.Usage("--"+name+" needs --for", "add --for "+strings.Join(takers(name), " or --for "))
		}
		return cli.Usage("--"+name+" is not for --for "+o.environment, "omit it; --for "+o.environment+" takes --"+strings.Join(fit, ", --"))
	}
	return nil
}

// takers returns the environments that accept a flag.
func takers(flag string) []string {
	var all []string
	for _, s := range Environments {
		if slices.Contains(flagsFor[s], flag) {
			all = append(all, s)
		}
	}
	return all
}

// The names in IAM's statements, rules and claims. No name has a quote, a space or a
// brace, so none can end the text around it.
var (
	plainName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	projectPath = regexp.MustCompile(`^[A-Za-z0-9._@-]+(?:/[A-Za-z0-9._@-]+)+$`)
	branchName  = regexp.MustCompile(`^[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*$`)
	audience    = regexp.MustCompile(`^[A-Za-z0-9._:/@-]+$`)
	urlPath     = regexp.MustCompile(`^[A-Za-z0-9._/-]*$`)
	urlHost     = regexp.MustCompile(`^[a-z0-9.-]+(?::[0-9]+)?$`)
)

const maxName = 255 // bytes

func (o *iamOptions) validateFor() error {
	for flag, value := range map[string]string{"dynamic-group": o.dynamicGroup, "project": o.project, "branch": o.branch, "issuer": o.issuer, "audience": o.audience} {
		if len(value) > maxName {
			return cli.Usage(fmt.Sprintf("--%s has %d characters", flag, len(value)), fmt.Sprintf("it may have %d", maxName))
		}
	}
	switch {
	case !plainName.MatchString(o.dynamicGroup):
		return cli.Usage(fmt.Sprintf("--dynamic-group %.120q is no name of a dynamic group", o.dynamicGroup), "for instance --dynamic-group build-runners")
	case o.runsIn != "" && !o.isEnvironmentOCID(o.runsIn):
		return cli.Usage(fmt.Sprintf("--runs-in %.120q is not the OCID of a compartment", o.runsIn), "it begins with ocid1.compartment., or with ocid1.instance. for --for instance")
	case o.project != "" && (!projectPath.MatchString(o.project) || o.environment == "github" && strings.Count(o.project, "/") != 1):
		return cli.Usage(fmt.Sprintf("--project %.120q is not OWNER/NAME", o.project), "for instance --project octo/web")
	case !branchName.MatchString(o.branch):
		return cli.Usage(fmt.Sprintf("--branch %.120q is no name of a branch", o.branch), "for instance --branch main")
	case o.issuer != "" && !isIssuer(o.issuer):
		return cli.Usage(fmt.Sprintf("--issuer %.120q is no issuer of tokens", o.issuer), "for instance --issuer https://gitlab.example.com")
	case o.audience != "" && !audience.MatchString(o.audience):
		return cli.Usage(fmt.Sprintf("--audience %.120q is no audience", o.audience), "for instance --audience https://cloud.oracle.com")
	}
	return nil
}

// isEnvironmentOCID reports whether s is the OCID of a compartment, or of an instance
// with --for instance.
func (o *iamOptions) isEnvironmentOCID(s string) bool {
	kinds := []string{"ocid1.compartment.", "ocid1.tenancy."}
	if o.environment == "instance" {
		kinds = append(kinds, "ocid1.instance.")
	}
	return oci.Segment(s) && slices.ContainsFunc(kinds, func(kind string) bool { return strings.HasPrefix(s, kind) })
}

// isIssuer reports whether s is an address of an OpenID Connect issuer.
func isIssuer(s string) bool {
	u, err := url.Parse(s)
	return err == nil && s == "https://"+u.Host+u.Path && urlHost.MatchString(u.Host) && urlPath.MatchString(u.Path) && !strings.HasSuffix(s, "/")
}

// dynamicGroup is a group of resources of OCI.
type dynamicGroup struct {
	Name         string `json:"name"`
	MatchingRule string `json:"matchingRule"`
}

// domainApp is a confidential application of an identity domain. The job sends its
// client id and secret with the job's own token.
type domainApp struct {
	Name   string   `json:"name"`
	Grants []string `json:"allowedGrants"`
}

// serviceUser is a user of an identity domain who cannot sign in.
type serviceUser struct {
	Name  string `json:"name"`
	Group string `json:"group"`
}

// propagationTrust says which tokens of an issuer an identity domain exchanges for
// sessions of a service user.
type propagationTrust struct {
	Name              string   `json:"name"`
	Type              string   `json:"type"`
	Issuer            string   `json:"issuer"`
	PublicKeyEndpoint string   `json:"publicKeyEndpoint"`
	ClientClaimName   string   `json:"clientClaimName"`
	ClientClaimValues []string `json:"clientClaimValues"`
	Application       string   `json:"application"`
	ServiceUser       string   `json:"serviceUser"`
	Rule              string   `json:"rule"`
}

// lines returns the lines to type or to copy.
func (n iamNeed) lines() []string {
	switch {
	case n.DynamicGroup != nil:
		return []string{"name: " + n.DynamicGroup.Name, "matching rule: " + n.DynamicGroup.MatchingRule}
	case n.Application != nil:
		return []string{"name: " + n.Application.Name, "grant types: " + strings.Join(n.Application.Grants, ", ")}
	case n.ServiceUser != nil:
		return []string{"name: " + n.ServiceUser.Name, "group: " + n.ServiceUser.Group}
	case n.IdentityTrust != nil:
		t := n.IdentityTrust
		return []string{
			"name: " + t.Name, "type: " + t.Type, "issuer: " + t.Issuer, "public key endpoint: " + t.PublicKeyEndpoint,
			"client claim: " + t.ClientClaimName + " = " + strings.Join(t.ClientClaimValues, ", "),
			"OAuth client: the client id of application " + t.Application,
			"impersonation: service user " + t.ServiceUser + " where " + t.Rule,
		}
	}
	return []string{n.Statement}
}

// needsFor returns what signing needs in the environment of --for.
func (o *iamOptions) needsFor() []iamNeed {
	switch o.environment {
	case "cloud-shell":
		group := "Allow group " + o.grants().or(o.signers, "GROUP")
		return append(statements("Cloud Shell, with a way to the internet to download the plugin",
			[]string{group + " to use cloud-shell in tenancy", group + " to use cloud-shell-public-network in tenancy"}),
			statements(forSigning, o.grants().forSigners())...)
	case "devops":
		return o.grants().forDevOps()
	case "instance":
		rule := "instance.compartment.id = '" + o.grants().or(o.runsIn, "COMPARTMENT_OCID") + "'"
		if strings.HasPrefix(o.runsIn, "ocid1.instance.") {
			rule = "instance.id = '" + o.runsIn + "'"
		}
		return append([]iamNeed{{For: "compute instances: a dynamic group", DynamicGroup: &dynamicGroup{o.dynamicGroup, "All {" + rule + "}"}}},
			statements(forSigning, o.grants().toSign("dynamic-group "+o.dynamicGroup, nil))...)
	case "workload":
		return statements("signing images, as a workload of the cluster", o.grants().toSign("any-user", o.grants().workloadIs()))
	}
	return o.grants().forTokens()
}

// forDevOps distinguishes build pipelines, which sign, from deployment pipelines,
// which verify.
func (g grants) forDevOps() []iamNeed {
	build, deploy := g.dynamicGroup+"-build", g.dynamicGroup+"-deploy"
	in := "resource.compartment.id = '" + g.or(g.runsIn, "COMPARTMENT_OCID") + "'"
	return slices.Concat(
		[]iamNeed{
			{For: "build pipelines: a dynamic group", DynamicGroup: &dynamicGroup{build, "All {resource.type = 'devopsbuildpipeline', " + in + "}"}},
			{For: "deployment pipelines: a dynamic group", DynamicGroup: &dynamicGroup{deploy, "All {resource.type = 'devopsdeploypipeline', " + in + "}"}},
		},
		statements("build pipelines, which sign images", g.toSign("dynamic-group "+build, nil)),
		statements("deployment pipelines, which verify images", g.toVerify("dynamic-group "+deploy, nil)))
}

// forTokens is for jobs with a token of their service that an identity domain
// trusts.
func (g grants) forTokens() []iamNeed {
	name := "oke-sign-" + g.environment
	trust := &propagationTrust{
		Name: name, Type: "JWT", Issuer: g.issuer,
		ClientClaimName: "aud", ClientClaimValues: []string{g.or(g.audience, "AUDIENCE")},
		Application: name, ServiceUser: name,
	}
	owner, project, _ := strings.Cut(g.project, "/")
	path := g.or(owner, "OWNER") + "/" + g.or(project, "NAME")
	if g.environment == "github" {
		trust.Issuer = cmp.Or(g.issuer, "https://token.actions.githubusercontent.com")
		trust.PublicKeyEndpoint = trust.Issuer + "/.well-known/jwks"
		trust.Rule = `sub eq "repo:` + path + `:ref:refs/heads/` + g.branch + `"`
	} else {
		trust.Issuer = cmp.Or(g.issuer, "https://gitlab.com")
		trust.PublicKeyEndpoint = trust.Issuer + "/oauth/discovery/keys"
		trust.Rule = `sub eq "project_path:` + path + `:ref_type:branch:ref:` + g.branch + `"`
	}
	group := g.or(g.signers, "GROUP")
	return append([]iamNeed{
		{For: "the identity domain: a confidential application, whose client id and secret the jobs have", Application: &domainApp{name, []string{"client_credentials"}}},
		{For: "the identity domain: a service user", ServiceUser: &serviceUser{name, group}},
		{For: "the identity domain: an Identity Propagation Trust", IdentityTrust: trust},
	}, statements(forSigning, g.forSigners())...)
}
