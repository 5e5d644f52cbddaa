package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

type scanSetupOptions struct {
	*connect.Session
	repositories []string
	recipe       string
	imageCount   int
	target       string
	noPolicy     bool
	out          cli.Output

	compartment string
}

func newScanSetup(s *connect.Session) *cobra.Command {
	o := &scanSetupOptions{Session: s}
	cmd := &cobra.Command{
		Use:   "setup --compartment OCID [--repository NAME]",
		Short: "Set up scans of a compartment's images",
		Long: `Set up scans of the images of a compartment. The command checks the two policy
statements that let the service read the images. It creates the repositories, a
recipe and a target if they are missing, and waits until the target is active.
It changes nothing that exists, so you can run it again.

Without --repository, OCI scans all repositories of the compartment, later ones
included. Adding statements takes an administrator, so the command only prints
them. While a statement is missing, it creates no target.

Exit code 0: OCI scans the images. 3: it does not, because a statement is
missing.`,
		Example: `  kubectl oke-sign scan setup --compartment $COMPARTMENT --repository scan-test`,
		Args:    cli.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(cli.NotEmpty(cmd, "repository"), cli.NotEmpty(cmd, "recipe"), cli.NotEmpty(cmd, "target"), o.complete()); err != nil {
				return err
			}
			if err := cmp.Or(parseRepositories(o.repositories), checkImageCount(o.imageCount), o.ValidateFlags(), o.out.Validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	bindRepositories(flags, &o.repositories)
	flags.StringVar(&o.recipe, "recipe", "scan-recipe", "`NAME` of the recipe.")
	bindImageCount(flags, &o.imageCount)
	flags.StringVar(&o.target, "target", "scan-target", "`NAME` of the target to create if there is none.")
	flags.BoolVar(&o.noPolicy, "no-policy", false, "Skip the check of the policy statements.")
	o.out.Bind(flags)
	return cmd
}

func (o *scanSetupOptions) complete() (err error) {
	o.compartment, err = o.Compartment()
	return err
}

// setupStep is one object that must exist.
type setupStep struct {
	Step   string `json:"step"`   // policy, repository, recipe, target
	Result string `json:"result"` // there, made, missing, unknown
	Name   string `json:"name"`   // or the statement
	ID     string `json:"id,omitempty"`
	State  string `json:"state,omitempty"`
}

var setupColumns = []cli.Column{{Name: "step"}, {Name: "result"}, {Name: "name"}, {Name: "id", Wide: true}}

func (s setupStep) show() cli.Result {
	r := cli.Result{Value: s, Rows: [][]string{{s.Step, s.Result, s.Name, s.ID}}, Denied: s.Result == "missing"}
	if s.ID != "" {
		r.Names = []string{s.ID}
	}
	return r
}

func (o *scanSetupOptions) run(ctx context.Context) error {
	ctx, cancel := o.WithTimeout(ctx)
	defer cancel()
	c, err := o.Connect(ctx)
	if err != nil {
		return o.Finish(o.out, setupColumns, cli.AllFailed([]string{""}, cli.StopCause(ctx, err)))
	}
	var results []cli.Result
	todo := []func(context.Context, *connect.Cloud) ([]setupStep, error){o.makeRepositories, o.makeRecipeAndTarget}
	if !o.noPolicy {
		results = o.policies(ctx, c)
		if slices.ContainsFunc(results, func(r cli.Result) bool { return r.Denied }) {
			todo = todo[:1] // a target would fail, and the command would have to delete it
		}
	}
	for _, step := range todo {
		steps, err := step(ctx, c)
		for _, s := range steps {
			results = append(results, s.show())
		}
		if err != nil {
			results = append(results, cli.Result{Err: cli.StopCause(ctx, err)})
			break
		}
	}
	return o.Finish(o.out, setupColumns, results)
}

// policies reports whether each of the two statements exists.
func (o *scanSetupOptions) policies(ctx context.Context, c *connect.Cloud) []cli.Result {
	found, err := scanPolicies(ctx, c, o.compartment)
	var results []cli.Result
	missing := false
	for _, s := range found {
		results = append(results, s.show())
		missing = missing || s.Result == "missing"
	}
	last := &results[len(results)-1]
	if missing {
		last.Notes = append(last.Notes, "images cannot be scanned without these statements: have an administrator add what is missing to a policy, and run this again")
	}
	if err != nil {
		last.PartialErr = &cli.HintedError{What: fmt.Errorf("finding out which policy statements are there: %w", cli.StopCause(ctx, err)), Hint: "have an administrator look for the two statements, and leave this check out with --no-policy"}
	}
	return results
}

// makeRepositories makes the missing repositories of --repository.
func (o *scanSetupOptions) makeRepositories(ctx context.Context, c *connect.Cloud) ([]setupStep, error) {
	var steps []setupStep
	for _, name := range o.repositories {
		s := setupStep{Step: "repository", Result: "there", Name: name}
		found, err := c.Registry.Repository(ctx, c.Who.Region(), o.compartment, name)
		if errors.Is(err, registry.ErrNotFound) {
			s.Result = "made"
			found, err = c.Registry.CreateRepository(ctx, c.Who.Region(), o.compartment, name)
			if refused, ok := errors.AsType[*oci.Error](err); ok && refused.Status == http.StatusConflict {
				err = &cli.HintedError{What: err, Hint: "names of repositories are unique in a tenancy: this one is in another compartment; name that with --compartment"}
			}
		}
		if err != nil {
			return steps, err
		}
		s.ID = found.ID
		steps = append(steps, s)
	}
	return steps, nil
}

// makeRecipeAndTarget makes a target for the repositories that no target scans yet,
// and a recipe for it.
func (o *scanSetupOptions) makeRecipeAndTarget(ctx context.Context, c *connect.Cloud) ([]setupStep, error) {
	in := c.Who.Region()
	recipes, err := c.Scanning.Recipes(ctx, in, o.compartment)
	if err != nil {
		return nil, err
	}
	targets, err := c.Scanning.Targets(ctx, in, o.compartment)
	if err != nil {
		return nil, err
	}
	scanned, left := o.covered(ctx, c, recipes, targets)
	var steps []setupStep
	for _, t := range scanned {
		t, err := awaitTarget(ctx, o.Session, c, t)
		if err != nil {
			return steps, err
		}
		steps = append(steps, setupStep{Step: "target", Result: "there", Name: t.Name, ID: t.ID, State: t.State})
	}
	if len(scanned) > 0 && len(left) == 0 {
		return steps, nil
	}

	recipe := setupStep{Step: "recipe", Result: "there"}
	i := slices.IndexFunc(recipes, func(r vulnscan.Recipe) bool {
		return r.Name == o.recipe && r.State == vulnscan.Active && r.Level == vulnscan.Standard
	})
	var by vulnscan.Recipe
	if i >= 0 {
		by = recipes[i]
	} else {
		recipe.Result = "made"
		if by, err = c.Scanning.CreateRecipe(ctx, in, vulnscan.Recipe{Name: o.recipe, CompartmentID: o.compartment, ImageCount: o.imageCount}); err != nil {
			return steps, err
		}
	}
	recipe.Name, recipe.ID, recipe.State = by.Name, by.ID, by.State
	steps = append(steps, recipe)

	made, err := c.Scanning.CreateTarget(ctx, in, vulnscan.Target{
		Name: o.target, CompartmentID: o.compartment, In: o.compartment, RecipeID: by.ID, URL: registryURL(in), Repositories: left,
	})
	if err == nil {
		made, err = awaitTarget(ctx, o.Session, c, made)
	}
	if err != nil && made.State == vulnscan.Failed {
		o.discard(ctx, c, made)
	}
	if err != nil {
		return steps, err
	}
	return append(steps, setupStep{Step: "target", Result: "made", Name: made.Name, ID: made.ID, State: made.State}), nil
}

// discard deletes a failed target that this command has made. It scans nothing, and
// each run would leave another one.
func (o *scanSetupOptions) discard(ctx context.Context, c *connect.Cloud, t vulnscan.Target) {
	if err := c.Scanning.DeleteTarget(ctx, c.Who.Region(), t.ID); err != nil {
		o.Remark("the target that was made could not be deleted again: %v", err)
		o.Remark("kubectl oke-sign scan target delete %s does it", t.ID)
		return
	}
	o.Remark("the target that was made is deleted again")
}

// covered returns the targets of the compartment that scan the named repositories,
// and the repositories that no target scans.
func (o *scanSetupOptions) covered(ctx context.Context, c *connect.Cloud, recipes []vulnscan.Recipe, targets []vulnscan.Target) (scanned []vulnscan.Target, left []string) {
	left = o.repositories
	for _, t := range targets {
		live := t.State == vulnscan.Active || t.State == "CREATING" || t.State == "UPDATING"
		if !live || t.In != o.compartment || vulnscan.RegistryRegion(t.URL) != c.Who.Region() || !o.scans(ctx, c, recipes, t) {
			continue
		}
		if len(t.Repositories) == 0 {
			return []vulnscan.Target{t}, nil
		}
		if n := len(left); n > 0 {
			left = slices.DeleteFunc(slices.Clone(left), func(name string) bool { return slices.Contains(t.Repositories, name) })
			if len(left) < n {
				scanned = append(scanned, t)
			}
		}
	}
	return scanned, left
}

// scans reports whether a target's recipe scans images. The recipe may be in another
// compartment. An unreadable recipe counts as one that does not scan.
func (o *scanSetupOptions) scans(ctx context.Context, c *connect.Cloud, recipes []vulnscan.Recipe, t vulnscan.Target) bool {
	i := slices.IndexFunc(recipes, func(r vulnscan.Recipe) bool { return r.ID == t.RecipeID })
	if i >= 0 {
		return recipes[i].Level == vulnscan.Standard
	}
	r, err := c.Scanning.Recipe(ctx, c.Who.Region(), t.RecipeID)
	return err == nil && r.Level == vulnscan.Standard
}
