package doctor

// check looks at one part of the installation.
type check struct {
	name string
	look func(*facts) []finding
}

// checks lists all checks. The parts that all others depend on come first.
func checks() []check {
	return []check{
		{"gatekeeper runs", checkGatekeeper},
		{"gatekeeper version", checkVersion},
		{"webhook fails closed", checkFailurePolicy},
		{"webhook sees everything", checkRules},
		{"unchecked namespaces", checkNamespaces},
		{"exempt namespaces", checkExempt},
		{"labels of namespaces", checkNamespaceLabels},
		{"external data", checkExternalData},
		{"response cache", checkResponseCache},
		{"templates", checkTemplates},
		{"constraints enforce", checkEffect},
		{"constraints are loaded", checkConstraintStatus},
		{"break-glass is limited", checkBreakGlass},
		{"providers", checkProviders},
		{"provider endpoints", checkEndpoints},
		{"provider is ready", checkBackends},
		{"provider certificate", checkCertificates},
		{"answers", checkAudit},
		{"audit lists all", checkAuditList},
		{"keys", checkKeys},
		{"scans", checkScans},
		{"tags are pinned", checkPins},
		{"clocks", checkClock},
		{"OKE image policy", checkOKE},
		{"running images", checkRunning},
	}
}

// run runs all checks.
func (f *facts) run() []finding {
	var found []finding
	for _, c := range checks() {
		for _, x := range c.look(f) {
			x.Check = c.name
			found = append(found, x)
		}
	}
	return found
}
