package policies_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/gatekeeper/gatekeepertest"
)

// tool returns the path of a program that the Makefile builds. Without the program the test is
// skipped, or fails if OKE_SIGN_TOOLS is set, as in the Makefile.
func tool(t *testing.T, name string) string {
	t.Helper()
	dir, required := os.LookupEnv("OKE_SIGN_TOOLS")
	if !required {
		dir = filepath.Join("..", "bin", "tools")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		if required {
			t.Fatal(err)
		}
		t.Skipf("%s does not exist; make bin/tools/%s builds it", path, name)
	}
	return path
}

// run returns a program's output and exit code.
func run(t *testing.T, dir, program string, args ...string) (string, int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir = dir
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), command.ProcessState.ExitCode()
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func podOf(image string) string {
	return "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{name: c0, image: '" + image + "'}]}}\n"
}

func deploymentOf(image string) string {
	return "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {spec: {containers: [{name: c0, image: '" + image + "'}]}}}}\n"
}

func revisionOf(image string) string {
	return "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: web-1}, revision: 1, data: {spec: {template: {$patch: replace, spec: {containers: [{name: c0, image: '" + image + "'}]}}}}}\n"
}

func underBreakGlass(image string) string {
	return strings.Replace(podOf(image), "{name: web}", "{name: web, annotations: {oracle.image-policy.k8s.io/break-glass: 'true'}}", 1)
}

