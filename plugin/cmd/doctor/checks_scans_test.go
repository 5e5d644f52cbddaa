package doctor_test

import "testing"

func TestScans(t *testing.T) {
	told(t, "scans", map[string]row{
		"no constraint asks for scans": {sound, []string{
			"holds: no constraint requires scans",
		}},
		"a constraint asks": {scans, []string{
			"holds: required by 1 constraint",
		}},
		"it only warns": {all(scans, at(scanned, "warn", "spec,enforcementAction")), []string{
			"warns: OKEScannedImages/scanned denies no Pod: it only warns",
			`-> kubectl patch okescannedimages scanned --type merge -p '{"spec":{"enforcementAction":"deny"}}'`,
		}},
		"a constraint that only reports": {all(scans, at(scanned, "dryrun", "spec,enforcementAction")), []string{
			"warns: OKEScannedImages/scanned denies no Pod: its action is dryrun",
			`-> kubectl patch okescannedimages scanned --type merge -p '{"spec":{"enforcementAction":"deny"}}'`,
		}},
		"a constraint that does not match Pods": {all(scans, at(scanned, []any{"Job"}, "spec,match,kinds,0,kinds")), []string{
			"warns: OKEScannedImages/scanned denies no Pod: it does not match Pods",
			"-> kubectl edit okescannedimages/scanned",
		}},
		"some namespaces": {all(scans, at(scanned, []any{"shop"}, "spec,match,namespaces")), []string{
			`warns: OKEScannedImages/scanned does not cover all Pods: only namespaces ["shop"]`,
			"-> kubectl edit okescannedimages/scanned",
		}},
		"running images without a known scan": {all(scans, scan(false, "no-scan"), scan(false, "no-target"), scan(false, "no-scan"), scan(true, "")), []string{
			"warns: 3 of 4 images that run have no known scan, and would be denied when their Pods restart: 1 no-target, 2 no-scan",
			"-> kubectl oke-sign scan setup --compartment OCID scans the images of a compartment; kubectl oke-sign scan results pods -A shows the reason for each",
		}},
		"unknown scans, which the constraint allows": {all(scans, scan(false, "no-scan"), at(scanned, "Allow", "spec,parameters,unknown")), []string{
			"holds: required by 1 constraint",
		}},
		"running images with known scans": {all(scans, scan(true, "")), []string{
			"holds: required by 1 constraint",
		}},
		"a specification of hostile shape": {all(scans, at(scanned, "deny", "spec")), []string{
			"unknown: whether OKEScannedImages/scanned applies to a Pod: spec.match: cannot restore struct from: string",
			"-> try again; if it stays, fix the cause that the error names",
		}},
		"constraints may not be listed: another check reports it": {unread("constraints", forbidden), nil},
	})
}

func TestProvidersAnswer(t *testing.T) {
	told(t, "provider endpoints", map[string]row{
		"a sound cluster": {sound, []string{
			"holds: oke-sign: within 1.3s of 2 s",
		}},
		"scans, too": {scans, []string{
			"holds: oke-sign-scans: within 300ms of 1 s",
			"holds: oke-sign: within 1.3s of 2 s",
		}},
		"the address for signatures asked for scans": {all(scans, at(scansProvider, "https://oke-sign.oke-sign.svc:8443/v1/signatures", "spec,url")), []string{
			"fails: oke-sign-scans has the address https://oke-sign.oke-sign.svc:8443/v1/signatures, and OKEScannedImages/scanned needs the path /v1/scans: every image of OCI Registry is denied",
			`-> kubectl patch provider oke-sign-scans --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/scans"}}'`,
			"holds: oke-sign: within 1.3s of 2 s",
		}},
		"the Provider for signatures asked for scans": {all(scans, at(scanned, "oke-sign", "spec,parameters,provider")), []string{
			"fails: oke-sign has the address https://oke-sign.oke-sign.svc:8443/v1/signatures, and OKEScannedImages/scanned needs the path /v1/scans: every image of OCI Registry is denied",
			`-> kubectl patch okescannedimages scanned --type merge -p '{"spec":{"parameters":{"provider":"oke-sign-scans"}}}'`,
			"holds: oke-sign: within 1.3s of 2 s",
		}},
		"an address without a path": {at(provider, "https://oke-sign.oke-sign.svc:8443", "spec,url"), []string{
			"fails: oke-sign has the address https://oke-sign.oke-sign.svc:8443, and OKESignedImages/signed needs the path /v1/signatures: every image of OCI Registry is denied",
			`-> kubectl patch provider oke-sign --type merge -p '{"spec":{"url":"https://oke-sign.oke-sign.svc:8443/v1/signatures"}}'`,
		}},
		"an invalid address: another check reports it": {at(provider, "https://\x1b[2J", "spec,url"), nil},
		"no Provider: another check reports it":        {gone(provider), nil},
		"the provider takes longer than Gatekeeper waits": {at("Pod/oke-sign-1", []any{"--timeout=2s"}, "spec,containers,0,args"), []string{
			"warns: the provider may answer after 2s, and Gatekeeper waits 2s for oke-sign: a late answer loses all answers of the request",
			"-> set --timeout of the provider below 2s, as the chart does",
		}},
		"scans take longer than Gatekeeper waits": {all(scans, at("Pod/oke-sign-1", []any{"--scan-timeout", "1s"}, "spec,containers,0,args")), []string{
			"warns: the provider may answer after 1s, and Gatekeeper waits 1s for oke-sign-scans: a late answer loses all answers of the request",
			"-> set --scan-timeout of the provider below 1s, as the chart does",
			"holds: oke-sign: within 1.3s of 2 s",
		}},
		"an invalid time": {at("Pod/oke-sign-1", []any{"--timeout=soon"}, "spec,containers,0,args"), []string{
			"holds: oke-sign: within 1.3s of 2 s",
		}},
		"two constraints with the same question": {add("{apiVersion: constraints.gatekeeper.sh/v1beta1, kind: OKESignedImages, metadata: {name: trial}, spec: {enforcementAction: warn, parameters: {keys: []}}}"), []string{
			"holds: oke-sign: within 1.3s of 2 s",
		}},
	})
}
