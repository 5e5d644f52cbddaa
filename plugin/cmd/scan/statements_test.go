package scan_test

import (
	"strings"
	"testing"

	"github.com/oke-sign/oke-sign/plugin/cmd/scan"
)

func TestScanStatements(t *testing.T) {
	for statement, tt := range map[string]struct {
		line string
		want bool
	}{
		"allow service vulnerability-scanning-service to read repos in tenancy":                                   {"app team (root)", true},
		"Allow  service  VULNERABILITY-SCANNING-SERVICE to manage all-resources in TENANCY":                       {"app team (root)", true},
		"allow service a, vulnerability-scanning-service,b to use repos in compartment team":                      {"app team (root)", true},
		"allow service vulnerability-scanning-service to read repos in compartment team:app":                      {"app team (root)", true},
		"allow service vulnerability-scanning-service to read repos in compartment id ocid1.compartment.oc1..app": {"app team (root)", true},
		"allow service vulnerability-scanning-service to read repos in compartment app":                           {"app team", true},
		"allow service vulnerability-scanning-service to read repos in compartment team":                          {"app team", true},
		"allow service vulnerability-scanning-service to read repos in compartment app ":                          {"app", true},

		"allow service vulnerability-scanning-service to read repos in compartment other":                           {"app team (root)", false},
		"allow service vulnerability-scanning-service to read repos in compartment app, team":                       {"app team (root)", false},
		"allow service vulnerability-scanning-service to read repos in compartment team:app:inner":                  {"app team (root)", false},
		"allow service vulnerability-scanning-service to read repos in compartment id ocid1.compartment.oc1..other": {"app team (root)", false},
		"allow service vulnerability-scanning-service to read repos in  tenancy":                                    {"app team", false}, // a policy of team
		"allow service vulnerability-scanning-service to inspect repos in tenancy":                                  {"app (root)", false},
		"allow service vulnerability-scanning-service to read compartments in tenancy":                              {"app (root)", false},
		"allow service vulnerability-scanning-service to read repos in tenancy where request.region = 'phx'":        {"app (root)", false},
		"allow service vulnerability-scanning to read repos in tenancy":                                             {"app (root)", false},
		"allow group vulnerability-scanning-service to read repos in tenancy":                                       {"app (root)", false},
		"deny service vulnerability-scanning-service to read repos in tenancy":                                      {"app (root)", false},
		"allow service vulnerability-scanning-service to read repos in region x":                                    {"app (root)", false},
		"allow service vulnerability-scanning-service to read repos in":                                             {"app (root)", false},
		"allow service":        {"app (root)", false},
		"":                     {"app (root)", false},
		"to to to to to to to": {"app (root)", false},
	} {
		if got := scan.Allows(statement, "repos", strings.Fields(tt.line)...); got != tt.want {
			t.Errorf("%q for %s: %t, want %t", statement, tt.line, got, tt.want)
		}
	}
}
