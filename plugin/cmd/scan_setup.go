package cmd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/spf13/cobra"

	"github.com/oke-sign/oke-sign/provider/ociauth"
	"github.com/oke-sign/oke-sign/provider/registry"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

type scanSetupOptions struct {
	*global
	repositories []string
	recipe       string
	imageCount   int
	target       string
	noPolicy     bool
	out          output

	compartment string
}

func newScanSetup(g *global) *cobra.Command {
	o := &scanSetupOptions{global: g}
	cmd := &cobra.Command{
		Use:   "setup --compartment OCID [--repository NAME]",
		Short: "Have images scanned from now on",
		Long: `Do all that is needed to have the images of a compartment scanned: check the two
policy statements that let the service read them, and make the repositories, a
recipe and a target if they are not there yet. It waits until the target is
active; what is there already is left as it is, so that it may be run again.

Without --repository, all repositories of the compartment are scanned, those of
later too. Statements are printed and not added, because that takes an
administrator; while one is missing, no target is made.

Exit code 0: images are scanned. 3: they are not, as a statement is missing.`,
		Example: `  kubectl oke-sign scan setup --compartment ocid1.compartment.oc1..aaaa... \
    --repository scan-test`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmp.Or(notEmpty(cmd, "repository"), notEmpty(cmd, "recipe"), notEmpty(cmd, "target"), o.complete()); err != nil {
				return err
			}
			if err := cmp.Or(parseRepositories(o.repositories), checkImageCount(o.imageCount), o.validate(), o.out.validate()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.repositories, "repository", nil, "`NAME`s of the repositories to scan, without host and namespace. May be repeated.")
	flags.StringVar(&o.recipe, "recipe", "scan-recipe", "`NAME` of the recipe.")
	bindImageCount(flags, &o.imageCount)
	flags.StringVar(&o.target, "target", "scan-target", "`NAME` of the target, if one has to be made.")
	flags.BoolVar(&o.noPolicy, "no-policy", false, "Leave the check of the policy statements out.")
	o.out.bind(flags)
	return cmd
}

func (o *scanSetupOptions) complete() (err error) {
	o.compartment, err = o.global.compartment()
	return err
}

// setupStep is one thing that has to be there.
type setupStep struct {
	Step   string `json:"step"`   // policy, repository, recipe, target
	Result string `json:"result"` // there, made, missing, unknown
	Name   string `json:"name"`   // or the statement
	ID     string `json:"id,omitempty"`
	State  string `json:"state,omitempty"`
}

var setupColumns = []column{{name: "step"}, {name: "result"}, {name: "name"}, {name: "id", wide: true}}

func (s setupStep) show() result {
	r := result{value: s, rows: [][]string{{s.Step, s.Result, s.Name, s.ID}}, no: s.Result == "missing"}
	if s.ID != "" {
		r.names = []string{s.ID}
	}
	return r
}

func (o *scanSetupOptions) run(ctx context.Context) error {
	ctx, cancel := o.within(ctx)
	defer cancel()
	c, err := o.connect(ctx)
	if err != nil {
		return o.finish(o.out, setupColumns, allFailed([]string{""}, because(ctx, err)))
	}
	var results []result
	todo := []func(context.Context, *cloud) ([]setupStep, error){o.makeRepositories, o.makeRecipeAndTarget}
	if !o.noPolicy {
		results = o.policies(ctx, c)
		if slices.ContainsFunc(results, func(r result) bool { return r.no }) {
			todo = todo[:1] // a target would fail, and would have to be deleted
		}
	}
	for _, step := range todo {
		steps, err := step(ctx, c)
		for _, s := range steps {
			results = append(results, s.show())
		}
		if err != nil {
			results = append(results, result{err: because(ctx, err)})
			break
		}
	}
	return o.finish(o.out, setupColumns, results)
}

// policies says of each of the two statements whether it is there.
func (o *scanSetupOptions) policies(ctx context.Context, c *cloud) []result {
	found, err := scanPolicies(ctx, c, o.compartment)
	var results []result
	missing := false
	for _, s := range found {
		results = append(results, s.show())
		missing = missing || s.Result == "missing"
	}
	last := &results[len(results)-1]
	if missing {
		last.notes = append(last.notes, "images cannot be scanned without these statements: have an administrator add what is missing to a policy, and run this again")
	}
	if err != nil {
		last.part = &refusal{fmt.Errorf("finding out which policy statements are there: %w", because(ctx, err)), "have an administrator look for the two statements, and leave this check out with --no-policy"}
	}
	return results
}

// makeRepositories makes those of --repository that are not there.
func (o *scanSetupOptions) makeRepositories(ctx context.Context, c *cloud) ([]setupStep, error) {
	var steps []setupStep
	for _, name := range o.repositories {
		s := setupStep{Step: "repository", Result: "there", Name: name}
		found, err := c.registry.Repository(ctx, c.who.Region(), o.compartment, name)
		if errors.Is(err, registry.ErrNotFound) {
			s.Result = "made"
			found, err = c.registry.CreateRepository(ctx, c.who.Region(), o.compartment, name)
			if refused, ok := errors.AsType[*ociauth.Error](err); ok && refused.Status == http.StatusConflict {
				err = &refusal{err, "names of repositories are unique in a tenancy: this one lies in another compartment, which is the one to name with --compartment"}
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

// makeRecipeAndTarget makes a target for what no target scans yet, and a recipe
// for it.
func (o *scanSetupOptions) makeRecipeAndTarget(ctx context.Context, c *cloud) ([]setupStep, error) {
	in := c.who.Region()
	recipes, err := c.scanning.Recipes(ctx, in, o.compartment)
	if err != nil {
		return nil, err
	}
	targets, err := c.scanning.Targets(ctx, in, o.compartment)
	if err != nil {
		return nil, err
	}
	scanned, left := o.covered(ctx, c, recipes, targets)
	var steps []setupStep
	for _, t := range scanned {
		t, err := o.awaitTarget(ctx, c, t)
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
		if by, err = c.scanning.CreateRecipe(ctx, in, vulnscan.Recipe{Name: o.recipe, CompartmentID: o.compartment, ImageCount: o.imageCount}); err != nil {
			return steps, err
		}
	}
	recipe.Name, recipe.ID, recipe.State = by.Name, by.ID, by.State
	steps = append(steps, recipe)

	made, err := c.scanning.CreateTarget(ctx, in, vulnscan.Target{
		Name: o.target, CompartmentID: o.compartment, In: o.compartment, RecipeID: by.ID, URL: registryURL(in), Repositories: left,
	})
	if err == nil {
		made, err = o.awaitTarget(ctx, c, made)
	}
	if err != nil && made.State == vulnscan.Failed {
		o.discard(ctx, c, made)
	}
	if err != nil {
		return steps, err
	}
	return append(steps, setupStep{Step: "target", Result: "made", Name: made.Name, ID: made.ID, State: made.State}), nil
}

// discard deletes a target that this command made and that failed. It scans nothing,
// and every run would leave another one.
func (o *scanSetupOptions) discard(ctx context.Context, c *cloud, t vulnscan.Target) {
	if err := c.scanning.DeleteTarget(ctx, c.who.Region(), t.ID); err != nil {
		o.remark("the target that was made could not be deleted again: %v", err)
		o.remark("kubectl oke-sign scan target delete %s does it", t.ID)
		return
	}
	o.remark("the target that was made is deleted again")
}

// covered are the targets of the compartment that scan what was named, and what
// of it none of them does.
func (o *scanSetupOptions) covered(ctx context.Context, c *cloud, recipes []vulnscan.Recipe, targets []vulnscan.Target) (scanned []vulnscan.Target, left []string) {
	left = o.repositories
	for _, t := range targets {
		live := t.State == vulnscan.Active || t.State == "CREATING" || t.State == "UPDATING"
		if !live || t.In != o.compartment || vulnscan.RegistryRegion(t.URL) != c.who.Region() || !o.scans(ctx, c, recipes, t) {
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

// scans reports whether a target's recipe has images scanned. It may lie in
// another compartment; one that cannot be read is taken for one that does not.
func (o *scanSetupOptions) scans(ctx context.Context, c *cloud, recipes []vulnscan.Recipe, t vulnscan.Target) bool {
	i := slices.IndexFunc(recipes, func(r vulnscan.Recipe) bool { return r.ID == t.RecipeID })
	if i >= 0 {
		return recipes[i].Level == vulnscan.Standard
	}
	r, err := c.scanning.Recipe(ctx, c.who.Region(), t.RecipeID)
	return err == nil && r.Level == vulnscan.Standard
}
