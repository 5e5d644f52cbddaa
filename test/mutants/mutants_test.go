package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

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
		"calc.go bounded: n < 0 || n > 9 -> false && (n < 0 || n > 9)",
		"calc.go bounded: n < 0 -> (false && (n < 0))",
		"calc.go bounded: n > 9 -> (false && (n > 9))",
		"calc.go bounded: n < 0 -> n <= 0",
		"calc.go bounded: n > 9 -> n >= 9",
		"calc.go bounded: log(n) -> if false { log(n) }",
		"calc.go bounded: n == 3 -> (true || (n == 3))",
		"calc.go bounded: n != 4 -> (true || (n != 4))",
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

// TestTrial runs the tests of a small module on its mutants: one that they notice, one
// that they do not, and one that does not compile.
func TestTrial(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":       "module example.com/calc\n\ngo 1.26\n",
		"calc/calc.go": "package calc\n\nfunc Half(n int) int {\n\tif n < 0 {\n\t\treturn 0\n\t}\n\tif n > 1000 {\n\t\treturn 500\n\t}\n\treturn n / 2\n}\n",
		"calc/calc_test.go": "package calc\n\nimport \"testing\"\n\nfunc TestHalf(t *testing.T) {\n\t" +
			"if Half(-4) != 0 || Half(4) != 2 {\n\t\tt.Fatal()\n\t}\n}\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trial, err := newTrial(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.close()
	trial.users = []string{"./calc"}

	source, err := os.ReadFile(filepath.Join(root, "calc/calc.go"))
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := goMutants("calc/calc.go", source)
	if err != nil {
		t.Fatal(err)
	}
	mutants = append(mutants, Mutant{File: "calc/calc.go", Change: "no Go", start: 0, end: 0, text: "no Go"})
	got := map[string]Outcome{}
	for _, m := range mutants {
		if got[m.Change], err = trial.try(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]Outcome{
		"n < 0 -> false && (n < 0)":       noticed,
		"n < 0 -> n <= 0":                 survived,
		"n > 1000 -> false && (n > 1000)": survived,
		"n > 1000 -> n >= 1000":           survived,
		"no Go":                           unfit,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("outcomes (-want +got):\n%s", diff)
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
