package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/enforcement"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

type keysDescribeOptions struct {
	*connect.Session
	out cli.Output
}

func newDescribe(s *connect.Session) *cobra.Command {
	o := &keysDescribeOptions{Session: s}
	cmd := &cobra.Command{
		SuggestFor: []string{"get", "show"},

		Use:   "describe KEY",
		Short: "Show a key, its versions, and which constraints list it",
		Long: `Show one key, by name or OCID: its versions, whether it can sign images or why
not, and which constraints of the cluster list it. The command works without a
cluster too.`,
		Example: `  kubectl oke-sign keys describe image-key`,
		Args:    oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	o.out.Bind(cmd.Flags())
	return cmd
}

// oneKey rejects arguments that are not one key.
func oneKey(cmd *cobra.Command, args []string) error {
	if len(args) != 1 || args[0] == "" {
		return cli.Usage(cmd.CommandPath()+" takes one key, by name or OCID", "kubectl oke-sign keys list shows the keys")
	}
	return keyArgument(args[0])
}

func keyArgument(key string) error {
	if !strings.HasPrefix(key, "ocid1.") {
		return nil
	}
	if _, err := signature.ParseKeyID(key); err != nil {
		return cli.Usage(err.Error(), keyring.HintOCIDs)
	}
	return nil
}

// describedKey is a key with everything about it.
type describedKey struct {
	listedKey
	Versions []listedVersion `json:"versions"`
	Default  bool            `json:"default"`            // of the current context
	Policies []listingPolicy `json:"policies,omitempty"` // constraints of the cluster that list it
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
	columns := []cli.Column{{Name: "field"}, {Name: "value"}}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	r, err := o.describe(ctx, name)
	if err != nil {
		return o.Finish(o.out, columns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	out := o.out
	if err := out.Print(o.Streams.Out, cli.Document{Value: r.Value, Columns: columns, Sections: []cli.Section{{Rows: r.Rows}}, Names: r.Names}); err != nil {
		return err
	}
	for _, note := range r.Notes {
		o.Remark("%s", note)
	}
	return nil
}

func (o *keysDescribeOptions) describe(ctx context.Context, name string) (cli.Result, error) {
	c, err := o.Connect(ctx)
	if err != nil {
		return cli.Result{}, err
	}
	id, err := keyring.Find(ctx, o.Session, c, name)
	if err != nil {
		return cli.Result{}, err
	}
	key, err := c.Vault.MasterKey(ctx, id)
	if err != nil {
		return cli.Result{}, err
	}
	if key.Missing {
		return cli.Result{}, keyring.SigningKeyError(key)
	}
	v := describedKey{listedKey: asListed(keyring.FoundKey{Key: key.Key}), Versions: []listedVersion{}}
	if in, err := c.Vault.Vault(ctx, key.VaultID); err == nil {
		v.Vault = in.Name
	}
	usable := "yes"
	if !v.Usable {
		usable = "no: " + v.Reason
	} else if !slices.ContainsFunc(key.Versions, func(x vault.Version) bool { return x.ID == key.Current && x.State == verdict.Enabled }) {
		v.Usable, v.Reason = false, "its current version is not enabled"
		usable = "no: " + v.Reason
	}
	rows := [][]string{{"Name", v.Name}, {"ID", v.ID}, {"Signs images", usable}, {"Type", keyring.KindOf(key.Key)}, {"State", v.State}, {"Protection", v.Protection},
		{"Vault", cmp.Or(v.Vault, v.VaultID)}, {"Compartment", v.CompartmentID}, {"Created", v.Created}}
	for _, x := range key.Versions {
		l := listedVersion{x.ID.String(), x.State, cli.Timestamp(x.TimeCreated), x.ID == key.Current}
		v.Versions = append(v.Versions, l)
		text := fmt.Sprintf("%s, %s, created %s", l.ID, l.State, cmp.Or(l.Created, "at an unknown time"))
		if l.Current {
			text += ", current"
		}
		rows = append(rows, []string{"Version", text})
	}
	r := cli.Result{Names: []string{v.ID}}
	chosen, in, err := o.DefaultKey()
	if err != nil {
		r.Notes = append(r.Notes, "could not read the default key: "+err.Error())
	} else if chosen == id {
		v.Default = true
		rows = append(rows, []string{"Default", connect.InContext(in)})
	}
	constraints, err := enforcement.ReadSignedImages(ctx, o.Session)
	switch {
	case errors.Is(err, connect.ErrNoCluster):
	case err != nil:
		r.Notes = append(r.Notes, "could not read which constraints list the key: "+err.Error())
	}
	for _, k := range constraints {
		if slices.Contains(k.Keys, id) {
			v.Policies = append(v.Policies, listingPolicy{k.String(), k.Action})
			rows = append(rows, []string{"Policy", fmt.Sprintf("%s (%s)", k, k.Action)})
		}
	}
	if len(v.Policies) > 0 && !v.Usable {
		r.Notes = append(r.Notes, "these policies deny images that only this key has signed")
	}
	r.Value, r.Rows = v, rows
	return r, nil
}
