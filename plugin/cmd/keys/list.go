package keys

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
)

type keysListOptions struct {
	*connect.Session
	out cli.Output
}

func newList(s *connect.Session) *cobra.Command {
	o := &keysListOptions{Session: s}
	cmd := &cobra.Command{
		Use:        "list",
		SuggestFor: []string{"get"},

		Short: "List the keys of all vaults, and which can sign images",
		Long: `List the keys of all vaults in the profile's region, and say which can sign
images and why the others cannot.

The command looks in every compartment of the tenancy that you may see. In a
large tenancy --compartment is faster: name the compartments of the vaults and
those of the keys.`,
		Example: `  kubectl oke-sign keys list

  # The OCIDs of the keys that can sign images
  kubectl oke-sign keys list -o json | jq -r '.[] | select(.usable).id'`,
		Args: cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.out.Bind(cmd.Flags())
	return cmd
}

// listedKey is a key in the list.
type listedKey struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	Vault         string `json:"vault"`
	VaultID       string `json:"vaultId"`
	Compartment   string `json:"compartment,omitempty"`
	CompartmentID string `json:"compartmentId"`
	Algorithm     string `json:"algorithm"`
	Bits          int    `json:"bits,omitempty"`
	Curve         string `json:"curve,omitempty"`
	State         string `json:"state"`
	Protection    string `json:"protection,omitempty"`
	Created       string `json:"created,omitempty"`
	Usable        bool   `json:"usable"`
	Reason        string `json:"reason,omitempty"` // why it is not usable
}

func (o *keysListOptions) run(ctx context.Context) error {
	columns := []cli.Column{{Name: "name"}, {Name: "vault"}, {Name: "algorithm"}, {Name: "state"},
		{Name: "compartment", Wide: true}, {Name: "protection", Wide: true}, {Name: "created", Wide: true}, {Name: "id"}, {Name: "signs images"}}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()

	c, err := o.Connect(ctx)
	if err != nil {
		return o.Finish(o.out, columns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	s := keyring.NewInventory(ctx, o.Session, c)
	s.List(ctx)
	s.Describe(ctx)
	results := make([]cli.Result, 0, len(s.Keys)+len(s.Failed))
	for _, found := range s.Keys {
		results = append(results, o.show(found))
	}
	for _, err := range s.Failed {
		results = append(results, cli.Result{Err: cli.StopCause(ctx, err)})
	}
	if err := s.ListError(); err != nil {
		return o.Finish(o.out, columns, append(results, cli.Result{Err: err}))
	}
	outcome := o.Finish(o.out, columns, results)
	if n := len(s.Closed); n > 0 {
		o.Remark("%s skipped: you may not list vaults or keys there", cli.Count(n, "compartment"))
	}
	if len(s.Keys) == 0 && len(s.Failed) == 0 {
		o.Remark("no keys found in %s, region %s", cli.Count(len(s.Compartments), "compartment"), c.Who.Region())
	}
	return outcome
}

// asListed returns a key for the list.
func asListed(f keyring.FoundKey) listedKey {
	k := listedKey{
		ID: f.ID.String(), Name: f.Name, Vault: f.Vault.Name, VaultID: cmp.Or(f.Vault.ID, f.VaultID),
		Compartment: f.Compartment, CompartmentID: f.CompartmentID,
		Algorithm: f.Algorithm, Bits: f.Bits, Curve: f.CurveID, State: f.State, Protection: f.Protection,
		Created: cli.Timestamp(f.TimeCreated),
	}
	k.Reason = keyring.WhyUseless(f.Key)
	k.Usable = k.Reason == ""
	return k
}

func (o *keysListOptions) show(f keyring.FoundKey) cli.Result {
	k := asListed(f)
	signs, id := "yes", f.ID.Short()
	if !k.Usable {
		signs = "no: " + k.Reason
	}
	if o.out.Format == "wide" {
		id = k.ID
	}
	return cli.Result{
		Value: k,
		Names: []string{k.ID},
		Rows:  [][]string{{k.Name, k.Vault, keyring.KindOf(f.Key), k.State, k.Compartment, k.Protection, k.Created, id, signs}},
	}
}
