package policies_test

import (
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A lintRule finds a mistake in Rego that compiles and is formatted. The rules are those of
// Regal, the linter for Rego, that find mistakes and not matters of taste, and one rule of this project.
type lintRule struct {
	name string
	find func(file string, m *ast.Module) []*ast.Location
	bad  string // a module in file x.rego that violates only this rule
}

var lintRules = []lintRule{
	{
		// A rule with the name of a built-in function gives one name two meanings.
		name: "names of built-ins",
		find: shadowing,
		bad:  "package x\nf(x) := count if count := x + 1",
	}, {
		// A quoted string needs each backslash twice, and "\d" causes no error.
		name: "raw patterns",
		find: quotedPatterns,
		bad:  "package x\nf(x) if regex.match(\"^a$\", x)",
	}, {
		// xs[_] != y holds if any element differs. some … in states the intent.
		name: "some in",
		find: wildcards,
		bad:  "package x\nf(xs) if xs[_] == 1",
	}, {
		// With too few arguments, the message of a denial has an error of sprintf.
		name: "arguments of sprintf",
		find: miscounted,
		bad:  "package x\nf(x) := sprintf(\"%v of 100%%: %s\", [x])",
	}, {
		// OPA evaluates the arguments of a negated built-in before the negation. If the
		// request lacks the field, the expression is undefined and denies nothing.
		name: "negated built-ins",
		find: negated,
		bad:  "package x\nf(_) if not is_array(input.items)",
	}, {
		// A condition that always holds is the remainder of an experiment.
		name: "constant conditions",
		find: constants,
		bad:  "package x\nf(x) if {\n\tx\n\t1 == 1\n}",
	}, {
		// Two rules with one name are one rule that holds if either does, so one test
		// would hide the failure of the other.
		name: "tests of one name",
		find: sameTests,
		bad:  "package x\ntest_a if 1 + 1 == 2\ntest_a if 1 + 1 == 3",
	}, {
		name: "print",
		find: prints,
		bad:  "package x\nf(x) if {\n\tprint(x)\n\tx\n}",
	}, {
		// A reader finds a module by its package, and a test by the module that it tests.
		name: "packages and files",
		find: misplaced,
		bad:  "package y\nf(x) if x",
	},
}

// TestRegoIsLinted applies the rules to all files that are not generated.
func TestRegoIsLinted(t *testing.T) {
	all := map[string]*ast.Module{}
	for _, source := range []string{"live", "recorded", "conftest"} {
		maps.Copy(all, modules(t, source))
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

// TestEachLintRuleFindsItsMistake applies all rules to a module that violates one of them.
func TestEachLintRuleFindsItsMistake(t *testing.T) {
	for _, broken := range lintRules {
		m := ast.MustParseModuleWithOpts(broken.bad, ast.ParserOptions{RegoVersion: ast.RegoV1})
		found := []string{}
		for _, rule := range lintRules {
			if len(rule.find("x.rego", m)) > 0 {
				found = append(found, rule.name)
			}
		}
		if !slices.Equal(found, []string{broken.name}) {
			t.Errorf("a module that violates rule %q has findings of %q:\n%s", broken.name, found, broken.bad)
		}
	}
}

// builtinNames are the names of built-in functions, up to the first dot.
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
		return nil // A test may name the object under review object.
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

// patternAt is the index of the pattern in a function's arguments, if it is not 0.
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
			// A rule without a body has the body true, with the location of its head.
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

// misplaced finds a file with a package that does not match its path: lib/x.rego has package
// lib.x, okesignedimages/src.rego has package okesignedimages, and a test has its module's
// package with _test. The files in lib/externaldata are one package, and each template has one.
func misplaced(file string, m *ast.Module) []*ast.Location {
	name, isTest := strings.CutSuffix(strings.TrimSuffix(file, ".rego"), "_test")
	switch dir := path.Dir(name); {
	case path.Base(name) == "src", dir == "lib/externaldata":
		name = dir
	case name == "conftest/main":
		name = "main" // the package that conftest reads by default
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

// walkCalls visits each function call, in expressions and in terms.
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
