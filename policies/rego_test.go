package policies_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/types"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/policies"
	"github.com/oke-sign/oke-sign/policies/internal/inline"
	"github.com/oke-sign/oke-sign/provider/image"
	"github.com/oke-sign/oke-sign/provider/verdict"
	"github.com/oke-sign/oke-sign/provider/vulnreport"
)

// externalData is the built-in function that Gatekeeper adds to those of OPA.
var externalData = &ast.Builtin{
	Name: "external_data",
	Decl: types.NewFunction(types.Args(types.A), types.A),
}

func TestRegoIsFormatted(t *testing.T) {
	for name, text := range sources(t) {
		want, err := format.SourceWithOpts(name, text, format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(string(want), string(text)); diff != "" {
			t.Errorf("%s is not formatted as opa fmt does (-want +got):\n%s", name, diff)
		}
	}
}

// TestRegoIsStrict checks as opa check --strict does. The files of lib/externaldata are the same
// package, so each compilation has one of them.
func TestRegoIsStrict(t *testing.T) {
	for _, source := range []string{"live", "recorded", "conftest"} {
		compile(t, modules(t, source))
	}
}

// TestEmbeddedTemplates compares the embedded templates with those that the other tests read.
func TestEmbeddedTemplates(t *testing.T) {
	for _, kind := range kinds {
		for name, embedded := range map[string]fs.FS{
			"/template.yaml":          policies.Templates,
			"/recorded/template.yaml": policies.Recorded,
		} {
			name = strings.ToLower(kind) + name
			got, err := fs.ReadFile(embedded, name)
			if err != nil {
				t.Error(err)
				continue
			}
			if diff := cmp.Diff(read(t, name), string(got)); diff != "" {
				t.Errorf("%s (-in the folder +embedded):\n%s", name, diff)
			}
		}
	}
}

// A recorded template differs from a live one only in its source of verdicts.
func TestRecordedTemplatesDifferInExternalDataOnly(t *testing.T) {
	for _, kind := range kinds {
		dir := strings.ToLower(kind)
		live, libs := template(t, folder, dir+"/template.yaml")
		recorded, recordedLibs := template(t, folder, dir+"/recorded/template.yaml")
		if diff := cmp.Diff(live, recorded); diff != "" {
			t.Errorf("%s: templates differ beside their libraries:\n%s", kind, diff)
		}
		differing := []string{}
		for name := range libs {
			if libs[name] != recordedLibs[name] {
				differing = append(differing, name)
			}
		}
		want := []string{}
		if kind == policies.SignedImages || kind == policies.ScannedImages {
			want = []string{"lib.externaldata"}
		}
		if diff := cmp.Diff(want, differing); diff != "" || len(libs) != len(recordedLibs) {
			t.Errorf("%s: libraries that differ: %s", kind, diff)
		}
		if text := fmt.Sprint(recorded, recordedLibs); strings.Contains(text, "external_data(") {
			t.Errorf("%s: the recorded template asks a provider", kind)
		}
		if text := fmt.Sprint(live, libs); strings.Contains(text, "http.send") || strings.Contains(text, "data.inventory") {
			t.Errorf("%s: the live template reads verdicts from another source than the provider", kind)
		}
	}
}

// template returns a ConstraintTemplate without its libraries, and the libraries by package.
func template(t *testing.T, files fs.FS, name string) (map[string]any, map[string]string) {
	t.Helper()
	text, err := fs.ReadFile(files, name)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	targets, _, err := unstructured.NestedSlice(object, "spec", "targets")
	if err != nil || len(targets) != 1 {
		t.Fatal(len(targets), err)
	}
	code := targets[0].(map[string]any)["code"].([]any)[0].(map[string]any)["source"].(map[string]any)
	libs := map[string]string{}
	for _, lib := range code["libs"].([]any) {
		m, err := ast.ParseModuleWithOpts(name, lib.(string), ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatal(err)
		}
		libs[strings.TrimPrefix(m.Package.Path.String(), "data.")] = lib.(string)
	}
	delete(code, "libs")
	object["spec"].(map[string]any)["targets"] = targets
	return object, libs
}

// TestRego runs the *_test.rego files as opa test does. With -failfast it stops at the first
// failure.
func TestRego(t *testing.T) {
	vectors := readVectors(t)
	// The vectors have control characters. As data they need no quoting.
	store := inmem.NewFromObject(map[string]any{"references": vectors})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	parsed := modules(t, "live")
	runner := tester.NewRunner().
		SetCompiler(compiler()).
		SetStore(store).
		SetDefaultRegoVersion(ast.RegoV1).
		CapturePrintOutput(true).
		SetTimeout(time.Minute)
	txn := storage.NewTransactionOrDie(ctx, store)
	defer store.Abort(ctx, txn)
	results, err := runner.SetModules(parsed).RunTests(ctx, txn)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for r := range results {
		if ran++; t.Failed() && flag.Lookup("test.failfast").Value.String() == "true" {
			stop()
			continue
		}
		name := r.Package + "." + r.Name
		switch {
		case r.Error != nil:
			t.Errorf("%s: %v", name, r.Error)
		case !r.Pass():
			t.Errorf("%s failed at %s\n%s", name, r.Location, r.Output)
		}
	}
	if ran < 10 {
		t.Errorf("only %d tests ran", ran)
	}
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	files, err := inline.Files(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is out of date; run make generate", name)
		}
	}
}

