package words

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// replaced are words that the glossary replaces, as parts of a name.
var replaced = []string{
	"doubtful", "foreign", "foresee", "foresight", "gate", "glass", "glassed", "judge", "kept", "lane", "lifted",
	"patience", "principal", "remembered", "standing", "witness",
}

// compounds are terms with such a part that others have coined: Gatekeeper's
// annotation, and OCI's auth kinds.
var compounds = regexp.MustCompile(`(?i)break_?-?glass|(?:instance|resource|workload|service)_?-?principal`)

var (
	parts    = regexp.MustCompile(`[A-Z]+(?:[a-z0-9]+|$)|[a-z0-9]+`)
	regoName = regexp.MustCompile(`(?m)^(?:default )?(?:package )?([a-z_][a-z_0-9.]*)`)
	metric   = regexp.MustCompile(`^oke_sign_[a-z_]+$`)
	flagCall = regexp.MustCompile(`^(?:Bool|String|Int|Int64|Duration|Float64|StringSlice|StringArray|Text)?Var(?:P)?$|^(?:Bool|String|Int|Duration)$`)
)

// FindNames returns the names in a file that contain a word from replaced. In Go, it
// reads exported names, flags, JSON fields and metrics. In Rego, it reads packages
// and rules.
func FindNames(name string, text []byte) ([]string, error) {
	var names []string
	switch {
	case filepath.Ext(name) == ".rego":
		for _, found := range regoName.FindAllSubmatch(text, -1) {
			names = append(names, string(found[1]))
		}
	case filepath.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go"):
		var err error
		if names, err = namesOfGo(name, text); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool {
		for _, part := range parts.FindAllString(compounds.ReplaceAllString(name, " "), -1) {
			if slices.Contains(replaced, strings.ToLower(part)) {
				return false
			}
		}
		return true
	}), nil
}

func namesOfGo(name string, text []byte) ([]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names := []string{file.Name.Name}
	add := func(ids ...*ast.Ident) {
		for _, id := range ids {
			if id.IsExported() {
				names = append(names, id.Name)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			add(n.Name)
		case *ast.TypeSpec:
			add(n.Name)
		case *ast.ValueSpec:
			add(n.Names...)
		case *ast.Field:
			add(n.Names...)
			if n.Tag != nil {
				names = append(names, strings.Trim(n.Tag.Value, "`"))
			}
		case *ast.CallExpr:
			if method, isMethod := n.Fun.(*ast.SelectorExpr); isMethod && flagCall.MatchString(method.Sel.Name) {
				for _, argument := range n.Args[:min(2, len(n.Args))] {
					if literal, isLiteral := argument.(*ast.BasicLit); isLiteral && literal.Kind == token.STRING {
						names = append(names, strings.Trim(literal.Value, `"`))
					}
				}
			}
		case *ast.BasicLit:
			if text := strings.Trim(n.Value, `"`); metric.MatchString(text) {
				names = append(names, text)
			}
		}
		return true
	})
	return names, nil
}
