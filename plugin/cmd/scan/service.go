package scan

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oke-sign/oke-sign/plugin/cli"
	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/oci"
	"github.com/oke-sign/oke-sign/provider/vulnscan"
)

// registryURL returns the address of OCI Registry in a region. It prefers the form
// in Oracle's walk-through.
func registryURL(in image.Region) string {
	if in.Realm() == "oc1" {
		return "https://" + in.Key() + ".ocir.io"
	}
	return "https://ocir." + in.ID() + ".oci." + in.Domain()
}

// parseRepositories checks the names of --repository.
func parseRepositories(names []string) error {
	for _, name := range names {
		if ref, err := image.Parse("iad.ocir.io/x/" + name + ":x"); err != nil || ref.Repository() != name {
			return cli.Usage(fmt.Sprintf("--repository %q is not the name of a repository", name), "leave out the host and the namespace: scan-test of iad.ocir.io/idwpqivumvev/scan-test")
		}
	}
	return nil
}

// everywhere lists objects in the compartments of --compartment, or in all visible
// compartments. It skips visible compartments without the right to list.
func everywhere[T any](ctx context.Context, s *connect.Session, c *connect.Cloud, list func(ctx context.Context, compartment string) ([]T, error)) ([]T, error) {
	compartments := make([]oci.Compartment, 0, len(s.Compartments))
	for _, id := range s.Compartments {
		compartments = append(compartments, oci.Compartment{ID: id})
	}
	if len(compartments) == 0 {
		var err error
		if compartments, err = c.Who.Compartments(ctx); err != nil {
			return nil, err
		}
	}
	found, failed := make([][]T, len(compartments)), make([]error, len(compartments))
	group := cli.Limited()
	for i, compartment := range compartments {
		group.Go(func() error {
			found[i], failed[i] = list(ctx, compartment.ID)
			if failed[i] != nil {
				failed[i] = fmt.Errorf("compartment %s: %w", cmp.Or(compartment.Name, compartment.ID), failed[i])
			}
			return nil
		})
	}
	_ = group.Wait()
	closed := 0
	var errs []error
	for _, err := range failed {
		if len(s.Compartments) == 0 && errors.Is(err, vulnscan.ErrNotFound) {
			closed++
			continue
		}
		errs = append(errs, err)
	}
	switch {
	case closed == len(compartments):
		return nil, &cli.HintedError{
			What: fmt.Errorf("you may not list this in any of %s of region %s", cli.Count(closed, "compartment"), c.Who.Region()),
			Hint: "ask for a policy that lets you `inspect vss-family`, or name a compartment with --compartment",
		}
	case closed > 0:
		s.Remark("%s skipped: you may not list this there", cli.Count(closed, "compartment"))
	}
	return slices.Concat(found...), errors.Join(errs...)
}

// pollEvery is the time between two requests for the progress.
const pollEvery = time.Second

// await polls until done reports true, and shows progress.
func await(ctx context.Context, s *connect.Session, what string, done func() (bool, error)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		ready, err := done()
		if ready || err != nil {
			return err
		}
		if n%5 == 0 {
			s.Remark("waiting for %s since %s", what, time.Duration(n)*pollEvery)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, cli.StopCause(ctx, ctx.Err()))
		}
	}
}

// awaitTarget waits until a new target is active.
func awaitTarget(ctx context.Context, s *connect.Session, c *connect.Cloud, t vulnscan.Target) (vulnscan.Target, error) {
	err := await(ctx, s, "scan target "+t.Name+" to be active", func() (bool, error) {
		now, err := c.Scanning.Target(ctx, c.Who.Region(), t.ID)
		if err != nil {
			return false, err
		}
		t = now
		if t.State == vulnscan.Failed {
			return false, &cli.HintedError{
				What: fmt.Errorf("scan target %s (%s) is %s", t.Name, t.ID, t.State),
				Hint: "the service may not be allowed to read the repositories: kubectl oke-sign scan setup shows the two statements it needs",
			}
		}
		return t.State == vulnscan.Active, nil
	})
	return t, err
}

// ids checks that arguments are OCIDs of a kind.
func ids(args []string, kind string) error {
	if len(args) == 0 {
		return cli.Usage("no "+kind+" named", "name it by its OCID; kubectl oke-sign scan "+kind+" list shows them")
	}
	for _, id := range args {
		if !strings.HasPrefix(id, "ocid1.vsscontainerscan") || !oci.Segment(id) {
			return cli.Usage(fmt.Sprintf("%q is not the OCID of a scan %s", id, kind), "kubectl oke-sign scan "+kind+" list shows them")
		}
	}
	return nil
}
