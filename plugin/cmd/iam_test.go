package cmd_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/oke-sign/oke-sign/plugin/cmd"
)

func iamOutput(t *testing.T, args ...string) string {
	t.Helper()
	streams, _, out, errOut := genericiooptions.NewTestIOStreams()
	if code := cmd.Run(t.Context(), cmd.Config{Args: append([]string{"iam"}, args...), Streams: streams, Getenv: func(string) string { return "" }}); code != 0 {
		t.Fatalf("iam %v: exit code %d, %s", args, code, errOut)
	}
	return out.String()
}

// With values for its variables, Terraform makes the same statements, rules and
// names that the command prints for people.
func TestTerraformSaysTheSame(t *testing.T) {
	const cluster, compartment = "ocid1.cluster.oc1.iad.aaaa", "ocid1.compartment.oc1..aaaa"
	for _, args := range [][]string{
		nil,
		{"--cluster", cluster},
		{"--cluster", cluster, "--workload", "oke-sign/oke-sign", "--scans"},
		{"--signers", "'Other'/'signers'", "--compartment", compartment, "--repository", "a,project01*"},
		{"--for", "cloud-shell"},
		{"--for", "devops"},
		{"--for", "devops", "--runs-in", compartment, "--dynamic-group", "pipes"},
		{"--for", "github"},
		{"--for", "github", "--project", "octo@1/web@2", "--branch", "release/v1", "--audience", "https://a.example", "--signers", "'Other'/'jobs'"},
		{"--for", "gitlab"},
		{"--for", "gitlab", "--project", "group/sub/web", "--issuer", "https://gitlab.example.com:8443/x"},
		{"--for", "instance"},
		{"--for", "instance", "--runs-in", "ocid1.instance.oc1.iad.aaaa"},
		{"--for", "workload"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			var want []map[string]any
			if err := json.Unmarshal([]byte(iamOutput(t, append(args, "-o", "json")...)), &want); err != nil {
				t.Fatal(err)
			}
			got := readTerraform(t, iamOutput(t, append(args, "-o", "terraform")...))
			var statements []string
			for _, need := range want {
				if s, ok := need["statement"].(string); ok {
					statements = append(statements, s)
				}
			}
			if diff := cmp.Diff(statements, got.strings("oci_identity_policy", "statements")); diff != "" || len(statements) == 0 {
				t.Errorf("statements (-json +terraform):\n%s", diff)
			}
			for _, pair := range [][3]string{
				{"dynamicGroup.name", "oci_identity_dynamic_group", "name"},
				{"dynamicGroup.matchingRule", "oci_identity_dynamic_group", "matching_rule"},
				{"application.name", "oci_identity_domains_app", "display_name"},
				{"application.allowedGrants", "oci_identity_domains_app", "allowed_grants"},
				{"serviceUser.name", "oci_identity_domains_user", "user_name"},
				{"identityPropagationTrust.name", "oci_identity_domains_identity_propagation_trust", "name"},
				{"identityPropagationTrust.type", "oci_identity_domains_identity_propagation_trust", "type"},
				{"identityPropagationTrust.issuer", "oci_identity_domains_identity_propagation_trust", "issuer"},
				{"identityPropagationTrust.publicKeyEndpoint", "oci_identity_domains_identity_propagation_trust", "public_key_endpoint"},
				{"identityPropagationTrust.clientClaimName", "oci_identity_domains_identity_propagation_trust", "client_claim_name"},
				{"identityPropagationTrust.clientClaimValues", "oci_identity_domains_identity_propagation_trust", "client_claim_values"},
				{"identityPropagationTrust.rule", "oci_identity_domains_identity_propagation_trust", "rule"},
			} {
				if diff := cmp.Diff(members(want, pair[0]), got.strings(pair[1], pair[2])); diff != "" {
					t.Errorf("%s (-json +terraform):\n%s", pair[0], diff)
				}
			}
		})
	}
}

// members returns the text at a path of each element that has one.
func members(elements []map[string]any, path string) []string {
	outer, inner, _ := strings.Cut(path, ".")
	var all []string
	for _, e := range elements {
		of, _ := e[outer].(map[string]any)
		switch v := of[inner].(type) {
		case string:
			all = append(all, v)
		case []any:
			for _, s := range v {
				all = append(all, s.(string))
			}
		}
	}
	return all
}

