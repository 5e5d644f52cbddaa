// Package okepolicy has kubectl oke-sign cluster-policy. It reads and changes the OKE image
// policy, and converts between that and oke-sign's image policy. OKE applies a change
// itself, minutes later.
package okepolicy

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

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/plugin/okecluster"
	"github.com/oke-sign/oke-sign/provider/signature"
)

// New makes the command and those below it.
func New(s *connect.Session) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster-policy",
		Short: "Read and change the OKE image policy, and move to or from it",
		Long: `Read and change the OKE image policy, OKE's own image verification: one switch
and up to five keys for the whole cluster. OKE needs several minutes for a
change. The cluster works in the meantime.

--cluster names the cluster. The default is the cluster whose tokens the current
kubeconfig context gets.`,

		SuggestionsMinimumDistance: 2,
		DisableFlagsInUseLine:      true,

		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newGet(s), newSet(s),
		newSwitch(s, true), newSwitch(s, false),
		newImport(s), newExport(s))
	return cmd
}

// clusterPolicy is the OKE image policy as the commands print it.
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

var clusterPolicyColumns = []cli.Column{{Name: "cluster"}, {Name: "state"}, {Name: "policy"}, {Name: "key"}, {Name: "id"}, {Name: "usable"}}

// showCluster prints a policy with the names and states of its keys.
func showCluster(ctx context.Context, s *connect.Session, c *connect.Cloud, out cli.Output, found okecluster.Cluster) error {
	v := clusterPolicy{Cluster: found.ID.String(), Name: found.Name, State: found.State, Enabled: found.Policy.Enabled, Keys: []clusterPolicyKey{}}
	policy := "off"
	if v.Enabled {
		policy = "on"
	}
	d := cli.Document{Value: &v, Columns: clusterPolicyColumns}
	var rows [][]string
	for _, id := range found.Policy.Keys {
		k := clusterPolicyKey{ID: id.String(), Usable: "yes"}
		switch key, err := c.Vault.MasterKey(ctx, id); {
		case err != nil:
			k.Usable, k.Reason = "unknown", cli.Clip(cli.StopCause(ctx, err).Error(), 300)
		case keyring.SigningKeyError(key) != nil:
			k.Name, k.Usable, k.Reason = key.Name, "no", cli.Clip(keyring.SigningKeyError(key).Error(), 300)
		default:
			k.Name = key.Name
		}
		v.Keys = append(v.Keys, k)
		shown, word := signature.Short(k.ID), k.Usable
		if out.Format == "wide" {
			shown = k.ID
		}
		if k.Reason != "" {
			word += ": " + k.Reason
		}
		rows = append(rows, []string{v.Name, v.State, policy, cmp.Or(k.Name, "unknown"), shown, word})
		d.Names = append(d.Names, k.ID)
	}
	if len(rows) == 0 {
		rows = [][]string{{v.Name, v.State, policy, "none", "", ""}}
	}
	d.Sections = []cli.Section{{Rows: rows}}
	s.Bar.Clear(s.Streams.ErrOut)
	if err := out.Print(s.Streams.Out, d); err != nil {
		return err
	}
	if v.Enabled && len(v.Keys) == 0 {
		s.Remark("%s", anyImage)
	}
	return nil
}

const anyImage = "the policy is on and lists no key: every image of OCI Registry is admitted, signed or not"

type clusterPolicyOptions struct {
	*connect.Session
	cluster  connect.ClusterFlag
	keys     []string
	allowAny bool
	dryRun   cli.DryRun
	yes      bool
	noWait   bool
	out      cli.Output

	allowed []signature.KeyID
}

