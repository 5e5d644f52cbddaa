package policies_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/open-policy-agent/gatekeeper/v3/pkg/gator"
	"github.com/open-policy-agent/gatekeeper/v3/pkg/gator/verify"
)

// TestSuites runs gator verify on the samples, with the recorded templates and with the driver of
// an unmodified gator.
func TestSuites(t *testing.T) {
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	// The suites have absolute paths.
	files := os.DirFS("/")
	suites, err := verify.ReadSuites(files, root[1:], ".", true)
	if err != nil {
		t.Fatal(err)
	}
	if len(suites) != len(kinds) {
		t.Fatalf("%d suites, want %d", len(suites), len(kinds))
	}
	runner, err := verify.NewRunner(files, func(opts ...gator.Opt) (gator.Client, error) {
		return gator.NewOPAClient(false, opts...)
	})
	if err != nil {
		t.Fatal(err)
	}
	filter, err := verify.NewFilter("")
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range suites {
		result := runner.Run(t.Context(), filter, suite)
		if result.Error != nil {
			t.Error(result.Error)
		}
		for _, test := range result.TestResults {
			if test.Error != nil {
				t.Errorf("%s: %s: %v", suite.InputPath, test.Name, test.Error)
			}
			for _, c := range test.CaseResults {
				if c.Error != nil {
					t.Errorf("%s: %s: %s: %v", suite.InputPath, test.Name, c.Name, c.Error)
				}
			}
		}
	}
}
