package policies_test

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// lintRule finds what compiles and is formatted well, and is a mistake all the same
// or soon becomes one. The rules are those of Regal, the linter for Rego, that find
// mistakes rather than tastes, and one that is ours.
type lintRule struct {
	name string
	find func(file string, m *ast.Module) []*ast.Location
	bad  string // a module in file x.rego that breaks this rule and no other
}

var lintRules = []lintRule{
	{
		// A name that built-in functions have means two things on one page.
		name: "names of built-ins",
		find: shadowing,
		bad:  "package x\nf(x) := count if count := x + 1",
	}, {
		// In a quoted string each backslash has to be doubled, and "\d" is no error.
		name: "raw patterns",
		find: quotedPatterns,
		bad:  "package x\nf(x) if regex.match(\"^a$\", x)",
	}, {
		// xs[_] != y holds if any element differs; some … in says what is meant.
		name: "some in",
		find: wildcards,
		bad:  "package x\nf(xs) if xs[_] == 1",
	}, {
		// A message with too few arguments says so to whoever is denied.
		name: "arguments of sprintf",
		find: miscounted,
		bad:  "package x\nf(x) := sprintf(\"%v of 100%%: %s\", [x])",
	}, {
		// Arguments of a negated built-in are evaluated before the negation: where the
		// request lacks the field, the expression is undefined and nothing is denied.
		name: "negated built-ins",
		find: negated,
		bad:  "package x\nf(_) if not is_array(input.items)",
	}, {
		// One that always holds is what is left of an experiment.
		name: "constant conditions",
		find: constants,
		bad:  "package x\nf(x) if {\n\tx\n\t1 == 1\n}",
	}, {
		// Two rules of one name are one rule that holds if either does, so that one
		// test would hide the failure of the other.
		name: "tests of one name",
		find: sameTests,
		bad:  "package x\ntest_a if 1 + 1 == 2\ntest_a if 1 + 1 == 3",
	}, {
		name: "print",
		find: prints,
		bad:  "package x\nf(x) if {\n\tprint(x)\n\tx\n}",
	}, {
		// A module is found by its package, and a test by what it tests.
		name: "packages and files",
		find: misplaced,
		bad:  "package y\nf(x) if x",
	},
}

// TestRegoIsLinted runs the rules over all files that are not generated.
func TestRegoIsLinted(t *testing.T) {
	all := map[string]*ast.Module{}
	for _, fetch := range []string{"live", "recorded", "conftest"} {
		maps.Copy(all, modules(t, fetch))
	}
	for file, m := range all {
		for _, rule := range lintRules {
			for _, at := range rule.find(file, m) {
				t.Errorf("%s: %s: %s", at, rule.name, strings.TrimSpace(string(at.Text)))
			}
		}
	}
	if len(all) < 20 {
		t.Errorf("only %d files read", len(all))
	}
}

func TestRegoIsLintedByRulesThatFindWhatTheyAreFor(t *testing.T) {
	for _, broken := range lintRules {
		m := ast.MustParseModuleWithOpts(broken.bad, ast.ParserOptions{RegoVersion: ast.RegoV1})
		found := []string{}
		for _, rule := range lintRules {
			if len(rule.find("x.rego", m)) > 0 {
				found = append(found, rule.name)
			}
		}
		if !slices.Equal(found, []string{broken.name}) {
			t.Errorf("in a module against the rule %q was found %q:\n%s", broken.name, found, broken.bad)
		}
	}
}

// builtinNames are the names of built-in functions, and the first words of those with
// dots, as they stand in a module.
var builtinNames = func() map[string]bool {
	names := map[string]bool{}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		if first, _, _ := strings.Cut(b.Name, "."); b.Infix == "" {
			names[first] = true
		}
	}
	return names
}()

func shadowing(file string, m *ast.Module) (at []*ast.Location) {
	if strings.HasSuffix(file, "_test.rego") {
		return nil // which may well call the object under review object
	}
	taken := func(term *ast.Term) {
		if v, ok := term.Value.(ast.Var); ok && builtinNames[string(v)] {
			at = append(at, term.Location)
		}
	}
	for _, rule := range m.Rules {
		if builtinNames[rule.Head.Name.String()] {
			at = append(at, rule.Location)
		}
		for _, arg := range rule.Head.Args {
			taken(arg)
		}
	}
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if some, ok := e.Terms.(*ast.SomeDecl); ok {
			for _, symbol := range some.Symbols {
				if call, ok := symbol.Value.(ast.Call); ok { // x in xs, or x, y in xs
					for _, v := range call[1 : len(call)-1] {
						taken(v)
					}
				}
			}
		}
		if e.IsAssignment() {
			taken(e.Operand(0))
		}
		return false
	})
	return at
}