func newGet(s *connect.Session) *cobra.Command {
	o := &clusterPolicyOptions{Session: s}
	cmd := &cobra.Command{
		Use:     "get",
		Short:   "Show the OKE image policy, and whether its keys can be used",
		Example: `  kubectl oke-sign cluster-policy get --cluster $CLUSTER -o json`,
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.work(cmd.Context(), func(ctx context.Context, c *connect.Cloud, _ *okecluster.Client, found okecluster.Cluster) error {
				return showCluster(ctx, o.Session, c, o.out, found)
			})
		},
	}
	o.cluster.Bind(cmd.Flags())
	o.out.Bind(cmd.Flags())
	return cmd
}

// bindChange adds the flags of every change.
func (o *clusterPolicyOptions) bindChange(flags *pflag.FlagSet) {
	o.cluster.Bind(flags)
	flags.BoolVar(&o.allowAny, "allow-any", false, "Allow a policy that is on and lists no key. It admits every image of OCI Registry.")
	cli.BindDryRun(flags, &o.dryRun, "does the same: both look everything up in OCI")
	cli.BindYes(flags, &o.yes, "")
	flags.BoolVar(&o.noWait, "no-wait", false, "Do not wait until OKE has made the change.")
	o.out.Bind(flags)
}

func newSet(s *connect.Session) *cobra.Command {
	o := &clusterPolicyOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "set --key KEY[,KEY]",
		Short: "Replace the keys of the OKE image policy",
		Long: `Replace the keys of the OKE image policy by up to five others. The policy stays
on or off. The command waits until OKE has made the change, up to 45 minutes or
--timeout.`,
		Example: `  kubectl oke-sign cluster-policy set --key image-key,$KEY2`,
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.NotEmpty(cmd, "key"); err != nil {
				return err
			}
			if !cmd.Flags().Changed("key") && !o.allowAny {
				return cli.Usage("--key is missing", "name the keys; --allow-any removes all, and then the policy admits every image of OCI Registry")
			}
			return o.change(cmd, func(p okecluster.Policy) okecluster.Policy {
				p.Keys = o.allowed
				return p
			})
		},
	}
	keyring.BindKeys(cmd.Flags(), &o.keys, "to list, one to five")
	o.bindChange(cmd.Flags())
	return cmd
}

