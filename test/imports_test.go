package test

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/oke-sign/oke-sign/"

// dependencies returns the direct and indirect imports of each package of the project,
// without its tests.
func dependencies(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}:{{range .Deps}} {{.}}{{end}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	deps := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		pkg, list, _ := strings.Cut(strings.TrimSpace(line), ":")
		deps[strings.TrimPrefix(pkg, module)] = strings.Fields(list)
	}
	for _, pkg := range []string{"provider/image", "provider/signature", "provider/verdict", "provider/checker", "provider/vulnreport", "provider/server", "plugin/cmd", "plugin/gatekeeper"} {
		if deps[pkg] == nil {
			t.Fatalf("no package %s: the rules below would check nothing", pkg)
		}
	}
	return deps
}

// imports returns the direct imports of each package of the project.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}:{{range .Imports}} {{.}}{{end}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	list := make(map[string][]string)
	for line := range strings.Lines(string(out)) {
		pkg, names, _ := strings.Cut(strings.TrimSpace(line), ":")
		list[strings.TrimPrefix(pkg, module)] = strings.Fields(names)
	}
	return list
}

func under(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return path == root || strings.HasPrefix(path, root+"/") })
}

func std(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// TestImportRules keeps the deciding packages small enough to read whole, and free of
// the libraries of OCI and Kubernetes.
func TestImportRules(t *testing.T) {
	const (
		sdk        = "github.com/oracle/oci-go-sdk"
		opa        = "github.com/open-policy-agent"
		kubernetes = "k8s.io"
	)
	for pkg, deps := range dependencies(t) {
		for _, dep := range deps {
			own := strings.TrimPrefix(dep, module)
			switch {
			case pkg == "provider/image" && !std(dep):
				t.Errorf("%s depends on %s: the standard library only", pkg, dep)
			case pkg == "provider/signature" && !std(dep) && own != "provider/image":
				t.Errorf("%s depends on %s: the standard library and provider/image only", pkg, dep)
			case pkg == "provider/verdict" && !std(dep) && own != "provider/image" && own != "provider/signature":
				t.Errorf("%s depends on %s: the standard library, provider/image and provider/signature only", pkg, dep)
			case slices.Contains([]string{"provider/checker", "provider/vulnreport", "provider/server"}, pkg) && under(dep, sdk):
				t.Errorf("%s depends on %s: packages that decide or answer must not know OCI's SDK", pkg, dep)
			case under(pkg, "provider") && under(dep, opa) && !under(dep, opa+"/cert-controller"):
				t.Errorf("%s depends on %s: no package under provider does", pkg, dep)
			case under(pkg, "provider") && under(dep, opa) && !under(pkg, "provider/certs", "provider/oke-sign-provider"):
				t.Errorf("%s depends on %s: certs and the main program only", pkg, dep)
			case under(pkg, "provider") && !under(pkg, "provider/certs", "provider/oke-sign-provider") &&
				(under(dep, kubernetes) || under(dep, "sigs.k8s.io")):
				t.Errorf("%s depends on %s: certs and the main program only", pkg, dep)
			case under(pkg, "plugin") && under(own, "provider/server"):
				t.Errorf("%s depends on %s: the plugin never does", pkg, dep)
			case own == "provider/ociauth" && under(pkg, "provider") && !under(pkg, "provider/oke-sign-provider"):
				t.Errorf("%s depends on %s: only the main program signs in, and the others get an OCI client", pkg, dep)
			case !under(pkg, "test") && under(own, "test"):
				t.Errorf("%s depends on %s: only tests do", pkg, dep)
			}
		}
	}
	for pkg, names := range imports(t) {
		for _, name := range names {
			checkPlugin(t, pkg, strings.TrimPrefix(name, module))
			// In tests, the SDK's own clients act as Oracle's programs and as
			// attackers.
			if under(name, sdk) && !under(pkg, "provider/registry", "provider/vault", "provider/vulnscan", "provider/oci", "provider/ociauth", "plugin/okecluster", "test") {
				t.Errorf("%s imports %s: only the packages that talk to OCI do", pkg, name)
			}
		}
	}
}

// checkPlugin checks one import against the plugin's layers: groups of commands above
// packages named for their role, above cli and the formats.
func checkPlugin(t *testing.T, pkg, name string) {
	const commands = "plugin/cmd/"
	switch {
	case strings.HasPrefix(pkg, commands) && strings.HasPrefix(name, commands):
		t.Errorf("%s imports %s: a group of commands must not import another; move shared code to a package beside cmd", pkg, name)
	case under(pkg, "plugin") && pkg != "plugin/cmd" && strings.HasPrefix(name, commands):
		t.Errorf("%s imports %s: only plugin/cmd knows the commands", pkg, name)
	case under(pkg, "plugin/cli", "plugin/sarif", "plugin/junit", "plugin/codequality") && under(name, "plugin", "provider", "policies"):
		t.Errorf("%s imports %s: it serves any program, so it must not import the project", pkg, name)
	case under(pkg, "plugin/enforcement", "plugin/simulate", "plugin/keyring", "plugin/sarif") && name == "github.com/spf13/cobra":
		t.Errorf("%s imports %s: it is not a command", pkg, name)
	case under(pkg, "plugin") && !under(pkg, "plugin/cmd", "plugin/connect", "plugin/keyring", "plugin/okecluster") &&
		under(name, "provider/registry", "provider/vault", "provider/vulnscan", "provider/oci", "provider/ociauth"):
		t.Errorf("%s imports %s: connect makes OCI's clients, and commands use them", pkg, name)
	}
}

// TestDoctorsChecksOnlyEvaluate checks that the checks of doctor only evaluate
// facts. They must not connect to anything or know a command line.
func TestDoctorsChecksOnlyEvaluate(t *testing.T) {
	files, err := filepath.Glob("../plugin/cmd/doctor/checks*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("files of checks: %v, %v", files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range parsed.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if name == "github.com/spf13/cobra" || under(strings.TrimPrefix(name, module), "plugin/connect") {
				t.Errorf("%s imports %s: gather.go reads facts, and checks only evaluate them", file, name)
			}
		}
	}
}

