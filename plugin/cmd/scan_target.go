package cmd

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

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

var targetColumns = []column{{name: "name"}, {name: "state"}, {name: "registry"}, {name: "repositories"},
	{name: "compartment", wide: true}, {name: "of compartment", wide: true}, {name: "recipe", wide: true}, {name: "created", wide: true}, {name: "id"}}

func showTarget(t vulnscan.Target) result {
	v := listedTarget{t.ID, t.Name, t.Description, t.CompartmentID, t.RecipeID, t.State, t.URL, t.In, t.Repositories, timestamp(t.TimeCreated)}
	if v.Repositories == nil {
		v.Repositories = []string{}
	}
	return result{
		value: v, names: []string{t.ID},
		rows: [][]string{{t.Name, t.State, strings.TrimPrefix(t.URL, "https://"), repositoriesOf(t), t.CompartmentID, t.In, t.RecipeID, v.Created, t.ID}},
	}
}

func repositoriesOf(t vulnscan.Target) string {
	if len(t.Repositories) == 0 {
		return "all"
	}
	return clip(strings.Join(t.Repositories, ","), 60)
}

type targetListOptions struct {
	*global
	out output
}

func newTargetList(g *global) *cobra.Command {
	o := &targetListOptions{global: g}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List scan targets",
		Long: `List the scan targets of the compartments of --compartment, or of all
compartments of the region that you may look into.`,
		Example: `  kubectl oke-sign scan target list -o wide`,
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

func (o *targetListOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connect(ctx)
	var found []vulnscan.Target
	if err == nil {
		found, err = everywhere(ctx, o.global, c, func(ctx context.Context, compartment string) ([]vulnscan.Target, error) {
			return c.scanning.Targets(ctx, c.who.Region(), compartment)
		})
	}
	results := make([]result, 0, len(found))
	for _, t := range found {
		if t.State != vulnscan.Deleted {
			results = append(results, showTarget(t))
		}
	}
	switch {
	case err != nil:
		results = append(results, result{err: because(ctx, err)})
	case len(results) == 0:
		o.remark("there is no scan target")
	}
	return o.finish(o.out, targetColumns, results)
}

type targetCreateOptions struct {
	*global
	recipe       string
	repositories []string
	url          string
	description  string
	out          output

	name        string
	compartment string
}

func newTargetCreate(g *global) *cobra.Command {
	o := &targetCreateOptions{global: g}
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
			if err := cmp.Or(notEmpty(cmd, "repository"), o.complete(args)); err != nil {
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
	o.out.bind(flags)
	return cmd
}

func (o *targetCreateOptions) complete(args []string) (err error) {
	if len(args) != 1 || args[0] == "" {
		return usage("one name is wanted", "for instance kubectl oke-sign scan target create scan-target")
	}
	o.name = args[0]
	o.compartment, err = o.global.compartment()
	return err
}

func (o *targetCreateOptions) validate() error {
	switch {
	case o.recipe == "":
		return usage("--recipe is missing", "kubectl oke-sign scan recipe list shows the OCIDs of recipes")
	case o.url != "" && vulnscan.RegistryRegion(o.url).IsZero():
		return usage(fmt.Sprintf("--url %q is not the address of OCI Registry", o.url), "for instance --url https://iad.ocir.io, or leave it out")
	}
	return cmp.Or(ids([]string{o.recipe}, "recipe"), parseRepositories(o.repositories), o.global.validate(), o.out.validate())
}

func (o *targetCreateOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connect(ctx)
	var made vulnscan.Target
	if err == nil {
		made, err = c.scanning.CreateTarget(ctx, c.who.Region(), vulnscan.Target{
			Name: o.name, Description: o.description, CompartmentID: o.compartment, In: o.compartment, RecipeID: o.recipe,
			URL: cmp.Or(o.url, registryURL(c.who.Region())), Repositories: o.repositories,
		})
	}
	if err == nil {
		made, err = o.awaitTarget(ctx, c, made)
	}
	if err != nil {
		return o.finish(o.out, targetColumns, allFailed([]string{""}, because(ctx, err)))
	}
	return o.finish(o.out, targetColumns, []result{showTarget(made)})
}

func newTargetDelete(g *global) *cobra.Command {
	return newScanDelete(g, "target", "What scans have\nfound before stays to be seen.",
		func(ctx context.Context, c *cloud, id string) error {
			return c.scanning.DeleteTarget(ctx, c.who.Region(), id)
		},
		func(ctx context.Context, c *cloud, id string) (string, error) {
			t, err := c.scanning.Target(ctx, c.who.Region(), id)
			return t.State, err
		})
}
