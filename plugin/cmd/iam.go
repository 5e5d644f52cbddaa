package cmd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/provider/principal"
	"github.com/oke-sign/oke-sign/provider/signature"
)

type iamOptions struct {
	*global
	cluster      string
	workload     string
	signers      string
	keys         []string
	repositories []string
	scans        bool
	out          output

	allowed []signature.KeyID
}

func newIAM(g *global) *cobra.Command {
	o := &iamOptions{global: g}
	cmd := &cobra.Command{
		Use:   "iam [--cluster OCID] [--workload NAMESPACE/NAME] [--signers GROUP]",
		Short: "Print the IAM policy statements that verifying and signing need",
		Long: `Print statements for policies of OCI's IAM: what OKE's own image policy needs,
what the scanning service needs, and the least that the provider of oke-sign and
people who sign need.

With --cluster alone, those of OKE's own policy are printed; with --workload,
the least for the provider that runs as this service account of the cluster;
with --signers, the least for a group that signs. Without any, all are printed,
with words in capitals to fill in. Nothing is asked of OCI, and nothing is changed.

--compartment, --repository and --key narrow what the statements allow. A list
of repositories narrows what can be read there; OCI lists images and signatures
by compartment only, and that takes a right on the compartment.`,
		Example: `  kubectl oke-sign iam --cluster $CLUSTER

  # For the provider, which verifies with two keys, and in one compartment
  kubectl oke-sign iam --cluster $CLUSTER --workload oke-sign/oke-sign \
    --compartment $COMPARTMENT --key $KEY1,$KEY2

  # The statements alone, for a command that makes the policy
  kubectl oke-sign iam --cluster $CLUSTER -o name`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.cluster, "cluster", "", "`OCID` of the OKE cluster.")
	flags.StringVar(&o.workload, "workload", "", "`NAMESPACE/NAME` of the provider's service account in the cluster.")
	flags.StringVar(&o.signers, "signers", "", "`GROUP` of people or pipelines that sign.")
	flags.StringSliceVar(&o.keys, "key", nil, "`OCID`s of the only keys to allow.")
	flags.StringSliceVar(&o.repositories, "repository", nil, "`NAME`s of the only repositories to allow, such as project01/web or project01*.")
	flags.BoolVar(&o.scans, "scans", false, "Add what the provider needs where images must have been scanned (OKEScannedImages).")
	o.out.bind(flags)
	return cmd
}

func (o *iamOptions) complete() (err error) {
	o.allowed, err = parseKeys(o.keys)
	return err
}

func (o *iamOptions) validate() error {
	namespace, account, ok := strings.Cut(o.workload, "/")
	switch {
	case o.cluster != "" && (!strings.HasPrefix(o.cluster, "ocid1.cluster.") || !principal.Segment(o.cluster)):
		return usage(fmt.Sprintf("--cluster %.120q is not the OCID of a cluster", o.cluster), "it begins with ocid1.cluster.")
	case o.workload != "" && (!ok || !label(namespace) || !label(account)):
		return usage(fmt.Sprintf("--workload %.120q is not NAMESPACE/NAME", o.workload), "for instance --workload oke-sign/oke-sign")
	case o.workload != "" && o.cluster == "":
		return usage("--workload is of a cluster, and --cluster is missing", "add --cluster OCID: without it, the account of that name in any cluster would be let in")
	case o.scans && o.workload == "":
		return usage("--scans is for the provider, and --workload is missing", "add --workload NAMESPACE/NAME; without any flag, all statements are printed")
	case o.signers != "" && strings.Trim(o.signers, lowerLetters+strings.ToUpper(lowerLetters)+"._-/'") != "":
		return usage(fmt.Sprintf("--signers %.120q is no name of a group", o.signers), "for instance --signers image-signers")
	}
	for _, r := range o.repositories {
		if r == "" || strings.Trim(r, lowerLetters+"._-/*") != "" {
			return usage(fmt.Sprintf("--repository %.120q is no name of a repository", r), "for instance --repository project01/web, or 'project01*'")
		}
		if strings.Contains(r, "*") && strings.Contains(r, "/") {
			return usage(fmt.Sprintf("--repository %.120q: IAM puts patterns between slashes, and knows none with a slash inside", r),
				"an asterisk stands for slashes too: write 'project01*' for all below project01")
		}
	}
	return cmp.Or(o.global.validate(), o.out.validate())
}

const lowerLetters = "abcdefghijklmnopqrstuvwxyz0123456789"

// label reports whether s may be the name of a namespace or a service account.
func label(s string) bool {
	return s != "" && len(s) <= 253 && strings.Trim(s, lowerLetters+"-.") == ""
}

// iamStatement is a line of a policy, and what it is for.
type iamStatement struct {
	For       string `json:"for"`
	Statement string `json:"statement"`
}

