package keys

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/plugin/keyring"
)

type keysUseOptions struct {
	*connect.Session
	unset bool
	out   cli.Output
}

func newUse(s *connect.Session) *cobra.Command {
	o := &keysUseOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "use (KEY|--unset)",
		Short: "Choose the default key of kubectl oke-sign sign",
		Long: `Choose the key, by name or OCID, that kubectl oke-sign sign uses without --key.
The choice is for the current kubeconfig context, or for the one of --context.
It is stored in a file in your configuration directory. Without KEY, the command
asks you if it runs at a terminal.

The choice changes nothing about trust: verify takes its keys from --key or from
the cluster's image policy.`,
		Example: `  kubectl oke-sign keys use image-key
  kubectl oke-sign keys use --unset --context staging`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	cmd.Flags().BoolVar(&o.unset, "unset", false, "Remove the choice.")
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *keysUseOptions) validate(args []string) error {
	switch {
	case len(args) > 1 || len(args) == 1 && args[0] == "":
		return cli.Usage("kubectl oke-sign keys use takes one key, by name or OCID", "kubectl oke-sign keys list shows the keys")
	case o.unset && len(args) > 0:
		return cli.Usage("KEY and --unset exclude each other", "omit one of them")
	case !o.unset && len(args) == 0 && !o.Interactive():
		return cli.Usage("KEY is missing", "kubectl oke-sign keys list shows which keys can sign images")
	case len(args) > 0:
		if err := keyArgument(args[0]); err != nil {
			return err
		}
	}
	if err := o.ValidateFlags(); err != nil {
		return err
	}
	return o.out.Validate()
}

// chosenKey is the default key of a context.
type chosenKey struct {
	Context string `json:"context"`
	Key     string `json:"key"`
	Name    string `json:"name,omitempty"`
}

func (o *keysUseOptions) run(ctx context.Context, args []string) error {
	columns := []cli.Column{{Name: "context"}, {Name: "key"}, {Name: "id"}}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	chosen, err := o.choose(ctx, args)
	if err != nil {
		return o.Finish(o.out, columns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	if chosen == nil {
		return nil
	}
	out := o.out
	return out.Print(o.Streams.Out, cli.Document{Value: chosen, Columns: columns, Names: []string{chosen.Key},
		Sections: []cli.Section{{Rows: [][]string{{chosen.Context, chosen.Name, chosen.Key}}}}})
}

func (o *keysUseOptions) choose(ctx context.Context, args []string) (*chosenKey, error) {
	d, err := o.ReadDefaults()
	if err != nil {
		return nil, err
	}
	in, err := o.Kube.ContextName()
	if o.unset && *o.Kube.Context != "" { // a context that was deleted may have a default
		in, err = *o.Kube.Context, nil
	}
	if err != nil {
		return nil, err
	}
	if o.unset {
		if _, ok := d.Contexts[in]; !ok {
			o.Remark("there is no default key %s", connect.InContext(in))
			return nil, nil
		}
		if err := o.ChangeDefaults(func(d *connect.Defaults) { delete(d.Contexts, in) }); err != nil {
			return nil, err
		}
		o.Remark("removed the default key %s", connect.InContext(in))
		return nil, nil
	}
	c, err := o.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var name string
	if len(args) > 0 {
		name = args[0]
	}
	id, err := keyring.Find(ctx, o.Session, c, name)
	if err != nil {
		return nil, err
	}
	key, err := c.Vault.MasterKey(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := keyring.SigningKeyError(key); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return &chosenKey{in, id.String(), key.Name}, o.ChangeDefaults(func(d *connect.Defaults) {
		if d.Contexts == nil {
			d.Contexts = make(map[string]connect.Choice)
		}
		d.Contexts[in] = connect.Choice{Key: id.String()}
	})
}