// terraform is a Terraform file, read by Terraform's own parser.
type terraform struct {
	t      *testing.T
	blocks hclsyntax.Blocks
	vars   *hcl.EvalContext
}

// readTerraform sets each declared variable to its own name in capitals. It sets
// attributes that Terraform knows only after apply to a mark.
func readTerraform(t *testing.T, text string) terraform {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(text), "iam.tf", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, text)
	}
	body := file.Body.(*hclsyntax.Body)
	vars := map[string]cty.Value{}
	made := map[string]map[string]cty.Value{}
	for _, b := range body.Blocks {
		switch b.Type {
		case "variable":
			vars[b.Labels[0]] = cty.StringVal(strings.ToUpper(b.Labels[0]))
		case "resource":
			if made[b.Labels[0]] == nil {
				made[b.Labels[0]] = map[string]cty.Value{}
			}
			made[b.Labels[0]][b.Labels[1]] = cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal("ID"), "name": cty.StringVal("CLIENT_ID")})
		}
	}
	known := map[string]cty.Value{"var": cty.ObjectVal(vars)}
	for kind, names := range made {
		known[kind] = cty.ObjectVal(names)
	}
	tf := terraform{t, body.Blocks, &hcl.EvalContext{Variables: known}}
	tf.evaluate(body) // every expression must evaluate
	return tf
}

func (tf terraform) evaluate(body *hclsyntax.Body) {
	tf.t.Helper()
	for name, a := range body.Attributes {
		if name == "type" && a.Expr.Range().Start.Line > 0 && len(a.Expr.Variables()) == 1 && a.Expr.Variables()[0].RootName() == "string" {
			continue // a variable's type
		}
		if _, diags := a.Expr.Value(tf.vars); diags.HasErrors() {
			tf.t.Errorf("%s: %v", name, diags)
		}
	}
	for _, b := range body.Blocks {
		tf.evaluate(b.Body)
	}
}

// strings returns the values of an attribute in all resources of a kind and in their
// blocks.
func (tf terraform) strings(kind, name string) []string {
	var all []string
	var look func(body *hclsyntax.Body)
	look = func(body *hclsyntax.Body) {
		if a := body.Attributes[name]; a != nil {
			v, _ := a.Expr.Value(tf.vars) // evaluate has reported errors
			if v.Type() == cty.String {
				all = append(all, v.AsString())
			} else {
				for _, e := range v.AsValueSlice() {
					all = append(all, e.AsString())
				}
			}
		}
		for _, b := range body.Blocks {
			look(b.Body)
		}
	}
	for _, b := range tf.blocks {
		if b.Type == "resource" && b.Labels[0] == kind {
			look(b.Body)
		}
	}
	return all
}

// No value of a flag can end the text around it: a statement, a rule or a claim.
func TestIAMRefusesWhatWouldSayMore(t *testing.T) {
	for _, flag := range []string{"signers", "dynamic-group", "project", "branch", "issuer", "audience", "runs-in"} {
		around := map[string]string{"signers": "%", "dynamic-group": "%", "project": "octo/%", "branch": "%", "issuer": "https://%", "audience": "%", "runs-in": "ocid1.compartment.oc1..%"}[flag]
		environment := "github"
		if slices.Contains([]string{"dynamic-group", "runs-in"}, flag) {
			environment = "instance"
		}
		for _, bad := range []string{`a"b`, "a'b", "a b", "a}b", "a{b", "a\nb", "a\x01group\x02", "${x}", "a,b", "a*b", "a\\b", "é", strings.Repeat("a", 300)} {
			streams, _, out, errOut := genericiooptions.NewTestIOStreams()
			args := []string{"iam", "--for", environment, "--" + flag, strings.ReplaceAll(around, "%", bad)}
			code := cmd.Run(t.Context(), cmd.Config{Args: args, Streams: streams, Getenv: func(string) string { return "" }})
			if code != 2 || out.Len() > 0 || !strings.HasPrefix(errOut.String(), "error: --"+flag) {
				t.Errorf("%q: exit code %d, %s%s", args, code, out, errOut)
			}
		}
	}
}