// patternAt is where functions take a pattern, if that is not their first argument.
var patternAt = map[string]int{"regex.replace": 1}

func quotedPatterns(_ string, m *ast.Module) (at []*ast.Location) {
	walkCalls(m, func(name string, args []*ast.Term) {
		if !strings.HasPrefix(name, "regex.") {
			return
		}
		pattern := args[patternAt[name]]
		if _, ok := pattern.Value.(ast.String); ok && !strings.HasPrefix(string(pattern.Location.Text), "`") {
			at = append(at, pattern.Location)
		}
	})
	return at
}

func wildcards(_ string, m *ast.Module) (at []*ast.Location) {
	ast.WalkTerms(m, func(term *ast.Term) bool {
		ref, ok := term.Value.(ast.Ref)
		if ok && slices.ContainsFunc(ref[1:], func(part *ast.Term) bool {
			v, ok := part.Value.(ast.Var)
			return ok && v.IsWildcard()
		}) {
			at = append(at, term.Location)
		}
		return false
	})
	return at
}

func miscounted(_ string, m *ast.Module) (at []*ast.Location) {
	walkCalls(m, func(name string, args []*ast.Term) {
		if name != "sprintf" {
			return
		}
		text, isText := args[0].Value.(ast.String)
		values, isArray := args[1].Value.(*ast.Array)
		if isText && isArray && strings.Count(strings.ReplaceAll(string(text), "%%", ""), "%") != values.Len() {
			at = append(at, args[0].Location)
		}
	})
	return at
}

func negated(_ string, m *ast.Module) (at []*ast.Location) {
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if !e.Negated || !e.IsCall() || !isBuiltin(e.Operator().String()) {
			return false
		}
		for _, arg := range e.Operands() {
			if ref, ok := arg.Value.(ast.Ref); ok && ref[0].Equal(ast.InputRootDocument) {
				at = append(at, e.Location)
			}
		}
		return false
	})
	return at
}

func isBuiltin(name string) bool {
	_, ok := ast.BuiltinMap[name]
	return ok
}

func constants(_ string, m *ast.Module) (at []*ast.Location) {
	ast.WalkRules(m, func(rule *ast.Rule) bool {
		ast.WalkExprs(rule.Body, func(e *ast.Expr) bool {
			terms := e.Operands()
			term, isTerm := e.Terms.(*ast.Term)
			if isTerm {
				terms = []*ast.Term{term}
			}
			if e.IsCall() && !isBuiltin(e.Operator().String()) {
				return false
			}
			constant := len(terms) > 0 && !slices.ContainsFunc(terms, func(term *ast.Term) bool { return !ast.IsConstant(term.Value) })
			// The body of a rule without one is true, at the place of its head.
			implied := isTerm && len(rule.Body) == 1 && string(e.Location.Text) != "true"
			if constant && !implied {
				at = append(at, e.Location)
			}
			return false
		})
		return false
	})
	return at
}

func sameTests(_ string, m *ast.Module) (at []*ast.Location) {
	seen := map[string]bool{}
	for _, rule := range m.Rules {
		name := rule.Head.Ref().String()
		if strings.HasPrefix(name, "test_") && seen[name] {
			at = append(at, rule.Location)
		}
		seen[name] = true
	}
	return at
}

func prints(file string, m *ast.Module) (at []*ast.Location) {
	if strings.HasSuffix(file, "_test.rego") {
		return nil
	}
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if e.IsCall() && e.Operator().String() == "print" {
			at = append(at, e.Location)
		}
		return false
	})
	return at
}

// misplaced holds lib/x.rego to package lib.x, okesignedimages/src.rego to package
// okesignedimages, and their tests to the same with _test. The files in lib/externaldata are one
// package, of which each template has one file.
func misplaced(file string, m *ast.Module) []*ast.Location {
	name, isTest := strings.CutSuffix(strings.TrimSuffix(file, ".rego"), "_test")
	switch dir := path.Dir(name); {
	case path.Base(name) == "src", dir == "lib/externaldata":
		name = dir
	case name == "conftest/main":
		name = "main" // which conftest reads unless it is told otherwise
	case dir == "conftest":
		name = "lib/" + path.Base(name)
	}
	if isTest {
		name += "_test"
	}
	if m.Package.Path.String() == "data."+strings.ReplaceAll(name, "/", ".") {
		return nil
	}
	return []*ast.Location{m.Package.Location}
}

// walkCalls visits each call of a function, whether it is an expression or a term.
func walkCalls(m *ast.Module, visit func(name string, args []*ast.Term)) {
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		if e.IsCall() {
			visit(e.Operator().String(), e.Operands())
		}
		return false
	})
	ast.WalkTerms(m, func(term *ast.Term) bool {
		if call, ok := term.Value.(ast.Call); ok {
			visit(call[0].String(), call[1:])
		}
		return false
	})
}
