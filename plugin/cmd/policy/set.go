package policy

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/gatekeeper"
	"github.com/oke-sign/oke-sign/plugin/simulate"
	"github.com/oke-sign/oke-sign/plugin/workload"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
)

// policyFlags are the flags that set a policy.
type policyFlags struct {
	flags *pflag.FlagSet

	keys   []string
	policy constraint.Policy
	rules  constraint.BreakGlassRules
}

func (f *policyFlags) bind(flags *pflag.FlagSet) {
	f.flags = flags
	p, r := &f.policy, &f.rules
	flags.StringSliceVar(&f.keys, "key", nil, "`KEY`s whose signatures count, by OCID or name, five at most. May be repeated.")
	flags.StringVar(&p.Mode, "mode", "", "What happens to a forbidden image, a `MODE`: deny, warn, or dryrun (only counted). A new policy denies.")
	flags.StringVar(&p.OtherRegistries, "other-registries", "", "What happens to images of other registries, a `WORD`: Deny, as in a new policy, or Allow.")
	flags.StringSliceVar(&p.ExemptImages, "exempt-image", nil, "Images that need neither signature nor digest, a `PATTERN` such as docker.io/library/**. May be repeated.")
	flags.StringVar(&p.Digests, "digests", "", "`WHICH` images must be referenced by digest: All, as in a new policy, OCIRegistry or None.")
	flags.BoolVar(&p.WarnWorkloads, "warn-workloads", false, "Warn of workloads whose Pods would be denied. A new policy does.")
	flags.StringVar(&p.BreakGlass, "break-glass", "", "Whether the policy honors break-glass, a `WORD`: Honor, as in a new policy, or Ignore.")
	flags.StringSliceVar(&r.Users, "break-glass-user", nil, "`USER`s who may use break-glass; if nobody is named, anybody may. May be repeated.")
	flags.StringSliceVar(&r.Groups, "break-glass-group", nil, "`GROUP`s whose members may. May be repeated.")
	flags.StringSliceVar(&r.ServiceAccounts, "break-glass-account", nil, "Service accounts that may, as `NS/NAME`. May be repeated.")
	flags.BoolVar(&r.RequireReason, "break-glass-reason", false, "Require a reason for break-glass.")
	flags.BoolVar(&r.RequireDigest, "break-glass-digest", false, "Require images under break-glass to be referenced by digest.")
	flags.StringVar(&r.MaxDuration, "break-glass-max", "", "Longest `TIME` of a break-glass use, such as 90m or 8h.")
	flags.BoolVar(&r.Report, "break-glass-report", false, "Warn of every use of break-glass. A new policy does.")
	flags.StringSliceVar(&p.Scope.Namespaces, "namespaces", nil, "`NAMESPACES` that the policy applies to, such as prod,shop-*; all unless given.")
	flags.StringSliceVar(&p.Scope.ExcludedNamespaces, "exclude-namespaces", nil, "`NAMESPACES` that the policy does not apply to; kube-system and those of Gatekeeper and the provider in a new policy.")
	flags.StringVar(&p.Scope.NamespaceSelector, "namespace-selector", "", "Label `SELECTOR` for the namespaces that the policy applies to.")
	flags.StringVar(&p.Scope.PodSelector, "pod-selector", "", "Label `SELECTOR` for the Pods that the policy applies to. The creator of a Pod chooses its labels.")
	flags.StringVar(&p.Provider, "provider", "", "`NAME` of the Provider that Gatekeeper asks; oke-sign unless given.")
}

// given reports whether the command line has any of the flags.
func (f *policyFlags) given() bool {
	changed := false
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&policyFlags{}).bind(own)
	own.VisitAll(func(flag *pflag.Flag) { changed = changed || f.flags.Changed(flag.Name) })
	return changed
}

