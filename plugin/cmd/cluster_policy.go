package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/provider/signature"
)

func newClusterPolicy(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster-policy",
		Short: "Read and change the image verification policy that OKE itself has",
		Long: `Read and change the image verification policy that OKE itself has: one switch
and up to five keys for the whole cluster. A change takes OKE several minutes,
in which the cluster goes on working.

The cluster is that of --cluster, or the one that the kubeconfig context in use
gets its tokens for.`,

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newClusterPolicyGet(g), newClusterPolicySet(g),
		newClusterPolicySwitch(g, true), newClusterPolicySwitch(g, false),
		newClusterPolicyImport(g), newClusterPolicyExport(g))
	return cmd
}

// clusterFlag names an OKE cluster.
type clusterFlag struct{ ocid string }

func (f *clusterFlag) bind(flags *pflag.FlagSet) {
	flags.StringVar(&f.ocid, "cluster", "", "`OCID` of the cluster; that of the kubeconfig context unless given.")
}

// find is the cluster that is meant. A kubeconfig of OKE's has the OCID among the
// arguments of the command that gets tokens.
func (f *clusterFlag) find(g *global) (okecluster.ID, error) {
	const hint = "name it with --cluster OCID"
	if f.ocid != "" {
		id, err := okecluster.ParseID(f.ocid)
		if err != nil {
			return id, usage("--cluster: "+err.Error(), "it begins with ocid1.cluster.")
		}
		return id, nil
	}
	name, err := g.kube.context()
	if err != nil {
		return okecluster.ID{}, err
	}
	raw, err := g.kube.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return okecluster.ID{}, unreachable(err)
	}
	if context := raw.Contexts[name]; context != nil {
		if user := raw.AuthInfos[context.AuthInfo]; user != nil && user.Exec != nil {
			for i, arg := range user.Exec.Args {
				ocid, found := strings.CutPrefix(arg, "--cluster-id=")
				if arg == "--cluster-id" && i+1 < len(user.Exec.Args) {
					ocid, found = user.Exec.Args[i+1], true
				}
				if !found {
					continue
				}
				id, err := okecluster.ParseID(ocid)
				if err != nil {
					return id, usage(fmt.Sprintf("context %q: %v", name, err), hint)
				}
				return id, nil
			}
		}
	}
	return okecluster.ID{}, usage("--cluster is missing, and the kubeconfig "+inContext(name)+" does not say which OKE cluster it is", hint)
}

// clusterPolicy is OKE's own policy as it is shown.
type clusterPolicy struct {
	Cluster string             `json:"cluster"`
	Name    string             `json:"name"`
	State   string             `json:"state"`
	Enabled bool               `json:"enabled"`
	Keys    []clusterPolicyKey `json:"keys"`
}

type clusterPolicyKey struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Usable string `json:"usable"` // yes, no or unknown
	Reason string `json:"reason,omitempty"`
}

var clusterPolicyColumns = []column{{name: "cluster"}, {name: "state"}, {name: "policy"}, {name: "key"}, {name: "id"}, {name: "usable"}}

// showCluster prints a policy with what is known of its keys.
func (g *global) showCluster(ctx context.Context, c *cloud, out output, found okecluster.Cluster) error {
	v := clusterPolicy{Cluster: found.ID.String(), Name: found.Name, State: found.State, Enabled: found.Policy.Enabled, Keys: []clusterPolicyKey{}}
	policy := "off"
	if v.Enabled {
		policy = "on"
	}
	d := data{value: &v, columns: clusterPolicyColumns}
	var rows [][]string
	for _, id := range found.Policy.Keys {
		k := clusterPolicyKey{ID: id.String(), Usable: "yes"}
		switch key, err := c.vault.MasterKey(ctx, id); {
		case err != nil:
			k.Usable, k.Reason = "unknown", clip(because(ctx, err).Error(), 300)
		case refuse(key) != nil:
			k.Name, k.Usable, k.Reason = key.Name, "no", clip(refuse(key).Error(), 300)
		default:
			k.Name = key.Name
		}
		v.Keys = append(v.Keys, k)
		shown, word := short(k.ID), k.Usable
		if out.format == "wide" {
			shown = k.ID
		}
		if k.Reason != "" {
			word += ": " + k.Reason
		}
		rows = append(rows, []string{v.Name, v.State, policy, cmp.Or(k.Name, "unknown"), shown, word})
		d.names = append(d.names, k.ID)
	}
	if len(rows) == 0 {
		rows = [][]string{{v.Name, v.State, policy, "none", "", ""}}
	}
	d.blocks = []block{{rows: rows}}
	g.bar.clear(g.streams.ErrOut)
	if err := out.print(g.streams.Out, d); err != nil {
		return err
	}
	if v.Enabled && len(v.Keys) == 0 {
		g.remark("%s", anyImage)
	}
	return nil
}

