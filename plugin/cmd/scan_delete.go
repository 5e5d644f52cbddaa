package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

type scanDeleteOptions struct {
	*global
	kind string // recipe or target
	out  output

	ids []string
}

// deleted is what was deleted.
type deleted struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// newScanDelete is the command that deletes recipes or targets, told apart by
// what deletes one and says in which state it is.
func newScanDelete(g *global, kind, more string,
	remove func(ctx context.Context, c *cloud, id string) error,
	state func(ctx context.Context, c *cloud, id string) (string, error),
) *cobra.Command {
	o := &scanDeleteOptions{global: g, kind: kind}
	cmd := &cobra.Command{
		Use:     "delete OCID...",
		Short:   "Delete scan " + kind + "s",
		Long:    fmt.Sprintf("Delete scan %ss, and wait until they are gone. %s", kind, more),
		Example: fmt.Sprintf("  kubectl oke-sign scan %[1]s delete ocid1.vsscontainerscan%[1]s.oc1.iad.aaaa...", kind),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ids = args
			if err := cmp.Or(ids(args, kind), o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context(), remove, state)
		},
	}
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *scanDeleteOptions) run(ctx context.Context,
	remove func(ctx context.Context, c *cloud, id string) error,
	state func(ctx context.Context, c *cloud, id string) (string, error),
) error {
	columns := []column{{name: "id"}, {name: "state"}}
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connect(ctx)
	if err != nil {
		return o.finish(o.out, columns, allFailed(o.ids, because(ctx, err)))
	}
	return o.finish(o.out, columns, each(ctx, o.ids, func(ctx context.Context, i int) result {
		id := o.ids[i]
		err := remove(ctx, c, id)
		if err == nil {
			err = o.await(ctx, fmt.Sprintf("scan %s %s to be deleted", o.kind, short(id)), func() (bool, error) {
				now, err := state(ctx, c, id)
				if errors.Is(err, vulnscan.ErrNotFound) {
					return true, nil
				}
				return now == vulnscan.Deleted, err
			})
		}
		if err != nil {
			return result{err: err}
		}
		return result{value: deleted{id, vulnscan.Deleted}, names: []string{id}, rows: [][]string{{id, vulnscan.Deleted}}}
	}))
}