// TestClassesAgree compares Go's classes with the table that the Rego tests read.
// GO-2026-6225, CVE-2026-105769: the table has look-alikes of hosts.
func TestClassesAgree(t *testing.T) {
	for _, v := range readVectors(t) {
		v := v.(map[string]any)
		ref, want := v["ref"].(string), v["class"].(string)
		if got := image.Classify(ref).String(); got != want {
			t.Errorf("image.Classify(%q) = %s, want %s (%s)", ref, got, want, v["why"])
		}
	}
}

// TestClassesAgreeOnAnything changes the shared vectors at random and compares the classes of
// Rego and Go.
func TestClassesAgreeOnAnything(t *testing.T) {
	refs := mutated(vectorRefs(t), 60)
	result, err := rego.New(
		rego.Compiler(compile(t, modules(t, "live"))),
		rego.Query("[names[ref].class | names := data.lib.ocir.classify_all({ref | some ref in input}); some ref in input]"),
		rego.SetRegoVersion(ast.RegoV1),
		rego.Input(refs),
	).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	classes := result[0].Expressions[0].Value.([]any)
	if len(classes) != len(refs) {
		t.Fatalf("%d classes for %d references", len(classes), len(refs))
	}
	count := map[any]int{}
	for i, ref := range refs {
		count[classes[i]]++
		if want := image.Classify(ref).String(); classes[i] != want {
			t.Errorf("%q is %s in Rego, %s in Go", ref, classes[i], want)
		}
	}
	if len(count) != 3 {
		t.Errorf("the references are of %d classes only: %v", len(count), count)
	}
}

// TestCanonicalAgreesWithClassify changes references at random that the fast expression of the
// Rego may match, and compares it with the full grammar and with Go. A reference that only the
// fast expression accepts would become a question that the provider reads differently.
func TestCanonicalAgreesWithClassify(t *testing.T) {
	pin := "@sha256:" + strings.Repeat("0123456789abcdef", 4)
	var names, refs []string
	for _, ref := range vectorRefs(t) {
		if name, _, _ := strings.Cut(ref, "@"); image.Classify(name) == image.OCIRegistry {
			room := 255 - len(name) - len(pin)
			names = append(names, name, name+strings.Repeat("a", max(0, room)))
		}
	}
	for _, name := range mutated(names, 100) {
		refs = append(refs, name+pin)
	}
	refs = append(refs, mutated(refs, 1)...)
	result, err := rego.New(
		rego.Compiler(compile(t, modules(t, "live"))),
		rego.Query("[[ref in canonical, data.lib.ocir.classify(ref)] | canonical := data.lib.ocir.canonical({ref | some ref in input}); some ref in input]"),
		rego.SetRegoVersion(ast.RegoV1),
		rego.Input(refs),
	).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	answers := result[0].Expressions[0].Value.([]any)
	if len(answers) != len(refs) {
		t.Fatalf("%d answers for %d references", len(answers), len(refs))
	}
	count := map[bool]int{}
	for i, ref := range refs {
		fast, slow := answers[i].([]any)[0].(bool), answers[i].([]any)[1].(map[string]any)
		count[fast]++
		parsed, _ := image.Parse(ref)
		switch byGo := parsed.Digest() != ""; {
		case byGo != (slow["class"] == "oci-registry" && slow["pinned"] == true):
			t.Errorf("%q: classify returns %v, pinned and of OCI Registry in Go: %v", ref, slow, byGo)
		case fast != (byGo && len(ref) <= 255):
			t.Errorf("%q: in canonical: %v; classify returns %v", ref, fast, slow)
		}
	}
	if min(count[true], count[false]) < 1000 {
		t.Errorf("references in canonical and not: %v, too few to prove anything", count)
	}
}