func (f *policyFlags) validate() error {
	p := &f.policy
	for _, word := range []struct {
		flag  string
		value *string
		words []string
	}{
		{"mode", &p.Mode, constraint.Modes()},
		{"other-registries", &p.OtherRegistries, []string{constraint.Refuse, constraint.Allow}},
		{"digests", &p.Digests, []string{constraint.All, constraint.OCIRegistry, constraint.None}},
		{"break-glass", &p.BreakGlass, []string{constraint.Honor, constraint.Ignore}},
	} {
		if !f.flags.Changed(word.flag) {
			continue
		}
		i := slices.IndexFunc(word.words, func(w string) bool { return strings.EqualFold(w, *word.value) })
		if i < 0 {
			return cli.Usage(fmt.Sprintf("--%s %q is not known", word.flag, *word.value), fmt.Sprintf("use --%s %s", word.flag, strings.Join(word.words, ", or ")))
		}
		*word.value = word.words[i]
	}
	return nil
}

// applyTo returns the policy with the values of the flags. The caller has looked up the
// keys.
func (f *policyFlags) applyTo(p constraint.Policy, keys []string) (constraint.Policy, error) {
	rules := constraint.BreakGlassRules{Report: true}
	if p.BreakGlassRules != nil {
		rules = *p.BreakGlassRules
	}
	switch f.policy.BreakGlass {
	case p.BreakGlass, "":
	case constraint.Honor:
		p.BreakGlass, p.BreakGlassRules = constraint.Honor, &rules
	case constraint.Ignore:
		p.BreakGlass, p.BreakGlassRules = constraint.Ignore, nil
	}
	ruled := false
	f.flags.Visit(func(flag *pflag.Flag) {
		ruled = ruled || strings.HasPrefix(flag.Name, "break-glass-")
		switch flag.Name {
		case "key":
			p.Keys = keys
		case "mode":
			p.Mode = f.policy.Mode
		case "other-registries":
			p.OtherRegistries = f.policy.OtherRegistries
		case "exempt-image":
			p.ExemptImages = f.policy.ExemptImages
		case "digests":
			p.Digests = f.policy.Digests
		case "warn-workloads":
			p.WarnWorkloads = f.policy.WarnWorkloads
		case "break-glass-user":
			rules.Users = f.rules.Users
		case "break-glass-group":
			rules.Groups = f.rules.Groups
		case "break-glass-account":
			rules.ServiceAccounts = f.rules.ServiceAccounts
		case "break-glass-reason":
			rules.RequireReason = f.rules.RequireReason
		case "break-glass-digest":
			rules.RequireDigest = f.rules.RequireDigest
		case "break-glass-max":
			rules.MaxDuration = f.rules.MaxDuration
		case "break-glass-report":
			rules.Report = f.rules.Report
		case "namespaces":
			p.Scope.Namespaces = f.policy.Scope.Namespaces
		case "exclude-namespaces":
			p.Scope.ExcludedNamespaces = f.policy.Scope.ExcludedNamespaces
		case "namespace-selector":
			p.Scope.NamespaceSelector = f.policy.Scope.NamespaceSelector
		case "pod-selector":
			p.Scope.PodSelector = f.policy.Scope.PodSelector
		case "provider":
			p.Provider = f.policy.Provider
		}
	})
	if ruled {
		p.BreakGlassRules = &rules
	}
	if err := p.Validate(); err != nil {
		return constraint.Policy{}, cli.Usage(strings.ReplaceAll(err.Error(), "\n", "; "), "see kubectl oke-sign policy set --help")
	}
	return p, nil
}

type policySetOptions struct {
	changeOptions
	policyFlags
}

