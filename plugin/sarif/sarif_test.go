package sarif_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/sarif"
)

func TestNew(t *testing.T) {
	at := sarif.At("web.yaml", 7, "shop/Deployment/web")
	found := []sarif.Result{
		{RuleID: "r", Level: "error", Message: sarif.Message{Text: "unsigned"}, Locations: []sarif.Location{at}},
		{RuleID: "r", Level: "warning", Message: sarif.Message{Text: "unsigned"}, Locations: []sarif.Location{at}}, // of a laxer constraint
		{RuleID: "s", Level: "error", Message: sarif.Message{Text: "unsigned"}, Locations: []sarif.Location{at}},
	}
	for name, tc := range map[string]struct {
		rules    []sarif.Rule
		found    []sarif.Result
		failures []string
		want     string
	}{
		// Readers of SARIF reject null in place of a list.
		"nothing": {want: `{"tool":{"driver":{"name":"x","rules":[]}},"results":[],"invocations":[{"executionSuccessful":true}]}`},
		"one finding for what two constraints say, the first one": {
			rules: []sarif.Rule{{ID: "r"}, {ID: "s", HelpURI: "https://example.com", Properties: &sarif.Properties{Severity: "9.5"}}}, found: found,
			want: `{"tool":{"driver":{"name":"x","rules":[{"id":"r"},{"id":"s","helpUri":"https://example.com","properties":{"security-severity":"9.5"}}]}},
				"results":[
				{"ruleId":"r","level":"error","message":{"text":"unsigned"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"web.yaml"},"region":{"startLine":7}},"logicalLocations":[{"fullyQualifiedName":"shop/Deployment/web","kind":"resource"}]}]},
				{"ruleId":"s","level":"error","message":{"text":"unsigned"},"locations":[{"physicalLocation":{"artifactLocation":{"uri":"web.yaml"},"region":{"startLine":7}},"logicalLocations":[{"fullyQualifiedName":"shop/Deployment/web","kind":"resource"}]}]}],
				"invocations":[{"executionSuccessful":true}]}`,
		},
		"what could not be found out is no success": {
			failures: []string{"web: OCI did not answer"},
			want: `{"tool":{"driver":{"name":"x","rules":[]}},"results":[],
				"invocations":[{"executionSuccessful":false,"toolExecutionNotifications":[{"level":"error","message":{"text":"web: OCI did not answer"}}]}]}`,
		},
	} {
		text, err := json.Marshal(sarif.New("x", tc.rules, tc.found, tc.failures))
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(`{"$schema":"https://json.schemastore.org/sarif-2.1.0.json","version":"2.1.0","runs":[`+tc.want+`]}`), &want); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// Code hosting services identify files by their path in the repository. In a
// pipeline, the repository is the working directory.
func TestAt(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	here, err := os.Getwd() // the target of a link to the folder
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		"web.yaml":                            "web.yaml",
		"./deploy/../web.yaml":                "web.yaml",
		"deploy/web 1.yaml":                   "deploy/web%201.yaml",
		filepath.Join(here, "a", "b.yaml"):    "a/b.yaml",
		"-":                                   "stdin",
		"../other/web.yaml":                   "file://" + filepath.ToSlash(filepath.Join(filepath.Dir(here), "other", "web.yaml")),
		"/etc/manifests/pod.yaml":             "file:///etc/manifests/pod.yaml",
		"iad.ocir.io/ns/web:1":                "iad.ocir.io/ns/web:1",
		"de%2Fploy/web.yaml":                  "de%252Fploy/web.yaml",
		"deploy/\u00e9t\u00e9.yaml":           "deploy/%C3%A9t%C3%A9.yaml",
		filepath.Join(here, "..", "web.yaml"): "file://" + filepath.ToSlash(filepath.Join(filepath.Dir(here), "web.yaml")),
	} {
		if got := sarif.At(file, 1, "").Physical.Artifact.URI; got != want {
			t.Errorf("%s: got %s, want %s", file, got, want)
		}
	}
	for line, want := range map[int]int{0: 1, -1: 1, 1: 1, 12: 12} {
		if got := sarif.At("web.yaml", line, "").Physical.Region.StartLine; got != want {
			t.Errorf("line %d: got %d, want %d", line, got, want)
		}
	}
}
