package scan

import "github.com/oke-sign/oke-sign/provider/oci"

// Allows reports whether a statement lets the scanning service read a kind of
// resource in a compartment. line has the names of that compartment and its parents;
// the tenancy is called (root). The statement's policy is attached to the last of
// them.
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