func newSet(s *connect.Session) *cobra.Command {
	o := &policySetOptions{changeOptions: changeOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "set [--key KEY]... [--mode MODE] [...]",
		Short: "Make an image policy, or change its settings",
		Long: `Make an image policy, or change its settings. Settings without a flag stay as
they are. A list replaces the old list, and an empty list removes it. A new
policy exempts kube-system and the namespaces of Gatekeeper and the provider, as
the chart oke-sign-policy does; --exclude-namespaces replaces them. With
--gitops, -f names manifests whose policy is changed instead of the cluster's.
If no kubeconfig names a cluster, --gitops prints a new policy.

A change that would deny running workloads needs --yes. A change after which the
policy applies to no Pod, or whose effect is unknown, needs it too. A policy
without keys admits every image of OCI Registry, and needs --allow-any.`,
		Example: `  # Only images signed by image-key may run: preview, then warn, then deny
  kubectl oke-sign policy set --key image-key --preview
  kubectl oke-sign policy set --key image-key --mode warn
  kubectl oke-sign policy enable

  # Exempt some namespaces, and let the SRE group use break-glass for a day
  kubectl oke-sign policy set --exclude-namespaces kube-system,dev-* \
    --break-glass-group sre --break-glass-max 24h --break-glass-reason \
    --break-glass-digest

  # For a repository that Argo CD or Flux reads; then change it there
  kubectl oke-sign policy set --key image-key --gitops > policy.yaml
  kubectl oke-sign policy set --mode warn --gitops -f policy.yaml`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.changeOptions.validate(cmd), o.policyFlags.validate()); err != nil {
				return err
			}
			switch {
			case o.allowAny && len(o.keys) > 0:
				return cli.Usage("--key and --allow-any exclude each other", "name keys, or let any image run")
			case !o.allowAny && !o.given():
				return cli.Usage("nothing to set", "for instance --key image-key, or --mode warn")
			}
			return o.change(cmd.Context(), o.edit)
		},
	}
	o.policyFlags.bind(cmd.Flags())
	o.changeOptions.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	o.bindAllowAny(cmd.Flags())
	cmd.Flags().BoolVar(&o.apart, "new", false, "Make a new policy beside constraints that are not managed by this command.")
	return cmd
}

func (o *policySetOptions) edit(ctx context.Context, before Enforced) (*constraint.Policy, error) {
	p := constraint.Default()
	if before.Policy != nil {
		p = before.Policy.Clone()
	} else {
		p.Scope.ExcludedNamespaces = o.exempted(ctx, cmp.Or(o.policy.Provider, p.Provider))
	}
	keys, err := addable(ctx, o.Session, o.keys, p.Keys)
	if err == nil {
		err = sixth(keys)
	}
	if err != nil {
		return nil, err
	}
	if o.allowAny {
		p.Keys = nil
	}
	p, err = o.applyTo(p, keys)
	if err == nil {
		if wrong := schemasAccept(ctx, p); wrong != nil {
			err = cli.Usage(wrong.Error(), "see kubectl oke-sign policy set --help")
		}
	}
	return &p, err
}

// exempted returns the namespaces that a new policy exempts, as the chart oke-sign-policy
// does: kube-system, and those of Gatekeeper and of the provider. A name that no namespace
// has would be free for anybody who may create namespaces.
func (o *policySetOptions) exempted(ctx context.Context, provider string) []string {
	gatekeeper, home := "gatekeeper-system", "oke-sign"
	if !o.Kube.Leads() {
		return []string{"kube-system", gatekeeper, home}
	}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	e := enforcement.Scope(ctx, o.Session, "")
	if e.Webhook != nil && e.Webhook.ClientConfig.Service != nil {
		gatekeeper = e.Webhook.ClientConfig.Service.Namespace
	}
	home = cmp.Or(enforcement.ProviderNamespace(ctx, o.Session, provider), home)
	return slices.DeleteFunc(slices.Compact([]string{"kube-system", gatekeeper, home}), func(name string) bool {
		return e.Unlisted == nil && e.Namespaces[name] == nil
	})
}

// schemasAccept checks a policy against the schemas of its constraints, as the API server
// does.
func schemasAccept(ctx context.Context, p constraint.Policy) error {
	e, err := gatekeeper.New(gatekeeper.Config{})
	if err != nil {
		return err
	}
	defer e.Close()
	return simulate.Load(ctx, workload.Input{Constraints: documentsOf(p.Constraints())}, e)
}

type policyKeyOptions struct{ changeOptions }

