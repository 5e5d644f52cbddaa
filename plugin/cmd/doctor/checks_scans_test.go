package doctor_test

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/oke-sign/oke-sign/plugin/cmd/doctor"
	"github.com/oke-sign/oke-sign/plugin/manifest"
	"github.com/oke-sign/oke-sign/test/soundcluster"
)

// soundScans are a constraint on scans and the Provider that it asks, as they should
// be.
const soundScans = `
apiVersion: constraints.gatekeeper.sh/v1beta1
kind: OKEScannedImages
metadata: {name: scanned}
spec:
  enforcementAction: deny
  match: {kinds: [{apiGroups: [""], kinds: [Pod]}]}
status: {auditTimestamp: "2026-01-01T00:00:00Z", byPod: [{id: a, enforced: true}]}
---
apiVersion: externaldata.gatekeeper.sh/v1beta1
kind: Provider
metadata: {name: oke-sign-scans}
spec: {url: "https://oke-sign.oke-sign.svc:8443/v1/scans", timeout: 1, caBundle: CA}
status: {byPod: [{id: a, active: true}]}
---
apiVersion: v1
kind: Pod
metadata: {name: oke-sign-3, namespace: oke-sign}
spec: {containers: [{name: provider, image: "iad.ocir.io/idwpqivumvev/oke-sign:v1", args: [--scan-timeout=300ms]}]}
`

// What keeps constraints on scans from holding is found, and what to do about it is
// right for them: their Provider has an address and a time-out of its own.
func TestDoctorOfScans(t *testing.T) {
	const url = "https://oke-sign.oke-sign.svc:8443/v1/"
	for name, tc := range map[string]struct {
		old, new string
		want     string // state, check, part of what it says, part of what to do
	}{
		"nothing":                      {"", "", "holds|scans|asked for by 1 constraint|"},
		"in time":                      {"", "", "holds|providers answer what is asked|oke-sign-scans: within 300ms of 1 s|"},
		"no Provider":                  {"name: oke-sign-scans", "name: another", "fails|providers|there is no Provider oke-sign-scans, which OKEScannedImages/scanned asks|chart oke-sign"},
		"an inactive Provider":         {"active: true", "active: false", "fails|providers|oke-sign-scans is not active|kubectl get provider oke-sign-scans"},
		"no CA":                        {", caBundle: CA", "", "fails|providers|oke-sign-scans: caBundle: it is empty|restart the provider"},
		"no time-out":                  {"timeout: 1", "timeout: 0", `fails|providers|oke-sign-scans has no time-out|'{"spec":{"timeout":1}}'`},
		"a time-out above the webhook": {"timeout: 1", "timeout: 5", `fails|providers|a time-out of 5 s, and the webhook one of 5 s|'{"spec":{"timeout":1}}'`},
		"time-outs above the webhook":  {"timeout: 1", "timeout: 3", "warns|providers|may take 5 s together|validatingWebhookTimeoutSeconds=7"},
		"http":                         {url, "http://oke-sign/", "fails|providers|only https is asked|8443/v1/scans"},
		"the address for signatures":   {url + "scans", url + "signatures", "fails|providers answer what is asked|oke-sign-scans leads to " + url + "signatures|" + url + "scans"},
		"the Provider for signatures":  {"name: scanned}\nspec:", "name: scanned}\nspec:\n  parameters: {provider: oke-sign}", "fails|providers answer what is asked|oke-sign leads to " + url + `signatures|kubectl patch okescannedimages scanned --type merge -p '{"spec":{"parameters":{"provider":"oke-sign-scans"}}}'`},
		"longer than Gatekeeper waits": {"--scan-timeout=300ms", "--scan-timeout=1s", "warns|providers answer what is asked|takes up to 1s for an answer, and Gatekeeper waits 1s|--scan-timeout"},
		"only warnings":                {"enforcementAction: deny", "enforcementAction: warn", "warns|scans|OKEScannedImages/scanned refuses no Pod: it only warns|kubectl patch okescannedimages scanned"},
		"not about Pods":               {"kinds: [Pod]", "kinds: [Job]", "warns|scans|refuses no Pod: it is not about Pods|kubectl edit okescannedimages/scanned"},
		"some namespaces":              {"match: {", "match: {namespaces: [prod], ", "warns|scans|only namespaces [prod]|kubectl edit okescannedimages/scanned"},
		"an audit that came too early": {"status: {audit", `status: {violations: [{message: "containers/c: no-answer: no answer from OCI within 300ms"}], audit`, "warns|answers|no answer about scans: containers/c: no-answer|another audit"},
	} {
		t.Run(name, func(t *testing.T) {
			objects, err := soundcluster.Objects(soundKey, "oke-sign.oke-sign.svc")
			if err != nil {
				t.Fatal(err)
			}
			text := soundScans
			if tc.old != "" && !strings.Contains(text, tc.old) {
				t.Fatalf("nothing says %q", tc.old)
			}
			text = strings.Replace(text, tc.old, tc.new, 1)
			for _, o := range objects {
				if ca, ok, _ := unstructured.NestedString(o.Object, "spec", "caBundle"); ok {
					text = strings.Replace(text, "CA}", ca+"}", 1)
				}
			}
			more, err := manifest.Objects([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			found, err := doctor.Check(append(objects, more...), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(tc.want, "|")
			for _, x := range found {
				if x.State == want[0] && x.Check == want[1] && strings.Contains(x.Detail, want[2]) && strings.Contains(x.Fix, want[3]) {
					return
				}
			}
			t.Errorf("want %s, got", tc.want)
			for _, x := range found {
				if x.State != "holds" || x.Check == want[1] {
					t.Logf("%s|%s|%s|%s", x.State, x.Check, x.Detail, x.Fix)
				}
			}
		})
	}
}
