package iam

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/oke-sign/oke-sign/plugin/cli"
)

// The marks around a word to fill in, on the way to Terraform. No flag accepts them.
const (
	blankBegin = "\x01"
	blankEnd   = "\x02"
)

// hclWriter writes Terraform's language, aligned as terraform fmt does.
type hclWriter struct {
	text  strings.Builder
	depth int
}

// attribute is a name and the expression of its value.
type attribute struct{ name, value string }

// block writes a block with attributes. inside writes its nested blocks.
func (h *hclWriter) block(head string, attributes []attribute, inside func()) {
	if h.depth == 0 && h.text.Len() > 0 {
		h.text.WriteByte('\n')
	}
	h.line(head + " {")
	h.depth++
	width := 0
	for _, a := range attributes {
		width = max(width, len(a.name))
	}
	for _, a := range attributes {
		h.line(fmt.Sprintf("%-*s = %s", width, a.name, a.value))
	}
	if inside != nil {
		if len(attributes) > 0 {
			h.text.WriteByte('\n')
		}
		inside()
	}
	h.depth--
	h.line("}")
}

func (h *hclWriter) line(text string) {
	h.text.WriteString(strings.Repeat("  ", h.depth) + text + "\n")
}

// quoted writes a text as a string of Terraform's language. Words to fill in become
// variables, and other characters stand for themselves.
func quoted(s string) string {
	if word, ok := strings.CutPrefix(s, blankBegin); ok && strings.Index(word, blankEnd) == len(word)-1 {
		return "var." + strings.TrimSuffix(word, blankEnd)
	}
	var b strings.Builder
	b.WriteByte('"')
	for i, r := range s {
		switch {
		case string(r) == blankBegin:
			b.WriteString("${var.")
		case string(r) == blankEnd:
			b.WriteByte('}')
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case (r == '$' || r == '%') && strings.HasPrefix(s[i+1:], "{"):
			b.WriteString(string(r) + string(r))
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// blankMeans describes the variables for words in capitals.
var blankMeans = map[string]string{
	"CLUSTER_OCID":     "OCID of the OKE cluster",
	"COMPARTMENT_OCID": "OCID of the compartment of the instances or pipelines",
	"NAMESPACE":        "Namespace of the service account",
	"SERVICE_ACCOUNT":  "Name of the service account",
	"GROUP":            "Name of the group that signs",
	"OWNER":            "Owner of the repository or project whose jobs sign",
	"NAME":             "Name of the repository or project whose jobs sign",
	"AUDIENCE":         "Audience of the jobs' tokens; of GitHub's, https:// and the host of the identity domain unless OCI_OIDC_AUDIENCE says otherwise",
}

// terraform writes needs as resources of Oracle's provider.
func (o *iamOptions) terraform(all []iamNeed) string {
	h := new(hclWriter)
	h.block("terraform", nil, func() {
		h.block("required_providers", []attribute{{"oci", `{ source = "oracle/oci" }`}}, nil)
	})
	variable := func(name, means string) {
		h.block(`variable "`+name+`"`, []attribute{{"type", "string"}, {"description", quoted(means)}}, nil)
	}
	variable("tenancy_ocid", "OCID of the tenancy")
	if o.environment == "github" || o.environment == "gitlab" {
		variable("identity_domain_url", "URL of the identity domain")
	}
	for _, word := range o.blanks {
		variable(strings.ToLower(word), blankMeans[word])
	}
	var policy []iamNeed
	var before []string // the resources that the statements name
	for _, n := range all {
		if n.Statement != "" {
			policy = append(policy, n)
		} else if made := h.resource(n); made != "" {
			before = append(before, made)
		}
	}
	h.policy("oke-sign"+strings.TrimSuffix("-"+o.environment, "-"), policy, before)
	return h.text.String()
}

// policy writes one policy with all statements. OCI rejects the policy until the
// groups in it exist.
func (h *hclWriter) policy(name string, all []iamNeed, before []string) {
	h.block(`resource "oci_identity_policy" "oke_sign"`, []attribute{
		{"compartment_id", "var.tenancy_ocid"}, {"name", quoted(name)}, {"description", quoted("What oke-sign needs")},
	}, func() {
		h.line("statements = [")
		h.depth++
		heading := ""
		for _, n := range all {
			if n.For != heading {
				h.line("# For " + cli.Printable(n.For))
				heading = n.For
			}
			h.line(quoted(n.Statement) + ",")
		}
		h.depth--
		h.line("]")
		if len(before) > 0 {
			h.text.WriteByte('\n')
			h.line("depends_on = [" + strings.Join(before, ", ") + "]")
		}
	})
}

// resource writes a need that is not a statement. It returns the address of a group.
func (h *hclWriter) resource(n iamNeed) string {
	const domain = "var.identity_domain_url"
	switch {
	case n.DynamicGroup != nil:
		id := strings.NewReplacer(" ", "_").Replace(strings.TrimSuffix(n.For, ": a dynamic group")) // build_pipelines
		h.block(`resource "oci_identity_dynamic_group" "`+id+`"`, []attribute{
			{"compartment_id", "var.tenancy_ocid"}, {"name", quoted(n.DynamicGroup.Name)},
			{"description", quoted("What signs or verifies images with oke-sign")}, {"matching_rule", quoted(n.DynamicGroup.MatchingRule)},
		}, nil)
		return "oci_identity_dynamic_group." + id
	case n.Application != nil:
		grants := make([]string, len(n.Application.Grants))
		for i, g := range n.Application.Grants {
			grants[i] = quoted(g)
		}
		h.block(`resource "oci_identity_domains_app" "oke_sign"`, []attribute{
			{"idcs_endpoint", domain}, {"schemas", `["urn:ietf:params:scim:schemas:oracle:idcs:App"]`},
			{"display_name", quoted(n.Application.Name)}, {"active", "true"}, {"is_oauth_client", "true"},
			{"client_type", `"confidential"`}, {"allowed_grants", "[" + strings.Join(grants, ", ") + "]"},
		}, func() { h.block("based_on_template", []attribute{{"value", `"CustomWebAppTemplateId"`}}, nil) })
		h.block(`output "client_id"`, []attribute{{"value", "oci_identity_domains_app.oke_sign.name"}}, nil)
	case n.ServiceUser != nil:
		return h.serviceUser(n.ServiceUser)
	case n.IdentityTrust != nil:
		h.trust(n.IdentityTrust)
	}
	return ""
}

func (h *hclWriter) serviceUser(u *serviceUser) string {
	h.block(`resource "oci_identity_domains_user" "oke_sign"`, []attribute{
		{"idcs_endpoint", "var.identity_domain_url"}, {"schemas", `["urn:ietf:params:scim:schemas:core:2.0:User"]`}, {"user_name", quoted(u.Name)},
	}, func() {
		h.block("urnietfparamsscimschemasoracleidcsextensionuser_user", []attribute{{"service_user", "true"}}, nil)
	})
	group := strings.Trim(u.Group[strings.LastIndexByte(u.Group, '/')+1:], "'") // statements name its domain, too
	h.block(`resource "oci_identity_domains_group" "oke_sign"`, []attribute{
		{"idcs_endpoint", "var.identity_domain_url"}, {"schemas", `["urn:ietf:params:scim:schemas:core:2.0:Group"]`}, {"display_name", quoted(group)},
	}, func() {
		h.block("members", []attribute{{"type", `"User"`}, {"value", "oci_identity_domains_user.oke_sign.id"}}, nil)
	})
	return "oci_identity_domains_group.oke_sign"
}

func (h *hclWriter) trust(t *propagationTrust) {
	h.block(`resource "oci_identity_domains_identity_propagation_trust" "oke_sign"`, []attribute{
		{"idcs_endpoint", "var.identity_domain_url"}, {"schemas", `["urn:ietf:params:scim:schemas:oracle:idcs:IdentityPropagationTrust"]`},
		{"name", quoted(t.Name)}, {"type", quoted(t.Type)}, {"active", "true"}, {"issuer", quoted(t.Issuer)}, {"public_key_endpoint", quoted(t.PublicKeyEndpoint)},
		{"client_claim_name", quoted(t.ClientClaimName)}, {"client_claim_values", "[" + quoted(t.ClientClaimValues[0]) + "]"},
		{"oauth_clients", "[oci_identity_domains_app.oke_sign.name]"}, {"subject_type", `"User"`}, {"allow_impersonation", "true"},
	}, func() {
		h.block("impersonation_service_users", []attribute{{"rule", quoted(t.Rule)}, {"value", "oci_identity_domains_user.oke_sign.id"}}, nil)
	})
}
