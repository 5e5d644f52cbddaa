package main

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/test/ocitest"
)

var update = flag.Bool("update", false, "write the table of metrics into the chart's README")

// rendered returns the objects in the chart's own goldens, by file and by kind.
func rendered(t *testing.T) map[string]map[string][]map[string]any {
	t.Helper()
	files, err := filepath.Glob("../../charts/testdata/oke-sign/*.golden")
	if err != nil || len(files) < 3 {
		t.Fatalf("rendered charts: %q: %v", files, err)
	}
	all := make(map[string]map[string][]map[string]any)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		kinds := make(map[string][]map[string]any)
		for _, document := range strings.Split(string(text), "\n---\n") {
			var object map[string]any
			if err := yaml.Unmarshal([]byte(document), &object); err != nil {
				t.Fatal(err)
			}
			kind, _ := object["kind"].(string)
			kinds[kind] = append(kinds[kind], object)
		}
		all[filepath.Base(file)] = kinds
	}
	return all
}

func at(value any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			value = value.(map[string]any)[step]
		case int:
			value = value.([]any)[step]
		}
	}
	return value
}

func TestTheChartsArgumentsAreUnderstood(t *testing.T) {
	pod := map[string]string{"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
	for file, kinds := range rendered(t) {
		var args []string
		for _, arg := range at(kinds["Deployment"][0], "spec", "template", "spec", "containers", 0, "args").([]any) {
			args = append(args, arg.(string))
		}
		o, err := parse(process{args: args, getenv: environment(pod)})
		switch {
		case err != nil:
			t.Errorf("%s: %v", file, err)
		case !o.fromGatekeeper && o.clientCA == "":
			t.Errorf("%s: anybody may ask", file)
		}
	}
}

// The chart and the program make the same Provider objects, and the program has the
// right to make them.
func TestTheChartsProvidersAreThePrograms(t *testing.T) {
	var want []string
	for _, p := range providers() {
		want = append(want, p.Name)
	}
	all := rendered(t)
	var got []string
	for _, name := range at(all["default.golden"]["ClusterRole"][0], "rules", 0, "resourceNames").([]any) {
		got = append(got, name.(string))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the right is for the Provider objects %q, want %q", got, want)
	}
	objects := all["certificate-from-files.golden"]["Provider"]
	if len(objects) != len(want) {
		t.Fatalf("the chart has %d Provider objects, want %q", len(objects), want)
	}
	for i, p := range providers() {
		spec := objects[i]["spec"]
		url, wantURL := at(spec, "url"), "https://oke-sign.oke-sign.svc:8443"+p.Path
		if name := at(objects[i], "metadata", "name"); name != p.Name || url != wantURL || at(spec, "timeout") != float64(p.Timeout) {
			t.Errorf("the chart has Provider %v at %v for %v s, want %s at %s for %d s", name, url, at(spec, "timeout"), p.Name, wantURL, p.Timeout)
		}
	}
}

func TestTheChartsAlertsUseExistingMetrics(t *testing.T) {
	r := start(t, cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin())
	until(t, "ready, so OCI was called", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	_, metrics := r.get("/metrics")
	named := regexp.MustCompile(`\boke_sign_[a-z_]+`)
	there := make(map[string]bool)
	for _, name := range named.FindAllString(metrics, -1) {
		there[name] = true
	}
	text, err := os.ReadFile("../../charts/oke-sign/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	used := named.FindAllString(string(text), -1)
	if len(used) < 8 {
		t.Fatalf("only %q in the alerts", used)
	}
	for what, part := range map[string]string{
		"no replica is ready, reached or not": `absent(oke_sign_ready == 1)`,
		"no answer about signatures":          `oke_sign_decision_errors_total{endpoint="signatures"}`,
		"no answer about scans":               `oke_sign_decision_errors_total{endpoint="scans",cause!="deadline"}`,
		"no right to read repositories":       `oke_sign_answers_total{endpoint="signatures",reason="image-not-found"}`,
		"questions of another version":        "sum(rate(oke_sign_malformed_questions_total[",
		"too many connections":                "oke_sign_connections_closed_total",
	} {
		if !strings.Contains(string(text), part) {
			t.Errorf("images are denied for %s, and no alert covers it", what)
		}
	}
	for _, name := range used {
		if !there[name] {
			t.Errorf("alerts use %s, which is not in %q", name, slices.Sorted(maps.Keys(there)))
		}
	}
	selector, matcher := regexp.MustCompile(`\b(oke_sign_[a-z_]+)\{([^}]*)\}`), regexp.MustCompile(`([a-z]+)(=~|!~|!=|=)("[^"]*")`)
	for _, s := range selector.FindAllStringSubmatch(string(text), -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			want := m[1] + "="
			if m[1] == "endpoint" { // whose series are all there from the start
				want += m[3]
			}
			if !regexp.MustCompile(`(?m)^` + s[1] + `\{.*\b` + want).MatchString(metrics) {
				t.Errorf("alerts select %s, and no series has %s", s[0], want)
			}
		}
	}
}

// metricsTable renders the project's own metrics in /metrics as a table.
func metricsTable(exposition string) string {
	help, labels := make(map[string]string), make(map[string][]string)
	var b strings.Builder
	b.WriteString("| name | type | labels | meaning |\n|---|---|---|---|\n")
	var names []string
	types := make(map[string]string)
	label := regexp.MustCompile(`([a-z_]+)="`)
	for line := range strings.Lines(exposition) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, meaning, _ := strings.Cut(text, " ")
			names, help[name] = append(names, name), meaning
			continue
		}
		family := names[len(names)-1]
		if text, ok := strings.CutPrefix(line, "# TYPE "); ok {
			types[family] = strings.Fields(text)[1]
			continue
		}
		for _, m := range label.FindAllStringSubmatch(line, -1) {
			if m[1] != "le" && !slices.Contains(labels[family], m[1]) {
				labels[family] = append(labels[family], m[1])
			}
		}
	}
	for _, name := range names {
		if strings.HasPrefix(name, "oke_sign_") {
			var quoted []string
			for _, l := range labels[name] {
				quoted = append(quoted, "`"+l+"`")
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", name, types[name], strings.Join(quoted, ", "), help[name])
		}
	}
	return b.String()
}

// The README of the chart lists all metrics of the program, and no others.
func TestTheReadmeListsTheMetrics(t *testing.T) {
	const file, begin, end = "../../charts/oke-sign/README.md", "<!-- begin metrics -->\n", "<!-- end metrics -->\n"
	r := start(t, cloud.NewTenancy(t, ocitest.TenancyConfig{}).Admin())
	until(t, "ready, so OCI was called", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
	_, metrics := r.get("/metrics")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table of metrics", file)
	}
	want := metricsTable(metrics)
	if strings.Count(want, "\n") < 15 {
		t.Fatalf("too few metrics:\n%s", want)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		if !*update {
			t.Fatalf("the table differs from /metrics; go test ./provider/oke-sign-provider -run Readme -update writes it (-want +got):\n%s", diff)
		}
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o600); err != nil { //nolint:gosec // the file keeps its mode
			t.Fatal(err)
		}
	}
}
