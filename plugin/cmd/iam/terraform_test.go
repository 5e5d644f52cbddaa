package iam

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// No part of a quoted text is code for Terraform.
func FuzzQuoted(f *testing.F) {
	for _, s := range []string{"", "plain", `a "quoted" \ text`, "${var.secret}", "%{ if true }", "$${x}", "$$${", "%%{", "a\nb\tc", "é世\U0001f600", "\u202e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) || strings.ContainsAny(s, "\x01\x02") {
			return
		}
		// Only canonical text comes back unchanged, because the parser composes
		// characters.
		expr, diags := hclsyntax.ParseExpression([]byte(quoted(s)), "x", hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatalf("%q: %v", s, diags)
		}
		if len(expr.Variables()) > 0 {
			t.Fatalf("%q refers to %v", s, expr.Variables())
		}
		v, diags := expr.Value(nil)
		if diags.HasErrors() || v.AsString() != cty.NormalizeString(s) {
			t.Fatalf("%q became %q: %v", s, v.AsString(), diags)
		}
	})
}
