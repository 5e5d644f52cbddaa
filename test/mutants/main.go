// Command mutants removes defences from the code that decides, one at a time, and runs the
// tests that should fail. It changes no file of the tree.
//
// It mutates:
//
//   - the Rego of the policies, statement by statement, in a copy of the folder;
//   - the Go packages in goPackages. The tests are compiled once with all mutants, each
//     behind a switch that an environment variable turns on. A run without a mutant
//     shows which tests reach each mutant, and only these tests run for the mutant.
//
// A mutant that does not compile is skipped. A mutant that no test notices fails the run,
// unless equivalent.txt explains why nobody can observe the change. A mutant that
// equivalent.txt explains and a test notices fails the run, too.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// goPackages are the packages from which defences are removed.
var goPackages = []string{"image", "signature", "verdict", "checker", "server", "registry", "vault"}

// testedBy are the packages whose tests should notice: goPackages, and the program that
// uses them.
var testedBy = append(slices.Clone(goPackages), "oke-sign-provider")

// enough is the share of mutants that the tests must notice.
const enough = 0.97

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	n := flag.Int("n", 300, "how many mutants to try, drawn at random; 0 tries all")
	seed := flag.Uint64("seed", 1, "seed of the draw")
	only := flag.String("only", "", "try only mutants whose name contains this `text`")
	list := flag.Bool("list", false, "print the names of the mutants and try none")
	workers := flag.Int("workers", runtime.GOMAXPROCS(0), "how many mutants to try at once")
	flag.Parse()

	all, err := collect(".")
	if err != nil {
		return err
	}
	explained, err := readEquivalent("test/mutants/equivalent.txt")
	if err != nil {
		return err
	}
	if err := explained.check(all); err != nil {
		return err
	}
	for i := range all {
		all[i].number = i + 1
	}
	chosen := draw(slices.DeleteFunc(all, func(m Mutant) bool { return !strings.Contains(m.Name(), *only) }), *n, *seed)
	if *list {
		for _, m := range chosen {
			fmt.Printf("%s:%d %s\n", m.File, m.Line, m.Name())
		}
		return nil
	}
	results, took, err := tryAll(ctx, chosen, explained, *workers)
	if err != nil {
		return err
	}
	return report(chosen, results, explained, took)
}

// tryAll tries the mutants and prints survivors without an explanation.
func tryAll(ctx context.Context, chosen []Mutant, explained equivalent, workers int) ([]Outcome, time.Duration, error) {
	began := time.Now()
	t, err := newTrial(ctx, ".")
	if err != nil {
		return nil, 0, err
	}
	defer t.close()
	if err := t.prepareGo(ctx, chosen); err != nil {
		return nil, 0, err
	}
	fmt.Printf("prepared in %s\n", time.Since(began).Round(time.Second))
	results := make([]Outcome, len(chosen))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i, m := range chosen {
		group.Go(func() (err error) {
			if results[i], err = t.try(ctx, m); err != nil {
				return fmt.Errorf("trying %s: %w", m.Name(), err)
			}
			if said := results[i].remark(explained[m.Name()] != ""); said != "" {
				fmt.Printf("%s: %s:%d %s\n", said, m.File, m.Line, m.Name())
			}
			return nil
		})
	}
	err = group.Wait()
	return results, time.Since(began), err
}

// report prints the figures, and returns an error if the tests notice too few mutants.
func report(chosen []Mutant, results []Outcome, explained equivalent, took time.Duration) error {
	count := map[Outcome]int{}
	unexplained, wrong := 0, 0
	for i, m := range chosen {
		count[results[i]]++
		switch isExplained := explained[m.Name()] != ""; {
		case results[i].isSurvivor() && !isExplained:
			unexplained++
		case results[i].isNoticed() && isExplained:
			wrong++
		}
	}
	survivors := count[survived] + count[unmet]
	caught := count[noticed] + count[timedOut]
	tried := caught + survivors
	if tried == 0 {
		return fmt.Errorf("no mutant was tried")
	}
	share := float64(caught) / float64(tried)
	fmt.Printf("%d mutants: %d noticed (%.1f %%), of these %d by a timeout; %d survived, of which no test reaches %d and %d are explained; %d did not compile; %s\n",
		tried, caught, 100*share, count[timedOut], survivors, count[unmet], survivors-unexplained, count[unfit], took.Round(time.Second))
	switch {
	case unexplained > 0:
		return fmt.Errorf("%d mutants survived without an explanation: write a test that notices, or say in equivalent.txt why nothing changes", unexplained)
	case wrong > 0:
		return fmt.Errorf("a test noticed %d mutants that equivalent.txt explains: remove the explanations", wrong)
	case share < enough:
		return fmt.Errorf("the tests noticed %.1f %%, and should notice %.0f %%", 100*share, 100*enough)
	}
	return nil
}

// collect finds every mutant below the module's folder.
func collect(root string) ([]Mutant, error) {
	var all []Mutant
	add := func(pattern string, find func(string, []byte) ([]Mutant, error)) error {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no file matches %s: run it in the module's folder", pattern)
		}
		for _, file := range files {
			name, err := filepath.Rel(root, file)
			if err != nil {
				return err
			}
			name = filepath.ToSlash(name)
			if strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, "_test.rego") || strings.HasSuffix(name, "/regions.rego") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			mutants, err := find(name, source)
			if err != nil {
				return fmt.Errorf("reading %s: %w", name, err)
			}
			all = append(all, mutants...)
		}
		return nil
	}
	for _, pattern := range []string{"policies/*/src.rego", "policies/lib/*.rego", "policies/lib/externaldata/live.rego"} {
		if err := add(pattern, regoMutants); err != nil {
			return nil, err
		}
	}
	for _, pkg := range goPackages {
		if err := add("provider/"+pkg+"/*.go", goMutants); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// draw chooses n mutants at random, the same ones for the same seed. Zero is all.
func draw(all []Mutant, n int, seed uint64) []Mutant {
	if n <= 0 || n >= len(all) {
		return all
	}
	chosen := make([]Mutant, n)
	for i, at := range rand.New(rand.NewPCG(seed, 0)).Perm(len(all))[:n] {
		chosen[i] = all[at]
	}
	return chosen
}
