package scan

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// listedTarget is a target as it is shown.
type listedTarget struct {
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	Description   string   `json:"description,omitempty"`
	CompartmentID string   `json:"compartmentId"`
	RecipeID      string   `json:"recipeId"`
	State         string   `json:"state"`
	URL           string   `json:"url"`
	In            string   `json:"repositoriesCompartmentId"`
	Repositories  []string `json:"repositories"` // none: all of the compartment
	Created       string   `json:"created,omitempty"`
}

var targetColumns = []cli.Column{{Name: "name"}, {Name: "state"}, {Name: "registry"}, {Name: "repositories"},
	{Name: "compartment", Wide: true}, {Name: "of compartment", Wide: true}, {Name: "recipe", Wide: true}, {Name: "created", Wide: true}, {Name: "id"}}

func showTarget(t vulnscan.Target) cli.Result {
	v := listedTarget{t.ID, t.Name, t.Description, t.CompartmentID, t.RecipeID, t.State, t.URL, t.In, t.Repositories, cli.Timestamp(t.TimeCreated)}
	if v.Repositories == nil {
		v.Repositories = []string{}
	}
	return cli.Result{
		Value: v, Names: []string{t.ID},
		Rows: [][]string{{t.Name, t.State, strings.TrimPrefix(t.URL, "https://"), repositoriesOf(t), t.CompartmentID, t.In, t.RecipeID, v.Created, t.ID}},
	}
}

func repositoriesOf(t vulnscan.Target) string {
	if len(t.Repositories) == 0 {
		return "all"
	}
	return cli.Clip(strings.Join(t.Repositories, ","), 60)
}

type targetListOptions struct {
	*connect.Session
	out cli.Output
}

func newTargetList(s *connect.Session) *cobra.Command {
	o := &targetListOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List scan targets",
		Long: `List the scan targets of the compartments of --compartment, or of all
compartments of the region that you may look into.`,
		Example: `  kubectl oke-sign scan target list -o wide`,
		Args:    cli.NoArguments,
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

func (o *targetListOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	var found []vulnscan.Target
	if err == nil {
		found, err = everywhere(ctx, o.Session, c, func(ctx context.Context, compartment string) ([]vulnscan.Target, error) {
			return c.Scanning.Targets(ctx, c.Who.Region(), compartment)
		})
	}
	results := make([]cli.Result, 0, len(found))
	for _, t := range found {
		if t.State != vulnscan.Deleted {
			results = append(results, showTarget(t))
		}
	}
	switch {
	case err != nil:
		results = append(results, cli.Result{Err: cli.StopCause(ctx, err)})
	case len(results) == 0:
		o.Remark("there is no scan target")
	}
	return o.Finish(o.out, targetColumns, results)
}

type targetCreateOptions struct {
	*connect.Session
	recipe       string
	repositories []string
	url          string
	description  string
	out          cli.Output

	name        string
	compartment string
}

func newTargetCreate(s *connect.Session) *cobra.Command {
	o := &targetCreateOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "create NAME --compartment OCID --recipe OCID [--repository NAME]",
		Short: "Make a scan target",
		Long: `Make a scan target in the compartment of the repositories, and wait until it is
active. Without --repository, all repositories of the compartment are scanned,
those of later too.`,
		Example: `  kubectl oke-sign scan target create scan-target \
    --compartment ocid1.compartment.oc1..aaaa... \
    --recipe ocid1.vsscontainerscanrecipe.oc1.iad.aaaa... --repository scan-test`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "repository"), o.complete(args)); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.recipe, "recipe", "", "`OCID` of the recipe to scan by.")
	flags.StringSliceVar(&o.repositories, "repository", nil, "`NAME`s of the repositories to scan, without host and namespace. May be repeated.")
	flags.StringVar(&o.url, "url", "", "`URL` of the registry; that of the region if not given.")
	flags.StringVar(&o.description, "description", "", "`TEXT` that describes the target.")
	o.out.Bind(flags)
	return cmd
}

func (o *targetCreateOptions) complete(args []string) (err error) {
	if len(args) != 1 || args[0] == "" {
		return cli.Usage("one name is wanted", "for instance kubectl oke-sign scan target create scan-target")
	}
	o.name = args[0]
	o.compartment, err = o.Compartment()
	return err
}

func (o *targetCreateOptions) validate() error {
	switch {
	case o.recipe == "":
		return cli.Usage("--recipe is missing", "kubectl oke-sign scan recipe list shows the OCIDs of recipes")
	case o.url != "" && vulnscan.RegistryRegion(o.url).IsZero():
		return cli.Usage(fmt.Sprintf("--url %q is not the address of OCI Registry", o.url), "for instance --url https://iad.ocir.io, or leave it out")
	}
	return cmp.Or(ids([]string{o.recipe}, "recipe"), parseRepositories(o.repositories), o.ValidateFlags(), o.out.Validate())
}

func (o *targetCreateOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	var made vulnscan.Target
	if err == nil {
		made, err = c.Scanning.CreateTarget(ctx, c.Who.Region(), vulnscan.Target{
			Name: o.name, Description: o.description, CompartmentID: o.compartment, In: o.compartment, RecipeID: o.recipe,
			URL: cmp.Or(o.url, registryURL(c.Who.Region())), Repositories: o.repositories,
		})
	}
	if err == nil {
		made, err = awaitTarget(ctx, o.Session, c, made)
	}
	if err != nil {
		return o.Finish(o.out, targetColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	return o.Finish(o.out, targetColumns, []cli.Result{showTarget(made)})
}

func newTargetDelete(s *connect.Session) *cobra.Command {
	return newScanDelete(s, "target", "What scans have\nfound before stays to be seen.",
		func(ctx context.Context, c *connect.Cloud, id string) error {
			return c.Scanning.DeleteTarget(ctx, c.Who.Region(), id)
		},
		func(ctx context.Context, c *connect.Cloud, id string) (string, error) {
			t, err := c.Scanning.Target(ctx, c.Who.Region(), id)
			return t.State, err
		})
}