// A reader takes in a package as a whole, and a type too.
const (
	maxLines   = 2500 // of product code in a package
	maxMethods = 15   // of a type, exported or not
)

func TestPackagesStaySmall(t *testing.T) {
	for _, root := range []string{"../provider", "../plugin"} {
		lines, methods := make(map[string]int), make(map[string]int)
		err := filepath.WalkDir(root, func(file string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			dir := filepath.Dir(file)
			lines[dir] += strings.Count(string(text), "\n")
			parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, d := range parsed.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
					methods[dir+": "+receiver(f.Recv.List[0].Type)]++
				}
			}
			return nil
		})
		if err != nil || len(lines) < 10 {
			t.Fatalf("%s: %d packages, %v", root, len(lines), err)
		}
		for dir, n := range lines {
			if n > maxLines && !slices.Contains(larger, dir) {
				t.Errorf("%s has %d lines of product code, more than %d", dir, n, maxLines)
			}
		}
		for name, n := range methods {
			if n > maxMethods && !slices.Contains(larger, name) {
				t.Errorf("%s has %d methods, more than %d", name, n, maxMethods)
			}
		}
	}
}

// larger lists types that may exceed the limits. A client has a method for each call
// of its service.
var larger = []string{
	"../provider/registry: Client",
	"../provider/cache: Cache", "../provider/server: jsonReader",
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// TestContributingHasAReasonForEachDependency checks that CONTRIBUTING.md gives a
// reason for each dependency, and lists no other.
func TestContributingHasAReasonForEachDependency(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, r := range file.Require {
		if !r.Indirect {
			want = append(want, r.Path)
		}
	}
	text, err := os.ReadFile("../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Dependencies, and why each is there\n")
	_, table, _ := strings.Cut(section, "\n|---|---|\n")
	table, _, found := strings.Cut(table, "\n\n")
	if !found {
		t.Fatal("CONTRIBUTING.md has no table of dependencies")
	}
	for line := range strings.Lines(table) {
		names, reason, _ := strings.Cut(strings.Trim(line, "| \n"), "|")
		if strings.TrimSpace(reason) == "" {
			t.Errorf("no reason for %s", names)
		}
		host := ""
		for _, name := range strings.Split(strings.TrimSpace(names), ", ") {
			if first, _, more := strings.Cut(name, "/"); more {
				host = first
			} else {
				name = host + "/" + name
			}
			got = append(got, name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("go.mod and CONTRIBUTING.md:\n%s", diff)
	}
}
