package okepolicy

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// importedName is of the constraints that stand for OKE's own policy.
const importedName = "oke-cluster-policy"

type clusterImportOptions struct {
	clusterPolicyOptions
	action string
	apply  bool
}

func newImport(s *connect.Session) *cobra.Command {
	o := &clusterImportOptions{clusterPolicyOptions: clusterPolicyOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Make Gatekeeper's policy from OKE's",
		Long: `Print the constraints that ask in Gatekeeper for what OKE's policy asks for: the
same keys, digests instead of tags, the break-glass annotation honoured, and
images of other registries left alone. They are called ` + importedName + `.

With --apply they are put into the cluster, in place of those of an import
before. OKE's policy is left as it is; while both are on, both refuse.`,
		Example: `  # Try it without refusing anything, look at the audit, and then mean it
  kubectl oke-sign cluster-policy import --action dryrun --apply
  kubectl oke-sign cluster-policy import --action deny --apply

  # Into a repository, for GitOps
  kubectl oke-sign cluster-policy import --cluster $CLUSTER > policy.yaml`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(constraint.Modes(), o.action) {
				return cli.Usage(fmt.Sprintf("--action %q is not known", o.action), "use deny, warn or dryrun")
			}
			if err := o.ValidateFlags(); err != nil {
				return err
			}
			return o.work(cmd.Context(), o.move)
		},
	}
	flags := cmd.Flags()
	o.cluster.Bind(flags)
	flags.StringVar(&o.action, "action", "deny", "What the constraints do about a violation: deny, warn or dryrun, an `ACTION` of Gatekeeper's.")
	flags.BoolVar(&o.apply, "apply", false, "Put them into the cluster of the kubeconfig context.")
	flags.BoolVarP(&o.yes, "yes", "y", false, "Do not ask.")
	flags.BoolVar(&o.allowAny, "allow-any", false, "Import a policy that lists no key and admits every image of OCI Registry.")
	return cmd
}

func (o *clusterImportOptions) move(ctx context.Context, _ *connect.Cloud, _ *okecluster.Client, found okecluster.Cluster) error {
	if len(found.Policy.Keys) == 0 && !o.allowAny {
		return cli.Usage("OKE's policy lists no key: it admits every image of OCI Registry, signed or not, and so would Gatekeeper's", "list keys with cluster-policy set --key OCID first, or add --allow-any if that is what is wanted")
	}
	if !found.Policy.Enabled {
		o.Remark("OKE's policy is off; what it would ask for is imported")
	}
	constraints := imported(found.Policy, o.action)
	if !o.apply {
		var text bytes.Buffer
		fmt.Fprintf(&text, "# The image policy of OKE cluster %s, for Gatekeeper.\n", cli.Printable(found.Name))
		for i, c := range constraints {
			if i > 0 {
				text.WriteString("---\n")
			}
			one, err := yaml.Marshal(c.Object)
			if err != nil {
				return err
			}
			text.Write(one)
		}
		if _, err := o.Streams.Out.Write(text.Bytes()); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
		return nil
	}
	if !o.yes && o.Interactive() {
		if err := o.Confirm(ctx, fmt.Sprintf("Apply %s with %s, action %s?", importedName, cli.Count(len(found.Policy.Keys), "key"), o.action)); err != nil {
			return err
		}
	}
	if !o.Kube.Leads() {
		return &cli.HintedError{What: connect.ErrNoCluster, Hint: "leave --apply out to print the constraints"}
	}
	objects, err := o.Kube.Objects()
	if err != nil {
		return err
	}
	for _, c := range constraints {
		_, err := objects.Resource(enforcement.Resource(c.GetKind())).Apply(ctx, c.GetName(), c, metav1.ApplyOptions{FieldManager: connect.FieldManager})
		if err != nil {
			err = fmt.Errorf("applying %s/%s: %w", c.GetKind(), c.GetName(), err)
		}
		if apierrors.IsNotFound(err) {
			return &cli.HintedError{What: err, Hint: "the ConstraintTemplates have to be installed first; run the same command again after"}
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(o.Streams.Out, "%s/%s applied\n", strings.ToLower(c.GetKind()), c.GetName()); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	}
	if found.Policy.Enabled {
		o.Remark("OKE's own policy is still on; kubectl oke-sign cluster-policy disable switches it off")
	}
	return nil
}

// imported are the constraints that ask for what OKE's policy asks for. They are no
// part of the cluster's own image policy, and have not its label.
func imported(p okecluster.Policy, action string) []*unstructured.Unstructured {
	same := constraint.Policy{
		Mode: action, OtherRegistries: constraint.Allow, Digests: constraint.OCIRegistry,
		BreakGlass: constraint.Honor, Provider: constraint.Default().Provider,
	}
	for _, k := range p.Keys {
		same.Keys = append(same.Keys, k.String())
	}
	var found []*unstructured.Unstructured
	for _, o := range same.Constraints() {
		if o.GetLabels()[constraint.Label] == string(constraint.Pods) {
			o.SetName(importedName)
			o.SetLabels(nil)
			found = append(found, o)
		}
	}
	return found
}

func newExport(s *connect.Session) *cobra.Command {
	o := &clusterPolicyOptions{Session: s}
	from := ""
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Put the keys of Gatekeeper's policy into OKE's",
		Long: `Put the keys of the cluster's OKESignedImages constraint into OKE's policy, and
leave whether that is on as it is. What OKE's policy cannot say is said and left
out: where a constraint matches, what it exempts, what it asks of other
registries. It waits as cluster-policy set does.`,
		Example: `  # Back to OKE's own policy
  kubectl oke-sign cluster-policy export && kubectl oke-sign cluster-policy enable`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "constraint"), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			ctx, cancel := o.WithTimeout(cmd.Context())
			keys, err := o.exported(ctx, from)
			cancel()
			if err != nil {
				return err
			}
			return o.change(cmd, func(p okecluster.Policy) okecluster.Policy {
				p.Keys = keys
				return p
			})
		},
	}
	cmd.Flags().StringVar(&from, "constraint", "", "`NAME` of the constraint, if several list different keys.")
	o.bindChange(cmd.Flags())
	return cmd
}

// exported are the keys that Gatekeeper's policy lists.
func (o *clusterPolicyOptions) exported(ctx context.Context, name string) ([]signature.KeyID, error) {
	all, err := enforcement.ReadSignedImages(ctx, o.Session)
	if err != nil {
		return nil, err
	}
	if name != "" {
		all = slices.DeleteFunc(all, func(c enforcement.SignedImages) bool { return c.Name != name })
	} else {
		all = enforcement.Decisive(all)
	}
	if len(all) == 0 {
		return nil, &cli.HintedError{What: errors.New("the cluster has no such OKESignedImages constraint"), Hint: "kubectl get okesignedimages shows those there are"}
	}
	for _, c := range all[1:] {
		if !slices.Equal(c.Keys, all[0].Keys) {
			return nil, cli.Usage(fmt.Sprintf("%s list different keys, and OKE's policy has one list", enforcement.ConstraintNames(all)), "name one with --constraint NAME")
		}
	}
	if len(all[0].Keys) == 0 && !o.allowAny {
		return nil, cli.Usage(all[0].String()+" lists no key: with its list OKE's policy would admit every image of OCI Registry, signed or not", "add --allow-any if that is what is wanted")
	}
	o.Remark("the keys of %s; OKE's policy is for the whole cluster, exempts nothing and leaves other registries alone", enforcement.ConstraintNames(all))
	return all[0].Keys, nil
}
