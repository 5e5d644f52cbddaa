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

// listedRecipe is a recipe in the output.
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

func newRecipeList(s *connect.Session) *cobra.Command {
	return listing[vulnscan.Recipe]{
		kind: "recipe", columns: recipeColumns, show: showRecipe,
		list: func(ctx context.Context, c *connect.Cloud, compartment string) ([]vulnscan.Recipe, error) {
			return c.Scanning.Recipes(ctx, c.Who.Region(), compartment)
		},
		state: func(r vulnscan.Recipe) string { return r.State },
	}.command(s)
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
		Short: "Create a scan recipe",
		Long: `Create a scan recipe in a compartment. Its level is STANDARD, the only level
that scans.`,
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
		return cli.Usage("kubectl oke-sign scan recipe create takes one name", "for instance kubectl oke-sign scan recipe create scan-recipe")
	}
	o.name = args[0]
	o.compartment, err = o.Compartment()
	return err
}

func (o *recipeCreateOptions) validate() error {
	return cmp.Or(checkImageCount(o.imageCount), o.ValidateFlags(), o.out.Validate())
}

// bindRepositories adds --repository.
func bindRepositories(flags *pflag.FlagSet, names *[]string) {
	flags.StringSliceVar(names, "repository", nil, "`NAME`s of the repositories to scan, without host and namespace. May be repeated.")
}

func bindImageCount(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "image-count", 0, "`NUMBER` of existing images of each repository to scan at first; OCI decides if it is 0.")
}

func checkImageCount(n int) error {
	if n < 0 {
		return cli.Usage(fmt.Sprintf("--image-count %d is negative", n), "omit it, or give a number of images")
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
	return newScanDelete(s, "recipe", "OCI\nkeeps a recipe that a target uses: delete the target first.",
		func(ctx context.Context, c *connect.Cloud, id string) error {
			return c.Scanning.DeleteRecipe(ctx, c.Who.Region(), id)
		},
		func(ctx context.Context, c *connect.Cloud, id string) (string, error) {
			r, err := c.Scanning.Recipe(ctx, c.Who.Region(), id)
			return r.State, err
		})
}
