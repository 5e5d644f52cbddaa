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

// listedTarget is a target in the output.
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

func newTargetList(s *connect.Session) *cobra.Command {
	return listing[vulnscan.Target]{
		kind: "target", columns: targetColumns, show: showTarget,
		list: func(ctx context.Context, c *connect.Cloud, compartment string) ([]vulnscan.Target, error) {
			return c.Scanning.Targets(ctx, c.Who.Region(), compartment)
		},
		state: func(t vulnscan.Target) string { return t.State },
	}.command(s)
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
		Use: "create NAME --compartment OCID --recipe OCID",

		DisableFlagsInUseLine: true,

		Short: "Create a scan target",
		Long: `Create a scan target in the compartment of the repositories, and wait until it
is active. Without --repository, OCI scans all repositories of the compartment,
later ones included.`,
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
	flags.StringVar(&o.recipe, "recipe", "", "`OCID` of the recipe.")
	bindRepositories(flags, &o.repositories)
	flags.StringVar(&o.url, "url", "", "`URL` of the registry. Default: the registry of the region.")
	flags.StringVar(&o.description, "description", "", "`TEXT` that describes the target.")
	o.out.Bind(flags)
	return cmd
}

func (o *targetCreateOptions) complete(args []string) (err error) {
	if len(args) != 1 || args[0] == "" {
		return cli.Usage("kubectl oke-sign scan target create takes one name", "for instance kubectl oke-sign scan target create scan-target")
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
		return cli.Usage(fmt.Sprintf("--url %q is not the address of OCI Registry", o.url), "omit it, or write it as https://iad.ocir.io")
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
	return newScanDelete(s, "target", "The\nresults of earlier scans stay readable.",
		func(ctx context.Context, c *connect.Cloud, id string) error {
			return c.Scanning.DeleteTarget(ctx, c.Who.Region(), id)
		},
		func(ctx context.Context, c *connect.Cloud, id string) (string, error) {
			t, err := c.Scanning.Target(ctx, c.Who.Region(), id)
			return t.State, err
		})
}