// Each of these was once a way to pass the check without a message.
func TestConftest(t *testing.T) {
	conftest := tool(t, "conftest")
	p := gatekeepertest.Start(t, gatekeepertest.Each(signedIfGood))
	const service = "{apiVersion: v1, kind: Service, metadata: {name: web}}\n"
	constraints := `{"oke_sign": {"constraints": [{"kind": "OKESignedImages", "spec": {"parameters": {"keys": ["` + keyA + `"]}}}]}}`
	record := func(records string) string {
		return fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "data": {"verdicts.json": %q}}`, records)
	}
	recorded := record(fmt.Sprintf(`[{"question": {"image": %q, "keys": [%q]}, "verdict": {"signed": true}}]`, goodImage, keyA))
	provider := func(change func(map[string]string)) string {
		at := map[string]string{"url": p.URL, "ca": string(p.CA), "cert": read(t, p.Certificate), "key": read(t, p.Key)}
		change(at)
		text, err := json.Marshal(map[string]any{"oke_sign": map[string]any{"providers": map[string]any{"oke-sign": at}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	asItIs := func(map[string]string) {}

	for name, tc := range map[string]struct {
		manifest string
		data     []string
		args     []string
		answer   gatekeepertest.Answer
		want     string // in the output
		exit     int
	}{
		"structure: by digest":                {manifest: podOf(goodImage), want: "WARN - manifest.yaml - main - Pod/web: containers/c0: no-key-listed: "},
		"structure: by tag":                   {manifest: podOf("iad.ocir.io/ns/good:v1"), want: "Pod/web: containers/c0: no-digest: ", exit: 1},
		"structure: another registry":         {manifest: podOf("quay.io/a/b" + digest), want: "not-oci-registry", exit: 1},
		"structure: ambiguous":                {manifest: podOf("IAD.ocir.io/ns/good" + digest), want: "ambiguous", exit: 1},
		"structure: a workload":               {manifest: deploymentOf("nginx"), want: "Deployment/web: containers/c0: no-digest: ", exit: 1},
		"structure: break-glass in use":       {manifest: strings.Replace(podOf(goodImage), "{name: web}", "{name: web, annotations: {oracle.image-policy.k8s.io/break-glass: 'true'}}", 1), want: "WARN - manifest.yaml - main - Pod/web: break-glass: in-use: "},
		"structure: break-glass misspelt":     {manifest: strings.Replace(podOf(goodImage), "{name: web}", "{name: web, annotations: {oracle.image-policy.k8s.io/break-glass: 'yes'}}", 1), want: "no-effect", exit: 1},
		"structure: a ControllerRevision":     {manifest: revisionOf("nginx"), want: "ControllerRevision/web-1: containers/c0: no-digest: ", exit: 1},
		"structure: a revision without a Pod": {manifest: "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: web-1}, revision: 1, data: {spec: {cpu: 1}}}\n", want: "0 failures"},
		"break-glass by tag":                  {manifest: underBreakGlass("iad.ocir.io/ns/bad:v1"), data: []string{`{"oke_sign": {"constraints": [{"kind": "OKEBreakGlass", "spec": {"parameters": {"requireDigest": true}}}]}}`}, want: "Pod/web: containers/c0: no-digest: a tag may move while", exit: 1},
		"break-glass by digest":               {manifest: underBreakGlass(badImage), data: []string{`{"oke_sign": {"constraints": [{"kind": "OKEBreakGlass", "spec": {"parameters": {"requireDigest": true}}}]}}`}, want: "0 warnings, 0 failures"},
		"structure: warnings can count":       {manifest: podOf(goodImage), args: []string{"--fail-on-warn"}, want: "no-key-listed", exit: 1},
		"an object without images":            {manifest: service, want: "0 failures"},
		"the second document":                 {manifest: service + "---\n" + podOf("nginx"), want: "no-digest", exit: 1},
		"the first document":                  {manifest: podOf("nginx") + "---\n" + service, want: "no-digest", exit: 1},
		"an empty document":                   {manifest: "---\n# nothing\n---\n" + service, want: "WARN - manifest.yaml - main - empty: "},
		"a list":                              {manifest: "{apiVersion: v1, kind: List, items: [" + service + ", " + podOf("nginx") + "]}", want: "Pod/web: containers/c0: no-digest", exit: 1},
		"a list of one kind":                  {manifest: "{apiVersion: v1, kind: PodList, items: [" + podOf("nginx") + "]}", want: "Pod/web: containers/c0: no-digest", exit: 1},
		"a list under another name":           {manifest: "{apiVersion: v1, kind: Bundle, items: [" + podOf("nginx") + "]}", want: "unreadable", exit: 1},
		"a list in a list":                    {manifest: "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: List, items: [" + podOf("nginx") + "]}]}", want: "unreadable", exit: 1},
		"a list without items":                {manifest: "{apiVersion: v1, kind: List}", want: "unreadable", exit: 1},
		"an item that is not an object":       {manifest: "{apiVersion: v1, kind: List, items: [nginx]}", want: "unreadable", exit: 1},
		"not a Kubernetes object":             {manifest: "image: nginx\n", want: "unreadable", exit: 1},
		"not an object":                       {manifest: "nginx\n", want: "unreadable", exit: 1},
		"containers in an unknown place":      {manifest: "{apiVersion: example.com/v1, kind: Job, metadata: {name: x}, spec: {tasks: [{containers: [{image: nginx}]}]}}", want: "unreadable", exit: 1},
		"a container that is not an object":   {manifest: "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [nginx]}}", want: "no-image", exit: 1},
		"not YAML":                            {manifest: "{", want: "Error: ", exit: 1},
		"all files combined":                  {manifest: podOf("nginx"), args: []string{"--combine"}, want: "unreadable", exit: 1},
		"the namespace of a policy":           {manifest: podOf(goodImage), args: []string{"--namespace", "okesignedimages"}, want: "no-pod-spec", exit: 1},
		"all policies' namespaces":            {manifest: podOf(goodImage), args: []string{"--namespace", "oke*"}, want: "no-pod-spec", exit: 1},
		"all namespaces":                      {manifest: podOf(goodImage), args: []string{"--all-namespaces"}, want: "", exit: 1},
		"recorded: signed":                    {manifest: podOf(goodImage), data: []string{constraints, recorded}, want: "0 warnings, 0 failures"},
		"recorded: another image":             {manifest: podOf(badImage), data: []string{constraints, recorded}, want: "no-answer", exit: 1},
		"recorded: an empty record":           {manifest: podOf(goodImage), data: []string{constraints, record(`[]`)}, want: "no-answer", exit: 1},
		"recorded: half a record":             {manifest: podOf(goodImage), data: []string{constraints, record(`[{`)}, want: "unreadable", exit: 1},
		"recorded: another object":            {manifest: podOf(goodImage), data: []string{constraints, `{"data": {"verdicts": "[]"}}`}, want: "unreadable", exit: 1},
		"recorded: without constraints":       {manifest: podOf(goodImage), data: []string{recorded}, want: "no constraints", exit: 1},
		"constraints without verdicts":        {manifest: podOf(goodImage), data: []string{constraints}, want: "no-answer", exit: 1},
		"constraints that are not a list":     {manifest: podOf(goodImage), data: []string{`{"oke_sign": {"constraints": {}}}`}, want: "no constraints", exit: 1},
		"an empty list of constraints":        {manifest: podOf(goodImage), data: []string{`{"oke_sign": {"constraints": []}}`}, want: "no constraints", exit: 1},
		"misspelt constraints":                {manifest: podOf(goodImage), data: []string{`{"oke_sign": {"constraint": []}}`}, want: "no constraints", exit: 1},
		"a constraint outside the list":       {manifest: podOf(goodImage), data: []string{signedBy(keyA)}, want: "no constraints: a constraint is given as data by itself", exit: 1},
		"a constraint of another kind":        {manifest: podOf(goodImage), data: []string{`{"oke_sign": {"constraints": [{"kind": "OKESignedImage"}]}}`}, want: `no such kind of constraint: {"kind":"OKESignedImage"}`, exit: 1},
		"a constraint that is not an object":  {manifest: podOf(goodImage), data: []string{`{"oke_sign": {"constraints": ["OKESignedImages"]}}`}, want: "no such kind of constraint", exit: 1},
		"a constraint that warns":             {manifest: podOf("nginx"), data: []string{`{"oke_sign": {"constraints": [{"kind": "OKEImageDigests", "spec": {"enforcementAction": "warn"}}]}}`}, want: "WARN"},
		"a constraint with an odd action":     {manifest: podOf("nginx"), data: []string{`{"oke_sign": {"constraints": [{"kind": "OKEImageDigests", "spec": {"enforcementAction": "Warn"}}]}}`}, want: "no-digest", exit: 1},
		"a missing file of data":              {manifest: podOf(goodImage), args: []string{"--data", "nowhere.yaml"}, want: "Error: ", exit: 1},
		"live: signed":                        {manifest: podOf(goodImage), data: []string{constraints, provider(asItIs)}, want: "0 warnings, 0 failures"},
		"live: unsigned":                      {manifest: podOf(badImage), data: []string{constraints, provider(asItIs)}, want: "containers/c0: unsigned: ", exit: 1},
		"live: a system error":                {manifest: podOf(goodImage), data: []string{constraints, provider(asItIs)}, answer: func([]string) (int, string) { return 200, gatekeepertest.Response("OCI is down") }, want: "no-answer: could not find out whether it is signed, from provider oke-sign: OCI is down", exit: 1},
		"live: 503":                           {manifest: podOf(goodImage), data: []string{constraints, provider(asItIs)}, answer: func([]string) (int, string) { return 503, "{}" }, want: "no-answer", exit: 1},
		"live: a closed port":                 {manifest: podOf(goodImage), data: []string{constraints, provider(func(at map[string]string) { at["url"] = "https://127.0.0.1:1/v1/signatures" })}, want: "no-answer", exit: 1},
		"live: no CA":                         {manifest: podOf(goodImage), data: []string{constraints, provider(func(at map[string]string) { delete(at, "ca") })}, want: "no-answer", exit: 1},
		"live: no client certificate":         {manifest: podOf(goodImage), data: []string{constraints, provider(func(at map[string]string) { delete(at, "cert") })}, want: "no-answer", exit: 1},
		"live: a provider without an address": {manifest: podOf(goodImage), data: []string{constraints, provider(func(at map[string]string) { delete(at, "url") })}, want: "no-answer", exit: 1},
	} {
		t.Run(name, func(t *testing.T) {
			p.Answer(gatekeepertest.Each(signedIfGood))
			if tc.answer != nil {
				p.Answer(tc.answer)
			}
			policy, err := filepath.Abs("conftest")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			write(t, dir, "manifest.yaml", tc.manifest)
			args := append([]string{"test", "--no-color", "--policy", policy, "manifest.yaml"}, tc.args...)
			for i, data := range tc.data {
				args = append(args, "--data", write(t, dir, fmt.Sprintf("data%d.json", i), data))
			}
			out, exit := run(t, dir, conftest, args...)
			if exit != tc.exit || !strings.Contains(out, tc.want) {
				t.Errorf("exit code %d, want %d and %q in\n%s", exit, tc.exit, tc.want, out)
			}
		})
	}
}

// Conftest ignores a namespace that does not exist, and no policy can detect that. The command
// in README.md does.
func TestConftestSaysHowManyTestsRan(t *testing.T) {
	conftest := tool(t, "conftest")
	file := write(t, t.TempDir(), "manifest.yaml", podOf("nginx"))
	for namespace, want := range map[string]bool{"main": true, "oke-sign": false} {
		out, _ := run(t, ".", conftest, "test", "--policy", "conftest", "--namespace", namespace, "--output", "json", file)
		var results []struct {
			Successes int
			Failures  []any
		}
		if err := json.Unmarshal([]byte(out), &results); err != nil {
			t.Fatalf("%v, got %s", err, out)
		}
		ran := 0
		for _, r := range results {
			ran += r.Successes + len(r.Failures)
		}
		if got := ran > 0; got != want {
			t.Errorf("namespace %s: %d tests ran", namespace, ran)
		}
	}
}

// Conftest drops a document after a separator that it does not recognise, before any
// policy reads the document. The search in README.md and in the examples finds all
// such files.
func TestTheSearchFindsWhatConftestDrops(t *testing.T) {
	conftest := tool(t, "conftest")
	search := ""
	for line := range strings.Lines(read(t, "conftest/README.md")) {
		if text := strings.TrimSpace(line); strings.HasPrefix(text, "! grep ") {
			search = text
		}
	}
	const hook = `^---.|^{|\r`
	for _, example := range []string{"github-actions.yaml", "gitlab-ci.yaml"} {
		if text := read(t, "conftest/examples/"+example); search == "" || !strings.Contains(text, strings.TrimPrefix(search, "! ")) {
			t.Errorf("%s has another search than README.md: %s", example, search)
		}
	}
	if !strings.Contains(read(t, "conftest/examples/pre-commit-config.yaml"), "entry: '"+hook+"'") {
		t.Errorf("pre-commit-config.yaml does not search for %s", hook)
	}
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
	const object = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n    - {name: c0, image: nginx}\n"
	windows := func(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }
	for name, tc := range map[string]struct {
		text         string
		seen, passes bool // by conftest, and by the search
	}{
		"hyphens alone":      {text: service + "---\n" + object, seen: true, passes: true},
		"hyphens first":      {text: "---\n" + service + "---\n" + object, seen: true, passes: true},
		"a comment before":   {text: service + "# it\n---\n" + object, seen: true, passes: true},
		"a comment":          {text: service + "--- # it\n" + object},
		"a space":            {text: service + "--- \n" + object},
		"a tab":              {text: service + "---\t\n" + object},
		"CR LF":              {text: windows(service + "---\n" + object), seen: true},
		"CR LF once":         {text: windows(service) + "---\n" + object},
		"CR LF somewhere":    {text: service + "---\n" + object + "---\n" + windows(service)},
		"CR LF of hyphens":   {text: service + "---\r\n" + object},
		"JSON":               {text: podOf("nginx"), seen: true},
		"JSON twice":         {text: "{apiVersion: v1, kind: Service, metadata: {name: web}}\n" + podOf("nginx")},
		"hyphens in a value": {text: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: |\n    ---\n    {}\n    -----BEGIN\n---\n" + object, seen: true, passes: true},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "deploy"), 0o700); err != nil {
			t.Fatal(err)
		}
		file := write(t, dir, "deploy/manifest.yaml", tc.text)
		if out, exit := run(t, ".", conftest, "test", "--policy", "conftest", file); (exit == 1) != tc.seen {
			t.Errorf("%s: conftest exits %d\n%s", name, exit, out)
		}
		if out, exit := run(t, dir, "sh", "-c", search); (exit == 0) != tc.passes {
			t.Errorf("%s: %s: exit code %d\n%s", name, search, exit, out)
		}
		found := false
		for line := range strings.Lines(tc.text) { // as pre-commit reads a file
			found = found || regexp.MustCompile(hook).MatchString(line)
		}
		if found == tc.passes {
			t.Errorf("%s: found by the hook %t", name, found)
		}
		if !tc.seen && tc.passes {
			t.Errorf("%s: neither conftest nor the search rejects it", name)
		}
	}
}
