package cmd

import (
	"cmp"
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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

var recipeColumns = []column{{name: "name"}, {name: "state"}, {name: "level"}, {name: "images at first", wide: true}, {name: "compartment", wide: true}, {name: "created", wide: true}, {name: "id"}}

func showRecipe(r vulnscan.Recipe) result {
	v := listedRecipe{r.ID, r.Name, r.CompartmentID, r.State, r.Level, r.ImageCount, timestamp(r.TimeCreated)}
	first := ""
	if r.ImageCount > 0 {
		first = strconv.Itoa(r.ImageCount)
	}
	return result{value: v, names: []string{r.ID}, rows: [][]string{{r.Name, r.State, r.Level, first, r.CompartmentID, v.Created, r.ID}}}
}

type recipeListOptions struct {
	*global
	out output
}

func newRecipeList(g *global) *cobra.Command {
	o := &recipeListOptions{global: g}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List scan recipes",
		Long: `List the scan recipes of the compartments of --compartment, or of all
compartments of the region that you may look into.`,
		Example: `  kubectl oke-sign scan recipe list`,
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *recipeListOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connect(ctx)
	var found []vulnscan.Recipe
	if err == nil {
		found, err = everywhere(ctx, o.global, c, func(ctx context.Context, compartment string) ([]vulnscan.Recipe, error) {
			return c.scanning.Recipes(ctx, c.who.Region(), compartment)
		})
	}
	results := make([]result, 0, len(found))
	for _, r := range found {
		if r.State != vulnscan.Deleted {
			results = append(results, showRecipe(r))
		}
	}
	switch {
	case err != nil:
		results = append(results, result{err: because(ctx, err)})
	case len(results) == 0:
		o.remark("there is no scan recipe")
	}
	return o.finish(o.out, recipeColumns, results)
}

type recipeCreateOptions struct {
	*global
	imageCount int
	out        output

	name        string
	compartment string
}

func newRecipeCreate(g *global) *cobra.Command {
	o := &recipeCreateOptions{global: g}
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
	o.out.bind(cmd.Flags())
	return cmd
}

func (o *recipeCreateOptions) complete(args []string) (err error) {
	if len(args) != 1 || args[0] == "" {
		return usage("one name is wanted", "for instance kubectl oke-sign scan recipe create scan-recipe")
	}
	o.name = args[0]
	o.compartment, err = o.global.compartment()
	return err
}

func (o *recipeCreateOptions) validate() error {
	return cmp.Or(checkImageCount(o.imageCount), o.global.validate(), o.out.validate())
}

func bindImageCount(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "image-count", 0, "`NUMBER` of images of each repository that a new recipe has scanned at first; left to OCI if 0.")
}

func checkImageCount(n int) error {
	if n < 0 {
		return usage(fmt.Sprintf("--image-count %d is less than none", n), "leave it out, or give a number of images")
	}
	return nil
}

func (o *recipeCreateOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connect(ctx)
	var made vulnscan.Recipe
	if err == nil {
		made, err = c.scanning.CreateRecipe(ctx, c.who.Region(), vulnscan.Recipe{Name: o.name, CompartmentID: o.compartment, ImageCount: o.imageCount})
	}
	if err != nil {
		return o.finish(o.out, recipeColumns, allFailed([]string{""}, because(ctx, err)))
	}
	return o.finish(o.out, recipeColumns, []result{showRecipe(made)})
}

func newRecipeDelete(g *global) *cobra.Command {
	return newScanDelete(g, "recipe", "A recipe that a\ntarget uses stays: delete the target first.",
		func(ctx context.Context, c *cloud, id string) error {
			return c.scanning.DeleteRecipe(ctx, c.who.Region(), id)
		},
		func(ctx context.Context, c *cloud, id string) (string, error) {
			r, err := c.scanning.Recipe(ctx, c.who.Region(), id)
			return r.State, err
		})
}
