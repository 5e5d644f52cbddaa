package keys

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/vault"
	"github.com/oke-sign/oke-sign/provider/verdict"
)

type keysCreateOptions struct {
	*connect.Session
	vault      string
	bits       int
	protection string
	dryRun     cli.DryRun
	out        cli.Output
}

func newCreate(s *connect.Session) *cobra.Command {
	o := &keysCreateOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "create [NAME] --vault NAME|OCID",
		Short: "Create a key that can sign images, and its vault if it is missing",
		Long: `Create an RSA key in OCI Vault that can sign images. Its name is image-key
unless NAME says otherwise. If no vault has the name of --vault, the command
creates the vault too. It changes nothing that exists, so you can run it again
after an interrupt. It waits until the key is enabled: 15 minutes, or --timeout.

A new vault is created in the compartment of --compartment, and shares its
hardware with other customers. A key is created in the compartment of its vault.`,
		Example: `  kubectl oke-sign keys create --vault image-vault --compartment $COMPARTMENT

  # Show what the command would create
  kubectl oke-sign keys create release-key --vault image-vault --dry-run=client`,
		RunE: func(cmd *cobra.Command, args []string) error {
			retryNewVault(o.Session, cmd)
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), append(args, "image-key")[0])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.vault, "vault", "", "`NAME` or OCID of the vault.")
	flags.IntVar(&o.bits, "bits", 4096, "Key length in `BITS`: 2048, 3072 or 4096.")
	flags.StringVar(&o.protection, "protection", "HSM", "Where OCI Vault stores and uses the key: `HSM` or SOFTWARE.")
	cli.BindDryRun(flags, &o.dryRun, "does the same: both look everything up in OCI")
	o.out.Bind(flags)
	return cmd
}

// retryNewVault gives a command that waits for OCI the time it may take, unless the
// user has said for how long to wait.
func retryNewVault(s *connect.Session, cmd *cobra.Command) {
	if f := cmd.Flag("timeout"); f == nil || !f.Changed {
		s.Timeout = 15 * time.Minute
	}
}

func (o *keysCreateOptions) validate(args []string) error {
	o.protection = strings.ToUpper(o.protection)
	switch {
	case len(args) > 1:
		return cli.Usage("one key can be made at a time", "name one, or none for image-key")
	case len(args) == 1 && (args[0] == "" || len(args[0]) > 100 || cli.Printable(args[0]) != args[0] || strings.HasPrefix(args[0], "ocid1.")):
		return cli.Usage(fmt.Sprintf("%.120q is no name for a key", args[0]), "for instance image-key")
	case o.vault == "":
		return cli.Usage("--vault is missing", "name a vault; one that is not there is made")
	case len(o.vault) > 255 || strings.HasPrefix(o.vault, "ocid1.") && (!strings.HasPrefix(o.vault, "ocid1.vault.") || !oci.Segment(o.vault)):
		return cli.Usage(fmt.Sprintf("--vault %.120q is not the OCID of a vault", o.vault), "it begins with ocid1.vault.")
	case !slices.Contains([]int{2048, 3072, 4096}, o.bits):
		return cli.Usage(fmt.Sprintf("--bits %d is no length of a key", o.bits), "use 2048, 3072 or 4096")
	case o.protection != "HSM" && o.protection != "SOFTWARE":
		return cli.Usage(fmt.Sprintf("--protection %q is not known", o.protection), "use HSM or SOFTWARE")
	}
	return cmp.Or(o.ValidateFlags(), o.out.Validate())
}

// createdKey is what there is when the command is done.
type createdKey struct {
	Vault        string `json:"vault"`
	VaultID      string `json:"vaultId,omitempty"`
	VaultCreated bool   `json:"vaultCreated"` // by this command
	Name         string `json:"name"`
	ID           string `json:"id,omitempty"`
	Created      bool   `json:"created"` // by this command
	DryRun       bool   `json:"dryRun,omitempty"`
}