const anyImage = "the policy is on and lists no key: every image of OCI Registry is admitted, signed or not"

type clusterPolicyOptions struct {
	*global
	cluster  clusterFlag
	keys     []string
	allowAny bool
	dryRun   bool
	yes      bool
	noWait   bool
	out      output

	allowed []signature.KeyID
}

func newClusterPolicyGet(g *global) *cobra.Command {
	o := &clusterPolicyOptions{global: g}
	cmd := &cobra.Command{
		Use:     "get",
		Short:   "Show OKE's policy, and whether its keys can be used",
		Example: `  kubectl oke-sign cluster-policy get --cluster $CLUSTER -o json`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.work(cmd.Context(), func(ctx context.Context, c *cloud, _ *okecluster.Client, found okecluster.Cluster) error {
				return o.showCluster(ctx, c, o.out, found)
			})
		},
	}
	o.cluster.bind(cmd.Flags())
	o.out.bind(cmd.Flags())
	return cmd
}

// bindChange adds the flags of every change.
func (o *clusterPolicyOptions) bindChange(flags *pflag.FlagSet) {
	o.cluster.bind(flags)
	flags.BoolVar(&o.allowAny, "allow-any", false, "Let the policy admit every image of OCI Registry, which it does when it is on and lists no key.")
	flags.BoolVar(&o.dryRun, "dry-run", false, "Say what would change, and change nothing.")
	flags.BoolVarP(&o.yes, "yes", "y", false, "Do not ask.")
	flags.BoolVar(&o.noWait, "no-wait", false, "Do not wait until OKE has made the change.")
	o.out.bind(flags)
}

func newClusterPolicySet(g *global) *cobra.Command {
	o := &clusterPolicyOptions{global: g}
	cmd := &cobra.Command{
		Use:   "set --key OCID[,OCID]",
		Short: "Replace the keys of OKE's policy",
		Long: `Replace the keys of OKE's policy by up to five others. Whether the policy is on
is left as it is. It waits until OKE has made the change, 45 minutes unless
--timeout says otherwise.`,
		Example: `  kubectl oke-sign cluster-policy set --cluster $CLUSTER --key $KEY1,$KEY2`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := notEmpty(cmd, "key"); err != nil {
				return err
			}
			if !cmd.Flags().Changed("key") && !o.allowAny {
				return usage("--key is missing", "name the keys; --allow-any takes all away, and then the policy admits every image of OCI Registry")
			}
			return o.change(cmd, func(p okecluster.Policy) okecluster.Policy {
				p.Keys = o.allowed
				return p
			})
		},
	}
	cmd.Flags().StringSliceVar(&o.keys, "key", nil, "`OCID`s of the keys, one to five. May be repeated.")
	o.bindChange(cmd.Flags())
	return cmd
}

func newClusterPolicySwitch(g *global, on bool) *cobra.Command {
	o := &clusterPolicyOptions{global: g}
	use, short, long := "disable", "Switch OKE's policy off", "Switch OKE's policy off. Its keys stay, for the day it is switched on again."
	if on {
		use, short, long = "enable", "Switch OKE's policy on", "Switch OKE's policy on, with the keys that it lists."
	}
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    long + " It\nwaits until OKE has made the change, 45 minutes unless --timeout says otherwise.",
		Example: "  kubectl oke-sign cluster-policy " + use + " --cluster $CLUSTER",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.change(cmd, func(p okecluster.Policy) okecluster.Policy {
				p.Enabled = on
				return p
			})
		},
	}
	o.bindChange(cmd.Flags())
	return cmd
}

// work reads the cluster and does something with it.
func (o *clusterPolicyOptions) work(ctx context.Context, do func(context.Context, *cloud, *okecluster.Client, okecluster.Cluster) error) error {
	id, err := o.cluster.find(o.global)
	if err != nil {
		return err
	}
	ctx, cancel := o.within(ctx)
	defer cancel()
	err = func() error {
		c, err := o.connect(ctx)
		if err != nil {
			return err
		}
		client := okecluster.New(c.who)
		found, err := client.Cluster(ctx, id)
		if errors.Is(err, okecluster.ErrNotFound) {
			return &refusal{err, "check --cluster, and that a policy lets you `read clusters`"}
		}
		if err != nil {
			return err
		}
		return do(ctx, c, client, found)
	}()
	var wrong *usageError
	if err == nil || errors.As(err, &wrong) || errors.Is(err, errNo) {
		return err
	}
	if o.out.format == "" { // what is printed otherwise is to be put into a file
		return because(ctx, err)
	}
	return o.finish(o.out, clusterPolicyColumns, allFailed([]string{""}, because(ctx, err)))
}

