package cmd_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/oke-sign/oke-sign/plugin/constraint"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/test/fakeapiserver"
	"github.com/oke-sign/oke-sign/test/soundcluster"
)

// answering [no]: the provider is installed, and its Pods are ready, or are not.
func answering(ts *testscript.TestScript, _ bool, args []string) {
	ready := len(args) == 0
	for _, name := range []string{"oke-sign", "oke-sign-scans"} {
		objects, err := manifest.Objects(fmt.Appendf(nil, `
{apiVersion: externaldata.gatekeeper.sh/v1beta1, kind: Provider, metadata: {name: %s}, spec: {url: "https://oke-sign.oke-sign.svc:8443/v1/x"}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: oke-sign-1, namespace: oke-sign, labels: {kubernetes.io/service-name: oke-sign}},
  endpoints: [{addresses: [10.0.0.1], conditions: {ready: %t}, targetRef: {kind: Pod, name: oke-sign-1}}]}`, name, ready))
		if err == nil {
			err = of(ts).cluster.Add(objects...)
		}
		if err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

// ago VARIABLE TIME: the moment so long ago.
func ago(ts *testscript.TestScript, _ bool, args []string) {
	d, err := time.ParseDuration(args[1])
	if err != nil {
		ts.Fatalf("usage: ago VARIABLE TIME: %v", err)
	}
	ts.Setenv(args[0], time.Now().Add(-d).UTC().Format(time.RFC3339))
}

// example is a line of a text that runs a command which makes or changes a policy.
var example = regexp.MustCompile(`^\s*kubectl oke-sign (policy .*)$`)

// changes are the commands that an example must have to be a recommendation.
var changes = regexp.MustCompile(`^policy (set|add-key|enable|edit) `)

// blocks returns the examples in a text: consecutive lines of commands, each command as
// its words, without comments.
func blocks(text string) [][]string {
	var found [][]string
	var block []string
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	for line := range strings.Lines(text + "\n\n") {
		line = strings.TrimRight(line, "\n")
		if m := example.FindStringSubmatch(line); m != nil && !strings.HasSuffix(line, "[flags]") { // a line of usage
			command, _, _ := strings.Cut(m[1], "#")
			block = append(block, strings.TrimSpace(command))
			continue
		}
		recommends := false
		for _, command := range block {
			recommends = recommends || changes.MatchString(command+" ")
		}
		if recommends {
			found = append(found, block)
		}
		block = nil
	}
	return found
}

// recommended FILE...: what these texts and manifests recommend is a policy that policy get
// and doctor accept, in a cluster in which everything else is as it should be.
func recommended(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		text := ts.ReadFile(file)
		if filepath.Ext(file) == ".yaml" {
			ts.Logf("# %s", file)
			fresh(ts, true)
			apply(ts, strings.ReplaceAll(text, "{{ .Key }}", ts.Getenv("IMAGE_KEY")))
			accepted(ts, file)
			continue
		}
		found := blocks(text)
		if len(found) == 0 {
			ts.Fatalf("%s recommends no policy", file)
		}
		for _, block := range found {
			ts.Logf("# %s: %s", file, strings.Join(block, "; "))
			fresh(ts, false)
			follow(ts, block)
			accepted(ts, strings.Join(block, "; "))
		}
	}
}

// fresh starts another sound cluster, with or without its own constraints.
func fresh(ts *testscript.TestScript, bare bool) {
	w := of(ts)
	tb, ok := ts.Value(testKey{}).(testing.TB)
	if !ok {
		ts.Fatalf("no test to start a server for")
	}
	w.cluster = fakeapiserver.Start(tb)
	kubeconfig, err := w.cluster.Kubeconfig(ts.Getenv("HOME"), "test", "prod")
	if err != nil {
		ts.Fatalf("%v", err)
	}
	ts.Setenv("KUBECONFIG", kubeconfig)
	objects, err := soundcluster.Objects(ts.Getenv("IMAGE_KEY"), "oke-sign.oke-sign.svc")
	if err != nil {
		ts.Fatalf("%v", err)
	}
	for _, o := range objects {
		if bare && o.GroupVersionKind().Group == constraint.Group {
			continue
		}
		if err := w.cluster.Add(o); err != nil {
			ts.Fatalf("%v", err)
		}
	}
}

// follow runs the commands of an example. A file that one of them writes is applied.
func follow(ts *testscript.TestScript, block []string) {
	written := ""
	for _, command := range block {
		command, file, redirected := strings.Cut(command, " > ")
		words := strings.Fields(os.Expand(command, ts.Getenv))
		if err := ts.Exec("kubectl-oke_sign", words...); err != nil {
			ts.Fatalf("%s: %v", command, err)
		}
		if redirected {
			written = strings.TrimSpace(file)
			if err := os.WriteFile(ts.MkAbs(written), []byte(ts.ReadFile("stdout")), 0o600); err != nil {
				ts.Fatalf("%v", err)
			}
		}
	}
	if written != "" {
		fresh(ts, true)
		apply(ts, ts.ReadFile(written))
	}
}

func apply(ts *testscript.TestScript, text string) {
	objects, err := manifest.Objects([]byte(text))
	if err == nil {
		err = of(ts).cluster.Add(objects...)
	}
	if err != nil {
		ts.Fatalf("%v", err)
	}
}

// accepted fails unless policy get and doctor accept the policy, once a trial is over and
// Gatekeeper has loaded all constraints.
func accepted(ts *testscript.TestScript, what string) {
	if err := ts.Exec("kubectl-oke_sign", "policy", "enable", "--yes"); err != nil {
		ts.Fatalf("%s: policy enable: %v", what, err)
	}
	constraints, err := of(ts).cluster.List(constraint.Group)
	if err != nil || len(constraints) == 0 {
		ts.Fatalf("%s: %d constraints, %v", what, len(constraints), err)
	}
	for i := range constraints {
		if err := of(ts).cluster.Add(soundcluster.Enforced(&constraints[i])); err != nil {
			ts.Fatalf("%v", err)
		}
	}
	if err := ts.Exec("kubectl-oke_sign", "policy", "get", "-o", "json"); err != nil {
		ts.Fatalf("%s: policy get: %v", what, err)
	}
	var got struct {
		Enforced bool
		Problems []string
		Others   []any
	}
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &got); err != nil || !got.Enforced || len(got.Problems)+len(got.Others) > 0 {
		ts.Fatalf("%s: policy get: %v, %+v", what, err, got)
	}
	if err := ts.Exec("kubectl-oke_sign", "doctor"); err != nil {
		ts.Fatalf("%s: doctor: %v\n%s", what, err, ts.ReadFile("stdout"))
	}
}

// TestBlocks checks that examples are found as people read them.
func TestBlocks(t *testing.T) {
	got := fmt.Sprint(blocks("Text with kubectl oke-sign policy set.\n\n    kubectl oke-sign policy set --key a \\\n      --mode warn  # a trial\n    kubectl oke-sign policy enable\n\nkubectl oke-sign policy get\n\n  kubectl oke-sign policy add-key b"))
	if want := "[[policy set --key a --mode warn policy enable] [policy add-key b]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