func (o *keysCreateOptions) run(ctx context.Context, name string) error {
	columns := []cli.Column{{Name: "kind"}, {Name: "name"}, {Name: "result"}, {Name: "id"}}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	made, err := o.create(ctx, name)
	if err != nil {
		if made.VaultCreated || made.Created {
			o.Remark("%s", errGoesOn)
		}
		return o.Finish(o.out, columns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	word := func(created bool) string {
		switch {
		case created && o.dryRun.On():
			return "would be created"
		case created:
			return "created"
		}
		return "there already"
	}
	rows := [][]string{{"vault", made.Vault, word(made.VaultCreated), made.VaultID}, {"key", made.Name, word(made.Created), made.ID}}
	if o.dryRun.On() {
		made.DryRun, made.VaultCreated, made.Created = true, false, false
	}
	o.Bar.Clear(o.Streams.ErrOut)
	out := o.out
	if err := out.Print(o.Streams.Out, cli.Document{Value: made, Columns: columns, Sections: []cli.Section{{Rows: rows}}, Names: []string{made.ID}}); err != nil {
		return err
	}
	if made.Created {
		o.Remark("kubectl oke-sign keys use %s makes it the key to sign with", made.Name)
	}
	return nil
}

var errGoesOn = errors.New("what was begun goes on in OCI; the same command waits for it and does the rest")

func (o *keysCreateOptions) create(ctx context.Context, name string) (createdKey, error) {
	made := createdKey{Vault: o.vault, Name: name}
	c, err := o.Connect(ctx)
	if err != nil {
		return made, err
	}
	in, err := o.findVault(ctx, c)
	if err != nil {
		return made, err
	}
	if in.ID == "" {
		if made.VaultCreated = true; o.dryRun.On() {
			made.Created = true
			return made, nil
		}
		if in, err = c.Vault.CreateVault(ctx, o.vault, o.Compartments[0]); err != nil {
			made.VaultCreated = false
			return made, err
		}
	}
	made.Vault, made.VaultID = in.Name, in.ID
	if !o.dryRun.On() || in.State == "ACTIVE" {
		if in, err = o.activeVault(ctx, c, in); err != nil {
			return made, err
		}
	}
	key, err := o.existing(ctx, c, in, name)
	if err != nil {
		return made, err
	}
	if key.Name == "" {
		if made.Created = true; o.dryRun.On() {
			return made, nil
		}
		new := vault.NewKey{Name: name, CompartmentID: in.CompartmentID, Bits: o.bits, Protection: o.protection}
		if key, err = c.Vault.CreateKey(ctx, in, new); err != nil {
			made.Created = false
			return made, err
		}
	}
	made.ID = key.ID.String()
	if o.dryRun.On() {
		return made, nil
	}
	key, err = o.enabledKey(ctx, c, key)
	if err != nil {
		return made, err
	}
	return made, keyring.SigningKeyError(vault.MasterKey{Key: key})
}

// findVault finds the vault that is meant; one without an OCID is to be made.
func (o *keysCreateOptions) findVault(ctx context.Context, c *connect.Cloud) (vault.Vault, error) {
	if strings.HasPrefix(o.vault, "ocid1.") {
		return c.Vault.Vault(ctx, o.vault)
	}
	found := keyring.NewInventory(ctx, o.Session, c)
	named := slices.DeleteFunc(slices.Clone(found.Vaults), func(v vault.Vault) bool { return v.Name != o.vault })
	switch {
	case len(named) == 1:
		return named[0], nil
	case len(named) > 1:
		var ids []string
		for _, v := range named {
			ids = append(ids, v.ID)
		}
		return vault.Vault{}, &cli.HintedError{What: fmt.Errorf("%d vaults are named %q: %s", len(named), o.vault, strings.Join(ids, ", ")), Hint: "name one by its OCID"}
	case len(found.Failed) > 0: // one that could not be listed may have the name
		return vault.Vault{}, &cli.HintedError{What: fmt.Errorf("looking for vault %q: %w", o.vault, found.Failed[0]), Hint: "name the vault by its OCID"}
	case len(o.Compartments) != 1:
		return vault.Vault{}, &cli.HintedError{What: fmt.Errorf("no vault is named %q in region %s", o.vault, c.Who.Region()), Hint: "--compartment OCID, once, says where to make it"}
	}
	return vault.Vault{}, nil
}

// existing is the key of the name in the vault, or none. OCI lets several have
// one name, and a second would only make it ambiguous.
func (o *keysCreateOptions) existing(ctx context.Context, c *connect.Cloud, in vault.Vault, name string) (vault.Key, error) {
	if in.State != "ACTIVE" {
		return vault.Key{}, nil
	}
	var keys []vault.Key
	err := o.Poll(ctx, "listing the keys of the new vault", func() (string, bool, error) {
		var err error
		keys, err = c.Vault.Keys(ctx, in, in.CompartmentID)
		// The names of a new vault's hosts take a while to be known everywhere.
		if oci.NoSuchHost(err) && time.Since(in.TimeCreated) < 10*time.Minute {
			return "its host is not known yet", false, nil
		}
		return "", true, err
	})
	if err != nil {
		return vault.Key{}, err
	}
	for _, k := range keys {
		switch {
		case k.Name != name || k.State == "DELETED":
		case k.State == "CREATING":
			return k, nil
		default:
			return k, keyring.SigningKeyError(vault.MasterKey{Key: k})
		}
	}
	return vault.Key{}, nil
}

func (o *keysCreateOptions) activeVault(ctx context.Context, c *connect.Cloud, v vault.Vault) (vault.Vault, error) {
	err := o.Poll(ctx, "vault "+v.Name, func() (string, bool, error) {
		if v.State == "ACTIVE" {
			return v.State, true, nil
		}
		now, err := c.Vault.Vault(ctx, v.ID)
		if err != nil && !errors.Is(err, vault.ErrNotFound) { // a new one may not be seen at once
			return "", true, err
		}
		if err == nil {
			v = now
		}
		switch v.State {
		case "ACTIVE", "CREATING", "UPDATING", "RESTORING", "BACKUP_IN_PROGRESS":
			return v.State, v.State == "ACTIVE", nil
		}
		return "", true, fmt.Errorf("vault %s (%s) is %s", v.Name, v.ID, v.State)
	})
	return v, err
}

func (o *keysCreateOptions) enabledKey(ctx context.Context, c *connect.Cloud, k vault.Key) (vault.Key, error) {
	err := o.Poll(ctx, "key "+k.Name, func() (string, bool, error) {
		now, err := c.Vault.Key(ctx, k.ID)
		if err != nil && !errors.Is(err, vault.ErrNotFound) {
			return "", true, err
		}
		if err == nil {
			k = now
		}
		return k.State, err == nil && k.State == verdict.Enabled || k.State != "CREATING" && k.State != "ENABLING" && k.State != verdict.Enabled, nil
	})
	return k, err
}
