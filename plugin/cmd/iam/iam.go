// Package iam has kubectl oke-sign iam: the statements of OCI's IAM that the provider,
// signers and pipelines need, as text, as JSON and as Terraform.
package iam

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/signature"
)

type iamOptions struct {
	*connect.Session
	environment  string
	cluster      string
	workload     string
	signers      string
	dynamicGroup string
	runsIn       string
	project      string
	branch       string
	issuer       string
	audience     string
	keys         []string
	repositories []string
	scans        bool
	out          cli.Output

	allowed []signature.KeyID
	blanks  []string // words to fill in, for Terraform
}

// New makes the command.
func New(s *connect.Session) *cobra.Command {
	o := &iamOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "iam [--for ENVIRONMENT] [--cluster OCID]",
		Short: "Print the IAM statements that verifying and signing need",
		Long: `Print statements for OCI IAM policies: those of the OKE image policy, those of
the scanning service, and the least that the provider and signers need. The
command asks OCI nothing and changes nothing.

With --cluster alone, it prints those of the OKE image policy; with --workload,
the least for a provider with this service account of the cluster; with
--signers, the least for a group that signs. Without any, it prints all, with
words in capitals to fill in.

With --for, it prints what signing needs in this environment:
  cloud-shell  statements for a group of people
  devops       dynamic groups of build and deployment pipelines, and statements
  instance     a dynamic group of compute instances, and statements
  workload     statements for a service account of an enhanced OKE cluster
  github       an application, a service user and an Identity Propagation
  gitlab       Trust of an identity domain, and statements for their group

--compartment, --repository and --key narrow what the statements allow.
--repository narrows what can be read. It cannot narrow lists: OCI lists images
and signatures by compartment, which takes a right on the compartment.

-o terraform prints resources of Oracle's Terraform provider. A word in capitals
becomes a variable.`,
		Example: `  kubectl oke-sign iam --cluster $CLUSTER

  # For the provider, with two keys, in one compartment
  kubectl oke-sign iam --cluster $CLUSTER --workload oke-sign/oke-sign \
    --compartment $COMPARTMENT --key $KEY1,$KEY2

  # For jobs of one GitHub repository, on one branch, as Terraform
  kubectl oke-sign iam --for github --project octo/web --branch main \
    --compartment $COMPARTMENT --key $KEY1 -o terraform > iam.tf

  # The statements alone, for a command that creates the policy
  kubectl oke-sign iam --cluster $CLUSTER -o name`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(cmd); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.bind(cmd.Flags())
	return cmd
}

func (o *iamOptions) bind(flags *pflag.FlagSet) {
	flags.StringVar(&o.environment, "for", "", "`ENVIRONMENT` that signs: "+strings.Join(Environments, ", ")+".")
	flags.StringVar(&o.cluster, "cluster", "", "`OCID` of the OKE cluster.")
	flags.StringVar(&o.workload, "workload", "", "`NAMESPACE/NAME` of the provider's service account in the cluster, or of the jobs' with --for workload.")
	flags.StringVar(&o.signers, "signers", "", "`GROUP` of people or pipelines that sign.")
	flags.StringVar(&o.dynamicGroup, "dynamic-group", "oke-sign", "`NAME` of the dynamic group to create, with --for instance or devops.")
	flags.StringVar(&o.runsIn, "runs-in", "", "`OCID` of the compartment of the instances or pipelines, or of the one instance.")
	flags.StringVar(&o.project, "project", "", "`OWNER/NAME` of the GitHub repository or GitLab project whose jobs sign.")
	flags.StringVar(&o.branch, "branch", "main", "`NAME` of the branch whose jobs sign.")
	flags.StringVar(&o.issuer, "issuer", "", "`URL` of the jobs' token issuer. Default: that of GitHub or GitLab.")
	flags.StringVar(&o.audience, "audience", "", "`AUDIENCE` of the jobs' tokens. GitHub's is OCI_OIDC_AUDIENCE, or https:// and the host of the identity domain.")
	keyring.BindKeys(flags, &o.keys, "to allow, and no others")
	flags.StringSliceVar(&o.repositories, "repository", nil, "`NAME`s of the only repositories to allow, such as project01/web or project01*. May be repeated.")
	flags.BoolVar(&o.scans, "scans", false, "Add what the provider needs for OKEScannedImages.")
	o.out.BindFormats(flags, cli.FormatsAnd("terraform"))
}

// maxKeys bounds --key, because each key has a statement.
const maxKeys = 20

func (o *iamOptions) complete(cmd *cobra.Command) error {
	for _, name := range []string{"for", "cluster", "workload", "signers", "dynamic-group", "runs-in", "project", "branch", "issuer", "audience", "key", "repository"} {
		if err := cli.NotEmpty(cmd, name); err != nil {
			return err
		}
	}
	if err := o.fitting(cmd); err != nil {
		return err
	}
	return keyring.CheckKeys(o.keys, maxKeys)
}

