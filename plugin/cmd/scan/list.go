package scan

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// listing is a command that lists the recipes or the targets of compartments.
type listing[T any] struct {
	kind    string // recipe or target
	columns []cli.Column
	list    func(ctx context.Context, c *connect.Cloud, compartment string) ([]T, error)
	state   func(T) string
	show    func(T) cli.Result
}

func (l listing[T]) command(s *connect.Session) *cobra.Command {
	var out cli.Output
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List scan " + l.kind + "s",
		Long: fmt.Sprintf(`List the scan %ss of the compartments of --compartment, or of all
compartments that you may see in the region.`, l.kind),
		Example: fmt.Sprintf("  kubectl oke-sign scan %s list -o wide", l.kind),
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(s.ValidateFlags(), out.Validate()); err != nil {
				return err
			}
			return l.run(cmd.Context(), s, out)
		},
	}
	out.Bind(cmd.Flags())
	return cmd
}

func (l listing[T]) run(ctx context.Context, s *connect.Session, out cli.Output) error {
	ctx, cancel := s.WithTimeout(ctx)
	defer cancel()
	c, err := s.Connect(ctx)
	var found []T
	if err == nil {
		found, err = everywhere(ctx, s, c, func(ctx context.Context, compartment string) ([]T, error) { return l.list(ctx, c, compartment) })
	}
	results := make([]cli.Result, 0, len(found))
	for _, item := range found {
		if l.state(item) != vulnscan.Deleted {
			results = append(results, l.show(item))
		}
	}
	switch {
	case err != nil:
		results = append(results, cli.Result{Err: cli.StopCause(ctx, err)})
	case len(results) == 0:
		s.Remark("there is no scan %s", l.kind)
	}
	return s.Finish(out, l.columns, results)
}