func newSwitch(s *connect.Session, on bool) *cobra.Command {
	o := &clusterPolicyOptions{Session: s}
	use, short, long := "disable", "Switch the OKE image policy off", "Switch the OKE image policy off. Its keys stay."
	if on {
		use, short, long = "enable", "Switch the OKE image policy on", "Switch the OKE image policy on, with its keys."
	}
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Long:    long + "\nThe command waits until OKE has made the change, up to 45 minutes or --timeout.",
		Example: "  kubectl oke-sign cluster-policy " + use + " --cluster $CLUSTER",
		Args:    cli.NoArguments,
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

// work reads the cluster and calls do with it.
func (o *clusterPolicyOptions) work(ctx context.Context, do func(context.Context, *connect.Cloud, *okecluster.Client, okecluster.Cluster) error) error {
	id, err := o.cluster.Find(o.Session)
	if err != nil {
		return err
	}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	err = func() error {
		c, err := o.Connect(ctx)
		if err != nil {
			return err
		}
		client := okecluster.New(c.Who)
		found, err := client.Cluster(ctx, id)
		if errors.Is(err, okecluster.ErrNotFound) {
			return &cli.HintedError{What: err, Hint: "check --cluster, and that a policy lets you `read clusters`"}
		}
		if err != nil {
			return err
		}
		return do(ctx, c, client, found)
	}()
	var wrong *cli.UsageError
	if err == nil || errors.As(err, &wrong) || errors.Is(err, cli.ErrNo) {
		return err
	}
	if o.out.Format == "" { // import prints manifests, and errors must not mix with these
		return cli.StopCause(ctx, err)
	}
	return o.Finish(o.out, clusterPolicyColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
}

// change replaces the policy by what to returns.
func (o *clusterPolicyOptions) change(cmd *cobra.Command, to func(okecluster.Policy) okecluster.Policy) (err error) {
	if f := cmd.Flag("timeout"); !f.Changed {
		o.Timeout = 45 * time.Minute
	}
	if err := cmp.Or(keyring.CheckKeys(o.keys, okecluster.MaxKeys), o.ValidateFlags(), o.out.Validate()); err != nil {
		return err
	}
	return o.work(cmd.Context(), func(ctx context.Context, c *connect.Cloud, client *okecluster.Client, found okecluster.Cluster) error {
		if o.allowed, err = keyring.FindAll(ctx, o.Session, c, o.keys); err != nil {
			return err
		}
		return o.apply(ctx, c, client, found, to(found.Policy))
	})
}

func (o *clusterPolicyOptions) apply(ctx context.Context, c *connect.Cloud, client *okecluster.Client, found okecluster.Cluster, want okecluster.Policy) error {
	if want.Equal(found.Policy) {
		o.Remark("nothing to change: the policy is already as requested")
		return showCluster(ctx, o.Session, c, o.out, found)
	}
	if want.Enabled && len(want.Keys) == 0 && !o.allowAny {
		return cli.Usage("the policy would be on and list no key: every image of OCI Registry would be admitted, signed or not", "name keys with cluster-policy set --key KEY, or add --allow-any if you want that")
	}
	for _, id := range want.Keys {
		if slices.Contains(found.Policy.Keys, id) && (!want.Enabled || found.Policy.Enabled) {
			continue // the change makes this key no worse
		}
		key, err := c.Vault.MasterKey(ctx, id)
		if err == nil {
			err = keyring.SigningKeyError(key)
		}
		if err != nil {
			return err
		}
	}
	for _, line := range difference(found.Policy, want) {
		o.Remark("%s", line)
	}
	if o.dryRun.On() {
		o.Remark("a dry run: nothing was changed")
		return nil
	}
	if found.State != "ACTIVE" {
		return &cli.HintedError{What: fmt.Errorf("cluster %s is %s, and OKE changes active ones only", found.Name, found.State), Hint: "try again when it is active; kubectl oke-sign cluster-policy get shows its state"}
	}
	if !o.yes && o.Interactive() {
		if err := o.Confirm(ctx, fmt.Sprintf("Change the image policy of cluster %s?", found.Name)); err != nil {
			return err
		}
	}
	work, err := client.Update(ctx, found, want)
	if errors.Is(err, okecluster.ErrChanged) {
		return &cli.HintedError{What: err, Hint: "nothing was changed; check kubectl oke-sign cluster-policy get, and try again"}
	}
	if err != nil {
		return err
	}
	if o.noWait {
		o.Remark("the change runs in OKE as work request %s", work)
		return nil
	}
	if err := o.follow(ctx, client, found, work); err != nil {
		return err
	}
	now, err := client.Cluster(ctx, found.ID)
	if err != nil {
		return err
	}
	return showCluster(ctx, o.Session, c, o.out, now)
}

// difference returns the change of a policy, line by line.
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

// follow waits until OKE has made the change and the cluster is active again.
func (o *clusterPolicyOptions) follow(ctx context.Context, client *okecluster.Client, found okecluster.Cluster, work string) error {
	err := o.Poll(ctx, "cluster "+found.Name, func() (string, bool, error) {
		w, err := client.Work(ctx, found.ID, work)
		if err == nil && w.Failed() {
			err = fmt.Errorf("OKE did not make the change: work request %s is %s: %s", work, w.Status, cmp.Or(strings.Join(w.Errors, "; "), "no reason given"))
		}
		return strings.ToLower(w.Status), w.Over(), err
	})
	if err == nil {
		err = o.Poll(ctx, "cluster "+found.Name, func() (string, bool, error) {
			now, err := client.Cluster(ctx, found.ID)
			return strings.ToLower(now.State), now.State == "ACTIVE", err
		})
	}
	if ctx.Err() != nil {
		return &cli.HintedError{What: fmt.Errorf("the change still runs in OKE as work request %s", work), Hint: "kubectl oke-sign cluster-policy get shows the result"}
	}
	return err
}
