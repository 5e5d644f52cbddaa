package doctor

// check is one thing that can make enforcement not hold.
type check struct {
	name string
	look func(*facts) []finding
}

// checks are all of them, from what everything hangs on to the details.
func checks() []check {
	return []check{
		{"gatekeeper runs", checkGatekeeper},
		{"gatekeeper version", checkVersion},
		{"webhook fails closed", checkFailurePolicy},
		{"webhook sees everything", checkRules},
		{"namespaces left out", checkNamespaces},
		{"exempt namespaces", checkExempt},
		{"labels of namespaces", checkNamespaceLabels},
		{"external data", checkExternalData},
		{"response cache", checkResponseCache},
		{"templates", checkTemplates},
		{"constraints enforce", checkEffect},
		{"constraints are taken in", checkConstraintStatus},
		{"break-glass is held", checkBreakGlass},
		{"providers", checkProviders},
		{"providers answer what is asked", checkAnswerers},
		{"provider is ready", checkBackends},
		{"provider certificate", checkCertificates},
		{"answers", checkAudit},
		{"audit lists all", checkAuditList},
		{"keys", checkKeys},
		{"scans", checkScans},
		{"tags are pinned", checkPins},
		{"clocks", checkClock},
		{"OKE's own policy", checkOKE},
		{"what runs may run", checkRunning},
	}
}

// run does all checks.
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
