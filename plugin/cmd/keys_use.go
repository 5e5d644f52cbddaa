package cmd

import (
	"context"

	"github.com/spf13/cobra"
)

type keysUseOptions struct {
	*global
	unset bool
	out   output
}

func newKeysUse(g *global) *cobra.Command {
	o := &keysUseOptions{global: g}
	cmd := &cobra.Command{
		Use:   "use (KEY|--unset)",
		Short: "Choose the key that images are signed with unless another is named",
		Long: `Choose the key, by name or OCID, that kubectl oke-sign sign takes when --key is
left out. It holds for the kubeconfig context in use, or for the one of
--context, and is kept in a file of your own. Without KEY, a person at a
terminal is asked.

It chooses what signs, and nothing about what is trusted: verify takes its keys
from --key or from the cluster's policy.`,
		Example: `  kubectl oke-sign keys use image-key
  kubectl oke-sign keys use --unset --context staging`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.validate(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), args)
		},
	}
	cmd.Flags().BoolVar(&o.unset, "unset", false, "Choose none.")
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *keysUseOptions) validate(args []string) error {
	switch {
	case len(args) > 1 || len(args) == 1 && args[0] == "":
		return usage("kubectl oke-sign keys use takes one key, by name or OCID", "kubectl oke-sign keys list shows the keys")
	case o.unset && len(args) > 0:
		return usage("a key is named, and --unset would choose none", "leave one of them out")
	case !o.unset && len(args) == 0 && !o.interactive():
		return usage("no key named", "kubectl oke-sign keys list shows which keys can sign images")
	case len(args) > 0:
		if err := keyArgument(args[0]); err != nil {
			return err
		}
	}
	if err := o.global.validate(); err != nil {
		return err
	}
	return o.out.validate()
}

// chosenKey is the default key of a context.
type chosenKey struct {
	Context string `json:"context"`
	Key     string `json:"key"`
	Name    string `json:"name,omitempty"`
}

func (o *keysUseOptions) run(ctx context.Context, args []string) error {
	columns := []column{{name: "context"}, {name: "key"}, {name: "id"}}
	ctx, cancel := o.within(ctx)
	defer cancel()
	chosen, err := o.choose(ctx, args)
	if err != nil {
		return o.finish(o.out, columns, allFailed([]string{""}, because(ctx, err)))
	}
	if chosen == nil {
		return nil
	}
	out := o.out
	return out.print(o.streams.Out, data{value: chosen, columns: columns, names: []string{chosen.Key},
		blocks: []block{{rows: [][]string{{chosen.Context, chosen.Name, chosen.Key}}}}})
}

func (o *keysUseOptions) choose(ctx context.Context, args []string) (*chosenKey, error) {
	d, err := o.readDefaults()
	if err != nil {
		return nil, err
	}
	in, err := o.kube.context()
	if err != nil {
		return nil, err
	}
	if o.unset {
		if _, ok := d.Contexts[in]; !ok {
			o.remark("no key was chosen %s", inContext(in))
			return nil, nil
		}
		if err := o.changeDefaults(func(d *defaults) { delete(d.Contexts, in) }); err != nil {
			return nil, err
		}
		o.remark("no key is chosen %s any more", inContext(in))
		return nil, nil
	}
	c, err := o.connect(ctx)
	if err != nil {
		return nil, err
	}
	var name string
	if len(args) > 0 {
		name = args[0]
	}
	id, err := o.findKey(ctx, c, name)
	if err != nil {
		return nil, err
	}
	key, err := c.vault.MasterKey(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := refuse(key); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return &chosenKey{in, id.String(), key.Name}, o.changeDefaults(func(d *defaults) {
		if d.Contexts == nil {
			d.Contexts = make(map[string]choice)
		}
		d.Contexts[in] = choice{Key: id.String()}
	})
}