func newAddKey(s *connect.Session) *cobra.Command {
	o := &policyKeyOptions{changeOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "add-key KEY...",
		Short: "Add keys to the image policy",
		Long: `Add keys to the image policy, by OCID or by name. Signatures by any of its keys
count. A policy has at most five keys. The command first asks OCI Vault whether
the key can sign images.`,
		Example: `  kubectl oke-sign policy add-key release-key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(cmd, args); err != nil {
				return err
			}
			return o.change(cmd.Context(), func(ctx context.Context, before Enforced) (*constraint.Policy, error) {
				p, err := before.existing()
				if err != nil {
					return nil, err
				}
				keys, err := addable(ctx, o.Session, args, p.Keys)
				for _, k := range keys {
					if !slices.Contains(p.Keys, k) {
						p.Keys = append(p.Keys, k)
					}
				}
				if err == nil {
					err = sixth(p.Keys)
				}
				if len(before.Policy.Keys) == 0 {
					o.Remark("the policy lists no key now, so every image of OCI Registry may run; after this change only signed ones may")
				}
				return &p, err
			})
		},
	}
	o.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	return cmd
}

func (o *policyKeyOptions) validate(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || slices.Contains(args, "") {
		return cli.Usage("no key is named", "for instance kubectl oke-sign policy "+cmd.Name()+" release-key")
	}
	return o.changeOptions.validate(cmd)
}

func newRemoveKey(s *connect.Session) *cobra.Command {
	o := &policyKeyOptions{changeOptions{Session: s}}
	cmd := &cobra.Command{
		Use:   "remove-key KEY...",
		Short: "Remove keys from the image policy",
		Long: `Remove keys from the image policy, by OCID or by name. Signatures by a removed
key do not count. Removing the last key needs --allow-any: a policy without keys
admits every image of OCI Registry.`,
		Example: `  kubectl oke-sign policy remove-key release-key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(cmd, args); err != nil {
				return err
			}
			return o.change(cmd.Context(), func(ctx context.Context, before Enforced) (*constraint.Policy, error) {
				p, err := before.existing()
				if err != nil {
					return nil, err
				}
				gone, err := o.listed(ctx, args, p.Keys)
				p.Keys = slices.DeleteFunc(p.Keys, func(k string) bool { return slices.Contains(gone, k) })
				return &p, err
			})
		},
	}
	o.bind(cmd.Flags())
	o.bindFiles(cmd.Flags())
	o.bindAllowAny(cmd.Flags())
	return cmd
}

// listed returns the keys of a policy that are named. Only its OCID can name a key that
// OCI has deleted.
func (o *policyKeyOptions) listed(ctx context.Context, named, keys []string) ([]string, error) {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	names := make(map[string][]string) // OCIDs by name
	for _, name := range named {
		if !strings.HasPrefix(name, "ocid1.") && len(names) == 0 {
			c, err := o.Connect(ctx)
			for _, ocid := range keys {
				var id signature.KeyID
				if err == nil {
					id, err = signature.ParseKeyID(ocid)
				}
				var key vault.MasterKey
				if err == nil {
					key, err = c.Vault.MasterKey(ctx, id)
				}
				names[key.Name] = append(names[key.Name], ocid)
			}
			if err != nil {
				return nil, &cli.HintedError{What: fmt.Errorf("looking for key %q: %w", name, cli.StopCause(ctx, err)), Hint: "name the key by its OCID; kubectl oke-sign policy get -o wide shows it"}
			}
		}
	}
	var found []string
	for _, name := range named {
		switch ids := names[name]; {
		case slices.Contains(keys, name):
			found = append(found, name)
		case len(ids) > 1:
			return nil, &cli.HintedError{What: fmt.Errorf("%d keys of the policy are named %q: %s", len(ids), name, strings.Join(ids, ", ")), Hint: "name one by its OCID"}
		case len(ids) == 0:
			return nil, &cli.HintedError{What: fmt.Errorf("the policy does not list key %q", name), Hint: "kubectl oke-sign policy get shows those that it lists; name a key that OCI has deleted by its OCID"}
		default:
			found = append(found, ids[0])
		}
	}
	return found, nil
}
