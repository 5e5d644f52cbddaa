package main

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// regoMutants returns a mutant for every statement of a Rego module. The mutant
// removes the statement, so that the body holds without it. Bodies of comprehensions
// and of every are included.
func regoMutants(file string, source []byte) ([]Mutant, error) {
	module, err := ast.ParseModuleWithOpts(file, string(source), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		return nil, err
	}
	var mutants []Mutant
	for _, rule := range module.Rules {
		place := rule.Head.Ref().String()
		ast.WalkBodies(rule, func(body ast.Body) bool {
			for _, e := range body {
				if m, ok := withoutStatement(source, e); ok {
					m.File, m.Place = file, place
					mutants = append(mutants, m)
				}
			}
			return false
		})
	}
	slices.SortFunc(mutants, func(a, b Mutant) int { return a.start - b.start })
	mutants = slices.CompactFunc(mutants, func(a, b Mutant) bool { return a.start == b.start && a.end == b.end })
	return distinguish(mutants), nil
}

// withoutStatement replaces a statement by true. A statement of the parser's making
// has no text to replace, for example in a rule without a body.
func withoutStatement(source []byte, e *ast.Expr) (Mutant, bool) {
	if e.Location == nil || len(e.Location.Text) == 0 || e.Equal(ast.NewExpr(ast.BooleanTerm(true))) {
		return Mutant{}, false
	}
	start := e.Location.Offset
	end := start + len(e.Location.Text)
	if end > len(source) || string(source[start:end]) != string(e.Location.Text) {
		return Mutant{}, false
	}
	return Mutant{Change: oneLine(string(e.Location.Text)) + " -> true", Line: e.Location.Row, start: start, end: end, text: "true"}, true
}
