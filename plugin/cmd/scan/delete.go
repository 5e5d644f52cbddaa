package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/signature"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

type scanDeleteOptions struct {
	*connect.Session
	kind string // recipe or target
	out  cli.Output

	ids []string
}

// deleted is a deleted recipe or target.
type deleted struct {
	ID    string `json:"id"`
	State string `json:"state"`
}

// newScanDelete makes the command that deletes recipes or targets. remove deletes one,
// and state reads its state.
func newScanDelete(s *connect.Session, kind, more string,
	remove func(ctx context.Context, c *connect.Cloud, id string) error,
	state func(ctx context.Context, c *connect.Cloud, id string) (string, error),
) *cobra.Command {
	o := &scanDeleteOptions{Session: s, kind: kind}
	cmd := &cobra.Command{
		Use:     "delete OCID...",
		Short:   "Delete scan " + kind + "s",
		Long:    fmt.Sprintf("Delete scan %ss, and wait until they are gone. %s", kind, more),
		Example: fmt.Sprintf("  kubectl oke-sign scan %s delete $%s", kind, strings.ToUpper(kind)),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.ids = args
			if err := cmp.Or(ids(args, kind), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context(), remove, state)
		},
	}
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *scanDeleteOptions) run(ctx context.Context,
	remove func(ctx context.Context, c *connect.Cloud, id string) error,
	state func(ctx context.Context, c *connect.Cloud, id string) (string, error),
) error {
	columns := []cli.Column{{Name: "id"}, {Name: "state"}}
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	if err != nil {
		return o.Finish(o.out, columns, cli.AllFailed(o.ids, cli.StopCause(ctx, err)))
	}
	return o.Finish(o.out, columns, cli.ForEach(ctx, o.ids, func(ctx context.Context, i int) cli.Result {
		id := o.ids[i]
		err := remove(ctx, c, id)
		if err == nil {
			err = await(ctx, o.Session, fmt.Sprintf("scan %s %s to be deleted", o.kind, signature.Short(id)), func() (bool, error) {
				now, err := state(ctx, c, id)
				if errors.Is(err, vulnscan.ErrNotFound) {
					return true, nil
				}
				return now == vulnscan.Deleted, err
			})
		}
		if err != nil {
			return cli.Result{Err: err}
		}
		return cli.Result{Value: deleted{id, vulnscan.Deleted}, Names: []string{id}, Rows: [][]string{{id, vulnscan.Deleted}}}
	}))
}
