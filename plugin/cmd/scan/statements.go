package scan

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/oke-sign/oke-sign/plugin/connect"
	"github.com/oke-sign/oke-sign/provider/oci"
)

// scanService is the name in policies of the service that scans images.
const scanService = "vulnerability-scanning-service"

// scanPolicies reports whether the two statements exist that the service needs for the
// repositories of a compartment. It reads the policies of the compartment and of its
// parents. A policy that it cannot read makes the result unknown, with an error, unless
// another policy has the statement.
func scanPolicies(ctx context.Context, c *connect.Cloud, compartment string) ([]setupStep, error) {
	line, err := c.Who.Lineage(ctx, compartment)
	failed := []error{err}
	place := "compartment id " + compartment
	if err == nil {
		place = placeOf(line)
	} else if strings.HasPrefix(compartment, "ocid1.tenancy.") {
		place = "tenancy"
	}
	steps := []setupStep{
		{Step: "policy", Result: "unknown", Name: "allow service " + scanService + " to read repos in " + place},
		{Step: "policy", Result: "unknown", Name: "allow service " + scanService + " to read compartments in " + place},
	}
	for i := range line {
		statements, err := c.Who.Statements(ctx, line[i].ID)
		failed = append(failed, err)
		for _, s := range statements {
			for n, resource := range []string{"repos", "compartments"} {
				if allows(s, resource, line[:i+1]) {
					steps[n].Result = "there"
				}
			}
		}
	}
	err = errors.Join(failed...)
	done := true
	for n := range steps {
		done = done && steps[n].Result == "there"
		if steps[n].Result == "unknown" && err == nil {
			steps[n].Result = "missing"
		}
	}
	if done {
		return steps, nil
	}
	return steps, err
}

// placeOf returns the name of a compartment in policies of the tenancy.
func placeOf(line []oci.Compartment) string {
	names := make([]string, 0, len(line))
	for _, c := range line[:len(line)-1] {
		names = append(names, c.Name)
	}
	if len(names) == 0 {
		return "tenancy"
	}
	slices.Reverse(names)
	return "compartment " + strings.Join(names, ":")
}

// allows reports whether a statement lets the service read a kind of resource in the
// first compartment of line, if its policy is attached to the last. A statement with
// a condition does not count, because the condition is unknown.
func allows(statement, resource string, line []oci.Compartment) bool {
	words := strings.Fields(strings.ToLower(strings.ReplaceAll(statement, ",", " , ")))
	to := slices.Index(words, "to")
	if len(words) < 2 || words[0] != "allow" || words[1] != "service" || to < 0 || len(words) < to+5 || slices.Contains(words, "where") {
		return false
	}
	verb, kind, in, location := words[to+1], words[to+2], words[to+3], words[to+4:]
	if !slices.Contains(words[2:to], scanService) || !slices.Contains([]string{"read", "use", "manage"}, verb) || kind != resource && kind != "all-resources" || in != "in" {
		return false
	}
	if location[0] == "tenancy" {
		return len(location) == 1 && strings.HasPrefix(line[len(line)-1].ID, "ocid1.tenancy.")
	}
	if location[0] != "compartment" {
		return false
	}
	if len(location) == 3 && location[1] == "id" {
		return slices.ContainsFunc(line, func(c oci.Compartment) bool { return strings.EqualFold(c.ID, location[2]) })
	}
	if len(location) != 2 {
		return false
	}
	if attached := line[len(line)-1]; strings.EqualFold(attached.Name, location[1]) {
		return true // a policy may name the compartment to which it is attached
	}
	names := strings.Split(location[1], ":")
	for i, name := range names {
		at := len(line) - 2 - i
		if at < 0 || !strings.EqualFold(line[at].Name, name) {
			return false
		}
	}
	return true
}
