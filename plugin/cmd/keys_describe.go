package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

type keysDescribeOptions struct {
	*global
	out output
}

func newKeysDescribe(g *global) *cobra.Command {
	o := &keysDescribeOptions{global: g}
	cmd := &cobra.Command{
		Use:   "describe KEY",
		Short: "Show one key with its versions, and which policies list it",
		Long: `Show one key, by name or OCID: its versions, whether it can sign images and why
not, and which policies of the cluster list it, if a cluster can be reached.`,
		Example: `  kubectl oke-sign keys describe image-key`,
		Args:    oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	o.out.bind(cmd.Flags())
	return cmd
}

// oneKey wants one key as the argument, and one that could be.
func oneKey(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return usage(cmd.CommandPath()+" takes one key, by name or OCID", "kubectl oke-sign keys list shows the keys")
	}
	return keyArgument(args[0])
}

func keyArgument(key string) error {
	if !strings.HasPrefix(key, "ocid1.") {
		return nil
	}
	if _, err := signature.ParseKeyID(key); err != nil {
		return usage(err.Error(), hintOCIDs)
	}
	return nil
}

// describedKey is a key as keys describe shows it.
type describedKey struct {
	listedKey
	Versions []listedVersion `json:"versions"`
	Default  bool            `json:"default"`            // of the context in use
	Policies []listingPolicy `json:"policies,omitempty"` // of the cluster, which list it
}

type listedVersion struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Created string `json:"created,omitempty"`
	Current bool   `json:"current"`
}

type listingPolicy struct {
	Constraint        string `json:"constraint"`
	EnforcementAction string `json:"enforcementAction"`
}

func (o *keysDescribeOptions) run(ctx context.Context, name string) error {
	columns := []column{{name: "field"}, {name: "value"}}
	ctx, cancel := o.within(ctx)
	defer cancel()
	r, err := o.describe(ctx, name)
	if err != nil {
		return o.finish(o.out, columns, allFailed([]string{""}, because(ctx, err)))
	}
	out := o.out
	if err := out.print(o.streams.Out, data{value: r.value, columns: columns, blocks: []block{{rows: r.rows}}, names: r.names}); err != nil {
		return err
	}
	for _, note := range r.notes {
		o.remark("%s", note)
	}
	return nil
}

func (o *keysDescribeOptions) describe(ctx context.Context, name string) (result, error) {
	c, err := o.connect(ctx)
	if err != nil {
		return result{}, err
	}
	id, err := o.findKey(ctx, c, name)
	if err != nil {
		return result{}, err
	}
	key, err := c.vault.MasterKey(ctx, id)
	if err != nil {
		return result{}, err
	}
	if key.Missing {
		return result{}, refuse(key)
	}
	v := describedKey{listedKey: asListed(foundKey{Key: key.Key}), Versions: []listedVersion{}}
	if in, err := c.vault.Vault(ctx, key.VaultID); err == nil {
		v.Vault = in.Name
	}
	usable := "yes"
	if !v.Usable {
		usable = "no: " + v.Reason
	} else if !slices.ContainsFunc(key.Versions, func(x vault.Version) bool { return x.ID == key.Current && x.State == verdict.Enabled }) {
		v.Usable, v.Reason = false, "its current version is not enabled"
		usable = "no: " + v.Reason
	}
	rows := [][]string{{"Name", v.Name}, {"ID", v.ID}, {"Signs images", usable}, {"Type", kindOf(key.Key)}, {"State", v.State}, {"Protection", v.Protection},
		{"Vault", cmp.Or(v.Vault, v.VaultID)}, {"Compartment", v.CompartmentID}, {"Created", v.Created}}
	for _, x := range key.Versions {
		l := listedVersion{x.ID.String(), x.State, timestamp(x.TimeCreated), x.ID == key.Current}
		v.Versions = append(v.Versions, l)
		text := fmt.Sprintf("%s, %s, created %s", l.ID, l.State, cmp.Or(l.Created, "at an unknown time"))
		if l.Current {
			text += ", current"
		}
		rows = append(rows, []string{"Version", text})
	}
	r := result{names: []string{v.ID}}
	chosen, in, err := o.defaultKey()
	if err != nil {
		r.notes = append(r.notes, "the default key is not known: "+err.Error())
	} else if chosen == id {
		v.Default = true
		rows = append(rows, []string{"Default", inContext(in)})
	}
	constraints, err := o.signedImages(ctx)
	switch {
	case errors.Is(err, errNoCluster):
	case err != nil:
		r.notes = append(r.notes, "which policies list the key is not known: "+err.Error())
	}
	for _, k := range constraints {
		if slices.Contains(k.keys, id) {
			v.Policies = append(v.Policies, listingPolicy{k.String(), k.action})
			rows = append(rows, []string{"Policy", fmt.Sprintf("%s (%s)", k, k.action)})
		}
	}
	if len(v.Policies) > 0 && !v.Usable {
		r.notes = append(r.notes, "images that only this key has signed are refused under these policies")
	}
	r.value, r.rows = v, rows
	return r, nil
}