func (o *iamOptions) run(context.Context) error {
	var all []iamStatement
	add := func(what string, statements []string) {
		for _, s := range statements {
			all = append(all, iamStatement{what, s})
		}
	}
	none := o.cluster+o.workload+o.signers == ""
	if none || o.cluster != "" && o.workload == "" {
		add("OKE's own image policy", o.forCluster())
	}
	if none || o.workload != "" {
		add("the provider of oke-sign, as a workload of the cluster", o.forWorkload())
	}
	if none || o.scans {
		add("the same provider, where images must have been scanned", o.forScans())
	}
	if none || o.signers != "" {
		add("signing images", o.forSigners())
	}
	if none {
		add("the scanning service", o.in("allow service vulnerability-scanning-service to read repos in %s", "allow service vulnerability-scanning-service to read compartments in %s"))
	}
	d := data{value: all}
	for _, s := range all {
		d.names = append(d.names, s.Statement)
	}
	if o.out.format != "table" && o.out.format != "wide" {
		out := o.out
		return out.print(o.streams.Out, d)
	}
	// A table would put them into a column; they are to be copied.
	var text strings.Builder
	before := ""
	for _, s := range all {
		if s.For != before {
			if before != "" {
				text.WriteByte('\n')
			}
			fmt.Fprintf(&text, "# For %s\n", s.For)
			before = s.For
		}
		fmt.Fprintln(&text, printable(s.Statement))
	}
	if _, err := o.streams.Out.Write([]byte(text.String())); err != nil {
		return fmt.Errorf("writing the output: %w", err)
	}
	return nil
}

// in makes a statement for each compartment, or for the tenancy.
func (o *iamOptions) in(statements ...string) []string {
	places := []string{"tenancy"}
	if len(o.compartments) > 0 {
		places = nil
		for _, c := range o.compartments {
			if strings.HasPrefix(c, "ocid1.tenancy.") {
				places = append(places, "tenancy")
			} else {
				places = append(places, "compartment id "+c)
			}
		}
	}
	var all []string
	for _, s := range statements {
		for _, place := range places {
			all = append(all, fmt.Sprintf(s, place))
		}
	}
	return all
}

func (o *iamOptions) forCluster() []string {
	cluster := cmp.Or(o.cluster, "CLUSTER_OCID")
	return o.in("Allow any-user to use keys in %s where request.user.id="+cluster, "Allow any-user to read repos in %s where request.user.id="+cluster)
}

// forWorkload is what the provider asks OCI for and nothing else: it lists images
// and signatures, looks images up, and reads keys. It never signs.
func (o *iamOptions) forWorkload() []string {
	who := o.workloadIs()
	return slices.Concat(o.readRepositories("any-user", who), o.onKeys("any-user", "{KEY_INSPECT, KEY_READ}", who))
}

// forScans is what it asks for besides where a constraint asks for scans: results,
// and the targets that say which registry they are about. Both lie in the target's
// compartment.
func (o *iamOptions) forScans() []string {
	where := " in %s where all {" + strings.Join(o.workloadIs(), ", ") + "}"
	return o.in("Allow any-user to read container-scan-results"+where, "Allow any-user to read container-scan-targets"+where)
}

// workloadIs are the conditions that only the workload meets.
func (o *iamOptions) workloadIs() []string {
	namespace, account, _ := strings.Cut(cmp.Or(o.workload, "NAMESPACE/SERVICE_ACCOUNT"), "/")
	return []string{
		"request.principal.type = 'workload'",
		"request.principal.namespace = '" + namespace + "'",
		"request.principal.service_account = '" + account + "'",
		"request.principal.cluster_id = '" + cmp.Or(o.cluster, "CLUSTER_OCID") + "'",
	}
}

func (o *iamOptions) forSigners() []string {
	group := "group " + cmp.Or(o.signers, "GROUP")
	return slices.Concat(
		o.readRepositories(group, nil),
		o.onRepositories(group, "{REPOSITORY_UPDATE}", nil),
		o.onKeys(group, "{KEY_INSPECT, KEY_READ, KEY_SIGN}", nil))
}

// readRepositories lets somebody list and read. OCI decides on a list before it
// knows what will be in it, so that no list of repositories can narrow that.
func (o *iamOptions) readRepositories(who string, where []string) []string {
	if len(o.repositories) == 0 {
		return o.in("Allow " + who + " to {REPOSITORY_INSPECT, REPOSITORY_READ} in %s" + when(where))
	}
	return append(o.in("Allow "+who+" to {REPOSITORY_INSPECT} in %s"+when(where)), o.onRepositories(who, "{REPOSITORY_READ}", where)...)
}

func (o *iamOptions) onRepositories(who, what string, where []string) []string {
	return o.on(who, what, where, "target.repo.name", o.repositories)
}

func (o *iamOptions) onKeys(who, what string, where []string) []string {
	keys := make([]string, len(o.allowed))
	for i, k := range o.allowed {
		keys[i] = k.String()
	}
	return o.on(who, what, where, "target.key.id", keys)
}

// on makes a statement for each value of a variable, or one for any.
func (o *iamOptions) on(who, what string, where []string, variable string, values []string) []string {
	if len(values) == 0 {
		return o.in("Allow " + who + " to " + what + " in %s" + when(where))
	}
	var all []string
	for _, v := range values {
		quoted := "'" + v + "'"
		if strings.Contains(v, "*") {
			quoted = "/" + v + "/"
		}
		all = append(all, o.in("Allow "+who+" to "+what+" in %s"+when(append(slices.Clone(where), variable+" = "+quoted)))...)
	}
	return all
}

// when writes conditions that all have to hold.
func when(conditions []string) string {
	switch len(conditions) {
	case 0:
		return ""
	case 1:
		return " where " + conditions[0]
	}
	return " where all {" + strings.Join(conditions, ", ") + "}"
}