// change makes another policy of the one there is.
func (o *clusterPolicyOptions) change(cmd *cobra.Command, to func(okecluster.Policy) okecluster.Policy) (err error) {
	if f := cmd.Flag("timeout"); !f.Changed {
		o.timeout = 45 * time.Minute
	}
	if o.allowed, err = parseKeys(o.keys); err != nil {
		return err
	}
	if len(o.allowed) > okecluster.MaxKeys {
		return usage(fmt.Sprintf("--key lists %d keys, and a policy holds %d at most", len(o.allowed), okecluster.MaxKeys), "leave out those that are not used any more")
	}
	if err := cmp.Or(o.validate(), o.out.validate()); err != nil {
		return err
	}
	return o.work(cmd.Context(), func(ctx context.Context, c *cloud, client *okecluster.Client, found okecluster.Cluster) error {
		return o.apply(ctx, c, client, found, to(found.Policy))
	})
}

func (o *clusterPolicyOptions) apply(ctx context.Context, c *cloud, client *okecluster.Client, found okecluster.Cluster, want okecluster.Policy) error {
	if want.Equal(found.Policy) {
		o.remark("nothing to change: the policy is that already")
		return o.showCluster(ctx, c, o.out, found)
	}
	if want.Enabled && len(want.Keys) == 0 && !o.allowAny {
		return usage("the policy would be on and list no key: every image of OCI Registry would be admitted, signed or not", "name keys with cluster-policy set --key OCID, or add --allow-any if that is what is wanted")
	}
	for _, id := range want.Keys {
		if slices.Contains(found.Policy.Keys, id) && (!want.Enabled || found.Policy.Enabled) {
			continue // no worse than it was
		}
		key, err := c.vault.MasterKey(ctx, id)
		if err == nil {
			err = refuse(key)
		}
		if err != nil {
			return err
		}
	}
	for _, line := range difference(found.Policy, want) {
		o.remark("%s", line)
	}
	if o.dryRun {
		o.remark("a dry run: nothing was changed")
		return nil
	}
	if found.State != "ACTIVE" {
		return &refusal{fmt.Errorf("cluster %s is %s, and OKE changes active ones only", found.Name, found.State), "try again when it is active; kubectl oke-sign cluster-policy get shows its state"}
	}
	if !o.yes && o.interactive() {
		if err := o.confirm(ctx, fmt.Sprintf("Change the image policy of cluster %s?", found.Name)); err != nil {
			return err
		}
	}
	work, err := client.Update(ctx, found, want)
	if errors.Is(err, okecluster.ErrChanged) {
		return &refusal{err, "nothing was changed; look at it with cluster-policy get, and try again"}
	}
	if err != nil {
		return err
	}
	if o.noWait {
		o.remark("the change is under way, as work request %s", work)
		return nil
	}
	if err := o.follow(ctx, client, found, work); err != nil {
		return err
	}
	now, err := client.Cluster(ctx, found.ID)
	if err != nil {
		return err
	}
	return o.showCluster(ctx, c, o.out, now)
}

// difference says what a change of policy is, line by line.
func difference(from, to okecluster.Policy) []string {
	word := map[bool]string{false: "off", true: "on"}
	var lines []string
	if from.Enabled != to.Enabled {
		lines = append(lines, "- policy "+word[from.Enabled], "+ policy "+word[to.Enabled])
	}
	for _, k := range from.Keys {
		if !slices.Contains(to.Keys, k) {
			lines = append(lines, "- key "+k.String())
		}
	}
	for _, k := range to.Keys {
		if !slices.Contains(from.Keys, k) {
			lines = append(lines, "+ key "+k.String())
		}
	}
	return lines
}

// follow waits until a change is made and the cluster is active again.
func (o *clusterPolicyOptions) follow(ctx context.Context, client *okecluster.Client, found okecluster.Cluster, work string) error {
	err := o.until(ctx, "cluster "+found.Name, func() (string, bool, error) {
		w, err := client.Work(ctx, found.ID, work)
		if err == nil && w.Failed() {
			err = fmt.Errorf("OKE did not make the change: work request %s is %s: %s", work, w.Status, cmp.Or(strings.Join(w.Errors, "; "), "it says no reason"))
		}
		return strings.ToLower(w.Status), w.Over(), err
	})
	if err == nil {
		err = o.until(ctx, "cluster "+found.Name, func() (string, bool, error) {
			now, err := client.Cluster(ctx, found.ID)
			return strings.ToLower(now.State), now.State == "ACTIVE", err
		})
	}
	if ctx.Err() != nil {
		return &refusal{fmt.Errorf("the change goes on in OKE, as work request %s", work), "kubectl oke-sign cluster-policy get shows when it is made"}
	}
	return err
}