func (o *iamOptions) validate() error {
	namespace, account, ok := strings.Cut(o.workload, "/")
	switch {
	case o.cluster != "" && (!strings.HasPrefix(o.cluster, "ocid1.cluster.") || !oci.Segment(o.cluster)):
		return cli.Usage(fmt.Sprintf("--cluster %.120q is not the OCID of a cluster", o.cluster), "it begins with ocid1.cluster.")
	case o.workload != "" && (!ok || !label(namespace) || !label(account)):
		return cli.Usage(fmt.Sprintf("--workload %.120q is not NAMESPACE/NAME", o.workload), "for instance --workload oke-sign/oke-sign")
	case o.workload != "" && o.cluster == "":
		return cli.Usage("--workload is of a cluster, and --cluster is missing", "add --cluster OCID: without it, the account of that name in any cluster would be let in")
	case o.scans && o.workload == "":
		return cli.Usage("--scans is for the provider, and --workload is missing", "add --workload NAMESPACE/NAME; without any flag, all statements are printed")
	case o.signers != "" && (len(o.signers) > maxName || !groupName.MatchString(o.signers)):
		return cli.Usage(fmt.Sprintf("--signers %.120q is no name of a group", o.signers), "for instance --signers image-signers, or \"'Domain'/'image-signers'\" of another identity domain than Default")
	}
	for _, r := range o.repositories {
		if r == "" || strings.Trim(r, lowerLetters+"._-/*") != "" {
			return cli.Usage(fmt.Sprintf("--repository %.120q is no name of a repository", r), "for instance --repository project01/web, or 'project01*'")
		}
		if strings.Contains(r, "*") && strings.Contains(r, "/") {
			return cli.Usage(fmt.Sprintf("--repository %.120q: IAM puts patterns between slashes, and knows none with a slash inside", r),
				"an asterisk stands for slashes too: write 'project01*' for all below project01")
		}
	}
	return cmp.Or(o.validateFor(), o.ValidateFlags(), o.out.ValidateFormats(cli.FormatsAnd("terraform")))
}

const lowerLetters = "abcdefghijklmnopqrstuvwxyz0123456789"

// groupName matches the name of a group in statements: with or without quotes, and
// with or without the name of its identity domain.
var groupName = regexp.MustCompile(`^(?:[A-Za-z0-9._-]+/|'[A-Za-z0-9._-]+'/)?(?:[A-Za-z0-9._-]+|'[A-Za-z0-9._-]+')$`)

// label reports whether s can be the name of a namespace or a service account.
func label(s string) bool {
	return s != "" && len(s) <= 253 && strings.Trim(s, lowerLetters+"-.") == ""
}

func (o *iamOptions) run(ctx context.Context) (err error) {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	if o.allowed, err = keyring.FindAll(ctx, o.Session, nil, o.keys); err != nil {
		return cli.StopCause(ctx, err)
	}
	all := o.needs()
	d := cli.Document{Value: all}
	for _, n := range all {
		if n.Statement != "" {
			d.Names = append(d.Names, n.Statement)
		}
	}
	text := ""
	switch o.out.Format {
	case "table", "wide":
		text = iamText(all)
	case "terraform":
		text = o.terraform(all)
	default:
		out := o.out
		return out.Print(o.Streams.Out, d)
	}
	if _, err := io.WriteString(o.Streams.Out, text); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	if o.environment == "" && o.cluster != "" && o.workload == "" {
		o.Remark("The provider needs other statements: kubectl oke-sign iam --cluster %s --workload oke-sign/oke-sign", o.cluster)
	}
	return nil
}

// needs returns everything that the flags ask for.
func (o *iamOptions) needs() []iamNeed {
	if o.environment != "" {
		return o.needsFor()
	}
	var all []iamNeed
	none := o.cluster+o.workload+o.signers == ""
	if none || o.cluster != "" && o.workload == "" {
		all = append(all, statements("OKE's own image policy", o.grants().forCluster())...)
	}
	if none || o.workload != "" {
		all = append(all, statements("the provider of oke-sign, as a workload of the cluster", o.grants().forWorkload())...)
	}
	if none || o.scans {
		all = append(all, statements("the same provider, where images must have been scanned", o.grants().forScans())...)
	}
	if none || o.signers != "" {
		all = append(all, statements(forSigning, o.grants().forSigners())...)
	}
	if none {
		all = append(all, statements("the scanning service", o.grants().in("allow service vulnerability-scanning-service to read repos in %s", "allow service vulnerability-scanning-service to read compartments in %s"))...)
	}
	return all
}

// iamText writes needs under headings. They are for copying, so they are not in a
// table.
func iamText(all []iamNeed) string {
	var text strings.Builder
	before := ""
	for _, n := range all {
		if n.For != before {
			if before != "" {
				text.WriteByte('\n')
			}
			fmt.Fprintf(&text, "# For %s\n", n.For)
			before = n.For
		}
		for _, line := range n.lines() {
			fmt.Fprintln(&text, cli.Printable(line))
		}
	}
	return text.String()
}

func (o *iamOptions) grants() grants { return grants{o} }
