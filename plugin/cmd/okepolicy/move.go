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

// importedName is the name of the constraints of an import.
const importedName = "oke-cluster-policy"

type clusterImportOptions struct {
	clusterPolicyOptions
	mode  string
	apply bool
}

func newImport(s *connect.Session) *cobra.Command {
	o := &clusterImportOptions{clusterPolicyOptions: clusterPolicyOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Convert the OKE image policy into constraints",
		Long: `Print constraints for Gatekeeper with the same effect as the OKE image policy:
the same keys, digests instead of tags, break-glass honored, and images of other
registries allowed. Their name is ` + importedName + `.

With --apply the command puts them into the cluster, and replaces those of an
earlier import. It does not change the OKE image policy. While both are on, a
Pod must satisfy both.`,
		Example: `  # Try it without denying anything, read the audit, then enforce it
  kubectl oke-sign cluster-policy import --mode dryrun --apply
  kubectl oke-sign cluster-policy import --mode deny --apply

  # Into a repository, for GitOps
  kubectl oke-sign cluster-policy import --cluster $CLUSTER > policy.yaml`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.validate(), o.ValidateFlags()); err != nil {
				return err
			}
			return o.work(cmd.Context(), o.move)
		},
	}
	flags := cmd.Flags()
	o.cluster.Bind(flags)
	o.mode = constraint.Deny
	flags.Var(cli.NewWord(&o.mode, constraint.Modes()...), "mode", "What happens to a forbidden image, a `MODE`: deny, warn, or dryrun (only counted).")
	flags.BoolVar(&o.apply, "apply", false, "Put the constraints into the cluster of the kubeconfig context.")
	cli.BindYes(flags, &o.yes, "")
	cli.BindDryRun(flags, &o.dryRun, "lets the cluster check it; with --apply")
	flags.BoolVar(&o.allowAny, "allow-any", false, "Import a policy that lists no key and admits every image of OCI Registry.")
	return cmd
}

func (o *clusterImportOptions) validate() error {
	if o.dryRun.On() && !o.apply {
		return cli.Usage("--dry-run is for --apply", "omit --dry-run: without --apply the command only prints the constraints")
	}
	return nil
}

func (o *clusterImportOptions) move(ctx context.Context, _ *connect.Cloud, _ *okecluster.Client, found okecluster.Cluster) error {
	if len(found.Policy.Keys) == 0 && !o.allowAny {
		return cli.Usage("the OKE image policy lists no key: it admits every image of OCI Registry, signed or not, and so would the constraints", "list keys with cluster-policy set --key KEY first, or add --allow-any if you want that")
	}
	if !found.Policy.Enabled {
		o.Remark("the OKE image policy is off; its rules are imported anyway")
	}
	constraints := imported(found.Policy, o.mode)
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
	if !o.yes && !o.dryRun.On() && o.Interactive() {
		if err := o.Confirm(ctx, fmt.Sprintf("Apply %s with %s, mode %s?", importedName, cli.Count(len(found.Policy.Keys), "key"), o.mode)); err != nil {
			return err
		}
	}
	if !o.Kube.Leads() {
		return &cli.HintedError{What: connect.ErrNoCluster, Hint: "run the command without --apply to print the constraints"}
	}
	if err := o.applied(ctx, constraints); err != nil || o.dryRun.On() {
		return err
	}
	if found.Policy.Enabled {
		o.Remark("the OKE image policy is still on; kubectl oke-sign cluster-policy disable switches it off")
	}
	return nil
}

// applied puts the constraints into the cluster, or checks or shows them in a dry run.
func (o *clusterImportOptions) applied(ctx context.Context, constraints []*unstructured.Unstructured) error {
	objects, err := o.Kube.Objects()
	if err != nil {
		return err
	}
	options, done := metav1.ApplyOptions{FieldManager: connect.FieldManager}, "applied"
	if o.dryRun.On() {
		options.DryRun, done = []string{metav1.DryRunAll}, fmt.Sprintf("applied (%s dry run)", o.dryRun)
	}
	for _, c := range constraints {
		if o.dryRun != cli.DryRunClient {
			_, err = objects.Resource(enforcement.Resource(c.GetKind())).Apply(ctx, c.GetName(), c, options)
		}
		if err != nil {
			err = fmt.Errorf("applying %s/%s: %w", c.GetKind(), c.GetName(), err)
		}
		if apierrors.IsNotFound(err) {
			return &cli.HintedError{What: err, Hint: "install the ConstraintTemplates of oke-sign first, then run the command again"}
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(o.Streams.Out, "%s/%s %s\n", strings.ToLower(c.GetKind()), c.GetName(), done); err != nil {
			return fmt.Errorf("writing the output: %w", err)
		}
	}
	return nil
}

// imported returns constraints with the effect of the OKE image policy. They are not part
// of oke-sign's image policy, and do not have its label.
func imported(p okecluster.Policy, mode string) []*unstructured.Unstructured {
	same := constraint.Policy{
		Mode: mode, OtherRegistries: constraint.Allow, Digests: constraint.OCIRegistry,
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
		Short: "Copy the keys of the image policy to the OKE image policy",
		Long: `Copy the keys of the cluster's OKESignedImages constraint to the OKE image
policy, which stays on or off. The OKE image policy has no match, no exemptions
and no rule for other registries. The command skips such settings, and says so.
It waits as cluster-policy set does.`,
		Example: `  # Back to the OKE image policy
  kubectl oke-sign cluster-policy export
  kubectl oke-sign cluster-policy enable`,
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

// exported returns the keys of the OKESignedImages constraints.
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
		return nil, &cli.HintedError{What: errors.New("the cluster does not have that OKESignedImages constraint"), Hint: "kubectl get okesignedimages lists all"}
	}
	for _, c := range all[1:] {
		if !slices.Equal(c.Keys, all[0].Keys) {
			return nil, cli.Usage(fmt.Sprintf("%s list different keys, and the OKE image policy has one list", enforcement.ConstraintNames(all)), "name one with --constraint NAME")
		}
	}
	if len(all[0].Keys) == 0 && !o.allowAny {
		return nil, cli.Usage(all[0].String()+" lists no key: with that list the OKE image policy would admit every image of OCI Registry, signed or not", "add --allow-any if you want that")
	}
	o.Remark("the keys of %s; the OKE image policy is for the whole cluster, exempts nothing and ignores other registries", enforcement.ConstraintNames(all))
	return all[0].Keys, nil
}
