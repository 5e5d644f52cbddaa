package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func names(mutants []Mutant) (names []string) {
	for _, m := range mutants {
		names = append(names, m.Name())
	}
	return names
}

func TestGoMutants(t *testing.T) {
	mutants, err := goMutants("calc.go", []byte(`package calc

func bounded(n int, log func(int)) int {
	if n < 0 || n > 9 {
		return 0
	}
	log(n)
	if n == 3 && n != 4 {
		n++
	}
	return n
}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"calc.go bounded: n < 0 || n > 9 -> false",
		"calc.go bounded: n < 0 -> false",
		"calc.go bounded: n < 0 -> n <= 0",
		"calc.go bounded: n > 9 -> false",
		"calc.go bounded: n > 9 -> n >= 9",
		"calc.go bounded: log(n) -> nothing",
		"calc.go bounded: n == 3 -> true",
		"calc.go bounded: n != 4 -> true",
	}
	if diff := cmp.Diff(want, names(mutants)); diff != "" {
		t.Errorf("mutants (-want +got):\n%s", diff)
	}
}

func TestRegoMutants(t *testing.T) {
	source := []byte(`package p

default allowed := false

allowed if {
	input.a == 1
	every x in input.xs {
		x > 1
	}
}

names := {n | some n in input.names; n != "root"}
`)
	mutants, err := regoMutants("p.rego", source)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"p.rego allowed: input.a == 1 -> true",
		"p.rego allowed: every x in input.xs { x > 1 } -> true",
		"p.rego allowed: x > 1 -> true",
		"p.rego names: some n in input.names -> true",
		`p.rego names: n != "root" -> true`,
	}
	if diff := cmp.Diff(want, names(mutants)); diff != "" {
		t.Errorf("mutants (-want +got):\n%s", diff)
	}
	if got := string(mutants[0].Apply(source)); !strings.Contains(got, "allowed if {\n\ttrue\n\tevery") {
		t.Errorf("the first mutant is:\n%s", got)
	}
}

func TestNamesAreUnique(t *testing.T) {
	all, err := collect("../..")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, m := range all {
		if names[m.Name()] {
			t.Errorf("two mutants are called %s", m.Name())
		}
		names[m.Name()] = true
	}
	if len(all) < 500 {
		t.Errorf("only %d mutants", len(all))
	}
	explained, err := readEquivalent("equivalent.txt")
	if err != nil {
		t.Fatal(err)
	}
	if err := explained.check(all); err != nil {
		t.Error(err)
	}
}

func TestDrawIsTheSameForTheSameSeed(t *testing.T) {
	all := make([]Mutant, 100)
	for i := range all {
		all[i].Line = i
	}
	lines := func(mutants []Mutant) (lines []int) {
		for _, m := range mutants {
			lines = append(lines, m.Line)
		}
		return lines
	}
	first := lines(draw(all, 10, 1))
	if diff := cmp.Diff(first, lines(draw(all, 10, 1))); diff != "" || len(first) != 10 {
		t.Errorf("two draws with one seed differ: %s", diff)
	}
	if cmp.Equal(first, lines(draw(all, 10, 2))) {
		t.Error("another seed draws the same")
	}
	if got := len(draw(all, 0, 1)); got != 100 {
		t.Errorf("0 draws %d of 100", got)
	}
}

// TestWithSwitches puts switches at one place, inside each other, and into a
// comparison.
func TestWithSwitches(t *testing.T) {
	source := "package calc\n\nfunc f(a, b int) {\n\tif a < b && b > 1 {\n\t\treturn\n\t}\n\tg()\n}\n"
	mutants, err := goMutants("calc.go", []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	for i := range mutants {
		mutants[i].number = i + 1
	}
	want := "package calc\n\nfunc f(a, b int) {\n\tif ((((mutantLess(a , b, 3)) || mutant(2)) && ((mutantGreater(b , 1, 5)) || mutant(4))) && !mutant(1)) {\n\t\treturn\n\t}\n\tif !mutant(6) { g() }\n}\n"
	if diff := cmp.Diff(want, string(withSwitches([]byte(source), mutants))); diff != "" {
		t.Errorf("with switches (-want +got):\n%s", diff)
	}
}

// TestTrial runs the tests of a small module on its mutants. The tests notice some
// mutants, miss some, and never reach others. One mutant makes a loop endless, and
// the switch of another does not compile.
func TestTrial(t *testing.T) {
	root := t.TempDir()
	writeFiles(t, root, map[string]string{
		"go.mod": "module example.com/calc\n\ngo 1.26\n",
		"calc/calc.go": `package calc

type flag bool

func Half(n int) int {
	if n < 0 {
		return 0
	}
	if n > 1000 {
		return 500
	}
	for i := 0; ; i++ {
		if i == n {
			break
		}
	}
	if n == 4 {
		keep()
	}
	return n / 2
}

func keep() {}

func odd(f flag) bool { return bool(f && true) }
`,
		"calc/calc_test.go": `package calc

import "testing"

func TestHalf(t *testing.T) {
	if Half(-4) != 0 || Half(4) != 2 {
		t.Fatal()
	}
}
`,
		"free/free.go": "package free\n",
	})
	trial, err := newTrial(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.close()
	trial.packages = []string{"./..."}
	trial.slack = time.Second

	source, err := os.ReadFile(filepath.Join(root, "calc/calc.go"))
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := goMutants("calc/calc.go", source)
	if err != nil {
		t.Fatal(err)
	}
	for i := range mutants {
		mutants[i].number = i + 1
	}
	slices.Reverse(mutants) // a draw has any order
	if err := trial.prepareGo(t.Context(), mutants); err != nil {
		t.Fatal(err)
	}
	got := map[string]Outcome{}
	for _, m := range mutants {
		if got[m.Change], err = trial.try(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]Outcome{
		"n < 0 -> false":        timedOut,
		"n < 0 -> n <= 0":       unmet,
		"n > 1000 -> false":     unmet,
		"n > 1000 -> n >= 1000": unmet,
		"i == n -> false":       timedOut,
		"keep() -> nothing":     survived,
		"f -> true":             unfit,
		"true -> true":          unfit,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
	}
}

// TestTrialNeedsTestsThatPass expects an error if a test fails without a mutant.
// It would seem to notice every mutant.
func TestTrialNeedsTestsThatPass(t *testing.T) {
	root := t.TempDir()
	writeFiles(t, root, map[string]string{
		"go.mod":            "module example.com/calc\n\ngo 1.26\n",
		"calc/calc.go":      "package calc\n\nfunc Half(n int) int {\n\tif n < 0 {\n\t\treturn 0\n\t}\n\treturn n / 2\n}\n",
		"calc/calc_test.go": "package calc\n\nimport \"testing\"\n\nfunc TestHalf(t *testing.T) { t.Error(Half(2)) }\n",
	})
	trial, err := newTrial(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.close()
	trial.packages = []string{"./..."}
	source, err := os.ReadFile(filepath.Join(root, "calc/calc.go"))
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := goMutants("calc/calc.go", source)
	if err != nil {
		t.Fatal(err)
	}
	if err := trial.prepareGo(t.Context(), mutants); err == nil || !strings.Contains(err.Error(), "TestHalf fails without a mutant") {
		t.Errorf("got %v", err)
	}
}

func writeFiles(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReport(t *testing.T) {
	var all []Mutant
	var results []Outcome
	for i := range 100 {
		all = append(all, Mutant{File: "a.go", Place: "f", Change: fmt.Sprint(i)})
		results = append(results, noticed)
	}
	explain := func(numbers ...int) equivalent {
		explained := equivalent{}
		for _, i := range numbers {
			explained[all[i].Name()] = "nobody sees it"
		}
		return explained
	}
	for name, tc := range map[string]struct {
		results   map[int]Outcome
		explained equivalent
		want      string
	}{
		"all noticed":             {nil, explain(), ""},
		"explained":               {map[int]Outcome{1: survived, 2: unmet, 3: unfit}, explain(1, 2), ""},
		"unexplained":             {map[int]Outcome{1: survived}, explain(), "1 mutants survived without an explanation"},
		"reached by no test":      {map[int]Outcome{1: unmet}, explain(), "1 mutants survived without an explanation"},
		"explained and noticed":   {nil, explain(1), "a test noticed 1 mutants"},
		"explained and timed out": {map[int]Outcome{1: timedOut}, explain(1), "a test noticed 1 mutants"},
		"too many are equivalent": {map[int]Outcome{1: survived, 2: survived, 3: survived, 4: survived}, explain(1, 2, 3, 4), "should notice 97 %"},
	} {
		got := slices.Clone(results)
		for i, result := range tc.results {
			got[i] = result
		}
		err := report(all, got, tc.explained, time.Second)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func TestEquivalentNeedsAReason(t *testing.T) {
	for name, text := range map[string]string{
		"a mutant without a reason":          "a.go f: x -> y\n",
		"a reason without a mutant":          "\tnobody sees it\n",
		"a mutant followed by the next one":  "a.go f: x -> y\na.go g: x -> y\n\tnobody sees it\n",
		"a reason that is only white space":  "a.go f: x -> y\n\t \n",
		"a comment where the reason belongs": "a.go f: x -> y\n# nobody sees it\n",
	} {
		file := filepath.Join(t.TempDir(), "equivalent.txt")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readEquivalent(file); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
