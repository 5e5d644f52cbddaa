package scan

import "github.com/oke-sign/oke-sign/provider/oci"

// Allows is whether a statement, in a policy that is attached to the last of a line
// of compartments, lets the service that scans read a kind of resource in the
// first. Compartments are given by name; the tenancy is called (root).
func Allows(statement, resource string, line ...string) bool {
	compartments := make([]oci.Compartment, 0, len(line))
	for _, name := range line {
		c := oci.Compartment{ID: "ocid1.compartment.oc1.." + name, Name: name}
		if name == "(root)" {
			c.ID = "ocid1.tenancy.oc1..x"
		}
		compartments = append(compartments, c)
	}
	return allows(statement, resource, compartments)
}
