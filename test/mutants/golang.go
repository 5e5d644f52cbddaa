package main

import (
	"go/ast"
	"go/parser"
	"go/token"
)

// goMutants returns every mutant of a Go file. Each takes a defence out or moves it by
// one:
//
//   - a condition that guards an early exit never holds,
//   - one side of && or || does not count,
//   - a bound moves by one,
//   - a call for its effect alone does not happen.
//
// The old text stays in the file where it can, so that imports and variables stay used
// and the mutant compiles.
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
	return number(g.mutants), nil
}

type goFile struct {
	file    string
	source  []byte
	set     *token.FileSet
	place   string
	mutants []Mutant
}

func (g *goFile) node(n ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		if leaves(n.Body) {
			g.replace(n.Cond, "false && ("+g.text(n.Cond)+")")
		}
	case *ast.BinaryExpr:
		g.binary(n)
	case *ast.ExprStmt:
		if call, ok := n.X.(*ast.CallExpr); ok && !isPanic(call) {
			g.replace(n, "if false { "+g.text(n)+" }")
		}
	}
}

func (g *goFile) binary(n *ast.BinaryExpr) {
	moved := map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}
	switch {
	case n.Op == token.LAND:
		g.replace(n.X, "(true || ("+g.text(n.X)+"))")
		g.replace(n.Y, "(true || ("+g.text(n.Y)+"))")
	case n.Op == token.LOR:
		g.replace(n.X, "(false && ("+g.text(n.X)+"))")
		g.replace(n.Y, "(false && ("+g.text(n.Y)+"))")
	case moved[n.Op] != "":
		g.replace(n, g.text(n.X)+" "+moved[n.Op]+" "+g.text(n.Y))
	}
}

func (g *goFile) replace(n ast.Node, by string) {
	start, end := g.set.Position(n.Pos()), g.set.Position(n.End())
	g.mutants = append(g.mutants, Mutant{
		File: g.file, Place: g.place, Line: start.Line,
		Change: oneLine(g.text(n)) + " -> " + oneLine(by),
		start:  start.Offset, end: end.Offset, text: by,
	})
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
