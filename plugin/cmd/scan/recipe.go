package scan

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// listedRecipe is a recipe as it is shown.
type listedRecipe struct {
	ID            string `json:"id"`
	Name          string `json:"name"`
	CompartmentID string `json:"compartmentId"`
	State         string `json:"state"`
	Level         string `json:"scanLevel"`
	ImageCount    int    `json:"imageCount,omitempty"`
	Created       string `json:"created,omitempty"`
}

var recipeColumns = []cli.Column{{Name: "name"}, {Name: "state"}, {Name: "level"}, {Name: "images at first", Wide: true}, {Name: "compartment", Wide: true}, {Name: "created", Wide: true}, {Name: "id"}}

func showRecipe(r vulnscan.Recipe) cli.Result {
	v := listedRecipe{r.ID, r.Name, r.CompartmentID, r.State, r.Level, r.ImageCount, cli.Timestamp(r.TimeCreated)}
	first := ""
	if r.ImageCount > 0 {
		first = strconv.Itoa(r.ImageCount)
	}
	return cli.Result{Value: v, Names: []string{r.ID}, Rows: [][]string{{r.Name, r.State, r.Level, first, r.CompartmentID, v.Created, r.ID}}}
}

type recipeListOptions struct {
	*connect.Session
	out cli.Output
}

func newRecipeList(s *connect.Session) *cobra.Command {
	o := &recipeListOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List scan recipes",
		Long: `List the scan recipes of the compartments of --compartment, or of all
compartments of the region that you may look into.`,
		Example: `  kubectl oke-sign scan recipe list`,
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

func (o *recipeListOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	var found []vulnscan.Recipe
	if err == nil {
		found, err = everywhere(ctx, o.Session, c, func(ctx context.Context, compartment string) ([]vulnscan.Recipe, error) {
			return c.Scanning.Recipes(ctx, c.Who.Region(), compartment)
		})
	}
	results := make([]cli.Result, 0, len(found))
	for _, r := range found {
		if r.State != vulnscan.Deleted {
			results = append(results, showRecipe(r))
		}
	}
	switch {
	case err != nil:
		results = append(results, cli.Result{Err: cli.StopCause(ctx, err)})
	case len(results) == 0:
		o.Remark("there is no scan recipe")
	}
	return o.Finish(o.out, recipeColumns, results)
}

type recipeCreateOptions struct {
	*connect.Session
	imageCount int
	out        cli.Output

	name        string
	compartment string
}

func newRecipeCreate(s *connect.Session) *cobra.Command {
	o := &recipeCreateOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "create NAME --compartment OCID",
		Short: "Make a scan recipe",
		Long:  `Make a scan recipe of level STANDARD, the only one that scans, in a compartment.`,
		Example: `  kubectl oke-sign scan recipe create scan-recipe \
    --compartment ocid1.compartment.oc1..aaaa...`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	bindImageCount(cmd.Flags(), &o.imageCount)
	o.out.Bind(cmd.Flags())
	return cmd
}

func (o *recipeCreateOptions) complete(args []string) (err error) {
	if len(args) != 1 || args[0] == "" {
		return cli.Usage("one name is wanted", "for instance kubectl oke-sign scan recipe create scan-recipe")
	}
	o.name = args[0]
	o.compartment, err = o.Compartment()
	return err
}

func (o *recipeCreateOptions) validate() error {
	return cmp.Or(checkImageCount(o.imageCount), o.ValidateFlags(), o.out.Validate())
}

func bindImageCount(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "image-count", 0, "`NUMBER` of images of each repository that a new recipe has scanned at first; left to OCI if 0.")
}

func checkImageCount(n int) error {
	if n < 0 {
		return cli.Usage(fmt.Sprintf("--image-count %d is less than none", n), "leave it out, or give a number of images")
	}
	return nil
}

func (o *recipeCreateOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	var made vulnscan.Recipe
	if err == nil {
		made, err = c.Scanning.CreateRecipe(ctx, c.Who.Region(), vulnscan.Recipe{Name: o.name, CompartmentID: o.compartment, ImageCount: o.imageCount})
	}
	if err != nil {
		return o.Finish(o.out, recipeColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	return o.Finish(o.out, recipeColumns, []cli.Result{showRecipe(made)})
}

func newRecipeDelete(s *connect.Session) *cobra.Command {
	return newScanDelete(s, "recipe", "A recipe that a\ntarget uses stays: delete the target first.",
		func(ctx context.Context, c *connect.Cloud, id string) error {
			return c.Scanning.DeleteRecipe(ctx, c.Who.Region(), id)
		},
		func(ctx context.Context, c *connect.Cloud, id string) (string, error) {
			r, err := c.Scanning.Recipe(ctx, c.Who.Region(), id)
			return r.State, err
		})
}
