package iam

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// iamNeed is one object that must exist in IAM, and its purpose: a statement of a
// policy, a dynamic group, or an object of an identity domain.
type iamNeed struct {
	For           string            `json:"for"`
	Statement     string            `json:"statement,omitempty"`
	DynamicGroup  *dynamicGroup     `json:"dynamicGroup,omitempty"`
	Application   *domainApp        `json:"application,omitempty"`
	ServiceUser   *serviceUser      `json:"serviceUser,omitempty"`
	IdentityTrust *propagationTrust `json:"identityPropagationTrust,omitempty"`
}

const forSigning = "signing images"

func statements(what string, texts []string) []iamNeed {
	all := make([]iamNeed, len(texts))
	for i, text := range texts {
		all[i] = iamNeed{For: what, Statement: text}
	}
	return all
}

// grants writes the statements that give a principal the rights that it needs.
type grants struct{ *iamOptions }

// or returns the value of a flag, or a word to fill in.
func (g grants) or(value, word string) string {
	if value != "" || g.out.Format != "terraform" {
		return cmp.Or(value, word)
	}
	if !slices.Contains(g.blanks, word) {
		g.blanks = append(g.blanks, word)
	}
	return blankBegin + strings.ToLower(word) + blankEnd
}

// in returns statements for each compartment, or for the tenancy.
func (g grants) in(statements ...string) []string {
	scopes := []string{"tenancy"}
	if len(g.Compartments) > 0 {
		scopes = nil
		for _, c := range g.Compartments {
			if strings.HasPrefix(c, "ocid1.tenancy.") {
				scopes = append(scopes, "tenancy")
			} else {
				scopes = append(scopes, "compartment id "+c)
			}
		}
	}
	var all []string
	for _, s := range statements {
		for _, scope := range scopes {
			all = append(all, fmt.Sprintf(s, scope))
		}
	}
	return all
}

func (g grants) forCluster() []string {
	cluster := g.or(g.cluster, "CLUSTER_OCID")
	return g.in("Allow any-user to use keys in %s where request.user.id="+cluster, "Allow any-user to read repos in %s where request.user.id="+cluster)
}

// forWorkload returns the statements for the provider, and no others. The provider
// lists images and signature records, looks images up, and reads keys. It never
// signs.
func (g grants) forWorkload() []string {
	return g.toVerify("any-user", g.workloadIs())
}

// toVerify returns the statements that let a subject verify signatures.
func (g grants) toVerify(who string, where []string) []string {
	return slices.Concat(g.readRepositories(who, where), g.onKeys(who, "{KEY_INSPECT, KEY_READ}", where))
}

// forScans returns the statements that the provider also needs for scans: for
// results, and for the targets that name the registry. Both are in the target's
// compartment.
func (g grants) forScans() []string {
	where := " in %s where all {" + strings.Join(g.workloadIs(), ", ") + "}"
	return g.in("Allow any-user to read container-scan-results"+where, "Allow any-user to read container-scan-targets"+where)
}

// workloadIs returns the conditions that only the workload meets.
func (g grants) workloadIs() []string {
	namespace, account, _ := strings.Cut(g.workload, "/")
	return []string{
		"request.principal.type = 'workload'",
		"request.principal.namespace = '" + g.or(namespace, "NAMESPACE") + "'",
		"request.principal.service_account = '" + g.or(account, "SERVICE_ACCOUNT") + "'",
		"request.principal.cluster_id = '" + g.or(g.cluster, "CLUSTER_OCID") + "'",
	}
}

func (g grants) forSigners() []string {
	return g.toSign("group "+g.or(g.signers, "GROUP"), nil)
}

// toSign returns the statements that let a subject push images to existing
// repositories, sign them, and verify signatures.
func (g grants) toSign(who string, where []string) []string {
	return slices.Concat(
		g.readRepositories(who, where),
		g.onRepositories(who, "{REPOSITORY_UPDATE}", where),
		g.onKeys(who, "{KEY_INSPECT, KEY_READ, KEY_SIGN}", where))
}

// readRepositories lets a subject list and read. OCI decides on a list before it
// knows the content, so no list of repositories can narrow that right.
func (g grants) readRepositories(who string, where []string) []string {
	if len(g.repositories) == 0 {
		return g.in("Allow " + who + " to {REPOSITORY_INSPECT, REPOSITORY_READ} in %s" + when(where))
	}
	return append(g.in("Allow "+who+" to {REPOSITORY_INSPECT} in %s"+when(where)), g.onRepositories(who, "{REPOSITORY_READ}", where)...)
}

func (g grants) onRepositories(who, what string, where []string) []string {
	return g.on(who, what, where, "target.repo.name", g.repositories)
}

func (g grants) onKeys(who, what string, where []string) []string {
	keys := make([]string, len(g.allowed))
	for i, k := range g.allowed {
		keys[i] = k.String()
	}
	return g.on(who, what, where, "target.key.id", keys)
}

// on returns a statement for each value of a variable, or one for any value.
func (g grants) on(who, what string, where []string, variable string, values []string) []string {
	if len(values) == 0 {
		return g.in("Allow " + who + " to " + what + " in %s" + when(where))
	}
	var all []string
	for _, v := range values {
		quoted := "'" + v + "'"
		if strings.Contains(v, "*") {
			quoted = "/" + v + "/"
		}
		all = append(all, g.in("Allow "+who+" to "+what+" in %s"+when(append(slices.Clone(where), variable+" = "+quoted)))...)
	}
	return all
}

// when returns conditions that must all hold.
func when(conditions []string) string {
	switch len(conditions) {
	case 0:
		return ""
	case 1:
		return " where " + conditions[0]
	}
	return " where all {" + strings.Join(conditions, ", ") + "}"
}
