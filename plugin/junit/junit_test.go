package junit_test

import (
	"encoding/xml"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oke-sign/oke-sign/plugin/junit"
)

// A CI server reads the counts in the attributes, and each outcome.
func TestWrite(t *testing.T) {
	got, err := junit.Write("check", []junit.Case{
		{Name: "Pod/good", Class: "pods.yaml", File: "pods.yaml", Output: "a warning"},
		{Name: "Pod/bad", Class: "pods.yaml", Failure: &junit.Outcome{Message: `no "digest" <&>`, Type: "no-digest", Text: "pods.yaml:8: no digest\n\x1b[2J"}},
		{Name: "Pod/unknown", Class: "pods.yaml", Error: &junit.Outcome{Message: "no answer"}},
		{Name: "Pod/other", Class: "pods.yaml", Skipped: &junit.Outcome{Message: "no constraint"}},
	})
	const want = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="check" tests="4" failures="1" errors="1" skipped="1">
  <testsuite name="check" tests="4" failures="1" errors="1" skipped="1">
    <testcase name="Pod/good" classname="pods.yaml" file="pods.yaml">
      <system-out>a warning</system-out>
    </testcase>
    <testcase name="Pod/bad" classname="pods.yaml">
      <failure message="no &#34;digest&#34; &lt;&amp;&gt;" type="no-digest">pods.yaml:8: no digest&#xA;�[2J</failure>
    </testcase>
    <testcase name="Pod/unknown" classname="pods.yaml">
      <error message="no answer"></error>
    </testcase>
    <testcase name="Pod/other" classname="pods.yaml">
      <skipped message="no constraint"></skipped>
    </testcase>
  </testsuite>
</testsuites>
`
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if err := xml.Unmarshal(got, new(any)); err != nil {
		t.Errorf("a parser rejects it: %v", err)
	}
}
