package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/oke-sign/oke-sign/"

// dependencies returns what each package of the project imports, directly and
// through others, tests left out.
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
			t.Fatalf("no package %s: the rules below would hold for nothing", pkg)
		}
	}
	return deps
}

// imports returns what each package of the project imports itself.
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

// The rules keep what decides small enough to be read whole, and the cloud's and
// the cluster's libraries out of it.
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
				t.Errorf("%s depends on %s: what decides and what answers knows nothing of OCI's SDK", pkg, dep)
			case under(pkg, "provider") && under(dep, opa) && !under(dep, opa+"/cert-controller"):
				t.Errorf("%s depends on %s: nothing under provider does", pkg, dep)
			case under(pkg, "provider") && under(dep, opa) && !under(pkg, "provider/certs", "provider/oke-sign-provider"):
				t.Errorf("%s depends on %s: certs and the main program only", pkg, dep)
			case under(pkg, "provider") && !under(pkg, "provider/certs", "provider/oke-sign-provider") &&
				(under(dep, kubernetes) || under(dep, "sigs.k8s.io")):
				t.Errorf("%s depends on %s: certs and the main program only", pkg, dep)
			case under(pkg, "plugin") && under(own, "provider/server"):
				t.Errorf("%s depends on %s: the plugin never does", pkg, dep)
			case !under(pkg, "test") && under(own, "test"):
				t.Errorf("%s depends on %s: only tests do", pkg, dep)
			}
		}
	}
	for pkg, names := range imports(t) {
		for _, name := range names {
			// Under test, the SDK's own clients play Oracle's and attackers' parts.
			if under(name, sdk) && !under(pkg, "provider/registry", "provider/vault", "provider/vulnscan", "provider/ociauth", "plugin/okecluster", "test") {
				t.Errorf("%s imports %s: only the packages that talk to OCI do", pkg, name)
			}
		}
	}
}

// Whoever looks at what the project takes in finds why, and nothing that is gone.
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
