package main

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
)

// goMutants returns every mutant of a Go file. Each takes a defence out or moves it by
// one:
//
//   - a condition that guards an early exit never holds,
//   - one side of && or || does not count,
//   - a bound moves by one,
//   - a call for its effect alone does not happen.
func goMutants(file string, source []byte) ([]Mutant, error) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	g := goFile{file: file, source: source, set: set}
	for _, decl := range parsed.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		g.place = f.Name.Name
		ast.Inspect(f.Body, func(n ast.Node) bool {
			g.node(n)
			return true
		})
	}
	slices.SortStableFunc(g.mutants, func(a, b Mutant) int { return cmp.Compare(a.start, b.start) })
	return distinguish(g.mutants), nil
}

type goFile struct {
	file    string
	source  []byte
	set     *token.FileSet
	place   string
	mutants []Mutant // outer ones before those inside them
}

func (g *goFile) node(n ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		if leaves(n.Body) {
			g.add(n.Cond, "false", never)
		}
	case *ast.BinaryExpr:
		g.binary(n)
	case *ast.BlockStmt:
		g.calls(n.List)
	case *ast.CaseClause:
		g.calls(n.Body)
	case *ast.CommClause:
		g.calls(n.Body)
	}
}

func (g *goFile) calls(statements []ast.Stmt) {
	for _, s := range statements {
		s, ok := s.(*ast.ExprStmt)
		if !ok {
			continue
		}
		if call, ok := s.X.(*ast.CallExpr); ok && !isPanic(call) {
			g.add(s, "nothing", wrap{"if !mutant(%d) { ", " }"})
		}
	}
}

// The condition is always evaluated. Its switch is asked only if the mutant decides
// differently.
var (
	never  = wrap{"((", ") && !mutant(%d))"}
	always = wrap{"((", ") || mutant(%d))"}
)

// bounds has, for each comparison, the comparison with a moved bound and the
// function of the switches for it.
var bounds = map[token.Token]struct{ moved, function string }{
	token.LSS: {"<=", "mutantLess"},
	token.LEQ: {"<", "mutantLessOrEqual"},
	token.GTR: {">=", "mutantGreater"},
	token.GEQ: {">", "mutantGreaterOrEqual"},
}

func (g *goFile) binary(n *ast.BinaryExpr) {
	bound, isBound := bounds[n.Op]
	switch {
	case n.Op == token.LAND:
		for _, side := range []ast.Expr{n.X, n.Y} {
			g.add(side, "true", always)
		}
	case n.Op == token.LOR:
		for _, side := range []ast.Expr{n.X, n.Y} {
			g.add(side, "false", never)
		}
	case isBound:
		m := g.add(n, g.text(n.X)+" "+bound.moved+" "+g.text(n.Y), wrap{bound.function + "(", ", %d)"})
		m.operator = g.set.Position(n.OpPos).Offset
		m.operatorEnd = m.operator + len(n.Op.String())
	}
}

// add adds a mutant that replaces a node by read, with a switch around it.
func (g *goFile) add(n ast.Node, read string, switched wrap) *Mutant {
	start, end := g.set.Position(n.Pos()), g.set.Position(n.End())
	g.mutants = append(g.mutants, Mutant{
		File: g.file, Place: g.place, Line: start.Line,
		Change: oneLine(g.text(n)) + " -> " + oneLine(read),
		start:  start.Offset, end: end.Offset, switched: switched,
	})
	return &g.mutants[len(g.mutants)-1]
}

func (g *goFile) text(n ast.Node) string {
	return string(g.source[g.set.Position(n.Pos()).Offset:g.set.Position(n.End()).Offset])
}

// leaves reports whether a block ends in a jump, as the body of a guard does.
func leaves(b *ast.BlockStmt) bool {
	if len(b.List) == 0 {
		return false
	}
	switch b.List[len(b.List)-1].(type) {
	case *ast.ReturnStmt, *ast.BranchStmt:
		return true
	}
	return false
}

func isPanic(call *ast.CallExpr) bool {
	name, ok := call.Fun.(*ast.Ident)
	return ok && name.Name == "panic"
}