// TestReasonsFitIntoMessages checks that a message shows each reason in full, and that place and
// reason are within the first 80 bytes.
func TestReasonsFitIntoMessages(t *testing.T) {
	result, err := rego.New(
		rego.Compiler(compile(t, modules(t, "live"))),
		rego.Query("data.lib.message.longest"),
		rego.SetRegoVersion(ast.RegoV1),
	).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	longest := map[string]int{}
	for part, n := range result[0].Expressions[0].Value.(map[string]any) {
		if longest[part], err = strconv.Atoi(fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	if n := longest["place"] + len(": ") + longest["reason"] + len(": "); n > 80 {
		t.Errorf("place and reason take up to %d bytes", n)
	}
	reasons := reasonsInRego(t)
	if len(reasons) < 15 {
		t.Errorf("only %d reasons found in Rego: %v", len(reasons), reasons)
	}
	for _, r := range verdict.Reasons() {
		reasons = append(reasons, string(r))
	}
	for _, r := range vulnreport.Reasons() {
		reasons = append(reasons, string(r))
	}
	for _, r := range reasons {
		if len(r) > longest["reason"] {
			t.Errorf("the reason %s has %d letters; a message holds %d", r, len(r), longest["reason"])
		}
	}
}

// reasonsInRego returns the reasons in the policies: the second arguments of message.violation,
// and the values of rules named reason, end_reason or invalid_reference.
func reasonsInRego(t *testing.T) []string {
	t.Helper()
	word := regexp.MustCompile(`^[a-z]+(-[a-z]+)+$`)
	found := map[string]bool{}
	add := func(x any) bool {
		ast.WalkTerms(x, func(term *ast.Term) bool {
			if s, ok := term.Value.(ast.String); ok && word.MatchString(string(s)) {
				found[string(s)] = true
			}
			return false
		})
		return false
	}
	for name, m := range modules(t, "live") {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		walkCalls(m, func(function string, args []*ast.Term) {
			if function == "message.violation" {
				add(args[1])
			}
		})
		ast.WalkRules(m, func(rule *ast.Rule) bool {
			if slices.Contains([]string{"reason", "end_reason", "invalid_reference"}, rule.Head.Name.String()) {
				add(rule.Head.Value)
			}
			return false
		})
	}
	return slices.Sorted(maps.Keys(found))
}

// vectorRefs returns the references of the shared vectors that are valid UTF-8 and not long.
func vectorRefs(t *testing.T) []string {
	t.Helper()
	var refs []string
	for _, v := range readVectors(t) {
		if ref := v.(map[string]any)["ref"].(string); utf8.ValidString(ref) && len(ref) <= 300 {
			refs = append(refs, ref)
		}
	}
	return refs
}

// mutated returns n random changes of each reference, made with tokens that matter in one.
func mutated(refs []string, n int) []string {
	random := rand.New(rand.NewPCG(1, 2))
	bits := strings.Split("A a K 0 . .. / // : @ - -- _ __ ___ % [ ] * \\ \n \x00 é K ſ ı 。 ocir.io .oci. .ocs. OCIR. artifacts. .oraclecloud.com .customer-oci.com localhost sha256: :443 cafe "+digest, " ")
	var changed []string
	for _, ref := range refs {
		for range n {
			runes, bit := []rune(ref), bits[random.IntN(len(bits))]
			i := random.IntN(len(runes) + 1)
			j := min(len(runes), i+random.IntN(3))
			switch random.IntN(4) {
			case 0:
				changed = append(changed, string(runes[:i])+strings.ToUpper(string(runes[i:j]))+string(runes[j:]))
			case 1:
				changed = append(changed, string(runes[:i])+string(runes[j:]))
			default:
				changed = append(changed, string(runes[:i])+bit+string(runes[j:]))
			}
		}
	}
	return changed
}

func readVectors(t *testing.T) []any {
	t.Helper()
	text, err := os.ReadFile("lib/testdata/references.json")
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		References []any `json:"references"`
	}
	if err := json.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	if len(table.References) < 50 {
		t.Fatalf("only %d vectors", len(table.References))
	}
	return table.References
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sources returns all Rego files by name.
func sources(t *testing.T) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".rego") {
			return err
		}
		files[name], err = os.ReadFile(name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// modules returns the Rego files with one source of verdicts: live, recorded or conftest. With
// conftest they include the files in conftest, but not the generated copies.
func modules(t *testing.T, source string) map[string]*ast.Module {
	t.Helper()
	parsed := map[string]*ast.Module{}
	for name, text := range sources(t) {
		switch dir := path.Dir(name); {
		case dir == "lib/externaldata" && path.Base(name) != source+".rego",
			dir == "conftest" && source != "conftest",
			dir == "conftest/generated":
			continue
		}
		m, err := ast.ParseModuleWithOpts(name, string(text), ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatal(err)
		}
		parsed[name] = m
	}
	return parsed
}

func compiler() *ast.Compiler {
	capabilities := ast.CapabilitiesForThisVersion()
	capabilities.Builtins = append(capabilities.Builtins, externalData)
	return ast.NewCompiler().
		WithCapabilities(capabilities).
		WithStrict(true).
		WithEnablePrintStatements(true)
}

func compile(t *testing.T, parsed map[string]*ast.Module) *ast.Compiler {
	t.Helper()
	c := compiler()
	c.Compile(parsed)
	if c.Failed() {
		t.Fatal(c.Errors)
	}
	return c
}
