package charts_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/policies"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const region = "oci.region=us-ashburn-1" // the only required value of chart oke-sign

// helm runs the helm program without a cluster.
func helm(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	dir, required := os.LookupEnv("OKE_SIGN_TOOLS")
	if !required {
		dir = filepath.Join("..", "bin", "tools")
	}
	program, err := filepath.Abs(filepath.Join(dir, "helm"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		if required {
			t.Fatal(err)
		}
		t.Skipf("%s does not exist; make bin/tools/helm builds it", program)
	}
	home := t.TempDir()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + filepath.Join(home, "none"), "PATH=" + os.Getenv("PATH")}
	err = cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return out.String(), errs.String(), err
}

// render returns the output of `helm template` for a chart, with a file of values unless its name
// is empty.
func render(t *testing.T, chart, values string, args ...string) string {
	t.Helper()
	args = append([]string{"template", chart, chart, "--namespace", "oke-sign"}, args...)
	if values != "" {
		args = append(args, "--values", values)
	}
	out, errs, err := helm(t, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

func objects(t *testing.T, rendered string) []*unstructured.Unstructured {
	t.Helper()
	list, err := manifest.Objects([]byte(rendered))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// cases runs a subtest for each file of values in testdata.
func cases(t *testing.T, run func(t *testing.T, chart, values string)) {
	t.Helper()
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no values in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(file), "testdata/"), ".yaml"), func(t *testing.T) {
			run(t, filepath.Base(filepath.Dir(file)), file)
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a committed file is readable by everybody
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs; run go test ./charts -update, then read the diff:\n%s", file, diff)
	}
}

// The golden files omit the ConstraintTemplates, which another test compares.
func TestRendered(t *testing.T) {
	cases(t, func(t *testing.T, chart, values string) {
		rendered := render(t, chart, values)
		for _, o := range objects(t, rendered) {
			strict(t, o)
		}
		documents := slices.DeleteFunc(strings.Split(rendered, "\n---\n"), func(text string) bool {
			return strings.Contains(text, "\nkind: ConstraintTemplate\n")
		})
		base := strings.TrimSuffix(values, ".yaml")
		golden(t, base+".golden", strings.Join(documents, "\n---\n"))

		out, errs, err := helm(t, "install", chart, chart, "--namespace", "oke-sign", "--dry-run=client", "--values", values)
		if err != nil {
			t.Fatalf("%v\n%s", err, errs)
		}
		_, notes, found := strings.Cut(out, "\nNOTES:\n")
		if !found {
			t.Fatalf("no notes in\n%s", out)
		}
		for line := range strings.Lines(notes) {
			if len(strings.TrimRight(line, "\n")) > 90 {
				t.Errorf("the notes have a line of %d bytes: %s", len(line), line)
			}
		}
		golden(t, base+".notes", notes)
	})
}

// strict rejects unknown fields, which Kubernetes would drop.
func strict(t *testing.T, o *unstructured.Unstructured) {
	t.Helper()
	into, known := map[string]any{
		"ValidatingAdmissionPolicy": &admissionregistrationv1.ValidatingAdmissionPolicy{}, "ValidatingAdmissionPolicyBinding": &admissionregistrationv1.ValidatingAdmissionPolicyBinding{},
		"Deployment": &appsv1.Deployment{}, "NetworkPolicy": &networkingv1.NetworkPolicy{}, "PodDisruptionBudget": &policyv1.PodDisruptionBudget{},
		"Secret": &corev1.Secret{}, "Service": &corev1.Service{}, "ServiceAccount": &corev1.ServiceAccount{},
		"ClusterRole": &rbacv1.ClusterRole{}, "ClusterRoleBinding": &rbacv1.ClusterRoleBinding{}, "Role": &rbacv1.Role{}, "RoleBinding": &rbacv1.RoleBinding{},
	}[o.GetKind()]
	if !known {
		if group := o.GroupVersionKind().Group; !strings.Contains(group, "gatekeeper.sh") && group != "monitoring.coreos.com" {
			t.Errorf("%s %s: this test does not check it", o.GetKind(), o.GetName())
		}
		return
	}
	text, err := o.MarshalJSON()
	if err == nil {
		err = k8syaml.UnmarshalStrict(text, into)
	}
	if err != nil {
		t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
	}
}

// Strings in values may look like numbers or comments in YAML. They stay strings.
func TestNamesAreText(t *testing.T) {
	for _, args := range [][]string{
		{
			"oke-sign", "--values", "testdata/oke-sign/certificate-from-files.yaml", "--set", "serviceMonitor.enabled=true,networkPolicy.enabled=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.a=b",
			"--set-string", "oci.auth=api_key,oci.config.secret=1,oci.config.profile=a #b,certificate.existingSecret=2,gatekeeper.namespace=3,gatekeeper.clientCAConfigMap=4",
		},
		{"oke-sign", "--set", region, "--set-string", "gatekeeper.namespace=3,gatekeeper.webhookConfiguration=4"},
		{
			"oke-sign-policy", "--values", "testdata/oke-sign-policy/default.yaml", "--set", "pinTags=true", "--set-string", "provider=1,digestProvider=2",
		},
	} {
		rendered, errs, err := helm(t, append([]string{"template", "123", "--namespace", "456"}, args...)...)
		if err != nil {
			t.Fatalf("helm template %q: %v\n%s", args, err, errs)
		}
		if strings.Contains(rendered, "--profile=") && !strings.Contains(rendered, `- "--profile=a #b"`) {
			t.Error("the profile is wrong")
		}
		for _, o := range objects(t, rendered) {
			strict(t, o)
			metadata, _ := o.Object["metadata"].(map[string]any)
			labels, _ := metadata["labels"].(map[string]any)
			for what, value := range map[string]any{"456": metadata["namespace"], "123": labels["app.kubernetes.io/instance"]} {
				if value != nil && value != what {
					t.Errorf("%s %s has %v, which is not a string", o.GetKind(), o.GetName(), value)
				}
			}
			if provider, found, err := unstructured.NestedFieldNoCopy(o.Object, "spec", "parameters", "assign", "externalData", "provider"); err != nil || found && provider != "2" {
				t.Errorf("%s %s asks %v, which is not a string: %v", o.GetKind(), o.GetName(), provider, err)
			}
		}
	}
}

// find returns the only object of a kind.
func find[T any](t *testing.T, list []*unstructured.Unstructured, kind string) (found T) {
	t.Helper()
	n := 0
	for _, o := range list {
		if o.GetKind() != kind {
			continue
		}
		n++
		text, err := o.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(text, &found)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n != 1 {
		t.Fatalf("%d objects of kind %s, want 1", n, kind)
	}
	return found
}

// Templates that read recorded verdicts must not be in the chart, because any user could write
// the verdicts.
func TestTemplatesAreThoseThatAskTheProvider(t *testing.T) {
	want, got := map[string]string{}, map[string]string{}
	for _, kind := range policies.Kinds() {
		name := strings.ToLower(kind)
		live, err := policies.Templates.ReadFile(name + "/template.yaml")
		if err != nil {
			t.Fatal(err)
		}
		want[name] = string(live)
	}
	for _, text := range strings.Split(render(t, "oke-sign", "", "--set", region), "\n---\n") {
		if strings.Contains(text, "\nkind: ConstraintTemplate\n") {
			_, text, _ = strings.Cut(text, "\n") // without helm's comment on the source
			got[objects(t, text)[0].GetName()] = strings.TrimRight(text, "\n") + "\n"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	const mark = "oke-sign-verdicts" // the ConfigMap that the recorded templates read
	if recorded, err := policies.Recorded.ReadFile("okesignedimages/recorded/template.yaml"); err != nil || !bytes.Contains(recorded, []byte(mark)) {
		t.Fatalf("the recorded templates do not contain %s: %v", mark, err)
	}
	err := fs.WalkDir(os.DirFS("."), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasPrefix(path, "oke-sign") {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(mark)) {
			t.Errorf("%s reads recorded verdicts", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// GitOps tools render a chart repeatedly and without a cluster. The result must be what helm
// installs.
func TestRenderingDependsOnValuesAlone(t *testing.T) {
	dynamic := regexp.MustCompile(`\b(lookup|genCA\w*|genSelfSigned\w*|genSigned\w*|genPrivateKey|rand\w+|uuidv4|now|getHostByName|env|expandenv|tpl)\b|\.Capabilities|\.IsInstall|\.IsUpgrade|\.Revision`)
	actions := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	templates, err := filepath.Glob("*/templates/*")
	if err != nil || len(templates) < 10 {
		t.Fatalf("%d templates: %v", len(templates), err)
	}
	for _, file := range templates {
		if filepath.Base(file) == "NOTES.txt" {
			continue // Notes may read the cluster: they change no object.
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, action := range actions.FindAllString(string(text), -1) {
			if found := dynamic.FindString(action); found != "" && !strings.HasPrefix(action, "{{/*") {
				t.Errorf("%s: %s", file, found)
			}
		}
	}
	for chart, values := range map[string]string{"oke-sign": "testdata/oke-sign/everything.yaml", "oke-sign-policy": "testdata/oke-sign-policy/everything.yaml"} {
		if diff := cmp.Diff(render(t, chart, values), render(t, chart, values, "--is-upgrade")); diff != "" {
			t.Errorf("%s: an upgrade differs:\n%s", chart, diff)
		}
	}
}

func TestBadValuesAreRejected(t *testing.T) {
	key := func(last string) string {
		return "ocid1.key.oc1.iad.bbqqqqqqaaaaa." + strings.Repeat("a", 60-len(last)) + last
	}
	keys := func(n int) (list []string) {
		for i := range n {
			list = append(list, key(strconv.Itoa(i)))
		}
		return list
	}
	set := func(values ...string) (args []string) {
		for _, v := range values {
			args = append(args, "--set", v)
		}
		return args
	}
	list := func(name string, values []string) string { return name + "={" + strings.Join(values, ",") + "}" }
	one := list("keys", keys(1))
	for name, tc := range map[string]struct {
		chart string
		args  []string
		want  string // part of the message; empty: helm accepts the values
	}{
		"the smallest values":                             {"oke-sign", set(region), ""},
		"an unknown value":                                {"oke-sign", set(region, "replica=3"), "additional properties 'replica' not allowed"},
		"an unknown value in a group":                     {"oke-sign", set(region, "oci.compartment=x"), "additional properties 'compartment' not allowed"},
		"no region":                                       {"oke-sign", nil, "oci.region is missing"},
		"no region, for an instance":                      {"oke-sign", set("oci.auth=instance_principal"), ""},
		"an invalid region":                               {"oke-sign", set("oci.region=Ashburn"), "'Ashburn' does not match"},
		"an unknown auth kind":                            {"oke-sign", set(region, "oci.auth=user"), "/oci/auth"},
		"an API key without a Secret":                     {"oke-sign", set("oci.auth=api_key"), "oci.config.secret is missing"},
		"a webhook with too short a timeout":              {"oke-sign", set(region, "gatekeeper.webhookTimeoutSeconds=3"), "/gatekeeper/webhookTimeoutSeconds"},
		"a webhook with too long a timeout":               {"oke-sign", set(region, "gatekeeper.webhookTimeoutSeconds=31"), "/gatekeeper/webhookTimeoutSeconds"},
		"a guard of labels that is not a boolean":         {"oke-sign", set(region, "namespaceLabels.enabled=maybe"), "/namespaceLabels/enabled"},
		"an invalid exempt namespace":                     {"oke-sign", set(region, "namespaceLabels.exemptNamespaces={a*}"), "/namespaceLabels/exemptNamespaces/0"},
		"a timeout of signatures as long as Gatekeeper's": {"oke-sign", set(region, "timeouts.signatures=2000"), "/timeouts/signatures"},
		"a timeout of scans as long as Gatekeeper's":      {"oke-sign", set(region, "timeouts.scans=1000"), "/timeouts/scans"},
		"a timeout with a unit":                           {"oke-sign", set(region, "timeouts.signatures=1s"), "/timeouts/signatures"},
		"a certificate without a CA":                      {"oke-sign", set(region, "certificate.existingSecret=s"), "certificate.caBundle is missing"},
		"a CA without a certificate":                      {"oke-sign", []string{"--set", region, "--set-file", "certificate.caBundle=testdata/ca.crt"}, "without certificate.existingSecret"},
		"an invalid CA":                                   {"oke-sign", set(region, "certificate.existingSecret=s", "certificate.caBundle=x"), "/certificate/caBundle"},
		"a private key for a CA":                          {"oke-sign", set(region, "certificate.existingSecret=s", "certificate.caBundle=-----BEGIN PRIVATE KEY-----"), "/certificate/caBundle"},
		"metrics without a reader":                        {"oke-sign", set(region, "serviceMonitor.enabled=true"), "networkPolicy.metricsFrom is missing"},
		"metrics without a NetworkPolicy":                 {"oke-sign", set(region, "serviceMonitor.enabled=true", "networkPolicy.enabled=false"), ""},
		"no replica":                                      {"oke-sign", set(region, "replicas=0"), "/replicas"},
		"an invalid digest":                               {"oke-sign", set(region, "image.digest=latest"), "/image/digest"},
		"a vault endpoint without TLS":                    {"oke-sign", set(region, "oci.vaultEndpoints={http://v}"), "/oci/vaultEndpoints/0"},
		"an argument that is not a flag":                  {"oke-sign", set(region, "extraArgs={x}"), "/extraArgs/0"},
		"one key":                                         {"oke-sign-policy", set(one), ""},
		"five keys":                                       {"oke-sign-policy", set(list("keys", keys(5))), ""},
		"a sixth key":                                     {"oke-sign-policy", set(list("keys", keys(6))), "maxItems: got 6, want 5"},
		"a sixth key, without the schema":                 {"oke-sign-policy", append(set(list("keys", keys(6))), "--skip-schema-validation"), "6 keys are set"},
		"a key twice":                                     {"oke-sign-policy", set(list("keys", append(keys(1), keys(1)...))), "/keys"},
		"the OCID of a vault":                             {"oke-sign-policy", set("keys={ocid1.vault.oc1.iad.x}"), "/keys/0"},
		"no keys":                                         {"oke-sign-policy", nil, "keys are missing"},
		"no keys, without the schema":                     {"oke-sign-policy", []string{"--set", "keys=null", "--skip-schema-validation"}, "keys are missing"},
		"no keys, and allowAnyOCIRImage as text":          {"oke-sign-policy", []string{"--set-string", "allowAnyOCIRImage=yes", "--skip-schema-validation"}, "keys are missing"},
		"no keys, with allowAnyOCIRImage":                 {"oke-sign-policy", set("allowAnyOCIRImage=true"), ""},
		"keys removed":                                    {"oke-sign-policy", set("keys=null"), "missing property 'keys'"},
		"keys as text":                                    {"oke-sign-policy", set("keys=" + key("")), "/keys"},
		"keys and any image":                              {"oke-sign-policy", set(one, "allowAnyOCIRImage=true"), "Set one of them"},
		"an unknown mode":                                 {"oke-sign-policy", set(one, "mode=Deny"), "/mode"},
		"an unknown mode, without the schema":             {"oke-sign-policy", append(set(one, "mode=Deny"), "--skip-schema-validation"), "Set it to deny, warn or dryrun"},
		"a misspelt value":                                {"oke-sign-policy", set(one, "exemptImage={a/b}"), "additional properties 'exemptImage' not allowed"},
		"every image exempt":                              {"oke-sign-policy", set(one, "exemptImages={**}"), "/exemptImages/0"},
		"a whole host exempt":                             {"oke-sign-policy", set(one, "exemptImages={quay.io/**}"), "/exemptImages/0"},
		"users without break-glass":                       {"oke-sign-policy", set(one, "breakGlass=Ignore", "breakGlassRules.users={a}"), "so it has no effect"},
		"break-glass for days":                            {"oke-sign-policy", set(one, "breakGlassRules.maxDuration=2d"), "/breakGlassRules/maxDuration"},
		"a service account without a namespace":           {"oke-sign-policy", set(one, "breakGlassRules.serviceAccounts={robot}"), "/breakGlassRules/serviceAccounts/0"},
		"an unknown severity":                             {"oke-sign-policy", set(one, "scan.maxSeverity=high"), "/scan/maxSeverity"},
		"an invalid label selector":                       {"oke-sign-policy", set(one, "scope.namespaceSelector.labels.a=b"), "additional properties 'labels' not allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, err := helm(t, append([]string{"template", "r", tc.chart}, tc.args...)...)
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("rejected: %s", errs)
			case tc.want != "" && err == nil:
				t.Errorf("accepted:\n%.2000s", out)
			case !strings.Contains(errs, tc.want):
				t.Errorf("got %s\nwant in it: %s", errs, tc.want)
			}
		})
	}
}

// values.yaml and the schema have the same values. A value that is missing in the schema cannot
// be set, and one that is missing in values.yaml has no documentation. An object that accepts
// more properties accepts misspelt ones.
func TestSchemaHasEveryValueAndNoOther(t *testing.T) {
	for _, chart := range []string{"oke-sign", "oke-sign-policy"} {
		var values map[string]any
		read(t, filepath.Join(chart, "values.yaml"), &values)
		var root map[string]any
		read(t, filepath.Join(chart, "values.schema.json"), &root)
		var compare func(path string, schema map[string]any, value any)
		compare = func(path string, schema map[string]any, value any) {
			properties, object := schema["properties"].(map[string]any)
			if !object {
				return
			}
			if schema["additionalProperties"] != false {
				t.Errorf("%s%s accepts unknown properties", chart, path)
			}
			fields, _ := value.(map[string]any)
			known := slices.DeleteFunc(slices.Sorted(maps.Keys(properties)), func(name string) bool { return path == "" && name == "global" })
			// A group that is empty by default accepts any keys.
			if len(fields) == 0 && path != "" {
				return
			}
			if diff := cmp.Diff(slices.Sorted(maps.Keys(fields)), known); diff != "" {
				t.Errorf("%s%s, values.yaml and schema:\n%s", chart, path, diff)
			}
			for name, property := range properties {
				compare(path+"."+name, property.(map[string]any), fields[name])
			}
		}
		compare("", root, values)
	}
}

// The schema of the chart and those of the constraints have the same rules for strings.
func TestPatternsAreThoseOfTheConstraints(t *testing.T) {
	var schema map[string]any
	read(t, "oke-sign-policy/values.schema.json", &schema)
	for at, constraint := range map[string][2]string{
		"keys":                            {policies.SignedImages, "keys"},
		"exemptImages":                    {policies.SignedImages, "exemptImages"},
		"breakGlassRules.serviceAccounts": {policies.BreakGlass, "serviceAccounts"},
		"scan.maxAge":                     {policies.ScannedImages, "maxAge"},
		"scan.ignore":                     {policies.ScannedImages, "ignore"},
	} {
		text, err := policies.Templates.ReadFile(strings.ToLower(constraint[0]) + "/template.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var template map[string]any
		if err := yaml.Unmarshal(text, &template); err != nil {
			t.Fatal(err)
		}
		want := field(t, template, "spec", "crd", "spec", "validation", "openAPIV3Schema", "properties", constraint[1])
		path := []string{}
		for _, name := range strings.Split(at, ".") {
			path = append(path, "properties", name)
		}
		got := field(t, schema, path...)
		for _, rule := range []string{"maxItems", "items.maxLength", "items.pattern", "pattern", "maxLength"} {
			if got, want := optional(got, rule), optional(want, rule); !cmp.Equal(got, want) {
				t.Errorf("%s: %s is %v, and %v in %s", at, rule, got, want, constraint[0])
			}
		}
	}
}

func optional(schema map[string]any, path string) any {
	name, rest, deeper := strings.Cut(path, ".")
	if deeper {
		inner, _ := schema[name].(map[string]any)
		return optional(inner, rest)
	}
	return schema[name]
}

func field(t *testing.T, at map[string]any, path ...string) map[string]any {
	t.Helper()
	for _, name := range path {
		next, ok := at[name].(map[string]any)
		if !ok {
			t.Fatalf("no %s in %v", name, slices.Sorted(maps.Keys(at)))
		}
		at = next
	}
	return at
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
